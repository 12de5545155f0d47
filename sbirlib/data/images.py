"""Read picture files: which formats, what is done about odd ones, and what is wrong with broken ones."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm.auto import tqdm

from sbirlib.data.recordings import RECORDINGS, read_recording
from sbirlib.errors import ImageError, printable

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
# Pictures too, but not read: to skip them in silence would lose them.
OTHER_EXTENSIONS = (".gif", ".tif", ".tiff", ".avif", ".heic", ".jfif", ".jp2", ".svg")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
SAVE_AS = f"save it as one of {', '.join(EXTENSIONS)}"
MIN_SIDE = 8  # px: anything smaller carries no drawing
# A few kilobytes can claim to be any size. More than almost every camera takes, and little enough to be
# decoded on all cores at once.
MAX_PIXELS = 64_000_000
_T = TypeVar("_T")


class Fault(NamedTuple):
    """One file that cannot be used: where it is, what kind of fault it has, and the detail."""

    path: Path
    kind: str
    detail: str


def faults_message(root: str | Path, faults: Iterable[Fault]) -> str:
    """The list of files that stops a run, and the two ways on."""
    files = [printable(f"  {fault.path}: {fault.kind}: {fault.detail}") for fault in faults]
    ways = "Repair or remove them, or pass --data.on_fault skip to leave them out"
    return "\n".join([f"{root}: {len(files)} files cannot be used:", *files, ways])


def read_image(path: str | Path) -> Image.Image:
    """The picture as RGB on white, turned upright as its EXIF data say; of a stroke file, all its strokes.

    Transparent pixels become white paper; 16-bit grey keeps its high byte; an animation gives its first
    frame. Raises ImageError that names the file if it is missing, not one of the known formats, damaged,
    smaller than 8 x 8 px or larger than 64 million pixels.
    """
    path = Path(path)
    if path.suffix.lower() in RECORDINGS:
        return read_recording(path).picture()
    limit = f"{MAX_PIXELS // 1_000_000} million pixels; save it smaller"
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            raise ImageError(_not_a_file(path))
        with Image.open(path, formats=FORMATS) as image:
            size = f"{image.width} x {image.height} px"
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(f"{size} is more than {limit}")
            if min(image.size) < MIN_SIDE:
                raise ImageError(f"{size} is too small to search; at least {MIN_SIDE} x {MIN_SIDE} is needed")
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith(("I", "F")):
                # Pillow clips 16-bit grey at 255 instead of scaling it.
                high = np.asarray(image).astype(np.uint32) >> 8
                image = Image.fromarray(high.clip(0, 255).astype(np.uint8))
            if "A" in image.getbands() or "transparency" in image.info:
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
            return image.convert("RGB")
    except ImageError as error:
        reason = str(error)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # a warning may be made an error
        reason = f"claims to have more than {limit}"
    except UnidentifiedImageError:
        other = f"is not a {', '.join(FORMATS)} image, whatever its name says; save it again as PNG or JPEG"
        reason = other if path.stat().st_size else "is empty (0 bytes); copy it again from where it came"
    except MemoryError:
        raise  # which says nothing about the file
    except Exception as error:  # decoders raise almost anything over a damaged picture
        reason = f"is damaged ({error}); replace the file"
        if isinstance(error, OSError) and error.errno:  # theirs have no number, the system's do
            reason = f"{error.strerror}; a readable picture file is needed"
    raise ImageError(f"{path}: {reason}")


def read_all(read: Callable[[Path], _T], paths: Iterable[Path], what: str) -> tuple[list[_T], list[Fault]]:
    """Applies `read` to every path, on all cores; where it raises ImageError, there is a fault instead.

    `what` is written before the progress bar; without it there is none.
    """

    def attempt(path: Path) -> _T | Fault:
        try:
            return read(path)
        except ImageError as error:
            return Fault(path, "cannot be read", str(error).removeprefix(f"{path}: "))

    paths = list(paths)
    pool = ThreadPoolExecutor()
    try:
        attempts = pool.map(attempt, paths)
        results = list(tqdm(attempts, desc=what, total=len(paths), disable=not what or None, leave=False))
    finally:
        pool.shutdown(cancel_futures=True)  # or Ctrl-C would wait for all of them
    return [r for r in results if not isinstance(r, Fault)], [r for r in results if isinstance(r, Fault)]


def list_visible(folder: Path) -> list[Path]:
    """What a folder holds but hidden files, sorted by name. Raises ImageError if it does not exist."""
    if not folder.is_dir():
        raise ImageError(f"{folder}: no such folder")
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def list_images(folder: Path, known: Sequence[str] = EXTENSIONS) -> list[Path]:
    """The image files of a folder, whose names end as `known`, as `list_visible` lists them."""
    return [path for path in list_visible(folder) if path.suffix.lower() in known and path.is_file()]


def list_unread(folder: Path, known: Sequence[str] = EXTENSIONS) -> list[Fault]:
    """What is named like a picture but not in `list_images`: other formats, dead links, folders, devices."""
    paths = list_visible(folder)
    unknown = set(OTHER_EXTENSIONS).difference(known)
    other = [(path, SAVE_AS) for path in paths if path.suffix.lower() in unknown]
    odd = [path for path in paths if path.suffix.lower() in known and not path.is_file()]
    return [Fault(path, "cannot be read", why) for path, why in other + [(p, _not_a_file(p)) for p in odd]]


def _not_a_file(path: Path) -> str:
    if path.is_dir():
        return "is a folder; a readable picture file is needed"
    if path.exists():
        return "is a pipe or device, not a file"
    return "links to a file that does not exist" if path.is_symlink() else "no such file"
