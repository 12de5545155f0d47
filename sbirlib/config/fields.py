"""Frozen dataclasses that check their values and explain what is wrong with them."""

import functools
from typing import Any, NamedTuple, TypeVar, dataclass_transform

from pydantic import ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_snake
from pydantic.dataclasses import dataclass as validated_dataclass

from sbirlib.errors import ConfigError, brief

LIMITS = {"gt": "> {}", "ge": ">= {}", "lt": "< {}", "le": "<= {}"}
T = TypeVar("T")


class Knob(NamedTuple):
    """One hyper-parameter as panels and tables need it; `low` and `high` are None where there is no limit."""

    name: str
    default: Any
    kind: Any
    unit: str
    low: float | None
    high: float | None
    choices: tuple[Any, ...] | None
    help: str


def knob(default: Any, *, unit: str = "", **limits: Any) -> Any:
    """A field with its default, unit and limits (pydantic's `gt`, `ge`, `lt`, `le`)."""
    return Field(default=default, json_schema_extra={"unit": unit}, **limits)


def limits_of(field: Any) -> dict[str, Any]:
    """The limits of a field by their names in pydantic, such as {"gt": 0, "le": 1}."""
    rules = getattr(field, "metadata", ())
    return {sign: getattr(rule, sign) for rule in rules for sign in LIMITS if hasattr(rule, sign)}


@dataclass_transform(frozen_default=True, kw_only_default=True)
def group(cls: type[T]) -> type[T]:
    """Makes `cls` a frozen dataclass that checks its values and says what is wrong with them."""
    options = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
    made: Any = validated_dataclass(frozen=True, kw_only=True, config=options)(cls)
    checked_init = made.__init__

    @functools.wraps(checked_init)
    def __init__(self: Any, /, **values: Any) -> None:
        try:
            checked_init(self, **values)
        except ValidationError as error:
            raise ConfigError(_explain(made, error)) from None

    made.__init__ = __init__
    return made


def _explain(cls: Any, error: ValidationError) -> str:
    """For each fault the field, its value, and what is allowed."""
    lines = []
    group_name = to_snake(cls.__name__.removesuffix("Config"))  # nothing for Config itself
    for fault in error.errors():
        nested, path = cls.__pydantic_fields__, [str(part) for part in fault["loc"]]
        for part in path:
            if nested is None:
                break
            fields, field = nested, nested.get(part)
            nested = getattr(getattr(field, "annotation", None), "__pydantic_fields__", None)
        name = ".".join([group_name, *path]).lstrip(".")
        if fault["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            lines.append(f"unknown field {brief(name)}; known here: {', '.join(fields)}")
            continue
        rules = [LIMITS[sign].format(limit) for sign, limit in limits_of(field).items()]
        allowed = f" (allowed: {' and '.join(rules)})" if rules else ""
        why = fault["msg"][0].lower() + fault["msg"][1:]
        lines.append(f"{name} = {brief(fault['input'])}: {why}{allowed}")
    return "; ".join(lines)
