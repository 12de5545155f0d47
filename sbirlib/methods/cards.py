"""What is known of each method without building it, and so without torch: its card."""

import warnings
from pathlib import Path
from typing import NamedTuple

import yaml

from sbirlib.config.config import Config
from sbirlib.data import PairError, PairFolder, read_recording


class Paper(NamedTuple):
    """Where a method was published."""

    title: str
    authors: str
    venue: str
    link: str
    source: str  # of its formulas


class Needs(NamedTuple):
    """What a method needs beyond pairs of a sketch and a photo; `check` refuses a folder that lacks it."""

    second_views: bool = False  # a second, augmented view of every picture
    sisters: int = 0  # that of a sketch from another sketch of the photo, where there is one; 2: a third one
    edges: bool = False  # photos as edge maps
    strokes: bool = False  # the strokes of every sketch, in drawing order
    unlabelled: bool = False  # photos without a sketch, if there are any
    designers: bool = False  # two of them, each with two sketches

    def lacking(self, pairs: PairFolder, config: Config) -> str:
        """What `pairs` or `config` lacks, in words; looks at names only, not at pictures."""
        from sbirlib.methods.recordings import WAYS, recorder  # takes seconds to import

        if self.edges and not (config.model.photo_edges or pairs.edge_maps):
            return "photos as edge maps: add --model.photo_edges"
        split = pairs.split("train")
        sketches = split.sketches
        if self.sisters > 1 and len({sketch.photo_id for sketch in sketches}) == len(sketches):
            return f"photos with two or three sketches; {pairs.root} has one sketch of each"
        if self.designers and (what := split.few_designers(2)):
            return f"{what} of {pairs.root}"
        bare = [sketch.path.name for sketch in sketches if self.strokes and recorder(sketch) is None]
        if not bare:
            return ""
        some = f"has none for {len(bare)} of {len(sketches)} sketches, such as {bare[0]}"
        found = some if len(bare) < len(sketches) else "holds only images"
        return f"the strokes of each sketch in drawing order; {pairs.root} {found}. {WAYS}"

    def check(self, name: str, pairs: PairFolder, config: Config) -> None:
        """Raises PairError for what is lacking or edge maps of edge maps, ImageError for damaged strokes."""
        pairs.check_edges(config.model.photo_edges)
        if what := self.lacking(pairs, config):
            raise PairError(f"method {name} needs {what}")
        files = [s.strokes for s in pairs.split("train").sketches if self.strokes and s.strokes]
        list(map(read_recording, files))  # or a damaged one would end the training half-way
        if self.unlabelled and not (pairs.split("train").unsketched or config.data.unlabelled):
            none = f"{pairs.root}/trainB has none, and data.unlabelled names no folder"
            wants = f"method {name} wants photos without a sketch"
            warnings.warn(f"{wants}: {none}; its terms over them are left out", stacklevel=2)


class Card(NamedTuple):
    """A method's paper, what it needs, and the names of its loss terms ("total" is what is minimised)."""

    paper: Paper
    needs: Needs
    terms: tuple[str, ...]


_CARDS = yaml.safe_load(Path(__file__).with_name("cards.yaml").read_text("utf-8"))
CARDS = {n: Card(Paper(**c["paper"]), Needs(**c["needs"]), tuple(c["terms"])) for n, c in _CARDS.items()}
