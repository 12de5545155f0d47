from otter.test_files import test_case

OK_FORMAT = False

name = "queries_needed"
points = None

@test_case(points=None, hidden=False)
def test_queries_needed(queries_needed):
    from scipy.stats import binomtest
    assert queries_needed is not ..., 'write your number in place of the three dots'
    n = max(1, round(queries_needed))
    interval = binomtest(round(0.75 * n), n).proportion_ci(0.95, method='wilson')
    half = 50 * (interval.high - interval.low)
    assert half < 2.12, f'with {n} queries it is still plus or minus {half:.1f} points: more are needed'
    assert half > 1.9, f'with {n} queries it is plus or minus {half:.2f} points already: fewer will do'

