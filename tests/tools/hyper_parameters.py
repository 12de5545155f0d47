"""Prints the table of notebooks/reference/hyper-parameters.md: `python tests/tools/hyper_parameters.py`."""

from sbirlib.config import Config, Knob, knobs
from sbirlib.config.methods import GROUPS


def markdown_table() -> str:
    """Defaults, where presets differ, ranges, and what each field does."""
    presets = {name: Config.preset(name).flat() for name in ("mini_full", "lite_full")}
    head = ["field", "default", *presets, "range", "unit", "what it does"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    every: dict[str, Knob] = {}
    for method in GROUPS:
        for field in knobs(Config().updated({"method": method})):
            every.setdefault(field.name, field)
    for name, field in every.items():
        default = field.default
        values = [preset.get(name, default) for preset in presets.values()]
        own = ["" if value == default else f"`{value}`" for value in values]
        shown = '""' if default == "" else default
        row = [f"`{name}`", f"`{shown}`", *own, allowed(field), field.unit, field.help]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def allowed(field: Knob) -> str:
    """The allowed values, in words."""
    if field.choices:
        return " or ".join(map(str, field.choices))
    if field.kind is bool:
        return "true or false"
    if isinstance(field.default, tuple):
        return "numbers from 0.25 to 1" if "float" in str(field.kind) else "whole numbers from 1"
    return "" if field.low is None else f"{field.low:.7g} to {field.high:.10g}"


if __name__ == "__main__":
    print(markdown_table())
