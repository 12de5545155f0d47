"""Frozen dataclasses that check their values, and the errors that a user can put right."""

from __future__ import annotations

import functools
import re
from typing import Any, NamedTuple

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass as validated_dataclass

from sbirlib.errors import ConfigError, brief

LIMITS = {"gt": "> {}", "ge": ">= {}", "lt": "< {}", "le": "<= {}"}


class Knob(NamedTuple):
    """One hyper-parameter as panels and tables need it; `low`/`high` are None where there is no limit."""

    name: str
    default: Any
    kind: Any
    unit: str
    low: float | None
    high: float | None
    choices: tuple | None
    help: str

    @property
    def range(self) -> str:
        """The allowed values, in words."""
        if self.choices:
            return " | ".join(map(str, self.choices))
        if self.kind is bool:
            return "true | false"
        if isinstance(self.default, tuple):
            return "whole numbers from 1"
        return "" if self.low is None else f"{self.low:.7g} to {self.high:.10g}"


def knob(default: Any, *, unit: str = "", **limits: Any) -> Any:
    """A field with its default, unit and limits (pydantic's `gt`, `ge`, `lt`, `le`)."""
    return Field(default=default, json_schema_extra={"unit": unit}, **limits)


def group(cls: type) -> type:
    """Makes `cls` a frozen dataclass that checks its values and explains what it refuses."""
    options = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
    cls = validated_dataclass(frozen=True, kw_only=True, config=options)(cls)
    checked_init = cls.__init__

    @functools.wraps(checked_init)
    def __init__(self: Any, /, **values: Any) -> None:
        try:
            checked_init(self, **values)
        except ValidationError as error:
            raise ConfigError(_explain(cls, error)) from None

    cls.__init__ = __init__
    return cls


def _explain(cls: type, error: ValidationError) -> str:
    """One line a fault: the field, the value, what is allowed."""
    lines = []
    for fault in error.errors():
        fields, path = cls.__pydantic_fields__, [str(part) for part in fault["loc"]]
        field = fields.get(path[0])
        for part in path[1:]:
            nested = getattr(field.annotation, "__pydantic_fields__", None) if field else None
            if nested is None:
                break
            fields, field = nested, nested.get(part)
        name = ".".join([_group_name(cls), *path]).lstrip(".")
        if fault["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            lines.append(f"unknown field {brief(name)}; known here: {', '.join(fields)}")
            continue
        rules = [
            LIMITS[sign].format(getattr(rule, sign))
            for rule in getattr(field, "metadata", ())
            for sign in LIMITS
            if hasattr(rule, sign)
        ]
        allowed = f" (allowed: {' and '.join(rules)})" if rules else ""
        lines.append(
            f"{name} = {brief(fault['input'])}: {fault['msg'][0].lower()}{fault['msg'][1:]}{allowed}"
        )
    return "; ".join(lines)


def _group_name(cls: type) -> str:
    """BSiameseConfig -> b_siamese; nothing for Config itself."""
    return re.sub(r"(?<=[A-Z])(?=[A-Z][a-z])", "_", cls.__name__.removesuffix("Config")).lower()
