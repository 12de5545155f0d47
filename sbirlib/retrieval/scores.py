"""How well a model finds the photo of each sketch: ranks, Acc@K and their intervals."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np

from sbirlib.config.config import DataConfig
from sbirlib.data import LoadedSplit, PairFolder, load_split
from sbirlib.methods.base import Method
from sbirlib.retrieval.adapted import adapted_measures, adapted_ranks
from sbirlib.retrieval.drawn import drawn_measures, drawn_ranks
from sbirlib.retrieval.intervals import KS, Accuracy, accuracy_at
from sbirlib.retrieval.noise import cleaned, noise_measures
from sbirlib.retrieval.search import embed_split, score_all, true_ranks

# What a method's own measures are told in.
OWN = {
    "drawn": "while being drawn, in {steps} steps: m@A {m@A:.1f} %, m@B {m@B:.1f} %",
    "adapted": "adapting to designers by {shown} pairs, {queries} other sketches: Acc@1 {acc@1[0]:.1f}, then "
    "{acc@1[1]:.1f} %, Acc@5 {acc@5[0]:.1f}, then {acc@5[1]:.1f} %",
    "noise": "with {strokes} foreign strokes in each sketch: Acc@1 {acc@1:.1f} %, and {acc@1_kept:.1f} % "
    "without {dropped_foreign:.1f} % of these and {dropped_own:.1f} % of its own, which the model drops",
}


class Scores(NamedTuple):
    """What `evaluate` measured.

    `ranks` (q,) int64, 1 = found first; `order` (q, g) gallery rows from best to worst; `accuracy` by k;
    `designers` Acc@1 by designer; `skipped` files left out because of faults; `protocol` in words; `sketches`
    and `photos` (q,) the file name and the photo id of each query, where they are known; `own` what
    `drawn_measures`, `adapted_measures` and `noise_measures` find, if asked for.
    """

    ranks: np.ndarray
    order: np.ndarray
    accuracy: dict[int, Accuracy]
    designers: dict[str, Accuracy]
    median_rank: float
    mrr: float
    gallery: int
    skipped: int = 0
    protocol: str = ""
    sketches: tuple[str, ...] = ()
    photos: tuple[str, ...] = ()
    own: Mapping[str, dict[str, Any]] = MappingProxyType({})

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: acc@k, hits@k and ci95@k for k in 1, 5, 10, and the rest."""
        result: dict[str, Any] = {}
        for k, a in self.accuracy.items():
            result |= {f"acc@{k}": a.percent, f"hits@{k}": a.hits, f"ci95@{k}": [a.low, a.high]}
        designers = {
            name: {"acc@1": a.percent, "hits@1": a.hits, "queries": a.queries, "ci95@1": [a.low, a.high]}
            for name, a in self.designers.items()
        }
        result |= dict(self.own) | {"queries": len(self.ranks), "gallery": self.gallery}
        result |= {"median_rank": self.median_rank, "mrr": self.mrr, "designers": designers}
        return result | {"skipped": self.skipped, "protocol": self.protocol}

    def __str__(self) -> str:
        lines = [str(accuracy) for accuracy in self.accuracy.values()]
        found = f"median rank {self.median_rank:g}, mean reciprocal rank {self.mrr:.3f}"
        lines.append(f"{found}, {len(self.ranks)} sketches in a gallery of {self.gallery} photos")
        guesses = " / ".join(f"{100 * min(1, k / self.gallery):.1f}" for k in self.accuracy)
        lines.append(f"guessing would reach {guesses} %")
        if all(self.designers):  # sketches without a number have no designer
            lines += [f"designer {name}: {accuracy}" for name, accuracy in self.designers.items()]
        lines += [OWN[name].format_map(found) for name, found in self.own.items()]
        if self.skipped:
            lines.append(f"{self.skipped} files were left out because of faults")
        return "\n".join([*lines, self.protocol])


def score(similarity: np.ndarray, photo_index: np.ndarray, designers: Sequence[str] = ()) -> Scores:
    """Scores of a similarity matrix (q, g) whose query i shows gallery row `photo_index[i]`."""
    ranks, order = true_ranks(similarity, photo_index), np.argsort(-similarity, axis=1, kind="stable")
    accuracy = {k: accuracy_at(ranks, k) for k in KS}
    names = sorted(set(designers), key=lambda name: (len(name), name))  # by number
    accuracies = {name: accuracy_at(ranks[[d == name for d in designers]], 1) for name in names}
    median, mrr = float(np.median(ranks)), float((1 / ranks).mean())
    return Scores(ranks, order, accuracy, accuracies, median, mrr, similarity.shape[1])


def score_split(model: Method, data: LoadedSplit, *, batch: int = 128, protocol: str = "") -> Scores:
    """Searches the photos of a loaded split with its sketches, without the strokes that the model drops.

    `model` is in eval mode meanwhile.
    """
    if model.cleans:
        protocol += "; without the strokes that the model drops"
    data = cleaned(model, data)
    similarity = score_all(model.score, *embed_split(model, data, batch=batch)).numpy()
    queries = data.split.sketches
    scores = score(similarity, data.photo_index.numpy(), [query.designer for query in queries])
    names, photos = zip(*((query.path.name, query.photo_id) for query in queries), strict=True)
    return scores._replace(sketches=names, photos=photos, skipped=len(data.split.left_out), protocol=protocol)


def evaluate(
    model: Method, pairs: PairFolder | str | Path, split: str = "test", *,
    on_fault: Literal["stop", "skip"] = "stop", drawn: int = 0, adapted: int = 0, noise: int = 0,
) -> Scores:  # fmt: skip
    """Acc@1/5/10, ranks and counts of a trained model on one split of a folder.

    Runs where the model is, in fp32. With `drawn` steps, photos are also searched while each sketch is being
    drawn; with `adapted` pairs, also after showing the model so many pairs of each designer; with `noise`,
    also with so many foreign strokes in each sketch. Raises PairError if the folder has faults and `on_fault`
    is "stop", if its photos are edge maps and the model would make them so once more, or if there are no
    strokes, or too few sketches, for what is asked.
    """
    pairs = pairs if isinstance(pairs, PairFolder) else PairFolder(pairs)
    pairs.check_edges(model.photo_encoder.backbone.edges)
    config = DataConfig(root=str(pairs.root), fit=model.fit, on_fault=on_fault)
    data = load_split(pairs.split(split), config, model.image_size)
    but = f"but {len(data.split.overlooked)} overlooked ones " if data.split.overlooked else ""
    searched = f"{split} split, every sketch {but}against every photo"
    protocol = f"{searched}, ties counted against the model; {model.origin}"
    scores, own = score_split(model, data, protocol=protocol), {}
    if drawn > 0:
        own["drawn"] = drawn_measures(drawn_ranks(model, data, drawn), scores.gallery)
    if adapted > 0:
        own["adapted"] = adapted_measures(scores.ranks, adapted_ranks(model, data, adapted))
    if noise > 0:
        own["noise"] = noise_measures(model, data, noise)
    return scores._replace(own=own)
