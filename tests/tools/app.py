"""The page of `python -m sbirlib app` in a headless Chromium: started, driven and ended here."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tools.browser import ROOT, find_chromium, playwright

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

START_S, STOP_S, WAIT_MS = 120, 20, 90_000
DESK = {"viewport": {"width": 1280, "height": 860}}
PHONE = {
    "viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2,
}  # fmt: skip


@contextmanager
def running_app(run: Path, photos: Path, cache: Path) -> Iterator[tuple[str, list[str]]]:
    """The command, on a free port; gives its address and what it says, line by line as it comes."""
    words = ["app", "--run", str(run), "--photos", str(photos), "--port", "0", "--no-browser"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(cache)}
    with subprocess.Popen(
        [sys.executable, "-m", "sbirlib", *words], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as server:  # fmt: skip
        patience = threading.Timer(START_S, server.kill)
        patience.start()
        said: list[str] = []
        while not (found := re.search(r"http://localhost:\d+/", said[-1] if said else "")):
            line = server.stdout.readline()
            if not line:
                raise RuntimeError(f"the app did not start; it said: {said}")
            said.append(line)
        patience.cancel()
        reader = threading.Thread(target=lambda: said.extend(server.stdout), daemon=True)
        reader.start()
        try:
            yield found[0], said
        finally:
            server.send_signal(signal.SIGINT)
            patience = threading.Timer(STOP_S, server.kill)  # a shell's background jobs ignore Ctrl-C
            patience.start()
            server.wait()
            patience.cancel()
            reader.join(STOP_S)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser; skips a test where there is none."""
    import pytest

    program = find_chromium()
    if program is None:
        pytest.skip("needs a browser: apt-get install chromium")
    options = ["--no-sandbox", "--disable-dev-shm-usage"]
    with (
        playwright.sync_playwright() as api,
        api.chromium.launch(executable_path=program, args=options) as browser,
    ):
        yield browser


@contextmanager
def opened(browser: Browser, url: str, screen: dict) -> Iterator[Page]:
    """The page on such a screen, once its canvas is there."""
    with browser.new_context(**screen) as context:
        context.set_default_timeout(WAIT_MS)
        page = context.new_page()
        for _ in range(100):  # the address is printed just before the server listens
            try:
                page.goto(url)
                break
            except playwright.Error:
                page.wait_for_timeout(200)
        page.locator(".sbir-canvas canvas").wait_for()
        yield page


def captions(page: Page) -> list[str]:
    """Rank, similarity and file name of the photos shown."""
    return page.locator(".sbir-hit button").all_inner_texts()
