import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from sbirlib import ARNet, Gallery, PairFolder, evaluate, load_run
from sbirlib.data.images import read_image
from sbirlib.data.splits import PairError
from sbirlib.data.transforms import fit_square
from sbirlib.errors import InputError
from sbirlib.retrieval.intervals import accuracy_at
from sbirlib.retrieval.scores import score, true_ranks


@pytest.fixture(scope="module")
def model(run):
    return load_run(run)


def test_rank_is_one_more_than_the_photos_that_beat_the_true_one():
    similarity = np.array([[0.9, 0.1, 0.5], [0.9, 0.1, 0.5], [0.9, 0.1, 0.5]])
    assert true_ranks(similarity, np.array([0, 1, 2])).tolist() == [1, 3, 2]


def test_ties_count_against_the_model():
    constant = np.zeros((2, 50))
    assert true_ranks(constant, np.array([0, 49])).tolist() == [50, 50]
    assert score(constant, np.array([0, 49])).accuracy[10].hits == 0


def test_nan_similarities_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        true_ranks(np.array([[np.nan, 1.0]]), np.array([0]))


def test_wilson_interval_against_its_formula():
    accuracy = accuracy_at(np.array([1] * 212 + [2] * 69), 1)
    p, n, z = 212 / 281, 281, 1.959964
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    assert (accuracy.hits, accuracy.queries) == (212, 281)
    assert accuracy.percent == pytest.approx(75.4448, abs=1e-3)
    assert (accuracy.low, accuracy.high) == pytest.approx(
        (100 * (centre - half), 100 * (centre + half)), abs=1e-4
    )
    assert str(accuracy) == "Acc@1 75.4 % (212/281, 95 % CI 70.1-80.1)"


def test_scores_by_hand():
    # True photos are found at ranks 1, 2, 4 in a gallery of four.
    similarity = np.array([[4.0, 3, 2, 1], [4, 3, 2, 1], [4, 3, 2, 1]])
    scores = score(similarity, np.array([0, 1, 3]), ["01", "02", "02"])
    scores = scores._replace(skipped=3, protocol="by hand")
    assert scores.ranks.tolist() == [1, 2, 4]
    assert scores.accuracy[1].hits == 1
    assert scores.accuracy[5].hits == 3
    assert scores.median_rank == 2
    assert scores.mrr == pytest.approx((1 + 1 / 2 + 1 / 4) / 3)
    assert {name: (a.hits, a.queries) for name, a in scores.designers.items()} == {"01": (1, 1), "02": (0, 2)}
    assert scores.order[0].tolist() == [0, 1, 2, 3]
    result = scores.as_dict()
    assert json.loads(json.dumps(result)) == result
    assert result["acc@1"] == pytest.approx(100 / 3)
    assert (result["hits@1"], result["queries"], result["gallery"], result["skipped"]) == (1, 3, 4, 3)
    assert "3 files were left out" in str(scores)
    assert "designer 02" in str(scores)


def test_sketches_without_a_number_have_no_designer():
    scores = score(np.eye(2), np.array([0, 1]), ["", "1"])
    assert "designer" not in str(scores)
    assert "guessing would reach 50.0 / 100.0 / 100.0 %" in str(scores)


def test_evaluate_agrees_with_embedding_by_hand(model, pairs):
    split = pairs.split("test")

    def pixels(path):
        picture = torch.from_numpy(np.array(read_image(path))).movedim(-1, 0)
        # A split is held in bytes of the model's size.
        return fit_square(picture[None], model.image_size, model.fit)[0] / 255

    with torch.inference_mode():
        sketches = model.embed_sketches(torch.stack([pixels(s.path) for s in split.sketches]))
        photos = model.embed_photos(torch.stack([pixels(p.path) for p in split.photos]))
    similarity, scores = (sketches @ photos.T).numpy(), evaluate(model, pairs)
    own = np.take_along_axis(similarity, split.photo_index[:, None], axis=1)
    # Embedded in other batches, photos as close as that may change places.
    first, last = (1 + (similarity > own + close).sum(axis=1) for close in (1e-6, -1e-6))
    last -= 1  # which is the photo itself
    assert (first <= scores.ranks).all()
    assert (scores.ranks <= last).all()
    assert (first == last).mean() > 0.8
    assert (len(scores.ranks), scores.gallery) == (16, 8)


