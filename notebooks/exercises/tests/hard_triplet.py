from otter.test_files import test_case

OK_FORMAT = False

name = "hard_triplet"
points = None

@test_case(points=None, hidden=False)
def test_hard_triplet_equals_the_plain_loop(hard_triplet, torch):
    sketches = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    photos = sketches + 0.9 * torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    found = hard_triplet(sketches, photos, margin=0.5)
    assert found is not None, 'hard_triplet gives nothing back: write it in place of the three dots'
    assert found.shape == (), f'a loss is one number, and yours has the shape {tuple(found.shape)}'

    def slow(pick=min, power=1, own=False, clamp=True, over=len):
        terms = []
        for i, sketch in enumerate(sketches):
            apart = [(sketch - photo).norm().item() ** power for photo in photos]
            wrong = pick((apart[j] for j in range(6) if own or j != i))
            terms.append(max(0.5 + apart[i] - wrong, 0) if clamp else 0.5 + apart[i] - wrong)
        return sum(terms) / over(terms)

    def average(values):
        values = list(values)
        return sum(values) / len(values)

    def active(terms):
        return sum((term > 0 for term in terms))
    mistakes = [(slow(own=True), 'the own photo is among your negatives: leave the diagonal out'), (slow(pick=max), 'your negative is the farthest photo, the easiest one: take the nearest'), (slow(pick=average), 'your negative is the average photo: take the nearest'), (slow(power=2), 'your distances are squared'), (slow(clamp=False), 'a triplet that is fulfilled counts as 0, not below'), (slow(over=lambda terms: 1), 'your loss is a sum, not a mean'), (slow(over=active), 'the mean is over all sketches, those with a loss of 0 too')]
    right, found = (slow(), found.item())
    assert found < 1000000000.0, 'your loss is infinite: copy the diagonal (.clone()) before you fill it'
    for wrong, reason in mistakes:
        assert abs(found - wrong) > 0.0001, reason
    assert abs(found - right) < 0.0001, f'for six random pairs the loss is {right:.4f}, yours is {found:.4f}'

@test_case(points=None, hidden=False)
def test_hard_triplet_of_a_collapsed_model(hard_triplet, torch):
    found = hard_triplet(torch.ones(6, 4), torch.ones(6, 4), margin=0.3)
    assert found is not None, 'hard_triplet gives nothing back: write it in place of the three dots'
    assert abs(found.item() - 0.3) < 1e-05, f'if all rows are the same, all distances are 0 and the margin is left: 0.3, not {found.item():.3f}'

