from otter.test_files import test_case

OK_FORMAT = False

name = "sides_are_apart"
points = None

@test_case(points=None, hidden=False)
def test_sides_are_apart_tells_right_from_wrong(sides_are_apart, verdict, split_sketches, split_photos, np):

    def split_halves(photos):
        rows = np.arange(len(photos))
        return (rows[:len(rows) // 2], rows[len(rows) // 2:])

    def split_with_one_on_both(photos):
        train, test = split_photos(photos)
        names, counts = np.unique(photos[test], return_counts=True)
        moved = test[photos[test] == names[counts.argmax()]][0]
        return (np.append(train, moved), test[test != moved])

    def split_and_lose(photos):
        train, test = split_photos(photos)
        return (train, test[:-1])

    def split_and_repeat(photos):
        train, test = split_photos(photos)
        return (np.append(train, train[0]), test[:-1])

    def split_unevenly(photos):
        first = np.isin(photos, np.unique(photos)[1:])
        return (np.flatnonzero(first), np.flatnonzero(~first))
    reasons = {split_sketches: 'draws sketches: compare the photos of both sides, in an example with several sketches of each', split_halves: 'cuts the list in the middle: in your example that falls between two photos. Mix their sketches', split_with_one_on_both: 'puts one sketch on the wrong side: not one photo may be on both', split_and_lose: 'loses a sketch: does your test look for each?', split_and_repeat: 'loses a sketch and has another twice: the number of rows does not tell'}
    ways = (split_photos, split_unevenly, *reasons)
    said = {way: {verdict(sides_are_apart, way) for _ in range(5)} for way in ways}
    words = set.union(*said.values())
    assert words != {'passes'}, 'your test passes whatever it is given: write it in place of the three dots, with an assert'
    assert words != {'fails'}, 'your test fails whatever it is given, the right split too'
    for word in words:
        assert word in ('passes', 'fails'), f'your test {word}'
    assert said[split_photos] == {'passes'}, 'your test also fails on the right split'
    assert said[split_unevenly] == {'passes'}, 'your test also fails on a right split with sides of different size'
    for way, reason in reasons.items():
        assert said[way] == {'fails'}, f'your test passes a split that {reason}'

