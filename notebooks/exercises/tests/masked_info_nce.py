from otter.test_files import test_case

OK_FORMAT = False

name = "masked_info_nce"
points = None

@test_case(points=None, hidden=False)
def test_masked_info_nce_equals_the_plain_loop(masked_info_nce, torch, math):
    from sbirlib import info_nce as of_the_kit
    first, second = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([0, 1, 0, 0, 4])
    found = masked_info_nce(first, second, ids, temperature=0.5)
    assert found is not None, 'masked_info_nce gives nothing back: write it in place of the three dots'
    found, rows = (found.item(), [row / row.norm() for row in (*first, *second)])

    def slow(left_out):
        total = 0.0
        for i, row in enumerate(rows):
            partner = (i + 5) % 10
            scores = {j: (row @ rows[j]).item() / 0.5 for j in range(10) if not left_out(i, j)}
            total += math.log(sum((math.exp(s) for s in scores.values()))) - scores.get(partner, 0.0)
        return total / 10

    def same(i, j):
        return (ids[i % 5] == ids[j % 5]).item()
    right = slow(lambda i, j: i == j or (same(i, j) and j != (i + 5) % 10))
    assert abs(right - of_the_kit(first, second, temperature=0.5, photo_ids=ids).item()) < 0.0001
    mistakes = [(slow(lambda i, j: i == j), 'nothing is left out: rows 0, 2 and 3 show the same photo'), (slow(lambda i, j: same(i, j) and i != j and (j != (i + 5) % 10)), 'a row is compared with itself'), (slow(lambda i, j: i == j or (same(i, j) and j != (i + 5) % 10 and ((i < 5) == (j < 5)))), 'left out are rows of the same side only: a photo that is there twice is no negative either'), (slow(lambda i, j: i == j or (same(i, j) and j != (i + 5) % 10 and ((i < 5) != (j < 5)))), 'left out are rows of the other side only: two sketches of one photo are no negatives either')]
    assert math.isfinite(found), 'the loss is not finite: the partner has the same photo, and must not be left out'
    for wrong, reason in mistakes:
        assert abs(found - wrong) > 0.0001, reason
    assert abs(found - right) < 0.0001, f'for these five pairs the loss is {right:.4f}, yours is {found:.4f}'

@test_case(points=None, hidden=False)
def test_masked_info_nce_where_all_rows_show_one_photo(masked_info_nce, torch):
    found = masked_info_nce(torch.ones(6, 4), torch.ones(6, 4), torch.zeros(6, dtype=torch.int64))
    assert found is not None, 'masked_info_nce gives nothing back: write it in place of the three dots'
    assert abs(found.item()) < 1e-05, f'with no negative left the loss is 0, and yours is {found.item():.4f}'

