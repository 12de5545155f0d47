from otter.test_files import test_case

OK_FORMAT = False

name = "contrast"
points = None

@test_case(points=None, hidden=False)
def test_contrast_equals_the_plain_loop(contrast, torch):
    from sbirlib import MSTR
    for grid, scales in (((4, 4), (1, 2)), ((6, 6), (1, 2, 3)), ((4, 8), (4, 2, 1))):
        found = contrast(grid, scales)
        assert found is not None, 'contrast gives nothing back: write it in place of the three dots'
        boxes = [(scale, {(i, j) for i in range(top, top + scale) for j in range(left, left + scale)}) for scale in scales for top in range(0, grid[0], scale) for left in range(0, grid[1], scale)]

        def slow(half=0.5, itself=1.0, by=min, boxes=boxes):
            rows = [[half * len(a & b) / by(len(a), len(b)) if s != t else 0.0 for t, b in boxes] for s, a in boxes]
            return torch.tensor(rows).fill_diagonal_(itself)
        right, m, found = (slow(), len(boxes), torch.as_tensor(found).float())
        assert found.shape == (m, m), f'a {grid} grid at {scales} has {m} cells, your map is {tuple(found.shape)}'
        assert torch.equal(right, MSTR(8, grid, scales, heads=2, channels=4).contrast)
        mistakes = [(slow(half=1.0), 'overlap counts half: only a cell and itself are 1'), (slow(itself=0.5), 'the diagonal is 1: a cell is wholly like itself'), (slow(itself=0.0), 'the diagonal is 1: a cell is wholly like itself'), (slow(by=max), 'the fraction is of the smaller cell, and yours is of the larger'), (slow(by=lambda a, b: a), 'your map is not symmetric: the fraction is of the smaller cell, always'), (slow(by=lambda a, b: b), 'your map is not symmetric: the fraction is of the smaller cell, always'), ((right > 0).float() * 0.5 + 0.5 * torch.eye(m), 'cells that overlap in part count in part')]
        for wrong, reason in mistakes:
            assert torch.equal(wrong, right) or not torch.allclose(found, wrong, atol=1e-05), reason
        assert torch.allclose(found, right, atol=1e-05), f'the map of a {grid} grid at {scales} is another one'

