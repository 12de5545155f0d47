"""Maps of embeddings: what is drawn is what was handed over."""

import numpy as np
import pytest
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from sbirlib.errors import InputError
from sbirlib.figures.photos import embedding_map, project

RNG = np.random.default_rng(0)


def picture(value, shape=(10, 8)):
    return np.full((*shape, 3), value, dtype=np.uint8)


def legend(figure):
    """Text by entry of the figure's legend, laid out and rendered."""
    figure.canvas.draw()
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.fixture(scope="module")
def pairs_of_embeddings():
    """Eight sketches and eight photos, each pair in a direction of its own."""
    centres = np.eye(8)
    return [centres + RNG.normal(0, 0.02, (8, 8)) for _ in range(2)]


def test_a_map_puts_a_sketch_beside_its_photo_whatever_the_length_of_its_embedding(pairs_of_embeddings):
    sketches, photos = pairs_of_embeddings
    first = project(sketches, photos)
    assert first[0].shape == first[1].shape == (8, 2)
    distance = np.linalg.norm(first[0][:, None] - first[1][None], axis=-1)
    assert (distance.argmin(axis=1) == np.arange(8)).all()
    np.testing.assert_allclose(project(sketches * 4, photos), first, atol=1e-3)


def test_the_seed_decides_the_map(pairs_of_embeddings):
    first, again, other = (project(*pairs_of_embeddings, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_six_points_are_enough_for_a_map():
    places = project(RNG.normal(size=(3, 4)), RNG.normal(size=(3, 4)))
    assert np.isfinite(np.concatenate(places)).all()


@pytest.mark.parametrize(
    ("sketches", "photos", "words"),
    [
        (np.eye(3), np.eye(3)[:2], "5 sketches and photos are too few"),
        (np.ones((5, 3)), 2 * np.ones((5, 3)), "collapsed"),
    ],
)
def test_what_cannot_be_mapped_is_refused(sketches, photos, words):
    with pytest.raises(InputError, match=words):
        project(sketches, photos)


@pytest.fixture
def places():
    """Four sketches, three photos."""
    return np.array([[0, 0], [1, 0], [4, 4], [5, 0.0]]), np.array([[0, 1], [4, 5], [9, 9.0]])


def test_every_sketch_is_joined_with_its_photo_in_the_style_of_its_outcome(places):
    figure = embedding_map(*places, [0, 0, 1, 1], [True, False, True, True], {})
    assert legend(figure) == [
        "photo found first (3)",
        "photo not found first (1)",
        "photos (3)",
        "sketches (4)",
    ]
    (axes,) = figure.axes
    found, missed, photos, sketches = axes.collections
    ends = [segment.tolist() for lines in (found, missed) for segment in lines.get_segments()]
    assert ends == [[[0, 0], [0, 1]], [[4, 4], [4, 5]], [[5, 0], [4, 5]], [[1, 0], [0, 1]]]
    assert found.get_linestyle() != missed.get_linestyle()
    np.testing.assert_array_equal(sketches.get_offsets(), places[0])
    np.testing.assert_array_equal(photos.get_offsets(), places[1])
    # Two colours and two shapes.
    assert sketches.get_facecolor().tolist() != photos.get_facecolor().tolist()
    assert len(sketches.get_paths()[0].vertices) != len(photos.get_paths()[0].vertices)
    assert "no unit" in axes.get_xlabel()
    assert not len(axes.get_xticks())


def test_thumbnails_stand_beside_the_map_each_tied_to_its_sketch(places):
    pairs = {1: (picture(1), picture(2)), 2: (picture(3), picture(4))}
    figure = embedding_map(*places, [0, 0, 1, 1], [True, False, True, True], pairs)
    figure.canvas.draw()
    (axes,) = figure.axes
    boxes = [artist for artist in axes.artists if isinstance(artist, AnnotationBbox)]
    assert [tuple(box.xy) for box in boxes] == [(1, 0), (4, 4)]
    shown = [[image.get_data()[0, 0, 0] for image in box.findobj(OffsetImage)] for box in boxes]
    assert shown == [[1, 2], [3, 4]]
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[1, 0], [0, 1]], [[4, 4], [4, 5]]]
    page, inside = figure.bbox, axes.get_window_extent()
    for box in boxes:
        place = box.offsetbox.get_window_extent()
        assert page.x0 <= place.x0 < place.x1 < inside.x0 or inside.x1 < place.x0 < place.x1 <= page.x1
