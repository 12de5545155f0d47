"""JupyterLab and a headless Chromium for test_browser.py: started, driven and ended here."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install -e '.[test]'")
expect = playwright.expect

ROOT = Path(__file__).resolve().parents[2]
SCREENS = ROOT / "outputs" / "screens"
TOKEN = "only-for-this-test"
START_S, STOP_S = 90, 20
WAIT_MS, RUN_MS = 60_000, 240_000
WIDTH, HEIGHT, TALLEST = 1400, 1000, 16_000  # px; Chromium draws no taller picture
# Whole notebooks in the page, not only the cells in sight; and no question about news over them.
SETTINGS = {
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none", "scrollPastEnd": False},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}

ERROR = '.jp-Notebook [data-mime-type="application/vnd.jupyter.error"]'
STDERR = '.jp-Notebook [data-mime-type="application/vnd.jupyter.stderr"]'
# An error ends the run: the cells below it stay without a number.
RUN_IS_OVER = f"""() => {{
  const prompts = [...document.querySelectorAll(".jp-Notebook .jp-CodeCell .jp-InputPrompt")];
  const isNumbered = prompt => /^\\[\\d+\\]:$/.test(prompt.textContent.trim());
  const numbered = prompts.length > 0 && prompts.every(isNumbered);
  return numbered || document.querySelector('{ERROR}') !== null;
}}"""
DIGEST = """async image => {
  const bytes = await (await fetch(image.src)).arrayBuffer();
  const digest = await crypto.subtle.digest("SHA-256", bytes);
  return Array.from(new Uint8Array(digest), byte => byte.toString(16).padStart(2, "0")).join("");
}"""
IMAGES = """images => images.map(image => {
  const box = image.getBoundingClientRect(), cell = image.closest(".jp-Cell").getBoundingClientRect();
  return {width: image.naturalWidth, height: image.naturalHeight,
          shown_width: box.width, shown_height: box.height,
          cut_off: Math.max(0, Math.round(box.right - cell.right))};
})"""
HAVE_PICTURES = "cells => cells.map(cell => cell.querySelector('img, canvas') !== null)"
INK = """canvas => {
  const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return data.filter((value, i) => i % 4 === 0 && value < 128 && data[i + 3] > 128).length;
}"""
SCROLLER = ".jp-NotebookPanel:not(.lm-mod-hidden) .jp-WindowedPanel-outer"


class Lab(NamedTuple):
    """A running JupyterLab: its address, the folder it shows, and the file with what it says."""

    url: str
    root: Path
    log: Path


class Shown(NamedTuple):
    """A picture in the notebook, in px: its own size, its size on the page, and what the edge cuts off."""

    width: int
    height: int
    shown_width: float
    shown_height: float
    cut_off: int


def find_chromium() -> str | None:
    """A browser on the PATH that starts, or None; Ubuntu's chromium-browser without its snap does not."""
    for path in filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        if subprocess.run([path, "--version"], capture_output=True, check=False).returncode == 0:
            return path
    return None