def test_evaluate_needs_only_the_split_it_scores(model, pairs, tmp_path):
    for name in ("testA", "testB"):
        (tmp_path / name).symlink_to(pairs.root / name)
    assert evaluate(model, tmp_path).as_dict() == evaluate(model, pairs).as_dict()
    with pytest.raises(PairError, match="no train split"):
        evaluate(model, tmp_path, "train")


def test_evaluate_leaves_the_model_as_it_was(model, pairs):
    model.train()
    evaluate(model, pairs)
    assert model.training
    model.eval()


def test_evaluate_stops_on_faults_or_counts_them(model, pairs, tmp_path):
    for name in ("testA", "testB"):
        (tmp_path / name).mkdir()
        for path in (pairs.root / name).iterdir():
            (tmp_path / name / path.name).symlink_to(path)
    (tmp_path / "testA" / "stray_01.png").write_text("no image")
    with pytest.raises(PairError, match=r"stray_01\.png"):
        evaluate(model, tmp_path)
    scores = evaluate(model, tmp_path, on_fault="skip")
    assert (scores.skipped, len(scores.ranks)) == (1, 16)
    assert scores.as_dict()["skipped"] == 1


def test_the_protocol_names_the_checkpoint(run, pairs, monkeypatch):
    assert (
        "chosen on 9 sketches of 25 % of the training photos, held out"
        in evaluate(load_run(run), pairs).protocol
    )
    assert "of the last epoch" in evaluate(load_run(run, "last"), pairs).protocol
    monkeypatch.chdir(run / "last")
    assert "of the last epoch" in load_run(".").origin


def test_search_finds_what_evaluate_ranks_first(model, pairs):
    gallery = Gallery.from_folder(model, pairs.root / "testB")
    split, scores = pairs.split("test"), evaluate(model, pairs)
    for row, sketch in enumerate(split.sketches):
        hits = gallery.search(sketch.path, k=3)
        assert [hit.path for hit in hits] == [split.photos[i].path for i in scores.order[row, :3]]
        assert [hit.rank for hit in hits] == [1, 2, 3]
        assert hits[0].similarity >= hits[1].similarity >= hits[2].similarity


def test_search_takes_a_tensor_and_never_returns_more_than_there_are(model, pairs):
    gallery = Gallery.from_folder(model, pairs.root / "testB")
    assert len(gallery.search(torch.rand(3, 30, 50), k=100)) == 8
    with pytest.raises(ValueError, match="k = 0"):
        gallery.search(torch.rand(3, 30, 50), k=0)


def test_a_gallery_survives_saving(model, pairs, tmp_path):
    gallery = Gallery.from_folder(model, pairs.root / "testB")
    gallery.save(tmp_path / "gallery.safetensors")
    loaded = Gallery.load(tmp_path / "gallery.safetensors", model)
    assert loaded.paths == gallery.paths
    assert torch.equal(loaded.embeddings, gallery.embeddings)


@pytest.fixture
def shop(model, clothes, tmp_path):
    """A folder of photos of one's own, its gallery, and the file that keeps it."""
    shutil.copytree(clothes / "testB", tmp_path / "shop")
    gallery = Gallery.from_folder(model, tmp_path / "shop")
    gallery.save(tmp_path / "kept.safetensors")
    return tmp_path / "shop", gallery, tmp_path / "kept.safetensors"


def test_a_saved_gallery_embeds_only_what_is_new(model, clothes, shop):
    folder, gallery, kept = shop
    again = Gallery.from_folder(model, folder, kept=kept)
    assert (again.fresh, again.paths) == (0, gallery.paths)
    assert torch.equal(again.embeddings, gallery.embeddings)
    (folder / "more").mkdir()
    removed, renamed, replaced, *rest = gallery.paths
    removed.unlink()
    renamed.rename(folder / "more" / "renamed.png")
    shutil.copy(next((clothes / "trainB").iterdir()), replaced)
    told = []
    changed = Gallery.from_folder(model, folder, kept=kept, tell=lambda *count: told.append(count))
    assert (changed.fresh, told) == (2, [(7, 7)])
    assert changed.paths == [replaced, *rest, folder / "more" / "renamed.png"]
    torch.testing.assert_close(changed.embeddings[1:6], gallery.embeddings[3:])
    torch.testing.assert_close(changed.embeddings[6], gallery.embeddings[1])
    assert not torch.allclose(changed.embeddings[0], gallery.embeddings[2])


