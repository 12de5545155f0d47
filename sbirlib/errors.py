"""The errors that a user can put right, and how much of an error a message shows."""

import reprlib
from pathlib import Path

# A message shows only the beginning of what was found: a few lines of YAML can hold a billion values.
_BEGINNING = reprlib.Repr()
_BEGINNING.maxstring, _BEGINNING.maxother, _BEGINNING.maxlevel = 80, 80, 2
brief = _BEGINNING.repr

NOT_UTF8 = "its name is not UTF-8; rename it (convmv -f latin1 -t utf8 --notest does that to many files)"


class InputError(ValueError):
    """Base of every error that a user can put right; the message names the file or value and the fix."""


class ConfigError(InputError):
    """A configuration value that is unknown or out of range; the message names field and range."""


class ImageError(InputError):
    """A picture file or folder that cannot be read; the message names it and says what to do."""


def printable(line: str) -> str:
    """A line with the names of unknown files, made safe to print: what would steer a terminal is escaped."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)


def check_utf8(path: str | Path) -> None:
    """Raises InputError for a path that is not UTF-8, which no text file, such as config.yaml, can hold."""
    if not is_utf8(str(path)):
        raise InputError(f"{path}: {NOT_UTF8}")


def is_utf8(name: str) -> bool:
    """Whether a name from the disk is UTF-8; where its bytes are not, Python puts surrogates."""
    return not any("\ud800" <= char <= "\udfff" for char in name)


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its kind where it has none."""
    if "weights_only" in str(error):
        # torch goes on to say how to run what is in the file.
        return "it holds more than tensors, which could run a program; it was not read"
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(":.") if lines else type(error).__name__