def lab_command() -> list[str]:
    """What `make lab` runs according to the Makefile, with the Jupyter of the Python that runs the tests."""
    told = subprocess.run(
        ["make", "--no-print-directory", "-n", "lab"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    line = next(line for line in told.splitlines() if "jupyter lab" in line)
    program, *arguments = shlex.split(line)
    return [str(Path(sys.executable).with_name(Path(program).name)), *arguments]


@contextmanager
def running_lab(folder: Path) -> Iterator[Lab]:
    """JupyterLab on a copy of the notebooks in `folder`, with its own settings; ends with all its kernels."""
    root, config, runtime, log = (folder / name for name in ("root", "config", "runtime", "log.txt"))
    shutil.copytree(
        ROOT / "notebooks", root / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints")
    )
    shutil.copytree(ROOT / "data" / "models", root / "data" / "models")
    for name, settings in SETTINGS.items():
        path = config / "settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(settings))
    command = [*lab_command(), "--no-browser", "--ServerApp.port=0", f"--IdentityProvider.token={TOKEN}"]
    if os.geteuid() == 0:
        command.append("--allow-root")
    environment = os.environ | {
        "SBIR_FAST": "1",
        "JUPYTER_CONFIG_DIR": str(config),
        "JUPYTER_RUNTIME_DIR": str(runtime),
        "JUPYTERLAB_SETTINGS_DIR": str(config / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(config / "workspaces"),
        "IPYTHONDIR": str(folder / "ipython"),
    }
    # The command's folder is `.`: here the copy, so nothing is written into the checkout.
    with (
        log.open("w") as written,
        subprocess.Popen(
            command,
            cwd=root,
            env=environment,
            stdout=written,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as server,
    ):
        try:
            yield Lab(_address(server, runtime, log), root, log)
        finally:
            _end(server)


def _address(server: subprocess.Popen, runtime: Path, log: Path) -> str:
    """Where the server listens, from the file that it leaves once it does."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        for path in runtime.glob("jpserver-*.json"):
            if text := path.read_text():
                return json.loads(text)["url"]
        time.sleep(0.1)
    raise RuntimeError(
        f"JupyterLab did not start, at any rate not within {START_S} s; it said:\n{log.read_text()}"
    )


def _end(server: subprocess.Popen) -> None:
    """Asks the server to end, then ends what is left of its group.

    A kernel, which is in a group of its own, ends itself when its server is gone.
    """
    for kind in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, kind)
            server.wait(STOP_S)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


@contextmanager
def run_notebook(browser: Browser, lab: Lab, name: str) -> Iterator[Page]:
    """Opens a notebook, runs all its cells and takes a picture; ends its kernel.

    If that does not work, it leaves a picture of how far it came, and prints what page and server said.
    """
    said: list[str] = []
    with browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}) as context:
        context.set_default_timeout(WAIT_MS)
        page = context.new_page()
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error in the page: {error}"))
        try:
            page.goto(f"{lab.url}lab/tree/notebooks/{name}.ipynb?token={TOKEN}&reset")
            page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
            wait_until_idle(page)
            page.get_by_role("menuitem", name="Run", exact=True).click()
            page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
            page.wait_for_function(RUN_IS_OVER, timeout=RUN_MS)
            wait_until_idle(page)
            take_picture(page, name)
            yield page
        except BaseException:
            report_failure(page, lab, name)
            print(*said, sep="\n")
            raise
        finally:
            _end_kernels(page, lab)


def _end_kernels(page: Page, lab: Lab) -> None:
    headers = {"Authorization": f"token {TOKEN}"}
    for kernel in page.request.get(f"{lab.url}api/kernels", headers=headers).json():
        page.request.delete(f"{lab.url}api/kernels/{kernel['id']}", headers=headers)


def report_failure(page: Page, lab: Lab, name: str) -> None:
    """Leaves a picture of the window as it is, and prints the end of what the server said."""
    path = SCREENS / f"{name}_failed.png"
    page.screenshot(path=path)
    lines = lab.log.read_text().splitlines()[-40:]
    print(f"{path} shows the window. The end of what JupyterLab said:", *lines, sep="\n")


def wait_until_idle(page: Page) -> None:
    """Returns when the status bar says that the kernel is there and has nothing to do."""
    idle = page.locator("#jp-main-statusbar").get_by_text("| Idle")
    idle.wait_for()
    # The page keeps a slider's last value back until the kernel is idle; a click would overtake it.
    page.wait_for_timeout(250)
    idle.wait_for()


def take_picture(page: Page, name: str) -> Path:
    """The whole notebook as a picture: the window is made as tall as the notebook for a moment."""
    SCREENS.mkdir(parents=True, exist_ok=True)
    scroller, path = page.locator(SCROLLER), SCREENS / f"{name}.png"
    hidden = scroller.evaluate("scroller => scroller.scrollHeight - scroller.clientHeight")
    page.set_viewport_size({"width": WIDTH, "height": min(HEIGHT + hidden, TALLEST)})
    scroller.evaluate("scroller => scroller.scrollTo(0, 0)")
    page.wait_for_function("selector => document.querySelector(selector).scrollTop === 0", arg=SCROLLER)
    page.screenshot(path=path)
    page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
    return path


def errors(page: Page) -> list[str]:
    """The tracebacks in the notebook, and what else went to stderr and names an error."""
    quiet = [
        text for text in page.locator(STDERR).all_inner_texts() if "Error" in text or "Traceback" in text
    ]
    return page.locator(ERROR).all_inner_texts() + quiet


def pictures(page: Page) -> list[Shown]:
    """Every picture in the notebook, in panels and outside."""
    return [Shown(**image) for image in page.locator(".jp-Notebook img").evaluate_all(IMAGES)]


def cell(page: Page, text: str) -> Locator:
    """The code cells whose code or output has this text."""
    return page.locator(".jp-Notebook .jp-CodeCell").filter(has_text=text)


def panel(page: Page, kind: str) -> Locator:
    """The live panel that the first cell to call the class `kind` makes."""
    panels = (
        cell(page, f"{kind}(").locator(".jp-Cell-outputWrapper").filter(has=page.locator("img.widget-image"))
    )
    return panels.first


def dials(page: Page, name: str) -> Locator:
    """The panel of the cell that hands the function `name` to `Dials`."""
    return cell(page, f"Dials({name}").locator(".jp-Cell-outputWrapper")


@contextmanager
def redrawn(panel: Locator) -> Iterator[None]:
    """Waits until what is done inside has changed the panel's picture; fails if it does not."""
    image = panel.locator("img.widget-image").last
    image.scroll_into_view_if_needed()
    address, before = image.get_attribute("src"), digest(panel)
    yield
    expect(image).not_to_have_attribute("src", address)
    wait_until_idle(panel.page)
    assert digest(panel) != before, "the picture was sent again but is the same"


def digest(panel: Locator) -> str:
    """The SHA-256 of the bytes of the panel's picture, which is its last image."""
    return panel.locator("img.widget-image").last.evaluate(DIGEST)


def drag(panel: Locator, label: str, share: float) -> float:
    """Drags a slider to a share of its length with the mouse; returns what its readout then says."""
    page = panel.page
    slider = panel.locator(".widget-slider").filter(has=page.get_by_text(label, exact=True))
    slider.scroll_into_view_if_needed()
    handle, track = slider.locator(".noUi-handle").bounding_box(), slider.locator(".noUi-base").bounding_box()
    page.mouse.move(handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2)
    page.mouse.down()
    page.mouse.move(track["x"] + share * track["width"], track["y"] + track["height"] / 2, steps=2)
    page.mouse.up()
    return float(slider.locator(".widget-readout").inner_text())


def draw_stroke(canvas: Locator, points: Sequence[tuple[float, float]]) -> None:
    """Draws one line with the mouse; points are shares of the canvas's width and height."""
    canvas.scroll_into_view_if_needed()
    mouse, box = canvas.page.mouse, canvas.bounding_box()
    first, *others = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    mouse.move(*first)
    mouse.down()
    for point in others:
        mouse.move(*point, steps=5)
    mouse.up()


def wait_for_ink(canvas: Locator, relation: str, than: int) -> int:
    """Waits until the number of dark pixels on the canvas is `>`, `<` or `===` than a number; returns it."""
    arguments = [canvas.element_handle(), than]
    canvas.page.wait_for_function(f"([canvas, than]) => ({INK})(canvas) {relation} than", arg=arguments)
    return canvas.evaluate(INK)
