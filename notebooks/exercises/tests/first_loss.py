from otter.test_files import test_case

OK_FORMAT = False

name = "first_loss"
points = None

@test_case(points=None, hidden=False)
def test_first_loss(first_loss, math):
    assert first_loss is not ..., 'write your number in place of the three dots'
    near = {math.log(n): n for n in (31, 32, 62, 64)}
    for value, count in near.items():
        reason = f'that is log {count}: a row sees 2 x 32 rows less itself, of both sides'
        assert abs(first_loss - value) > 0.006, reason
    assert abs(first_loss - 1 / 63) > 0.001, 'that is the softmax of the partner; the loss is minus its log'
    assert abs(first_loss + math.log(63)) > 0.01, 'the sign: minus the log of a share below 1 is above 0'
    assert abs(first_loss - math.log(63)) < 0.006, f"{first_loss:.3f} is not it; count a row's candidates"

