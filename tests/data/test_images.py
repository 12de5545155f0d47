import errno
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from tools.hostile_files import claim

from sbirlib.data import images
from sbirlib.data.images import ImageError, list_images, list_unread, read_all, read_image
from sbirlib.data.transforms import as_pixels, read_pixels
from sbirlib.errors import printable


def test_16_bit_grey_is_scaled_not_clipped(tmp_path):
    ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    Image.fromarray(ramp).save(tmp_path / "grey16.png")
    pixels = np.asarray(read_image(tmp_path / "grey16.png"))[..., 0]
    np.testing.assert_allclose(pixels, ramp / 257, atol=1)


def test_pixels_have_the_channels_first_and_share_no_memory(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(array).save(tmp_path / "noise.png")
    pixels, before = as_pixels(array), array.copy()
    assert (pixels.shape, pixels.dtype) == ((3, 9, 12), torch.uint8)
    assert all(np.array_equal(pixels[channel], array[..., channel]) for channel in range(3))
    assert torch.equal(read_pixels(tmp_path / "noise.png"), pixels)
    assert torch.equal(as_pixels(Image.fromarray(array)), pixels)
    pixels.zero_()
    assert np.array_equal(array, before)


def test_transparency_is_white_paper(tmp_path):
    image = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    image.putpixel((3, 3), (0, 0, 0, 255))
    image.save(tmp_path / "line.png")
    pixels = np.asarray(read_image(tmp_path / "line.png"))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[3, 3].tolist() == [0, 0, 0]


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (32, 16)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").size == (16, 32)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_text("hello"), "is not a PNG"),
        (lambda path: path.write_bytes(b""), "is empty .0 bytes."),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.symlink_to("nowhere.png"), "links to a file that does not exist"),
        (lambda path: Image.new("RGB", (1, 1)).save(path), "1 x 1 px is too small"),
        (lambda path: path.write_bytes(claim(9000)), "9000 x 9000 px is more than 64 million pixels"),
        # Pillow warns above 89 million pixels and raises above twice as many.
        (lambda path: path.write_bytes(claim(10000)), "more than 64 million pixels"),
        (lambda path: path.write_bytes(claim(14000)), "claims to have more than 64 million pixels"),
    ],
)
def test_unreadable_images_are_named(tmp_path, make, words):
    path = tmp_path / "bad.png"
    make(path)
    with pytest.raises(ImageError, match=words) as error:
        read_image(path)
    assert str(path) in str(error.value)


def test_damaged_files_are_named(tmp_path):
    path = tmp_path / "half.jpg"
    Image.effect_noise((64, 64), 60).save(path)
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(ImageError, match=r"half.jpg: is damaged"):
        read_image(path)


def test_cmyk_becomes_rgb(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "red.jpg")
    red, green, blue = np.asarray(read_image(tmp_path / "red.jpg"))[8, 8]
    assert red > 200
    assert max(green, blue) < 60


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(ImageError, match="nowhere: no such folder"):
        list_images(tmp_path / "nowhere")


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match=r"pipe.png: is a pipe or device"):
        read_image(tmp_path / "pipe.png")


def test_what_looks_like_a_picture_and_is_none_is_listed(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "dead.webp").symlink_to("nowhere.webp")
    Image.new("RGB", (16, 16)).save(tmp_path / "sound.png")
    assert [path.name for path in list_images(tmp_path)] == ["sound.png"]
    reasons = {fault.path.name: fault.detail for fault in list_unread(tmp_path)}
    assert "pipe" in reasons["pipe.png"]
    assert "is a folder" in reasons["folder.jpg"]
    assert "links to a file that does not exist" in reasons["dead.webp"]


@pytest.mark.parametrize("extension", ["png", "webp"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path, extension):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(tmp_path / f"film.{extension}", save_all=True, append_images=frames[1:], lossless=True)
    assert np.asarray(read_image(tmp_path / f"film.{extension}"))[8, 8].tolist() == [255, 0, 0]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("picture.jpg" if mode == "CMYK" else "picture.png")
    Image.new(mode, (16, 16)).save(path)
    assert read_image(path).mode == "RGB"


def test_a_palette_with_alpha_is_laid_on_white(tmp_path):
    picture = Image.new("P", (16, 16), 0)
    picture.putpalette([10, 20, 30, 200, 0, 0])
    picture.putpixel((3, 3), 1)
    picture.save(tmp_path / "palette.png", transparency=bytes([0, 255]))
    pixels = np.asarray(read_image(tmp_path / "palette.png"))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[3, 3].tolist() == [200, 0, 0]


def test_names_are_printed_without_what_steers_a_terminal():
    assert printable("a\x1b[2Jb\r\n\udce9 衣") == "a\\x1b[2Jb\\r\\n\\udce9 衣"


def test_the_limit_is_in_pixels_of_the_decoded_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 256)
    Image.new("RGB", (16, 16)).save(tmp_path / "at.png")
    Image.new("RGB", (16, 17)).save(tmp_path / "above.png")
    assert read_image(tmp_path / "at.png").size == (16, 16)
    with pytest.raises(ImageError, match="16 x 17 px is more than"):
        read_image(tmp_path / "above.png")


def test_who_interrupts_does_not_wait_for_the_rest(monkeypatch):
    def interrupted(results, **options):
        next(results)
        raise KeyboardInterrupt

    monkeypatch.setattr(images, "tqdm", interrupted)
    begun = []
    with pytest.raises(KeyboardInterrupt):
        read_all(lambda path: begun.append(path) or time.sleep(0.005), [Path()] * 2000, "reading")
    assert len(begun) < 2000


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EMFILE])
def test_what_the_disk_says_is_not_taken_for_damage(code, tmp_path, monkeypatch):
    Image.new("RGB", (16, 16)).save(tmp_path / "sound.png")

    def fail(image):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(ImageError, match=f"sound.png: {os.strerror(code)}; a readable"):
        read_image(tmp_path / "sound.png")


def test_a_lack_of_memory_is_not_taken_for_damage(tmp_path, monkeypatch):
    Image.new("RGB", (16, 16)).save(tmp_path / "sound.png")

    def fail(image):
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(MemoryError):
        read_all(read_image, [tmp_path / "sound.png"], "reading")
