"""From the end of a stroke to the photos found: `PYTHONPATH=tests python tests/tools/app_time.py RUN DIR`.

Draws twenty strokes in the page of `python -m sbirlib app` and prints the median and the 95th percentile of
the time in which the last of the photos and captions has changed, and the processor.
"""

import platform
import random
import sys
import tempfile
from pathlib import Path

import numpy as np
from tools.app import DESK, chromium, opened, running_app
from tools.browser import draw_stroke

WATCH = """() => {
  window.ended = window.changed = 0;
  const note = () => { window.changed = performance.now(); };
  document.addEventListener("mouseup", () => { window.ended = performance.now(); }, true);
  document.addEventListener("load", event => event.target.closest?.(".sbir-hits") && note(), true);
  new MutationObserver(note).observe(document.querySelector(".sbir-hits"),
    {subtree: true, childList: true, characterData: true});
}"""


def processor() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next(
        (line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor()
    )


def main(run: Path, photos: Path, strokes: int = 20) -> None:
    """Measures and prints."""
    chance, times = random.Random(0), []
    with (
        tempfile.TemporaryDirectory() as cache,
        chromium() as browser,
        running_app(run, photos, Path(cache)) as (url, said),
        opened(browser, url, DESK) as page,
    ):
        page.get_by_text("You can draw already").wait_for(state="hidden", timeout=600_000)
        page.evaluate(WATCH)
        for _ in range(strokes):
            points = [(chance.uniform(0.1, 0.9), chance.uniform(0.1, 0.9)) for _ in range(4)]
            draw_stroke(page.locator(".sbir-canvas canvas"), points)
            page.wait_for_timeout(1500)
            times.append(page.evaluate("window.changed - window.ended"))
        print(*said, sep="")
    median, late = np.percentile(times, [50, 95])
    print(f"{strokes} strokes: median {median:.0f} ms, 95th percentile {late:.0f} ms, on {processor()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
