"""Checkpoints to go on from: everything that decides how a run continues, checked before it is used.

Each is a folder `RUN/state/EPOCH-STEP` that appears under its name only when it is whole; only then is an
older one removed. Nothing in it is executed when it is read.
"""

import json
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sbirlib.config.config import Config, differing_settings
from sbirlib.errors import first_line
from sbirlib.methods.base import hidden_layers
from sbirlib.runs.atomic import RunError, replacing
from sbirlib.runs.model import read_weights, write_weights
from sbirlib.runs.records import CHECKSUMS, WEIGHTS, checkpoints, sha256

TRAINER = "trainer.pt"
KEPT = 2  # the newest, and one to fall back on if that is damaged
# Settings of where, how fast and what to watch, which do not change what is learnt.
FREE = ("data.root", "data.unlabelled", "run.device", "run.eval_batch", "run.save_minutes", "run.tracker")


class CheckpointWarning(UserWarning):
    """A checkpoint could not be used; an older one was."""


@dataclass
class Progress:
    """Where a run is: `step` steps of `epoch` (from 1) are done, each with its loss `terms` (t,).

    `best` is the best validation (acc@1, mrr) so far, `rows` are those of history.csv, `seconds` the time
    spent in this epoch.
    """

    epoch: int = 1
    step: int = 0
    terms: list[Tensor] = field(default_factory=list)
    best: tuple[float, float] = (-1.0, -1.0)
    rows: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0


def save_state(
    folder: Path, model: nn.Module, config: Config, progress: Progress, rest: Mapping[str, Any]
) -> None:
    """Writes a checkpoint into `folder` and removes all but the newest `KEPT`.

    `rest` holds tensors, numbers and strings in any nesting: optimiser, schedule. Raises
    RunError if it cannot be written; older checkpoints are then still there.
    """
    place = folder / f"{progress.epoch:06d}-{progress.step:06d}"
    content = {
        "progress": vars(progress) | {"terms": [term.cpu() for term in progress.terms]},
        "config": config.to_dict(),
        # Neither trained nor in the file of weights, but the run goes on with them.
        "hidden": [layer.state_dict() for layer in hidden_layers(model)],
        "rest": dict(rest),
    }
    with replacing(place) as fresh:
        write_weights(fresh / WEIGHTS, model)
        _save(content, fresh / TRAINER)
        sums = {name: sha256(fresh / name) for name in (WEIGHTS, TRAINER)}
        (fresh / CHECKSUMS).write_text(json.dumps(sums), encoding="utf-8")
    # Hidden ones were left by a process that was killed while it wrote.
    for useless in (*checkpoints(folder)[:-KEPT], *folder.glob(".*")):
        shutil.rmtree(useless, ignore_errors=True)


def load_state(folder: Path, config: Config, model: nn.Module) -> tuple[Progress, dict[str, Any]]:
    """Puts the newest whole checkpoint into `model`; returns its progress, and the `rest` of `save_state`.

    A damaged one is passed over with a CheckpointWarning. Raises RunError if none can be used, or if `config`
    differs in something that decides what is learnt; the message names it.
    """
    place, content, faults = newest(folder)
    _check_config(place, Config.from_dict(content["config"]), config)
    read_weights(place / WEIGHTS, model)
    for layer, weights in zip(hidden_layers(model), content["hidden"], strict=True):
        layer.load_state_dict(weights)
    if faults:
        warnings.warn(f"{'; '.join(faults)}; going on from {place}", CheckpointWarning, stacklevel=2)
    return Progress(**content["progress"]), content["rest"]


def _save(content: dict[str, Any], path: Path) -> None:
    try:
        with path.open("wb") as file:
            torch.save(content, file)
    except RuntimeError as error:
        # torch says only that bytes are missing; why is in the error before.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def newest(folder: Path) -> tuple[Path, dict[str, Any], list[str]]:
    """The newest whole checkpoint in `folder`, its content, and faults of newer ones. Raises RunError."""
    faults: list[str] = []
    for place in reversed(checkpoints(folder)):
        try:
            return place, _read(place), faults
        except MemoryError:
            raise
        except Exception as error:  # reading a damaged file can raise almost anything
            faults.append(f"{place} is damaged ({first_line(error)})")
    advice = "Start again: remove it, overwrite it (--overwrite), or choose another folder"
    why = "; ".join(faults) or "it holds no checkpoint"
    raise RunError(f"{folder.parent} cannot be resumed: {why}. {advice}")


def _read(folder: Path) -> dict[str, Any]:
    sums = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
    for name in (WEIGHTS, TRAINER):
        if sha256(folder / name) != sums[name]:
            raise ValueError(f"{name} is not what was written")
    return torch.load(folder / TRAINER, map_location="cpu", weights_only=True)


def _check_config(place: Path, old: Config, new: Config) -> None:
    free = [*FREE, *(["run.epochs"] if old.optim.schedule == "constant" and not old.run.sizes else [])]
    found = differing_settings([old, new])
    # Another method has other settings throughout: its name says it all.
    found = {"method": found["method"]} if "method" in found else found
    changed = [f"{name} was {a!r}, now {b!r}" for name, (a, b) in found.items() if name not in free]
    if changed:
        advice = "Resume with the old ones, or start another run"
        raise RunError(f"{place} was made with other settings: {'; '.join(changed)}. {advice}")
