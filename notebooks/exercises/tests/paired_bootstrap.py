from otter.test_files import test_case

OK_FORMAT = False

name = "paired_bootstrap"
points = None

@test_case(points=None, hidden=False)
def test_paired_bootstrap_equals_the_plain_loop(paired_bootstrap, np):
    import random
    rng = np.random.default_rng(0)
    photos = np.sort(rng.integers(30, size=90))
    first = (rng.random(90) < 0.5).astype(float)
    second = (rng.random(90) < 0.7).astype(float)
    found = paired_bootstrap(first, second, photos, np.random.default_rng(1))
    assert found is not None, 'paired_bootstrap gives nothing back: write it in place of the three dots'
    assert np.shape(found) == (2,), 'two numbers are asked for, the lower and the upper end'
    low, high = found
    chance, points = (random.Random(0), [])
    names = sorted(set(photos.tolist()))
    rows = {name: np.flatnonzero(photos == name).tolist() for name in names}
    for _ in range(2000):
        drawn = [row for name in chance.choices(names, k=len(names)) for row in rows[name]]
        points.append(100 * sum((second[row] - first[row] for row in drawn)) / len(drawn))
    right = np.percentile(points, [2.5, 97.5])
    assert low < high, 'the lower end comes first'
    assert max(abs(low), abs(high)) > 1, 'your differences are shares of 1: points are hundredths'
    assert abs(low + right[1]) > 3 or abs(high + right[0]) > 3, 'the sign: the second less the first'
    assert np.allclose(found, right, atol=2.5), f'here it is about {right[0]:.0f} to {right[1]:.0f} points, and yours {low:.0f} to {high:.0f}'

@test_case(points=None, hidden=False)
def test_paired_bootstrap_draws_photos(paired_bootstrap, np):
    photos = np.repeat(np.arange(20), 10)
    first, second = (np.zeros(200), (photos % 2).astype(float))
    found = paired_bootstrap(first, second, photos, np.random.default_rng(0))
    assert found is not None, 'paired_bootstrap gives nothing back: write it in place of the three dots'
    low, high = paired_bootstrap(np.zeros(30), np.ones(30), np.repeat([0, 1, 2], [1, 9, 20]), np.random.default_rng(0))
    assert abs(low - 100) + abs(high - 100) < 1e-06, 'where each sketch is won every draw gains 100 points, and yours do not: divide by the sketches that were drawn, not by all, and count a photo twice that was drawn twice'
    width = found[1] - found[0]
    assert width > 25, f'for 20 photos with 10 sketches each, which succeed or fail together, it is over 40 points wide, and yours {width:.0f}. Do you draw sketches? Draw photos, each with all its sketches'

@test_case(points=None, hidden=False)
def test_paired_bootstrap_keeps_the_pairs_together(paired_bootstrap, np):
    photos = np.arange(200)
    first = (photos % 2).astype(float)
    second = first.copy()
    second[:4] = 1
    found = paired_bootstrap(first, second, photos, np.random.default_rng(0))
    assert found is not None, 'paired_bootstrap gives nothing back: write it in place of the three dots'
    width = found[1] - found[0]
    assert width < 6, f'for models that differ on 2 of 200 sketches the interval is about 2 points wide, and yours {width:.0f}. Do you draw for each model on its own? Draw once, and take the hits of both'

