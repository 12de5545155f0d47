"""What the tests of panels share."""

from sbirlib.panels.base import Panel

PNG = b"\x89PNG\r\n"


def picture_changes(panel: Panel, control, value) -> bool:
    before = panel.png
    control.value = value
    assert panel.png.startswith(PNG)
    return panel.png != before
