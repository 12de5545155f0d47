from otter.test_files import test_case

OK_FORMAT = False

name = "follow_attention"
points = None

@test_case(points=None, hidden=False)
def test_follow_attention_equals_the_plain_loop(follow_attention, torch):
    maps = torch.rand(3, 2, 4, 5, 5, generator=torch.Generator().manual_seed(0)).pow(4)
    maps = maps / maps.sum(dim=-1, keepdim=True)
    found = follow_attention(maps)
    assert found is not None, 'follow_attention gives nothing back: write it in place of the three dots'
    assert found.shape == (2, 5, 5), f'(b, t, t) = (2, 5, 5) is asked for, and yours is {tuple(found.shape)}'

    def slow(skip=0.5, order=1, heads=lambda layer: layer.mean(dim=0)):
        images = []
        for image in range(2):
            result = torch.eye(5)
            for layer in list(maps[:, image])[::order]:
                mixed = (1 - skip) * heads(layer) + skip * torch.eye(5)
                result = torch.stack([sum((mixed[i, k] * result[k] for k in range(5))) for i in range(5)])
            images.append(result)
        return torch.stack(images)
    mistakes = [(slow(skip=0.0), 'the skip connection is missing: half of a layer is the identity'), (slow(order=-1), 'your layers are in the wrong order: the last one stands leftmost'), (slow(heads=lambda layer: layer.amax(dim=0)), 'you take the largest head: the mean is asked for'), (2 ** 3 * slow(), 'your rows do not sum to 1: half the attention and half the identity')]
    for wrong, reason in mistakes:
        assert not torch.allclose(found, wrong, atol=1e-05), reason
    sums = found.sum(dim=-1)
    assert torch.allclose(sums, torch.ones(2, 5), atol=0.0001), f'every row should sum to 1, as shares do, and yours sum to {sums.min():.2f} up to {sums.max():.2f}'
    assert torch.allclose(found, slow(), atol=1e-05), 'rows sum to 1, but it is not the product of all layers'

