"""Train, score and search with models for fine-grained sketch-based image retrieval."""

import io
import os
import sys
from collections.abc import Callable, Sequence

import tyro
from tyro.conf import OmitSubcommandPrefixes

from sbirlib.cli.data import data_command
from sbirlib.cli.draw import app_command
from sbirlib.cli.methods import bench_command, methods_command, weights_command
from sbirlib.cli.models import evaluate_command, picture_command, search_command
from sbirlib.cli.train import (
    ablate_from,
    compare_command,
    published_command,
    report_command,
    start_of,
    train_from,
)
from sbirlib.errors import InputError, printable


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code, 2 for bad input (with one message on stderr)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        # A file's name may have letters that this terminal lacks; a notebook's stream takes all.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        # Where the flags start from decides which there are, so it is read first.
        start = start_of(argv)
        commands: dict[str, Callable[..., int]] = {
            "data": data_command, "train": train_from(start), "evaluate": evaluate_command,
            "search": search_command, "app": app_command, "picture": picture_command,
            "report": report_command, "methods": methods_command, "weights": weights_command,
            "ablate": ablate_from(start), "compare": compare_command, "published": published_command,
            "bench": bench_command,
        }  # fmt: skip
        return tyro.extras.subcommand_cli_from_dict(
            commands,
            prog="python -m sbirlib",
            description=__doc__,
            args=argv,
            config=[OmitSubcommandPrefixes],
        )
    except BrokenPipeError:
        # Whatever read the output (`| head`) has seen enough; the exit must not write to it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (InputError, OSError) as error:
        print("\n".join(map(printable, f"error: {error}".split("\n"))), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; what was written stays", file=sys.stderr)
        return 130
