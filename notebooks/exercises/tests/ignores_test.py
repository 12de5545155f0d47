from otter.test_files import test_case

OK_FORMAT = False

name = "ignores_test"
points = None

@test_case(points=None, hidden=False)
def test_ignores_test_tells_right_from_wrong(ignores_test, verdict, by_validation, by_test, random):
    random.seed(0)
    val, test = ('val_acc@1', 'test_acc@1')

    def last(history):
        return history['epoch'].iloc[-1]

    def by_neighbours(history):
        return history['epoch'][history[val].rolling(3, min_periods=1).mean().idxmax()]

    def by_mean(history):
        return history['epoch'][(history[val] + history[test]).idxmax()]

    def by_test_in_ties(history):
        return history.sort_values([val, test])['epoch'].iloc[-1]
    honest = {by_validation: 'the best validation score', last: 'the last epoch', by_neighbours: 'the best mean of three epochs'}
    reasons = {by_test: 'takes the best test score', by_mean: 'takes the best mean of validation and test', by_test_in_ties: 'looks at the test in ties only: do epochs of your history tie for the best score?'}
    said = {rule: {verdict(ignores_test, rule) for _ in range(10)} for rule in (*honest, *reasons)}
    words = set.union(*said.values())
    assert words != {'passes'}, 'your test passes whatever it is given: write it in place of the three dots, with an assert'
    assert words != {'fails'}, 'your test fails whatever it is given, honest rules too'
    for word in words:
        assert word in ('passes', 'fails'), f'your test {word}'
    for rule, what in honest.items():
        assert said[rule] == {'passes'}, f'your test also fails on a rule that is honest: {what}'
    for rule, reason in reasons.items():
        assert said[rule] != {'passes'}, f'your test passes a rule that {reason}'
    for rule, reason in reasons.items():
        assert len(said[rule]) == 1, f'your test, run ten times, sometimes passes a rule that {reason}. Change the test scores more often'

