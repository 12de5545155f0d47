from otter.test_files import test_case

OK_FORMAT = False

name = "fell_in_vain"
points = None

@test_case(points=None, hidden=False)
def test_fell_in_vain(fell_in_vain, history, pd):
    made_up = pd.DataFrame({'epoch': range(1, 10), 'loss_total': [9.0, 8.0, 7.0, 6.0, 6.5, 5.0, 5.5, 4.0, 3.0], 'val_acc@1': [10.0, 20.0, 20.0, 15.0, 12.0, 30.0, 31.0, 30.0, 25.0]})
    for rows, name in ((made_up, 'a made-up history'), (history, 'the shipped run')):
        found = fell_in_vain(rows)
        assert found is not None, 'fell_in_vain gives nothing back: write it in place of the three dots'
        loss, score = (rows['loss_total'].tolist(), rows['val_acc@1'].tolist())
        later = range(1, len(rows))
        fell = [i for i in later if loss[i] < loss[i - 1]]
        right = sum((score[i] <= score[i - 1] for i in fell))
        mistakes = [(sum((score[i] < score[i - 1] for i in fell)), 'epochs with the same score count too'), (len(fell), 'those are all epochs in which the loss fell'), (sum((score[i] <= score[i - 1] for i in later)), 'you count epochs in which the loss rose')]
        for wrong, reason in mistakes:
            assert wrong == right or found != wrong, reason
        assert found == right, f'in {name} there are {right}, and you find {found}'

