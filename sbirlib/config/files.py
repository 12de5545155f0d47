"""YAML files, which may come from a stranger."""

from pathlib import Path
from typing import Any

import yaml

from sbirlib.errors import ConfigError

LIMIT = 2**18  # bytes


class _Loader(yaml.SafeLoader):
    """Without aliases: a few lines of them hold a billion values, or themselves."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ConfigError(f"*{self.peek_event().anchor} is an alias; write out what it stands for")
        return super().compose_node(parent, index)


def read_yaml(path: str | Path) -> Any:
    """What a YAML file of at most 256 KiB holds. Raises ConfigError that names the file, and OSError."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(LIMIT + 1)
        if len(text) > LIMIT:
            raise ConfigError("it is larger than 256 KiB, as no settings are")
        return yaml.load(text.decode("utf-8"), _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); correct it, or train again") from None
