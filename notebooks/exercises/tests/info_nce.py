from otter.test_files import test_case

OK_FORMAT = False

name = "info_nce"
points = None

@test_case(points=None, hidden=False)
def test_info_nce_equals_the_plain_loop(info_nce, torch, math):
    first, second = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    found = info_nce(first, second, temperature=0.5)
    assert found is not None, 'info_nce gives nothing back: write it in place of the three dots'
    assert found.shape == (), f'a loss is one number, and yours has the shape {tuple(found.shape)}'

    def slow(rows, unit=True, tau=0.5, itself=False, sides=True, blank=False):
        rows = [row / row.norm() for row in rows] if unit else rows
        total, b = (0.0, len(rows) // 2)
        for i, row in enumerate(rows):
            partner = (i + b) % (2 * b)
            seen = [j for j in range(2 * b) if (itself or j != i) and (sides or j == i or (j < b) != (i < b))]
            scores = {j: (row @ rows[j]).item() / tau for j in seen}
            total += math.log(blank + sum((math.exp(s) for s in scores.values()))) - scores[partner]
        return total / (2 * b)
    rows, found = ([*first, *second], found.item())
    right = slow(rows)
    mistakes = [(10 * right, 'your loss is a sum over the rows, not their mean'), (2 * right, 'your loss is twice what it should be: the mean is over 2b rows, not b'), (-right, 'your loss has the wrong sign: it falls where partners are alike'), (slow(rows, unit=False), 'your rows are not of length 1: a cosine needs normalised rows'), (slow(rows, tau=1.0), 'your loss does not depend on the temperature: divide the cosines by it'), (slow(rows, tau=2.0), 'you multiply by the temperature: divide by it'), (slow(rows, itself=True), 'your rows are compared with themselves: leave the diagonal out'), (slow(rows, blank=True), 'a cosine of 0 is still a candidate: fill the diagonal with minus infinity'), (slow(rows, sides=False), "your negatives are of the other side only: rows of one's own side count too")]
    for wrong, reason in mistakes:
        assert abs(found - wrong) > 0.0001, reason
    assert abs(found - right) < 0.0001, f'for five random pairs the loss is {right:.4f}, yours is {found:.4f}'

@test_case(points=None, hidden=False)
def test_info_nce_of_rows_that_are_all_alike(info_nce, torch, math):
    found = info_nce(torch.ones(6, 4), torch.ones(6, 4))
    assert found is not None, 'info_nce gives nothing back: write it in place of the three dots'
    right = math.log(11)
    assert abs(found.item() - right) < 0.0001, f'11 of 12 equal rows could be the partner, so the loss is log 11 = {right:.3f}; yours is {found:.3f}'

@test_case(points=None, hidden=False)
def test_info_nce_has_a_gradient(info_nce, torch):
    first, second = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(1))
    before = info_nce(first.requires_grad_(), second)
    assert before is not None, 'info_nce gives nothing back: write it in place of the three dots'
    assert before.requires_grad, 'no gradient reaches the sketches: work with tensors, without .item() or numpy'
    before.backward()
    after = info_nce(first.detach() - 0.1 * first.grad, second)
    assert after < before, 'a small step against the gradient should lower the loss, and yours rises'

