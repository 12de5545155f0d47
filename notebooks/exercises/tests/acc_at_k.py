from otter.test_files import test_case

OK_FORMAT = False

name = "acc_at_k"
points = None

@test_case(points=None, hidden=False)
def test_acc_at_k_equals_the_plain_loop(acc_at_k, np):
    rng = np.random.default_rng(0)
    similarity, true = (rng.normal(size=(40, 12)), rng.integers(12, size=40))
    similarity[np.arange(40), true] += 1.0
    for k in (1, 3):
        found = acc_at_k(similarity, true, k)
        assert found is not None, 'acc_at_k gives nothing back: write it in place of the three dots'
        assert np.ndim(found) == 0, f'one number is asked for, and yours has the shape {np.shape(found)}'

        def slow(first, k=k):
            hits = 0
            for row, photo in zip(similarity, true, strict=True):
                better = sum((value > row[photo] for value in row))
                hits += better < first
            return 100 * hits / len(true)
        assert abs(found - slow(k) / 100) > 1e-09, 'your result is a share of 1: percent are asked for'
        assert abs(found - 0.4 * slow(k)) > 1e-09, 'your result counts hits: percent of the queries are asked for'
        for other in (k - 1, k + 1):
            assert abs(found - slow(other)) > 1e-09, f'for k = {k} you count the first {other}: the best rank is 1'
        assert abs(found - slow(k)) < 1e-09, f'Acc@{k} of these 40 sketches is {slow(k):.1f} %, and yours {found:.1f}'

@test_case(points=None, hidden=False)
def test_acc_at_k_counts_ties_against_the_model(acc_at_k, np):
    true = np.arange(10)
    collapsed = acc_at_k(np.zeros((10, 10)), true, 1)
    assert collapsed is not None, 'acc_at_k gives nothing back: write it in place of the three dots'
    assert collapsed != 100, 'a collapsed model, to which all photos are alike, gets 100 % from you: ties count against it'
    assert collapsed != 10, 'a collapsed model gets 10 % from you, for the sketch whose photo is the first file: sorting breaks ties by the order of the files'
    assert collapsed == 0, f'a collapsed model finds nothing, and gets {collapsed:.1f} % from you'
    pair = acc_at_k(np.array([[0.9, 0.9, 0.1]]), np.array([0]), 2)
    assert pair == 100, 'a photo that ties with one other has rank 2, so it is among the first 2'

