"""What the tests of panels share."""

from sbirlib.panels.base import Panel

PNG = b"\x89PNG\r\n"


def picture_changes(panel: Panel, control, value) -> bool:
    before = bytes(panel.picture.value)
    control.value = value
    after = bytes(panel.picture.value)
    assert after.startswith(PNG)
    return after != before
