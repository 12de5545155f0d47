import numpy as np
import pytest
from PIL import Image

from sbirlib.images import ImageError, list_images, read_image


def test_16_bit_grey_is_scaled_not_clipped(tmp_path):
    ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    Image.fromarray(ramp).save(tmp_path / "grey16.png")
    pixels = np.asarray(read_image(tmp_path / "grey16.png"))[..., 0]
    np.testing.assert_allclose(pixels, ramp / 257, atol=1)


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


@pytest.mark.parametrize(("make", "words"), [
    (lambda path: None, "no such file"),
    (lambda path: path.write_text("hello"), "is not a PNG"),
    (lambda path: path.write_bytes(b""), "is not a PNG"),
    (lambda path: Image.new("RGB", (1, 1)).save(path), "1 x 1 px is too small"),
])
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
