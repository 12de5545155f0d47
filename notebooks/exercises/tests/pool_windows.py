from otter.test_files import test_case

OK_FORMAT = False

name = "pool_windows"
points = None

@test_case(points=None, hidden=False)
def test_pool_windows_equals_the_plain_loop(pool_windows, torch):
    for grid, scale in (((4, 4), 2), ((4, 6), 2), ((6, 3), 3), ((4, 4), 1)):
        h, w = grid
        patches = torch.randn(2, h * w, 5, generator=torch.Generator().manual_seed(0))
        found = pool_windows(patches, grid, scale)
        assert found is not None, 'pool_windows gives nothing back: write it in place of the three dots'
        shape = (2, h * w // scale ** 2, 5)
        assert found.shape == shape, f'for a {h} x {w} grid, windows of {scale}: {shape}, not {tuple(found.shape)}'

        def cells(pick, h=h, w=w, scale=scale, patches=patches):
            rows = []
            for top in range(0, h, scale):
                for left in range(0, w, scale):
                    places = [(top + i) * w + left + j for i in range(scale) for j in range(scale)]
                    rows.append(pick(patches[:, places]))
            return torch.stack(rows, dim=1)
        right = cells(lambda window: window.mean(dim=1))
        if scale > 1:
            in_a_row = torch.stack([part.mean(dim=1) for part in patches.split(scale ** 2, dim=1)], dim=1)
            apart = patches.unflatten(1, (scale ** 2, -1)).mean(dim=1)
            mistakes = [(in_a_row, 'your windows are tokens that follow each other in the list, strips of the grid'), (apart, 'your windows are tokens far apart in the list: neighbours of the grid are meant'), (cells(lambda window: window.amax(dim=1)), 'you take the largest: the mean is asked for'), (cells(lambda window: window.sum(dim=1)), 'you take the sum: the mean is asked for')]
            for wrong, reason in mistakes:
                same = torch.allclose(wrong, right, atol=1e-05)
                assert same or not torch.allclose(found, wrong, atol=1e-05), reason
        assert torch.allclose(found, right, atol=1e-05), f'the shape is right, but the cells of a {h} x {w} grid are not the means of their windows: is `w` the number of windows in a row?'

