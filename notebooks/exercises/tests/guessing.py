from otter.test_files import test_case

OK_FORMAT = False

name = "guessing"
points = None

@test_case(points=None, hidden=False)
def test_guessing(guessing):
    assert guessing is not ..., 'write your number in place of the three dots'
    assert abs(guessing - 5 / 120) > 0.001, 'that is a share of 1: percent are asked for'
    assert abs(guessing - 100 / 120) > 0.02, 'that is Acc@1: five places count as a hit'
    assert abs(guessing - 20) > 0.5, 'that would be one place of five: the gallery has 120 photos'
    assert abs(guessing - 100 * 5 / 120) < 0.1, f'{guessing:g} % is not it; how many of the 120 places are hits?'

