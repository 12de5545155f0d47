"""The README's first picture, a hoodie drawn with the mouse in the page of `python -m sbirlib app`.

Run `PYTHONPATH=tests python tests/tools/app_picture.py`, with `data/MiniClothes` of `make demo`;
it writes `notebooks/figures/app.png`.
"""

import io
import tempfile
from pathlib import Path

from PIL import Image
from tools.app import DESK, chromium, opened, running_app
from tools.browser import draw_stroke

# As drawn by eye: shares of the canvas.
HOODIE = [
    [(0.30, 0.36), (0.27, 0.45), (0.28, 0.60), (0.27, 0.74), (0.29, 0.86)],
    [(0.69, 0.35), (0.72, 0.46), (0.71, 0.60), (0.73, 0.75), (0.71, 0.86)],
    [(0.28, 0.86), (0.40, 0.875), (0.55, 0.87), (0.72, 0.86)],
    [(0.29, 0.80), (0.45, 0.815), (0.60, 0.81), (0.71, 0.80)],
    [(0.30, 0.36), (0.36, 0.31), (0.40, 0.29)],
    [(0.69, 0.35), (0.64, 0.31), (0.60, 0.28)],
    [(0.30, 0.36), (0.22, 0.48), (0.14, 0.64), (0.08, 0.74)],
    [(0.08, 0.74), (0.16, 0.79)],
    [(0.16, 0.79), (0.22, 0.68), (0.28, 0.57)],
    [(0.69, 0.35), (0.78, 0.47), (0.86, 0.63), (0.92, 0.73)],
    [(0.92, 0.73), (0.84, 0.79)],
    [(0.84, 0.79), (0.78, 0.69), (0.72, 0.58)],
    [(0.11, 0.70), (0.19, 0.745)],
    [(0.89, 0.69), (0.81, 0.745)],
    [(0.40, 0.29), (0.37, 0.20), (0.41, 0.12), (0.50, 0.095), (0.59, 0.12), (0.63, 0.20), (0.60, 0.28)],
    [(0.43, 0.30), (0.42, 0.21), (0.45, 0.16), (0.50, 0.15), (0.56, 0.165), (0.585, 0.21), (0.57, 0.30)],
    [(0.40, 0.29), (0.45, 0.335), (0.50, 0.345), (0.56, 0.335), (0.60, 0.28)],
    [(0.36, 0.76), (0.37, 0.68), (0.42, 0.60), (0.58, 0.60), (0.63, 0.68), (0.645, 0.76), (0.36, 0.765)],
]


def main() -> None:
    """Draws and takes the picture."""
    run, photos = Path("data/models/mini_full"), Path("data/MiniClothes/trainB")
    with (
        tempfile.TemporaryDirectory() as cache,
        chromium() as browser,
        running_app(run, photos, Path(cache)) as (url, _said),
        opened(browser, url, DESK) as page,
    ):
        page.get_by_text("You can draw already").wait_for(state="hidden", timeout=600_000)
        for points in HOODIE:
            draw_stroke(page.locator(".sbir-canvas canvas"), points)
            page.wait_for_timeout(500)
        page.wait_for_timeout(3000)
        taken = page.screenshot(clip={"x": 0, "y": 20, "width": 1280, "height": 700})
    Image.open(io.BytesIO(taken)).quantize(256).save("notebooks/figures/app.png", optimize=True)


if __name__ == "__main__":
    main()
