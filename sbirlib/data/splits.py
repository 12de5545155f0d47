"""One split of a folder: its sketches and photos, which belong together, and what is wrong with the rest."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sbirlib.data.images import Fault
from sbirlib.errors import InputError, first_line

NO_PHOTO = "sketch without a photo"


class PairError(InputError):
    """A data folder that cannot be used; the message names it and says what to do."""


class Photo(NamedTuple):
    """A photo file, its id (the file name without extension, in Unicode's composed form), and attributes."""

    path: Path
    id: str
    attributes: tuple[int, ...] = ()  # numbers of words, 0 where unknown


class Sketch(NamedTuple):
    """A sketch file, the id of its photo, and its designer (the number at the end of its name, or '').

    With `made` the file is the photo itself, of which a sketch is made. `strokes` is the file that tells how
    it was drawn, if there is one; `path` is the same where there is no picture.
    """

    path: Path
    photo_id: str
    designer: str
    made: bool = False
    strokes: Path | None = None


@dataclass(frozen=True)
class Split:
    """The usable pairs of one split, sorted by file name, and the faults of the rest.

    `photos` without a sketch take part in a gallery; in training nothing points at them.
    `overlooked` are sketches that the released code's file pattern does not match.
    """

    name: str
    sketches: tuple[Sketch, ...]
    photos: tuple[Photo, ...]
    faults: tuple[Fault, ...] = ()
    overlooked: tuple[Path, ...] = ()

    @property
    def photo_index(self) -> np.ndarray:
        """(sketches,) int64: the position in `photos` of each sketch's photo."""
        position = {photo.id: i for i, photo in enumerate(self.photos)}
        return np.array([position[sketch.photo_id] for sketch in self.sketches], dtype=np.int64)

    @property
    def real(self) -> "Split":
        """The split without the sketches that are made of its photos."""
        return replace(self, sketches=tuple(sketch for sketch in self.sketches if not sketch.made))

    @property
    def designers(self) -> list[str]:
        """The designers, sorted by number."""
        return sorted({sketch.designer for sketch in self.sketches}, key=lambda name: (len(name), name))

    def few_designers(self, count: int, whole: bool = False) -> str:
        """What is lacking unless two designers, or with `whole` all, have so many sketches; in words."""
        numbers = Counter(sketch.designer for sketch in self.sketches)
        enough = sum(number >= count for name, number in numbers.items() if name)
        if enough > 1 and not (whole and enough < len(numbers)):
            return ""
        found = ", ".join(f"{number} by {name or 'nobody'}" for name, number in numbers.most_common()[-3:])
        who = "the designer is the number after the last '_' of a sketch's name"
        return f"at least two designers with {count} sketches each; {who}; the {self.name} split has {found}"

    @property
    def unsketched(self) -> tuple[Path, ...]:
        """Photos that no usable sketch draws."""
        drawn = {sketch.photo_id for sketch in self.sketches}
        return tuple(photo.path for photo in self.photos if photo.id not in drawn)

    @property
    def sketched(self) -> "Split":
        """The split without the photos that no usable sketch draws."""
        unsketched = set(self.unsketched)
        return replace(self, photos=tuple(photo for photo in self.photos if photo.path not in unsketched))

    @property
    def left_out(self) -> tuple[Fault, ...]:
        """Every file that would not be used: the faults, and in training photos without a sketch."""
        why = "training has nothing to match it with"
        unused = self.unsketched if self.name == "train" else ()
        return (*self.faults, *(Fault(path, "photo without a sketch", why) for path in unused))

    def described(self, table: Path) -> "Split":
        """With its photos' attributes by a CSV file: the column `photo`, their ids, and others. PairError."""
        import pandas as pd  # slow to import

        try:
            rows = pd.read_csv(table, dtype=str, keep_default_na=False, na_values=[""]).set_index("photo")
        except (OSError, ValueError, KeyError) as error:  # which name the row, or the column that is missing
            raise PairError(f"{table}: {first_line(error)}; loss.attributes above 0 reads it") from None
        if rows.shape[1] == 0:
            raise PairError(f"{table}, row 1: names no attributes beside the column photo")
        if wrong := {photo.id for photo in self.sketched.photos} - {*rows.index.drop_duplicates(keep=False)}:
            raise PairError(f"{table}, column photo: not once in it: {min(wrong)!r} ({len(wrong)} such)")
        numbers = rows[~rows.index.duplicated()].apply(lambda words: words.factorize(sort=True)[0] + 1)
        known = dict(zip(numbers.index, numbers.itertuples(index=False, name=None), strict=True))
        rest = (0,) * rows.shape[1]
        photos = tuple(photo._replace(attributes=known.get(photo.id, rest)) for photo in self.photos)
        return replace(self, photos=photos)

    def without(self, faults: Collection[Fault]) -> "Split":
        """The split without these files and the sketches of lost photos; all of them join `faults`."""
        rest = self.readable(faults)
        known = {photo.id for photo in rest.photos}
        lost = [s for s in rest.sketches if s.photo_id not in known]
        orphans = [Fault(s.path, NO_PHOTO, f"photo {s.photo_id!r} cannot be used") for s in lost]
        sketches = tuple(s for s in rest.sketches if s.photo_id in known)
        return replace(rest, sketches=sketches, faults=(*self.faults, *faults, *orphans))

    def readable(self, faults: Collection[Fault]) -> "Split":
        """The split without these files; sketches of lost photos stay."""
        lost = {fault.path for fault in faults}
        sketches = tuple(sketch for sketch in self.sketches if sketch.path not in lost)
        return replace(self, sketches=sketches, photos=tuple(p for p in self.photos if p.path not in lost))

    def holdout(self, fraction: float, seed: int) -> tuple["Split", "Split"]:
        """Two splits, (kept, held out), divided by photo: no photo, and so no sketch, is in both.

        `fraction` of the photos (rounded, at least one) is held out; 0 holds out nothing.
        """
        photos = self.sketched.photos
        count = max(1, round(fraction * len(photos))) if fraction > 0 else 0
        if count and len(photos) < 4:
            few = f"{len(photos)} photos are too few to hold some out for validation"
            raise PairError(f"{self.name}: {few}; add photos or set data.val_fraction to 0")
        held = {photos[i].id for i in np.random.default_rng([seed, 1]).permutation(len(photos))[:count]}

        def part(name: str, out: bool) -> Split:
            sketches = tuple(s for s in self.sketches if (s.photo_id in held) == out)
            return Split(name, sketches, tuple(p for p in photos if (p.id in held) == out))

        return part(self.name, out=False), part("validation", out=True)
