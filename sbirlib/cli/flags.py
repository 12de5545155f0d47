"""Flags made from the hyper-parameters, with defaults from the preset, method or run."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro
from tyro.conf import arg

from sbirlib.config.config import Config
from sbirlib.config.methods import MethodName
from sbirlib.errors import InputError
from sbirlib.runs.folder import Run

# Commands whose flags take their defaults from a preset, and which one unless told otherwise.
FIRST_PRESETS = {"train": "mini", "ablate": "mini_full"}


class Start(NamedTuple):
    """Where the defaults of the other flags come from."""

    preset: str
    config: Config


@dataclasses.dataclass(frozen=True)
class Flags:
    """Base of the classes that `flags_of` makes."""

    def config(self) -> Config:
        """The configuration that the flags describe."""
        return Config(**{field.name: getattr(self, field.name) for field in dataclasses.fields(self)})


def flags_of(config: Config) -> Any:
    """A dataclass with a field for the method and for each group that it uses, filled from `config`."""
    told = arg(help="Which paper's method: `python -m sbirlib methods` describes them.")
    kinds: dict[str, Any] = {"method": Annotated[MethodName, told]}
    kinds |= {name: type(getattr(config, name)) for name in config.groups}
    fields = [(name, kind, dataclasses.field(default=getattr(config, name))) for name, kind in kinds.items()]
    return dataclasses.make_dataclass("Flags", fields, bases=(Flags,), frozen=True)()


def taking(command: Callable[..., int], flags: Any) -> Callable[..., int]:
    """The command, its parameter `config` of the type of these flags, which is only known at run time."""
    command.__annotations__["config"] = Annotated[type(flags), arg(name="")]
    return command


def start_of(argv: Sequence[str]) -> Start:
    """The preset, method and run that these words ask for, and so the defaults of the other flags."""
    command = argv[0] if argv else ""
    if command not in FIRST_PRESETS:
        return Start("mini", Config.preset("mini"))

    first = FIRST_PRESETS[command]

    def asked(preset: str = first, method: str = "", out: Path = Path(), resume: bool = False) -> Start:
        if command == "train" and resume:
            config = Run(out).saved_config()
            return Start(preset, config.updated({"data.root": _found(config.data.root, out)}))
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
