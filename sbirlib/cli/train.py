"""The commands that train, and those that read what training left: `report` and `compare`."""

import dataclasses
import shlex
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro
from tyro.conf import Positional, arg

from sbirlib import experiments, runs, training
from sbirlib.config import Config, MethodName
from sbirlib.errors import InputError, printable

# Commands whose flags take their defaults from a preset, and which one unless told otherwise.
FIRST_PRESETS = {"train": "mini", "ablate": "mini_full"}


class Start(NamedTuple):
    """Where the defaults of the other flags come from."""

    preset: str
    config: Config


def flags_of(config: Config) -> Any:
    """A dataclass with a field for the method and for each group that it uses, filled from `config`.

    `Config(**vars(flags))` is the configuration that such flags describe.
    """
    told = arg(help="Which paper's method: `python -m sbirlib methods` describes them.")
    kinds: dict[str, Any] = {"method": Annotated[MethodName, told]}
    kinds |= {name: type(getattr(config, name)) for name in config.groups}
    fields = [(name, kind, dataclasses.field(default=getattr(config, name))) for name, kind in kinds.items()]
    return dataclasses.make_dataclass("Flags", fields, frozen=True)()


def start_of(argv: Sequence[str]) -> Start:
    """The preset, method and run that these words ask for, and so the defaults of the other flags."""
    command = argv[0] if argv else ""
    if command not in FIRST_PRESETS:
        return Start("mini", Config.preset("mini"))
    first = FIRST_PRESETS[command]

    def asked(preset: str = first, method: str = "", out: Path = Path(), resume: bool = False) -> Start:
        if command == "train" and resume:
            config, _ = runs.Run(out).saved()
            roots = {name: config.flat()[name] for name in ("data.root", "data.unlabelled")}
            return Start(preset, config.updated({k: _found(v, out) for k, v in roots.items() if v}))
        config = Config.preset(preset)
        return Start(preset, config.updated({"method": method}) if method else config)

    words = [word for word in argv[1:] if word not in ("-h", "--help")]
    try:
        return tyro.cli(asked, args=words, return_unknown_args=True)[0]
    except InputError:
        if len(words) == len(argv) - 1:
            raise
        return Start(first, Config.preset(first))  # help has to do without what the other words ask for


def _found(root: str, out: Path) -> str:
    """A run's data folder as it is named from here, or from a folder above the run, where it began."""
    places = (place / root for place in (Path(), *out.resolve().parents))
    return str(next((place for place in places if place.is_dir()), root))


def train_from(start: Start) -> Callable[..., int]:
    """The `train` command with the values of `start` as defaults of its flags."""
    base = flags_of(start.config)

    def train_command(
        out: Path,
        config: Annotated[type(base), arg(name="")] = base,  # type: ignore[valid-type]  # known at run time
        preset: str = start.preset, overwrite: bool = False, resume: bool = False,
    ) -> int:  # fmt: skip
        """Train a model on the train split of a folder.

        Args:
            out: Folder for the run: last/ or best/, history.csv, and state/ to go on from.
            config: Hyper-parameters.
            preset: Where the defaults of all other flags come from: mini and mini_full (from scratch, minutes
                on a CPU), lite and lite_full (pretrained, for real drawings), basic and full (the paper's);
                the full ones with token recycling.
            overwrite: Replace the run that OUT already holds.
            resume: Go on with the run in OUT, with its own settings, as if it had never stopped.
        """
        run, settings, interrupted, stop = runs.Run(out), Config(**vars(config)), False, training.Stop()
        # A scheduler ends the job with SIGTERM: save a checkpoint.
        with training.handled(signal.SIGTERM, lambda *_: stop.ask(now=True)):
            root = settings.data.root
            if resume and not Path(root).is_dir():
                lost = f"{out} learns from {root}, which is not found from here"
                raise InputError(f"{lost}; name the folder by --data.root, wherever it is now")
            records = training.train(root, settings, out=out, overwrite=overwrite, resume=resume, stop=stop)
            epochs, first = settings.run.epochs, run.saved()[1] if resume else 1
            if first <= epochs:
                what = f"{settings.method} on {settings.model.backbone}"
                how = "going on with" if resume else "training"
                _tell(f"{how} {what}, epochs {first} to {epochs}, one line for each")
            try:
                for record in records:
                    _tell(record)
            except KeyboardInterrupt:
                interrupted = True
        if run.epochs >= epochs:
            _tell(f"The run is in {out}")
        else:
            again = f"`python -m sbirlib train --out {shlex.quote(str(out))} --resume` goes on from here"
            _tell(f"stopped; {again if run.checkpoints else 'there is no checkpoint to go on from'}")
        return 130 if interrupted else 0

    return train_command


def _tell(what: object) -> None:
    from accelerate import PartialState

    if PartialState().is_main_process:
        print(printable(str(what)), flush=True)


def report_command(run: Positional[Path]) -> int:
    """Print a run's report: result, settings, data, weights, versions.

    Args:
        run: Folder that `train --out` wrote.
    """
    print(runs.describe(run))
    return 0


def ablate_from(start: Start) -> Callable[..., int]:
    """The `ablate` command with the values of `start` as defaults of its flags."""
    base = flags_of(start.config)

    def ablate_command(
        out: Path,
        config: Annotated[type(base), arg(name="")] = base,  # type: ignore[valid-type]  # known at run time
        preset: str = start.preset, grid: experiments.GridName | None = None,
        vary: tuple[str, ...] = (), seeds: tuple[int, ...] = (0, 1, 2),
    ) -> int:  # fmt: skip
        """Train variants over seeds and compare them; a run that OUT already holds is not done again.

        Args:
            out: Folder for runs/, results.csv (one row per run) and ablation.png.
            config: Hyper-parameters of every variant.
            preset: Where the defaults of all other flags come from.
            grid: All methods and two baselines, or variants of ARNet; the others are compared with the first.
            vary: Instead of a grid: fields and their values, such as mstr.weight=0.1,0.5 (all combinations).
            seeds: Seeds of weights, data order, views and validation split.
        """
        settings = Config(**vars(config))
        variants = experiments.grid(grid, settings) if grid else experiments.vary(vary) if vary else []
        if (grid and vary) or not variants:
            raise InputError("name either --grid or --vary")
        # A scheduler ends the job with SIGTERM: as Ctrl-C does, it leaves a checkpoint.
        with training.handled(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT)):
            for row in experiments.ablate(settings, variants, seeds, out=out):
                seed = "not trained" if row.seed == experiments.UNTRAINED else f"seed {row.seed}"
                found = f"Acc@1 {row.score['acc@1']:.1f} % ({row.score['hits@1']}/{row.score['queries']})"
                print(f"{printable(row.variant)}, {seed}: {found}{experiments.warning([row])}", flush=True)
        print(experiments.summary(out))
        return 0

    return ablate_command


def compare_command(
    out: Positional[Path], first: Positional[str], second: Positional[str], k: int = 1
) -> int:
    """Paired bootstrap between two variants of an ablation, or two runs as variant@seed.

    Args:
        out: Folder that `ablate --out` wrote.
        first: What to compare with.
        second: What is compared.
        k: Acc@k is compared.
    """
    print(f"Acc@{k} of {second!r} less that of {first!r}: {experiments.compare(out, first, second, k)}")
    rows = experiments.read_rows(out)
    chosen = experiments.pick(rows, first) + experiments.pick(rows, second)
    for protocol in dict.fromkeys(row.score["protocol"] for row in chosen):
        print(printable(protocol))
    return 0
