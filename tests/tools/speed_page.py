"""Prints the tables of notebooks/reference/speed.md: `PYTHONPATH=tests python -m tools.speed_page`.

They are made of the files in notebooks/results/speed/, which `python -m sbirlib bench --json` wrote.
"""

import json
from pathlib import Path

from sbirlib.bench.run import HEAD, BenchRow

FOLDER = Path(__file__).parents[2] / "notebooks/results/speed"
COMMAND = "python -m sbirlib bench --json notebooks/results/speed"
# What each file was measured by.
COMMANDS = {"bf16": f"{COMMAND}/bf16.json", "avx2": f"PYTHONPATH=tests/tools/avx2 {COMMAND}/avx2.json"}


def markdown() -> str:
    """A table for each file, and under it where it was measured."""
    return "\n\n".join(map(table, COMMANDS))


def table(name: str) -> str:
    """The table of one file."""
    measured = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    rows, machine = (BenchRow(**row) for row in measured["rows"]), measured["machine"]
    where = (
        f"(Measured by `{COMMANDS[name]}` at commit {machine['commit'][:7]} on {machine['processor']}, "
        f"{machine['instructions']}, {machine['threads']} threads, torch "
        f"{machine['torch'].partition('+')[0]}.)"
    )
    return "\n".join([HEAD, *map(str, rows), "", where])


if __name__ == "__main__":
    print(markdown())
