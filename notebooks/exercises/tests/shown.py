from otter.test_files import test_case

OK_FORMAT = False

name = "shown"
points = None

@test_case(points=None, hidden=False)
def test_shown(shown):
    assert shown is not ..., 'write your set of letters in place of the three dots'
    assert isinstance(shown, set | list | tuple | str), 'write a set of letters'
    letters = set(shown)
    assert letters <= set('abcd'), 'write a set of the letters a, b, c and d'
    assert 'b' not in letters, 'b is the largest difference, but its interval holds 0: large and not shown'
    assert 'd' not in letters, 'd has many queries and narrow intervals, but that of the difference holds 0'
    assert 'a' in letters, "the two scores' intervals of a overlap, but that of the difference does not hold 0"
    assert 'c' in letters, 'c makes it worse, and that is shown: its whole interval lies below 0'

