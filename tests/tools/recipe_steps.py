"""How long a training step of `mini_full` or `lite` takes, by what makes it shorter.

`PYTHONPATH=tests python -m tools.recipe_steps mini_full|lite [data.root=...]` prints a line for each way: the
median of a step, and that as a share of the first way's. They take turns, four steps at a time.
"""

import statistics
import sys
import time
from pathlib import Path

from sbirlib import Config, PairFolder
from sbirlib.training.files import RunFiles
from sbirlib.training.trainer import Trainer

ROUNDS, STEPS = 6, 4
LITE = {"model.freeze": 3, "model.pointwise_only": False, "run.sizes": ()}  # as the preset was
WAYS = {
    "mini_full": {
        "second views in every step, dropout": {"mstr.dropout": 0.1, "loss.intra_every": 1},
        "without dropout": {"loss.intra_every": 1},
        "second views in every other step": {"mstr.dropout": 0.1},
        "both, as the preset is": {},
    },
    "lite": {
        "three parts frozen, all else learns": LITE,
        "four parts frozen": LITE | {"model.freeze": 4},
        "three, and only pointwise convolutions learn": LITE | {"model.pointwise_only": True},
        "four, and only pointwise convolutions": {"run.sizes": ()},
        "the same at 0.8 of the size": {"run.sizes": (0.8,)},
        "the same at 0.6 of the size": {"run.sizes": (0.6,)},
    },
}


def main() -> None:
    """Prints the lines."""
    name, *changes = sys.argv[1:]
    preset = Config.preset(name).updated(dict(change.split("=") for change in changes))
    preset, ways = preset.updated({"run.tracker": "none"}), WAYS[name]
    trainers = [
        Trainer(PairFolder(preset.data.root), RunFiles(Path(), preset.updated(way))) for way in ways.values()
    ]
    plans, times = [trainer.plan(1) for trainer in trainers], [[] for _ in trainers]
    for first in range(0, ROUNDS * STEPS, STEPS):
        for trainer, plan, taken in zip(trainers, plans, times, strict=True):
            trainer.model.train()
            started = time.perf_counter()
            for step in range(first, first + STEPS):
                trainer.step(plan, step % trainer.steps)
            taken.append((time.perf_counter() - started) / STEPS)
    medians = [statistics.median(taken[1:]) for taken in times]  # the first round also warms up
    for name, median in zip(ways, medians, strict=True):
        print(f"{name}: {1e3 * median:.0f} ms, {median / medians[0]:.2f}")


if __name__ == "__main__":
    main()
