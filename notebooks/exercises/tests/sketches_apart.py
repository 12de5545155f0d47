from otter.test_files import test_case

OK_FORMAT = False

name = "sketches_apart"
points = None

@test_case(points=None, hidden=False)
def test_sketches_apart(sketches_apart, history):
    assert sketches_apart is not ..., 'write your number in place of the three dots'
    rows = history.set_index('epoch')
    points = rows['val_acc@1'].iloc[-1] - rows['val_acc@1'][8]
    right = round(points * rows['val_queries'].iloc[-1] / 100)
    test = round(points * 275 / 100)
    assert sketches_apart != test, 'that is of the 275 sketches of the test split: validation has fewer'
    assert round(sketches_apart) == right, f'{sketches_apart} is not it: {points:.1f} % of the validation sketches'

