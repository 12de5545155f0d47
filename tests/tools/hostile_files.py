"""Files that no honest program writes, and honest ones to lay beside them; all made here, none stored."""

import io
import json
import os
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

PNG = b"\x89PNG\r\n\x1a\n"


def picture(extension="PNG", mode="RGB", size=(16, 16), shade=0, **options):
    """The bytes of a small picture."""
    data = io.BytesIO()
    Image.new(mode, size, (shade, 0, 0) if mode == "RGB" else shade).save(data, extension, **options)
    return data.getvalue()


def noise(extension="PNG", side=64):
    """The bytes of a picture that does not compress."""
    data = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(data, extension)
    return data.getvalue()


def animation(extension):
    """Three frames."""
    data, frames = io.BytesIO(), [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(data, extension, save_all=True, append_images=frames[1:])
    return data.getvalue()


def turned():
    """A photo of 32 x 16 px that says it was taken upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return picture("JPEG", size=(32, 16), exif=exif)


def palette():
    """A palette with an alpha for each colour."""
    data, image = io.BytesIO(), Image.new("P", (16, 16))
    image.putpalette([10, 20, 30, 200, 0, 0])
    image.save(data, "PNG", transparency=bytes([0, 255]))
    return data.getvalue()


def chunk(name, body):
    """One chunk of a PNG."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def claim(side):
    """A PNG of a few bytes that claims to be `side` x `side` px."""
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return PNG + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def text_bomb():
    """A PNG with a comment of 80 MB in 80 kB."""
    whole = picture()
    return whole[:33] + chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(80_000_000), 9)) + whole[33:]


def bad_checksum():
    """A PNG in whose header one bit is wrong."""
    whole = bytearray(picture())
    whole[30] ^= 1
    return bytes(whole)


def cut(path):
    """The file, less its second half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


class Touch:
    """Its pickle, once loaded, makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mknod, (str(self.path),)


def evil_pickle(path, mark):
    """A plain pickle that makes `mark`."""
    path.write_bytes(pickle.dumps({"img_model": Touch(mark), "skt_model": {}}))
    return path


def evil_checkpoint(path, mark):
    """A checkpoint of torch that makes `mark`."""
    torch.save({"img_model": Touch(mark), "skt_model": {}}, path)
    return path


def safetensors(path, header, body=b"", length=None):
    """A .safetensors with this header (a dict, or bytes), which may lie about the header's length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + body)
    return path


def matrix_bomb(sound):
    """A MAT-file of the same header whose one compressed element unpacks to 300 MiB."""
    packed = zlib.compress(bytes(300 * 2**20), 1)
    return sound[:128] + struct.pack("<II", 15, len(packed)) + packed


def laughs(depth):
    """YAML in which every line holds the one before ten times."""
    lines = ["a0: &a0 [lol]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, depth)]
    return "\n".join([*lines, f"data: *a{depth - 1}"])
