"""How long a training step of `mini_full` takes, by what makes it shorter.

`PYTHONPATH=tests python -m tools.recipe_steps` prints a line for each way: the median of a step, and that as
a share of the first way's. They take turns, four steps at a time.
"""

import statistics
import time
from pathlib import Path

from sbirlib import Config, PairFolder
from sbirlib.training.files import RunFiles
from sbirlib.training.trainer import Trainer

ROUNDS, STEPS = 6, 4
WAYS = {
    "second views in every step, dropout": {"mstr.dropout": 0.1, "loss.intra_every": 1},
    "without dropout": {"loss.intra_every": 1},
    "second views in every other step": {"mstr.dropout": 0.1},
    "both, as the preset is": {},
}


def main() -> None:
    """Prints the lines."""
    preset = Config.preset("mini_full").updated({"run.tracker": "none"})
    trainers = [
        Trainer(PairFolder(preset.data.root), RunFiles(Path(), preset.updated(way))) for way in WAYS.values()
    ]
    plans, times = [trainer.plan(1) for trainer in trainers], [[] for _ in trainers]
    for first in range(0, ROUNDS * STEPS, STEPS):
        for trainer, plan, taken in zip(trainers, plans, times, strict=True):
            trainer.model.train()
            started = time.perf_counter()
            for step in range(first, first + STEPS):
                trainer.step(plan, step)
            taken.append((time.perf_counter() - started) / STEPS)
    medians = [statistics.median(taken[1:]) for taken in times]  # the first round also warms up
    for name, median in zip(WAYS, medians, strict=True):
        print(f"{name}: {1e3 * median:.0f} ms, {median / medians[0]:.2f}")


if __name__ == "__main__":
    main()