def test_other_weights_and_damaged_files_keep_nothing(model, shop, monkeypatch):
    folder, _, kept = shop
    other = ARNet("sbir_mini", image_size=48, embed_dim=16)
    assert Gallery.from_folder(other, folder, kept=kept).fresh == 8
    monkeypatch.setattr(model, "fit", "stretch")
    assert Gallery.from_folder(model, folder, kept=kept).fresh == 8
    kept.write_bytes(kept.read_bytes()[:100])
    assert Gallery.from_folder(model, folder, kept=kept).fresh == 8


def test_a_framed_model_finds_a_thing_wherever_it_lies(tmp_path):
    torch.manual_seed(0)
    model = ARNet("sbir_mini", image_size=48, embed_dim=16, fit="frame").eval()
    things = np.random.default_rng(0).integers(0, 150, (6, 24, 16, 3), dtype=np.uint8)
    # One photo is as large as the square that the model sees, which does not make it a framed one.
    for number, (thing, side) in enumerate(zip(things, (48, 60, 80, 100, 120, 140), strict=True)):
        page = np.full((side, side, 3), 255, np.uint8)
        page[4:28, 2:18] = thing
        Image.fromarray(page).save(tmp_path / f"{number}.png")
    gallery = Gallery.from_folder(model, tmp_path)
    for number, thing in enumerate(things):
        page = torch.ones(3, 90, 70)
        page[:, 60:84, 40:56] = torch.from_numpy(thing).permute(2, 0, 1) / 255
        (best,) = gallery.search(page, k=1)
        assert (best.path.stem, best.similarity) == (str(number), pytest.approx(1, abs=1e-4))
        torch.testing.assert_close(
            model.embed_photos(page[None]).detach()[0], gallery.embeddings[number], atol=5e-3, rtol=0
        )


@pytest.mark.parametrize(
    "change",
    [
        lambda photo: photo.unlink(),
        lambda photo: photo.rename(photo.with_name("renamed.png")),
        lambda photo: photo.write_bytes(photo.read_bytes() + b" "),
    ],
    ids=["removed", "renamed", "replaced"],
)
def test_a_saved_gallery_notices_changed_photos(model, shop, change):
    _, gallery, kept = shop
    assert Gallery.load(kept, model).paths == gallery.paths
    change(gallery.paths[3])
    with pytest.raises(PairError, match="kept.safetensors: 1 photos have changed or gone"):
        Gallery.load(kept, model)


def test_a_photo_that_was_left_out_is_no_change(model, shop):
    folder, _, kept = shop
    (folder / "broken.png").write_text("no image")
    found = Gallery.from_folder(model, folder, kept=kept, on_fault="skip")
    assert found.left_out == [folder / "broken.png"]
    found.save(kept)
    assert Gallery.load(kept, model).paths == found.paths
    again = Gallery.from_folder(model, folder, kept=kept, on_fault="skip")
    assert (again.fresh, len(again.left_out)) == (0, 1)


def test_what_is_not_a_gallery_is_refused(model, tmp_path):
    (tmp_path / "words").write_text("hello")
    with pytest.raises(PairError, match="not a saved gallery"):
        Gallery.load(tmp_path / "words", model)
    with pytest.raises(PairError, match="not a saved gallery"):
        Gallery.load(tmp_path / "nowhere", model)
    for notes in (None, {"paths": '["a.png"]'}, {"stamps": "{}"}):
        save_file({"embeddings": torch.ones(1, 3)}, tmp_path / "nameless", notes)
        with pytest.raises(PairError, match=r"nameless: not a saved gallery, or not one of this version"):
            Gallery.load(tmp_path / "nameless", model)
    Gallery(model, ["a.png"], torch.ones(1, 3)).save(tmp_path / "small")
    with pytest.raises(PairError, match="embedded by another model"):
        Gallery.load(tmp_path / "small", ARNet("sbir_mini", image_size=48, embed_dim=16))


