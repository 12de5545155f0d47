"""Maps of embeddings: what is drawn is what was handed over."""

import numpy as np
import pytest

from sbirlib.errors import InputError
from sbirlib.figures.embedding import Projection, embedding_map, project

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
    assert first.sketches.shape == first.photos.shape == (8, 2)
    distance = np.linalg.norm(first.sketches[:, None] - first.photos[None], axis=-1)
    assert (distance.argmin(axis=1) == np.arange(8)).all()
    longer = project(sketches * 4, photos)
    np.testing.assert_allclose(longer.photos, first.photos, atol=1e-3)


def test_the_seed_decides_the_map(pairs_of_embeddings):
    first, again, other = (project(*pairs_of_embeddings, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.sketches, again.sketches)
    np.testing.assert_array_equal(first.photos, again.photos)
    assert not np.allclose(first.photos, other.photos)


def test_six_points_are_enough_for_a_map():
    places = project(RNG.normal(size=(3, 4)), RNG.normal(size=(3, 4)))
    assert np.isfinite(np.concatenate(places)).all()


@pytest.mark.parametrize(
    ("sketches", "photos", "words"),
    [
        (np.eye(3), np.eye(3)[:2], "5 sketches and photos are too few"),
        (np.where(np.eye(5) > 0, np.nan, 1), np.eye(5), "NaN"),
        (np.eye(5), np.eye(4), "same e"),
        (np.ones((5, 3)), 2 * np.ones((5, 3)), "collapsed"),
    ],
)
def test_what_cannot_be_mapped_is_refused(sketches, photos, words):
    with pytest.raises(InputError, match=words):
        project(sketches, photos)


@pytest.fixture
def places():
    """Four sketches, three photos."""
    return Projection(np.array([[0, 0], [1, 0], [4, 4], [5, 0.0]]), np.array([[0, 1], [4, 5], [9, 9.0]]))


def test_every_sketch_is_joined_with_its_photo_in_the_style_of_its_outcome(places):
    figure = embedding_map(places, [0, 0, 1, 1], [True, False, True, True], {})
    assert legend(figure) == [
        "photo found first (3)",
        "photo not found first (1)",
        "photos (3)",
        "sketches (4)",
    ]
    _, axes = figure.axes
    found, missed, photos, sketches = axes.collections
    ends = [segment.tolist() for lines in (found, missed) for segment in lines.get_segments()]
    assert ends == [[[0, 0], [0, 1]], [[4, 4], [4, 5]], [[5, 0], [4, 5]], [[1, 0], [0, 1]]]
    assert found.get_linestyle() != missed.get_linestyle()
    np.testing.assert_array_equal(sketches.get_offsets(), places.sketches)
    np.testing.assert_array_equal(photos.get_offsets(), places.photos)
    # Two colours and two shapes.
    assert sketches.get_facecolor().tolist() != photos.get_facecolor().tolist()
    assert len(sketches.get_paths()[0].vertices) != len(photos.get_paths()[0].vertices)
    assert "no unit" in axes.get_xlabel()
    assert not len(axes.get_xticks())


def test_thumbnails_stand_beside_the_map_and_are_named_on_it(places):
    hits = [True, False, True, True]
    figure = embedding_map(
        places, [0, 0, 1, 1], hits, {1: (picture(1), picture(2)), 2: (picture(3), picture(4))}
    )
    page, axes = figure.axes
    assert [image.get_array()[0, 0, 0] for image in page.images] == [1, 2, 3, 4]
    assert [text.get_text() for text in page.texts] == ["A sketch", "A photo", "B sketch", "B photo"]
    rings = {tuple(map(tuple, line.get_xydata().tolist())): line.get_linestyle() for line in axes.lines}
    assert rings == {((1, 0), (0, 1)): "--", ((4, 4), (4, 5)): "-"}
    figure.canvas.draw()
    left, right = axes.get_position().x0 * page.get_xlim()[1], axes.get_position().x1 * page.get_xlim()[1]
    assert all(x1 <= left or x0 >= right for x0, x1, *_ in (image.get_extent() for image in page.images))
    letters = {text.get_text(): np.array(text.get_position()) for text in axes.texts}
    assert np.linalg.norm(letters["A"] - [1, 0]) < 1
    assert np.linalg.norm(letters["B"] - [4, 4]) < 1


def test_letters_of_neighbours_do_not_cover_each_other():
    near = Projection(np.array([[0, 0], [0.1, 0], [0, 0.1], [9, 9]]), np.array([[0.1, 0.1], [9, 0]]))
    figure = embedding_map(near, [0, 0, 0, 1], [True] * 4, {row: (picture(0),) * 2 for row in range(3)})
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[1].texts]
    assert len(boxes) == 3
    assert not any(one.overlaps(two) for i, one in enumerate(boxes) for two in boxes[:i])


@pytest.mark.parametrize(
    ("index", "hits", "thumbnails", "words"),
    [
        ([0, 0, 1], [True] * 4, {}, "4 sketches"),
        ([0, 0, 1, 3], [True] * 4, {}, "3 photos"),
        ([0, 0, 1, 1], [True], {}, "hits"),
        ([0, 0, 1, 1], [True] * 4, {4: (0, 0)}, "sketch 4"),
    ],
)
def test_rows_that_are_not_on_the_map_are_refused(places, index, hits, thumbnails, words):
    with pytest.raises(InputError, match=words):
        embedding_map(places, index, hits, thumbnails)
