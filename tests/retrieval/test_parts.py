"""Large folders: whatever kills an `embed`, it goes on where it was; any number of processes do the same."""

import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from tools.steps import launch

from sbirlib import ARNet, Gallery, load_run
from sbirlib.cli.app import main
from sbirlib.data.splits import PairError
from sbirlib.errors import InputError
from sbirlib.retrieval import embed_folder, gallery
from sbirlib.retrieval.gallery import Embedded
from sbirlib.runs import RunError
from sbirlib.runs.atomic import Owner

SMALL = Path(__file__).parents[1] / "tools" / "small_parts.py"


@pytest.fixture(scope="module")
def model(run):
    return load_run(run)


@pytest.fixture
def shop(clothes, tmp_path, monkeypatch):
    """A folder of 16 photos in four parts, one of them in a folder within."""
    monkeypatch.setattr(gallery, "PART", 4)
    shutil.copytree(clothes / "trainB", tmp_path / "shop")
    (tmp_path / "shop" / "more").mkdir()
    last = sorted((tmp_path / "shop").glob("*.png"))[-1]
    last.rename(tmp_path / "shop" / "more" / "another.png")
    return tmp_path / "shop"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "photos.safetensors"


def assert_same(model, out, shop):
    """What is in the file is what `from_folder` embeds, and nothing is left beside it."""
    found, expected = Gallery.load(out, model), Gallery.from_folder(model, shop)
    assert found.stamps == expected.stamps
    torch.testing.assert_close(found.embeddings, expected.embeddings)
    assert [path.name for path in out.parent.glob("*photos*")] == [out.name]


def test_a_folder_is_embedded_in_parts(model, shop, out):
    assert embed_folder(model, shop, out) == Embedded(photos=16, fresh=16, left_out=0)
    assert_same(model, out, shop)
    assert embed_folder(model, shop, out) == Embedded(16, 0, 0)
    assert_same(model, out, shop)


def killed(work, module, name, times):
    """Runs `work` in a process that is killed once module.name has been called so many times."""
    whole = getattr(module, name)

    def last(*values, **options):
        nonlocal times
        times -= 1
        done = whole(*values, **options)
        if not times:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    def child():
        # A fork has none of its parent's threads: torch makes its pool anew, which several must not begin.
        torch.set_num_threads(1)
        setattr(module, name, last)
        work()

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("module", "name", "times", "fresh"),
    [
        (gallery, "_stamp_of", 1, 16),  # before anything is written
        (json, "dumps", 2 * (4 + 1) + 1, 8),  # two parts are written, and the third in a file of another name
        (gallery, "_write_gallery", 3, 4),
        (json, "dumps", 4 * (4 + 1) + 1, 0),  # while parts are joined
        (gallery, "_write_gallery", 5, 0),
        (Path, "replace", 7, 0),  # the joined file has its place, the parts are still there
        (os, "rmdir", 1, 0),  # these have been removed
    ],
)
def test_a_killed_embed_goes_on_where_it_was(module, name, times, fresh, model, shop, out):
    killed(lambda: embed_folder(model, shop, out), module, name, times)
    assert embed_folder(model, shop, out) == Embedded(16, fresh, 0)
    assert_same(model, out, shop)


def test_half_removed_parts_cost_nothing(model, shop, out):
    embed_folder(model, shop, out)
    place = Path(f"{out}.parts")
    place.mkdir()
    (place / "000000008.safetensors").write_bytes(b"half")
    assert embed_folder(model, shop, out) == Embedded(16, 0, 0)
    assert_same(model, out, shop)


def test_photos_that_change_come_and_go_between_two_embeds(model, shop, out, clothes):
    killed(lambda: embed_folder(model, shop, out), gallery, "_write_gallery", 2)
    first, second, third, *_ = sorted(shop.glob("*.png"))
    shutil.copy(next((clothes / "testB").iterdir()), first)
    second.unlink()
    # The third and the last of the part's four are kept; others move up by one, from part to part.
    assert embed_folder(model, shop, out) == Embedded(15, 15 - 2 - 3, 0)
    assert_same(model, out, shop)
    shutil.copy(third, shop / "0.png")
    assert embed_folder(model, shop, out) == Embedded(16, 1, 0)
    assert_same(model, out, shop)


