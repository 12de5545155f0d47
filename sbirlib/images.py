"""Read picture files: which formats, what is done about odd ones, and what is wrong with broken ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm.auto import tqdm

from sbirlib.fields import InputError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
# Pictures too, but not read: to pass them over in silence would lose them.
OTHER_EXTENSIONS = (".gif", ".tif", ".tiff", ".avif", ".heic", ".jfif", ".jp2", ".svg")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
MIN_SIDE = 8  # px: anything smaller carries no drawing

_T = TypeVar("_T")


class ImageError(InputError):
    """A picture file or folder that cannot be read; the message names it and says what to do."""


class Fault(NamedTuple):
    """One file that cannot be used: where, which kind of fault, and the detail."""

    path: Path
    kind: str
    detail: str


class ImageFacts(NamedTuple):
    """Pixel mode and size (width, height) of one image file."""

    path: Path
    mode: str
    size: tuple[int, int]


def faults_message(root: str | Path, faults: Iterable[Fault]) -> str:
    """The list of files that stops a run, and the two ways on."""
    faults = list(faults)
    files = "\n".join(f"  {fault.path}: {fault.kind}: {fault.detail}" for fault in faults)
    return (f"{root}: {len(faults)} files cannot be used:\n{files}\n"
            "Mend or remove them, or pass --data.on_fault skip to go on without them")


def read_image(path: str | Path) -> Image.Image:
    """The picture as RGB on white, turned as its EXIF says.

    Transparent pixels become white paper; 16-bit grey keeps its high byte. Raises ImageError that
    names the file if it is missing, not one of the known formats, damaged, or smaller than 8 x 8 px.
    """
    return _decode(Path(path))[0]


def read_all(read: Callable[[Path], _T], paths: Iterable[Path], what: str) -> tuple[list[_T], list[Fault]]:
    """`read` applied to every path on all cores; what raises ImageError is returned as a fault."""

    def attempt(path: Path) -> _T | Fault:
        try:
            return read(path)
        except ImageError as error:
            return Fault(path, "cannot be read", str(error).removeprefix(f"{path}: "))

    paths = list(paths)
    with ThreadPoolExecutor() as pool:
        results = list(tqdm(pool.map(attempt, paths), desc=what, total=len(paths), disable=None, leave=False))
    return ([r for r in results if not isinstance(r, Fault)], [r for r in results if isinstance(r, Fault)])


def inspect_image(path: str | Path) -> ImageFacts:
    """Mode and size of a picture that decodes to its end. Raises ImageError as `read_image` does."""
    return _decode(Path(path))[1]


def list_images(folder: Path) -> list[Path]:
    """The image files of a folder, sorted by name; hidden files are passed over. Raises ImageError."""
    return [path for path in _visible(folder) if path.suffix.lower() in EXTENSIONS and path.is_file()]


def list_unread(folder: Path) -> list[Fault]:
    """Pictures of other formats and links to nowhere, which `list_images` does not name."""
    other = [Fault(path, "cannot be read", f"save it as one of {', '.join(EXTENSIONS)}")
             for path in _visible(folder) if path.suffix.lower() in OTHER_EXTENSIONS]
    dead = [Fault(path, "cannot be read", "it links to a file that does not exist")
            for path in _visible(folder) if path.suffix.lower() in EXTENSIONS and not path.exists()]
    return other + dead


def _visible(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ImageError(f"{folder}: no such folder")
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _decode(path: Path) -> tuple[Image.Image, ImageFacts]:
    try:
        with Image.open(path, formats=FORMATS) as image:
            facts = ImageFacts(path, image.mode, image.size)
            if min(image.size) < MIN_SIDE:
                raise ImageError(f"{path}: {image.width} x {image.height} px is too small to search; "
                                f"at least {MIN_SIDE} x {MIN_SIDE} is needed")
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith(("I", "F")):
                # Pillow clips 16-bit grey at 255 instead of scaling it.
                image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
            if "A" in image.getbands() or "transparency" in image.info:
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
            return image.convert("RGB"), facts
    except ImageError:
        raise  # a ValueError too, but with its reason already
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise ImageError(f"{path}: is not a {', '.join(FORMATS)} image, whatever its name says; "
                        "save it again as PNG or JPEG") from None
    except (IsADirectoryError, PermissionError) as error:
        raise ImageError(f"{path}: {error.strerror}; a readable picture file is needed") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: is damaged ({error}); replace the file") from None
