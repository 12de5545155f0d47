from otter.test_files import test_case

OK_FORMAT = False

name = "cells"
points = None

@test_case(points=None, hidden=False)
def test_cells(cells):
    assert cells is not ..., 'write your number in place of the three dots'
    assert cells != 53, 'scale 1 counts too: its cells are the tokens themselves'
    assert cells != 196 + 98 + 28, 'a window is square: at scale 2 it covers 4 tokens, not 2'
    assert cells == 249, f'{cells} is not it; 14 / 2 = 7 windows in a row of scale 2, and 7 rows of them'