def test_photos_of_another_model_are_embedded_again(model, shop, out):
    other = ARNet("sbir_mini", image_size=48, embed_dim=16).eval()
    killed(lambda: embed_folder(model, shop, out), gallery, "_write_gallery", 2)
    assert embed_folder(other, shop, out).fresh == 16
    with pytest.raises(PairError, match="embedded by another model"):
        Gallery.load(out, model)


def test_photos_that_cannot_be_read_stop_once_the_others_are_done_or_are_skipped(model, shop, out):
    for name in ("0.png", "more/broken.png", "more/z1.png", "more/z2.png", "more/z3.png"):
        (shop / name).write_text("no image")
    with pytest.raises(PairError, match=r"(?s)5 files cannot be used.*more/z3.png") as stop:
        embed_folder(model, shop, out)
    assert "--data.on_fault skip" in str(stop.value)
    assert not out.exists()
    assert embed_folder(model, shop, out, on_fault="skip") == Embedded(16, 0, 5)
    assert len(Gallery.load(out, model).paths) == 16
    (shop / "flat.gif").write_text("")
    with pytest.raises(PairError, match="flat.gif"):
        embed_folder(model, shop, out)
    assert embed_folder(model, shop, out, on_fault="skip").left_out == 6


def test_a_part_whose_photos_break_is_left_out(model, shop, out):
    killed(lambda: embed_folder(model, shop, out), gallery, "_write_gallery", 1)
    for photo in sorted(shop.glob("*.png"))[:4]:
        photo.write_text("no image")
    assert embed_folder(model, shop, out, on_fault="skip") == Embedded(12, 12, 4)


def test_folders_of_nothing_or_of_broken_photos(model, tmp_path, out):
    (tmp_path / "none").mkdir()
    with pytest.raises(PairError, match="none: no photos to search in, or none that can be read"):
        embed_folder(model, tmp_path / "none", out)
    (tmp_path / "none" / "a.png").write_text("no image")
    with pytest.raises(PairError, match="or none that can be read"):
        embed_folder(model, tmp_path / "none", out, on_fault="skip")
    assert [path.name for path in tmp_path.iterdir()] == ["none"]


def test_a_part_that_cannot_be_written_is_named(model, shop, out, monkeypatch):
    def full(*values):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gallery.json, "dumps", full)
    message = r"parts/000000000.safetensors: the gallery cannot be written \(.*No space left.*has room"
    with pytest.raises(InputError, match=message):
        embed_folder(model, shop, out)


def test_a_picture_is_not_written_over(model, shop):
    with pytest.raises(InputError, match="is named like a picture; name it"):
        embed_folder(model, shop, next(shop.glob("*.png")))


def test_a_file_that_is_being_written_is_left_to_whoever_writes_it(model, shop, out):
    killed(lambda: embed_folder(model, shop, out), gallery, "_write_gallery", 1)
    kept = sorted(Path(f"{out}.parts").glob("*.safetensors"))
    owner = Owner(Path(f"{out}.parts"))
    with pytest.raises(
        RunError, match=rf"parts is being written by process {os.getpid()} on .*wait for its end"
    ):
        embed_folder(model, shop, out)
    assert sorted(Path(f"{out}.parts").glob("*.safetensors")) == kept
    owner.release()
    assert embed_folder(model, shop, out) == Embedded(16, 12, 0)
    assert_same(model, out, shop)


def test_parts_that_only_another_machine_has_are_missed(model, shop, out, monkeypatch):
    other = Path(f"{out}.parts", "000000016.safetensors")
    both = {type(other): [other]}
    monkeypatch.setattr(gallery, "gather_object", lambda told: told + both.get(type(told and told[0]), []))
    with pytest.raises(PairError, match=r"000000016.safetensors: not a saved gallery.*No such file"):
        embed_folder(model, shop, out)
    assert not out.exists()


def test_two_processes_go_on_with_what_one_began_and_write_what_one_writes(model, run, shop, out, capsys):
    one = out.with_name("one.safetensors")
    words = ["embed", "--run", str(run), "--photos", str(shop), "--out"]
    assert main([*words, str(one)]) == 0
    assert capsys.readouterr().out == f"{one} has 16 photos, 16 of them embedded now; 0 cannot be read\n"
    killed(lambda: embed_folder(model, shop, out), gallery, "_write_gallery", 1)
    printed = launch(2, "--", str(SMALL), *words, str(out))
    assert printed == f"{out} has 16 photos, 12 of them embedded now; 0 cannot be read\n"
    assert out.read_bytes() == one.read_bytes()