def test_broken_embeddings_are_not_served(model):
    with pytest.raises(InputError, match="are not numbers"):
        Gallery(model, ["a.png"], torch.full((1, 16), torch.nan))


def test_galleries_of_nothing_or_of_broken_photos(model, tmp_path):
    with pytest.raises(PairError, match="no photos to search in"):
        Gallery.from_folder(model, tmp_path)
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(PairError, match=r"a\.png"):
        Gallery.from_folder(model, tmp_path)
    with pytest.raises(PairError, match="none of its 1 photos"):
        Gallery.from_folder(model, tmp_path, on_fault="skip")
    Image.new("RGB", (20, 20)).save(tmp_path / "b.png")
    gallery = Gallery.from_folder(model, tmp_path, on_fault="skip")
    assert ([path.name for path in gallery.paths], len(gallery.left_out)) == (["b.png"], 1)
    (tmp_path / "a.png").unlink()
    Image.new("RGB", (20, 20)).save(tmp_path / "c.gif")
    with pytest.raises(PairError, match=r"c\.gif"):
        Gallery.from_folder(model, tmp_path)
    assert len(Gallery.from_folder(model, tmp_path, on_fault="skip").left_out) == 1


def test_a_gallery_that_cannot_be_saved_says_where(model, tmp_path):
    with pytest.raises(InputError, match=r"none/g: the gallery cannot be written \(.*choose a folder"):
        Gallery(model, ["a.png"], torch.ones(1, 3)).save(tmp_path / "none" / "g")


def test_photos_in_subfolders_are_searched_too(model, pairs, tmp_path):
    photos = [photo.path for photo in pairs.split("test").photos]
    for place, photo in zip(("", "shoes", "shoes/old", ".thumbs", "shoes/.cache"), photos, strict=False):
        (tmp_path / place).mkdir(exist_ok=True)
        shutil.copy(photo, tmp_path / place)
    (tmp_path / "shoes" / "old" / "back").symlink_to(tmp_path, target_is_directory=True)
    found = Gallery.from_folder(model, tmp_path).paths
    names = [photo.name for photo in photos]
    assert [str(path.relative_to(tmp_path)) for path in found] == [
        names[0], f"shoes/{names[1]}", f"shoes/old/{names[2]}",
    ]  # fmt: skip
    (tmp_path / "shoes" / "old" / "flat.tif").write_text("")
    with pytest.raises(PairError, match=r"shoes/old/flat\.tif"):
        Gallery.from_folder(model, tmp_path)
    assert len(Gallery.from_folder(model, tmp_path, on_fault="skip").left_out) == 1


def test_a_photo_that_is_named_twice_has_two_rows(model, pairs, tmp_path, monkeypatch):
    one, two = (photo.path for photo in pairs.split("test").photos[:2])
    (tmp_path / "no.png").write_text("no image")
    # What memory holds before it is written is no accident here.
    monkeypatch.setattr(torch, "empty", lambda shape, dtype: torch.full(shape, 7, dtype=dtype))
    alone = Gallery.from_files(model, [one, two])
    gallery = Gallery.from_files(model, [one, two, one])
    assert gallery.paths == [one, two, one]
    torch.testing.assert_close(gallery.embeddings, alone.embeddings[[0, 1, 0]])
    gallery = Gallery.from_files(model, [two, tmp_path / "no.png", one, two], on_fault="skip")
    assert (gallery.paths, len(gallery.left_out)) == ([two, one, two], 1)
    torch.testing.assert_close(gallery.embeddings, alone.embeddings[[1, 0, 1]])


def test_designer_scores_cover_every_query(model, pairs):
    scores = evaluate(model, PairFolder(pairs.root))
    assert sum(a.queries for a in scores.designers.values()) == len(scores.ranks)
    assert sum(a.hits for a in scores.designers.values()) == scores.accuracy[1].hits
