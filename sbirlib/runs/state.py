"""Checkpoints to go on from: everything that decides how a run continues, checked before it is used.

Each is a folder `RUN/state/EPOCH-STEP` that appears under its name only when it is whole; the one
before it is removed only then. Nothing in it is executed when it is read.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from sbirlib.config.config import Config, differing_settings
from sbirlib.errors import first_line
from sbirlib.runs.atomic import RunError, replacing
from sbirlib.runs.model import WEIGHTS

TRAINER, CHECKSUMS = "trainer.pt", "checksums.json"
KEPT = 2  # the newest, and the one to fall back on if that is damaged
# Settings that change where, how fast or what is watched, but not what is learnt.
FREE = ("data.root", "data.ram_budget", "run.device", "run.eval_batch", "run.save_minutes", "run.tracker")


class CheckpointWarning(UserWarning):
    """A checkpoint could not be used, and an older one was."""


@dataclass
class Progress:
    """Where a run is: `step` steps of `epoch` (from 1) are done, with these loss `terms` (t,) each.

    `best` is the best validation (acc@1, mrr) so far, `rows` those of history.csv, `seconds` the time
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
) -> Path:
    """Writes a checkpoint into `folder` and removes all but the newest `KEPT`; returns its own folder.

    `rest` holds tensors, numbers and strings in any nesting: optimiser, schedule, random numbers.
    Raises RunError if the disk refuses; older checkpoints are then still there.
    """
    place = folder / f"{progress.epoch:06d}-{progress.step:06d}"
    content = vars(progress) | {"terms": [term.cpu() for term in progress.terms]}
    with replacing(place) as fresh:
        save_model(model, str(fresh / WEIGHTS), metadata={"config": config.as_yaml()})
        torch.save({"progress": content, "config": config.to_dict(), "rest": dict(rest)}, fresh / TRAINER)
        sums = {name: _sha256(fresh / name) for name in (WEIGHTS, TRAINER)}
        (fresh / CHECKSUMS).write_text(json.dumps(sums), encoding="utf-8")
    # Hidden ones are of a process that was killed while it wrote.
    for useless in (*checkpoints(folder)[:-KEPT], *folder.glob(".*")):
        shutil.rmtree(useless, ignore_errors=True)
    return place


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first."""
    return sorted(folder.glob("[0-9]*-[0-9]*"))


def load_state(folder: Path, config: Config, model: nn.Module) -> tuple[Progress, dict[str, Any]]:
    """Puts the newest whole checkpoint into `model`; returns where it was, and the `rest` of `save_state`.

    A damaged one is passed over with a CheckpointWarning. Raises RunError if none can be used, or if
    `config` differs in something that decides what is learnt; the message names it.
    """
    place, content, faults = _newest(folder)
    _check_config(place, Config.from_dict(content["config"]), config)
    load_model(model, str(place / WEIGHTS))
    if faults:
        warnings.warn(f"{'; '.join(faults)}; going on from {place}", CheckpointWarning, stacklevel=2)
    return Progress(**content["progress"]), content["rest"]


def saved_config(folder: Path) -> Config:
    """The configuration of the newest whole checkpoint in `folder`. Raises RunError if there is none."""
    return Config.from_dict(_newest(folder)[1]["config"])


def _newest(folder: Path) -> tuple[Path, dict[str, Any], list[str]]:
    """The newest whole checkpoint, its content, and what is wrong with newer ones."""
    faults: list[str] = []
    for place in reversed(checkpoints(folder)):
        try:
            content = _read(place)
            Config.from_dict(content["config"])
        except Exception as error:  # reading a damaged file can raise almost anything
            faults.append(f"{place} is damaged ({first_line(error)})")
        else:
            return place, content, faults
    raise RunError(
        f"{folder.parent} cannot be resumed: {'; '.join(faults) or 'it holds no checkpoint'}. Start anew: remove "
        "it, overwrite it (--overwrite), or choose another folder"
    )


def _read(folder: Path) -> dict[str, Any]:
    sums = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
    for name in (WEIGHTS, TRAINER):
        if _sha256(folder / name) != sums[name]:
            raise ValueError(f"{name} is not what was written")
    return torch.load(folder / TRAINER, map_location="cpu", weights_only=True)


def _check_config(place: Path, old: Config, new: Config) -> None:
    free = [*FREE, *(["run.epochs"] if old.optim.schedule == "constant" else [])]
    changed = [
        f"{name} was {before!r}, now {now!r}"
        for name, (before, now) in differing_settings([old, new]).items()
        if name not in free
    ]
    if changed:
        raise RunError(
            f"{place} was made with other settings: {'; '.join(changed)}. Resume with the old ones, or start "
            "another run"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def random_state(device: torch.device) -> dict[str, Tensor]:
    """What dropout draws from, on the CPU and on `device`, whichever kind it is."""
    state = {"cpu": torch.get_rng_state()}
    return state if device.type == "cpu" else state | {"device": getattr(torch, device.type).get_rng_state()}


def set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Goes back to where `random_state` was taken."""
    torch.set_rng_state(state["cpu"])
    if device.type != "cpu" and "device" in state:
        getattr(torch, device.type).set_rng_state(state["device"])
