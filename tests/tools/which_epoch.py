"""Trains with several seeds, and scores on the test split the best epoch, the last, and the last averaged.

`python tests/tools/which_epoch.py DATA [--preset mini_full] [--epochs 26] [--seeds 0 1 2]` prints a row of a
Markdown table for each seed, and the mean. The best epoch is the one that the held-out photos choose.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from sbirlib import Config, evaluate, load_run, train

AVERAGED = 5  # epochs


def scores(data: str, config: Config) -> dict[str, float]:
    """Acc@1 in percent on the test split, by which weights are taken."""
    epochs: list[dict[str, torch.Tensor]] = []
    with tempfile.TemporaryDirectory() as folder:
        for record in train(data, config.updated({"run.keep": "best"}), out=folder):
            epochs.append(load_run(folder, "last").state_dict())
            queries = record.queries
        model = load_run(folder, "last")
        found = {"held-out sketches": queries}
        found |= {
            which: evaluate(load_run(folder, which), data).accuracy[1].percent for which in ("best", "last")
        }
    last = epochs[-AVERAGED:]
    mean = {name: sum(epoch[name].double() for epoch in last) / len(last) for name in last[0]}
    model.load_state_dict({name: mean[name].to(value.dtype) for name, value in last[0].items()})
    return found | {f"mean of the last {AVERAGED}": evaluate(model, data).accuracy[1].percent}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--preset", default="mini_full")
    parser.add_argument("--epochs", type=int, default=26)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    words = parser.parse_args()
    config = Config.preset(words.preset).updated({"run.epochs": words.epochs, "run.tracker": "none"})
    config = config.updated({"mstr.dropout": 0.1, "loss.intra_every": 1})  # as the presets were
    rows = []
    for seed in words.seeds:
        rows.append(scores(str(words.data), config.updated({"run.seed": seed})))
        if len(rows) == 1:
            print("| seed | " + " | ".join(rows[0]) + " |\n" + "|---" * (len(rows[0]) + 1) + "|")
        print(f"| {seed} | " + " | ".join(f"{value:.1f}" for value in rows[-1].values()) + " |", flush=True)
    means = [sum(row[name] for row in rows) / len(rows) for name in rows[0]]
    print("| mean | " + " | ".join(f"{value:.1f}" for value in means) + " |")


if __name__ == "__main__":
    main()
