from otter.test_files import test_case

OK_FORMAT = False

name = "labels_fit"
points = None

@test_case(points=None, hidden=False)
def test_labels_fit_tells_right_from_wrong(labels_fit, verdict, read_once, read_twice, photo_of, random):
    random.seed(0)

    def read_sorted(listing):
        gallery = sorted(listing('photos'))
        return (gallery, {sketch: gallery.index(photo_of(sketch)) for sketch in sorted(listing('sketches'))})

    def read_sorted_labels(listing):
        numbered = sorted(listing('photos'))
        places = {sketch: numbered.index(photo_of(sketch)) for sketch in listing('sketches')}
        return (listing('photos'), places)

    def read_two_exchanged(listing):
        gallery, places = read_sorted(listing)
        last = max(places, key=places.get)
        other = min(places, key=places.get)
        places[last], places[other] = (places[other], places[last])
        return (gallery, places)

    def read_all_but_one(listing):
        gallery, places = read_once(listing)
        places.popitem()
        return (gallery, places)
    disk = 'on a disk that gives the same order at every call that bug does not show: your listing should give another one each time'
    reasons = {read_twice: f'lists the photos twice: {disk}', read_sorted_labels: f'sorts the photos for the labels only: {disk}', read_two_exchanged: 'exchanges the places of two sketches: look at all of them', read_all_but_one: 'leaves out a sketch: does your test count them?'}
    said = {}
    for read in (read_once, read_sorted, *reasons):
        said[read] = {verdict(labels_fit, read) for _ in range(20)}
    words = set.union(*said.values())
    assert words != {'passes'}, 'your test passes whatever it is given: write it in place of the three dots, with an assert'
    assert words != {'fails'}, 'your test fails whatever it is given, the right functions too'
    for word in words:
        assert word in ('passes', 'fails'), f'your test {word}'
    assert said[read_once] == {'passes'}, 'your test also fails on read_once, which is right: its gallery is in the order of the disk, and the places fit'
    assert said[read_sorted] == {'passes'}, 'your test also fails on a function that sorts both lists, which is right'
    for read, reason in reasons.items():
        assert said[read] != {'passes'}, f'your test passes a function that {reason}'
    for read in reasons:
        assert len(said[read]) == 1, f'your test, run twenty times, passes {read.__name__} now and then: with few photos two orders are often the same by luck'

