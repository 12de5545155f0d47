"""The command `app`: a web page to draw on, with the photos found beside the drawing."""

import contextlib
import hashlib
import json
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

from filelock import FileLock

from sbirlib import data, panels, retrieval
from sbirlib.cli.models import load_model
from sbirlib.errors import InputError

SETTINGS = "SBIRLIB_APP"  # the variable by which the page's kernels know what to show
# The notebook, and how it is served: it loads nothing from elsewhere, no other site may ask for it by a name
# of its own, and kernels of pages that were closed end after ten minutes, if the browser did not say so.
PAGE = Path(__file__).parent / "page"


def app_command(run: Path, photos: Path, top: int = 10, port: int = 8866, browser: bool = True) -> int:
    """Open a web page to draw on, with the photos found beside the drawing; Ctrl-C ends it.

    Args:
        run: Folder that `train --out` wrote.
        photos: Any folder of photos, with the folders in it.
        top: How many photos to show.
        port: Where on this machine the page is: http://localhost:PORT; 0 takes any free one.
        browser: Open the page in the browser.
    """
    if top < 1:
        raise InputError(f"--top {top}: ask for at least one photo")
    if not retrieval.photos_in(photos)[0]:
        raise data.PairError(f"{photos}: no photos to search in")
    port = _free_port(port)
    load_model(run)  # the page loads it again, but here it is told what is wrong with it
    with tempfile.TemporaryDirectory(prefix="sbirlib-app-", ignore_cleanup_errors=True) as temporary:
        settings = {"run": run, "photos": photos, "top": top}
        settings |= {"kept": _kept(run, photos), "lock": Path(temporary, "lock")}
        os.environ[SETTINGS] = _json(settings)
        os.environ["PYTHONPATH"] = os.pathsep.join([str(PAGE.parents[2]), os.environ.get("PYTHONPATH", "")])
        print(f"The page is at http://localhost:{port}/ ; Ctrl-C ends it.", flush=True)
        _serve(f"--port={port}", *([] if browser else ["--no-browser"]))
    print("the page has ended")
    return 0


def draw_page() -> "panels.DrawPage":
    """The page, in the notebook that `app` shows. Raises InputError where no `app` has started it."""
    if SETTINGS not in os.environ:
        raise InputError("this notebook knows no photos: `python -m sbirlib app` shows it with yours")
    settings = json.loads(os.environ[SETTINGS])
    kept = Path(settings["kept"])

    def load(page: "panels.DrawPage") -> None:
        def count(done: int, total: int) -> None:
            page.tell(f"Looking at the photos: {done:,} of {total:,}.", done / total)

        page.tell("Reading the model.", 0.0)
        model = load_model(settings["run"])
        with FileLock(settings["lock"]):  # a second page waits for the first, and reads what that has kept
            folder = settings["photos"]
            gallery = retrieval.Gallery.from_folder(model, folder, on_fault="skip", kept=kept, tell=count)
            page.search_in(gallery)
            if os.access(kept.parent, os.W_OK) and (gallery.fresh or not kept.is_file()):
                gallery.save(kept)

    return panels.DrawPage(load, k=settings["top"])


def _json(values: Any) -> str:
    """Values for the page, which runs in another folder."""
    return json.dumps(values, default=lambda path: str(path.resolve()))


def _kept(run: Path, photos: Path) -> Path:
    """The file that keeps the gallery of these photos for this model: not among the photos, nor in the run,
    which another process may be writing."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "sbirlib")
    with contextlib.suppress(OSError):
        home.mkdir(parents=True, exist_ok=True)
    if not os.access(home, os.W_OK):
        print(f"{home} cannot be written: every page embeds all photos anew; set XDG_CACHE_HOME", flush=True)
    key = hashlib.sha256(_json([run, photos]).encode()).hexdigest()[:12]
    return home / f"{photos.resolve().name}-{key}.safetensors"


def _free_port(port: int) -> int:
    """This port, or any free one for 0. Raises InputError if another program has it."""
    if not 0 <= port < 65536:
        raise InputError(f"--port {port}: ports are numbers from 0 to 65535")
    try:
        with socket.create_server(("localhost", port)) as probe:
            return int(probe.getsockname()[1])
    except OSError as error:
        way = "end the app or program that uses it, or choose another; --port 0 takes any free one"
        raise InputError(f"--port {port} cannot be used ({error.strerror}); {way}") from error


def _serve(*options: str) -> None:
    # A second to import, which no other command needs.
    from voila.app import Voila

    Voila.launch_instance([str(PAGE / "draw.ipynb"), *options], config_file_paths=[str(PAGE)])
