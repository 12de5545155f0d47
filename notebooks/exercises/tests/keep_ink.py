from otter.test_files import test_case

OK_FORMAT = False

name = "keep_ink"
points = None

@test_case(points=None, hidden=False)
def test_keep_ink_equals_the_plain_loop(keep_ink, torch):
    images = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    images = images ** torch.linspace(0.2, 3, 12)
    for keep in (0.5, 0.3, 0.01, 1.0):
        found = keep_ink(images, (4, 4), keep)
        assert found is not None, 'keep_ink gives nothing back: write it in place of the three dots'
        count = max(1, round(keep * 16))
        shape = tuple(found.shape)
        assert shape == (2, count), f'a share of {keep} of 16 tokens, at least one: (2, {count}), not {shape}'
        for image, places in zip(images, found.tolist(), strict=True):
            ink = {}
            for place in range(16):
                top, left = (3 * (place // 4), 3 * (place % 4))
                ink[place] = (1 - image[:, top:top + 3, left:left + 3]).mean().item()
            best = sorted(ink, key=ink.get, reverse=True)
            across = sorted((4 * (place % 4) + place // 4 for place in best[:count]))
            if count < 16:
                assert sorted(places) != sorted(best[-count:]), 'you keep the whitest patches: ink is 1 - white'
                assert sorted(places) != across, 'rows and columns are exchanged: the grid goes row by row'
            assert places == sorted(places), 'the places are right or nearly, but not in ascending order'
            assert places == sorted(best[:count]), f'kept should be {sorted(best[:count])}, and yours is {places}'

