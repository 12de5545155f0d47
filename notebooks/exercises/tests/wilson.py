from otter.test_files import test_case

OK_FORMAT = False

name = "wilson"
points = None

@test_case(points=None, hidden=False)
def test_wilson_equals_scipys(wilson, np):
    from scipy.stats import binomtest
    assert wilson(7, 10) is not None, 'wilson gives nothing back: write it in place of the three dots'
    for hits, queries in ((7, 10), (211, 275), (60, 90)):
        low, high = wilson(hits, queries)
        right = binomtest(hits, queries).proportion_ci(0.95, method='wilson')
        p = hits / queries
        normal = 100 * (p + 1.96 * np.sqrt(p * (1 - p) / queries))
        assert low < high, 'the lower end comes first'
        assert abs(high - right.high) > 0.01, 'your interval is in shares of 1: percent are asked for'
        assert abs(high - normal) > 0.001, "that is the normal interval, p and z times its standard error: Wilson's has more terms"
        assert np.allclose((low, high), (100 * right.low, 100 * right.high), atol=0.02), f'for {hits} of {queries} it is {100 * right.low:.1f} to {100 * right.high:.1f}, and yours {low:.1f} to {high:.1f}'

@test_case(points=None, hidden=False)
def test_wilson_when_all_are_hits(wilson):
    assert wilson(10, 10) is not None, 'wilson gives nothing back: write it in place of the three dots'
    low, high = wilson(10, 10)
    assert low < 99, 'ten hits of ten do not make a model perfect, and your interval says that they do'
    assert abs(low - 72.2) < 0.2, f'for 10 of 10 the lower end is 72.2, and yours {low:.1f}'
    assert abs(high - 100) < 0.2, f'for 10 of 10 the upper end is 100, and yours {high:.1f}'

