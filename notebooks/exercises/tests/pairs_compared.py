from otter.test_files import test_case

OK_FORMAT = False

name = "pairs_compared"
points = None

@test_case(points=None, hidden=False)
def test_pairs_compared(pairs_compared):
    assert pairs_compared is not ..., 'write your number in place of the three dots'
    assert pairs_compared != 323, 'of 42 of these nobody knows what the second method would do'
    assert pairs_compared != 42, 'these are the sketches without a pair'
    assert pairs_compared != 604, 'a sketch that both have tried is one pair, not two'
    assert pairs_compared == 281, f'{pairs_compared} is not it; how many sketches have both methods tried?'

