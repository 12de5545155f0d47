"""Panels for notebooks: controls above a picture, and the picture alone where no widgets run.

A panel only passes the values of its controls to functions of this package; whatever it shows, a
script can make without it. Every panel's picture is a PNG that is drawn anew when a control moves.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
from ipywidgets import Layout

from sbirlib.data.images import read_image
from sbirlib.figures.style import png_bytes

ALL = "all"
STYLE = {"description_width": "8.5em"}
WIDE = Layout(width="30em")


class Panel(ipywidgets.VBox):
    """Controls above a picture: each kind of panel has a `figure()`, which draws what its controls ask for."""

    def __init__(self, *rows: ipywidgets.Widget) -> None:
        self.picture = ipywidgets.Image(format="png", layout=Layout(max_width="100%", object_fit="contain"))
        super().__init__([*rows, self.picture], layout=Layout(align_items="flex-start"))
        self.refresh()

    @property
    def png(self) -> bytes:
        """The picture as it stands in the panel."""
        return bytes(self.picture.value)

    def refresh(self, _change: object = None) -> None:
        """Draws the picture again."""
        self.picture.value = png_bytes(self.figure())

    def follow(self, *controls: ipywidgets.Widget) -> None:
        """Redraws whenever one of these changes."""
        for control in controls:
            control.observe(self.refresh, "value")

    def _repr_mimebundle_(self, **options: Any) -> dict:
        # JupyterLab takes the live view; a static page takes the picture.
        return super()._repr_mimebundle_(**options) | {
            "text/plain": f"{type(self).__name__}: {(type(self).__doc__ or '').splitlines()[0]}",
            "image/png": base64.b64encode(self.png).decode(),
        }


def notice(text: str, *, alert: bool = False) -> str:
    """A line of text for a panel's status, as HTML; `alert` for what went wrong."""
    style = "white-space: pre-wrap; line-height: 1.4; " + (
        "color: #b00020; font-weight: bold" if alert else ""
    )
    return f'<div style="{style}">{html.escape(text)}</div>'


def _offer(control: ipywidgets.Dropdown, options: list[str]) -> None:
    """Changes the options; keeps the value where it is still one of them, else takes the first."""
    if list(control.options) != options:
        kept = control.value
        control.options = options
        control.value = kept if kept in options else next(iter(options), None)


def _read(paths: Iterable[Path]) -> list[np.ndarray]:
    return [np.asarray(read_image(path)) for path in paths]
