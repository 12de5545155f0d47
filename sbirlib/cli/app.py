"""The command line: `python -m sbirlib COMMAND`."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

import tyro
from tyro.conf import OmitSubcommandPrefixes

from sbirlib.cli.ablate import ablate_from, compare_command, published_command
from sbirlib.cli.data import data
from sbirlib.cli.models import bench_command, evaluate_command, picture_command, search_command
from sbirlib.cli.train import _base, report_command, train_from
from sbirlib.data.images import printable
from sbirlib.errors import InputError

# Commands whose flags take their defaults from a preset, and the one they start from.
_PRESET_COMMANDS = {"train": "mini", "ablate": "mini_full"}


def _preset(argv: Sequence[str]) -> str:
    """The preset that these words ask for."""
    command = argv[0] if argv else ""
    if command not in _PRESET_COMMANDS:
        return "mini"

    def preset_of(preset: str = _PRESET_COMMANDS[command]) -> str:
        return preset

    flags = [word for word in argv[1:] if word not in ("-h", "--help")]
    return tyro.cli(preset_of, args=flags, return_unknown_args=True)[0]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code, 2 for bad input (with one message on stderr)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        # A name of a file may have letters that this terminal has not; a notebook's stream takes all.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        # The preset decides the defaults of the other flags, so it is read first.
        preset = _preset(argv)
        commands = {
            "data": data,
            "train": train_from(preset, _base(argv, preset)),
            "evaluate": evaluate_command,
            "search": search_command,
            "picture": picture_command,
            "report": report_command,
            "ablate": ablate_from(preset),
            "compare": compare_command,
            "published": published_command,
            "bench": bench_command,
        }
        return tyro.extras.subcommand_cli_from_dict(
            commands,
            prog="python -m sbirlib",
            description=__doc__,
            args=argv,
            config=(OmitSubcommandPrefixes,),
        )
    except BrokenPipeError:
        # Whoever read the output (`| head`) has seen enough; the exit must not write to it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (InputError, OSError) as error:
        print("\n".join(map(printable, f"error: {error}".split("\n"))), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; what was written stays", file=sys.stderr)
        return 130
