"""Train, score and search with models for fine-grained sketch-based image retrieval."""

import ctypes
import io
import os
import sys
from collections.abc import Callable, Sequence

import tyro
from tyro.conf import OmitSubcommandPrefixes

# These import what takes seconds, such as torch, inside their commands: help must not wait for it.
from sbirlib.cli import draw, kit, models, train
from sbirlib.errors import InputError, printable


def keep_memory() -> None:
    """Freed memory stays with the process, as on a GPU: Linux clears each page before it gives it again."""
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):  # glibc's
        mallopt(-4, 0)  # M_MMAP_MAX of malloc.h
        mallopt(-1, -1)  # M_TRIM_THRESHOLD


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code, 2 for bad input (with one message on stderr)."""
    keep_memory()
    argv = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        # A file's name may have letters that this terminal lacks; a notebook's stream takes all.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        # Where the flags start from decides which there are, so it is read first.
        start = train.start_of(argv)
        commands: dict[str, Callable[..., int]] = {
            "data": kit.data_command, "train": train.train_from(start), "evaluate": models.evaluate_command,
            "embed": models.embed_command, "search": models.search_command, "app": draw.app_command,
            "report": train.report_command, "methods": kit.methods_command, "weights": kit.weights_command,
            "ablate": train.ablate_from(start), "compare": train.compare_command, "bench": kit.bench_command,
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
        print("stopped; what was finished stays", file=sys.stderr)
        return 130
