"""How far a step's gradient is from that of the whole batch in one process, for each way to split it.

`PYTHONPATH=tests python -m tools.gradients` prints the table as Markdown.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from tools.steps import EXACT, gradients, launch

from sbirlib import Config, PairFolder
from sbirlib.miniclothes.dataset import draw_miniclothes

WAYS = {"two processes": (2, 0), "four processes": (4, 0), "two processes, chunks of 3": (2, 3)}


def table(folder: Path) -> str:
    """The relative distances as a Markdown table."""
    pairs = PairFolder(draw_miniclothes(folder / "data", photos=(16, 8), sketches=(32, 16), size=64))
    config = Config.preset("mini_full").updated(
        {**EXACT, "data.root": str(pairs.root), "model.image_size": 48, "mstr.scales": (1, 2)}
    )
    rows = torch.arange(16)
    whole = gradients(config, pairs, rows, 0)[1]

    def distance(gradient: torch.Tensor) -> float:
        return ((gradient - whole).norm() / whole.norm()).item()

    found = {"one process, chunks of 5": distance(gradients(config, pairs, rows, 5)[1])}
    config.to_yaml(folder / "config.yaml")
    for name, (processes, chunk) in WAYS.items():
        launch(
            processes,
            str(Path(__file__).parent / "one_step.py"),
            str(folder / "config.yaml"),
            str(chunk),
            str(folder / "step.pt"),
        )
        found[name] = distance(torch.load(folder / "step.pt", weights_only=True)["gradient"])
    halves = sum(gradients(config, pairs, part, 0)[1] for part in rows.split(8)) / 2
    found["local negatives only: two halves, averaged"] = distance(halves)
    lines = ["| way | relative distance |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {value:.1e} |" for name, value in found.items())])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        print(table(Path(place)))
