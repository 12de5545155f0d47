"""The command `app`: a web page to draw on, with the photos found beside the drawing."""

import hashlib
import json
import os
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import nbformat
from tyro.conf import arg

from sbirlib.cli.models import ModelChoice
from sbirlib.data.pairs import PairError
from sbirlib.errors import InputError, first_line, printable
from sbirlib.methods.base import Method
from sbirlib.retrieval.gallery import Gallery, photos_in
from sbirlib.runs.atomic import write_text

if TYPE_CHECKING:
    from sbirlib.panels.app import DrawPage, Tell

SETTINGS = "SBIRLIB_APP"  # the variable by which the page's kernels know what to show
# The whole notebook; what it says first goes away when the page is there.
WAIT = '# Draw it, find its photo\n\n<p class="sbir-wait">The page is being made ready: some ten seconds.</p>'
CODE = "from sbirlib.cli import draw_page\n\ndraw_page()"
PACKAGE = Path(__file__).parents[1]
# The page needs nothing from other places, and no other site may ask for it under a name of its own.
WEB = {
    "allow_remote_access": False,
    "headers": {
        "Content-Security-Policy": "default-src 'self' data: blob: ws: 'unsafe-inline' 'unsafe-eval'; "
        "frame-ancestors 'self'"
    },
}
# Kernels of pages that were closed end after ten minutes, if the browser did not say so.
QUIET = ["--Voila.log_level=ERROR", "--MappingKernelManager.cull_interval=60"]
QUIET += ["--MappingKernelManager.cull_idle_timeout=600", "--progressive_rendering=True"]


def app_command(
    model: Annotated[ModelChoice, arg(name="")], photos: Path, top: int = 10, port: int = 8866,
    browser: bool = True, frame: bool = True,
    on_fault: Annotated[Literal["stop", "skip"], arg(name="data.on_fault")] = "skip",
) -> int:  # fmt: skip
    """Open a web page to draw on, with the photos found beside the drawing; Ctrl-C ends it.

    Args:
        model: Which model.
        photos: Any folder of photos, with the folders in it.
        top: How many photos to show.
        port: Where on this machine the page is: http://localhost:PORT; 0 takes any free one.
        browser: Open the page in the browser.
        frame: Centre and enlarge drawings before they are searched.
        on_fault: What to do about photos that cannot be read: leave them out, or stop with their list.
    """
    if top < 1:
        raise InputError(f"--top {top}: ask for at least one photo")
    if not photos_in(photos)[0]:
        raise PairError(f"{photos}: no photos to search in")
    port, chosen = _free_port(port), model.load()
    with tempfile.TemporaryDirectory(prefix="sbirlib-app-", ignore_cleanup_errors=True) as temporary:
        choice = {k: str(Path(v).resolve()) if isinstance(v, Path) else v for k, v in vars(model).items()}
        settings = {"model": choice, "photos": str(photos.resolve()), "on_fault": on_fault, "top": top}
        settings |= {"frame": frame, "state": str(Path(temporary, "state.json"))}
        os.environ[SETTINGS] = json.dumps(settings)
        os.environ["PYTHONPATH"] = os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])
        work = threading.Thread(target=_embed, args=(chosen, settings, Path(temporary)), daemon=True)
        work.start()
        print(f"The page is at http://localhost:{port}/ ; Ctrl-C ends it.", flush=True)
        _serve(_notebook(Path(temporary)), [f"--port={port}", *QUIET, *([] if browser else ["--no-browser"])])
    print("the page has ended")
    return 0


def draw_page() -> "DrawPage":
    """The page, in the notebook that `app` shows. Raises InputError where no `app` has started it."""
    from sbirlib.panels.app import DrawPage

    if SETTINGS not in os.environ:
        how = (
            "`python -m sbirlib app --run RUN --photos DIR` shows this notebook; by itself it knows no photos"
        )
        raise InputError(how)
    settings = json.loads(os.environ[SETTINGS])

    def load(tell: "Tell") -> Gallery:
        tell("Reading the model.", 0.0)
        paths, choice = ("run", "released", "weights"), dict[str, Any](settings["model"])
        choice |= {name: Path(choice[name]) for name in paths if choice[name]}
        model = ModelChoice(**choice).load()
        while not (state := _state(settings)).get("gallery"):
            if "error" in state:
                raise InputError(state["error"])
            _tell_count(tell, state.get("done", 0), state.get("total", 0))
            time.sleep(0.2)
        # Photos may have changed since the app was started.
        return _gallery(model, settings, Path(state["gallery"]), lambda *counts: _tell_count(tell, *counts))

    return DrawPage(load, k=settings["top"], frame=settings["frame"])


def _tell_count(tell: "Tell", done: int, total: int) -> None:
    tell(f"Looking at the photos: {done:,} of {total:,}.", done / max(1, total))


def _gallery(model: Method, settings: dict[str, Any], kept: Path, tell: Any) -> Gallery:
    return Gallery.from_folder(model, settings["photos"], on_fault=settings["on_fault"], kept=kept, tell=tell)


def _embed(model: Method, settings: dict[str, Any], temporary: Path) -> None:
    """Embeds the photos that are not in the gallery kept from before, tells the pages, and prints."""

    def say(**state: Any) -> None:
        write_text(settings["state"], json.dumps(state))

    try:
        kept = _cache(settings)
        gallery = _gallery(model, settings, kept, lambda done, total: say(done=done, total=total))
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            if gallery.fresh or not kept.is_file():
                gallery.save(kept)
            where = f"kept in {kept}"
        except (OSError, InputError) as error:
            kept = temporary / kept.name
            gallery.save(kept)
            where = f"kept until the app ends only: {first_line(error)}"
        for photo in gallery.left_out:
            print(printable(f"left out, because it cannot be read: {photo}"), flush=True)
        count = f"{len(gallery.paths)} photos, {gallery.fresh} of them newly embedded"
        print(printable(f"{count}; {where}"), flush=True)
        say(gallery=str(kept))
    except Exception as error:  # else the pages would wait for ever
        text = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        print("\n".join(map(printable, f"error: {text}".split("\n"))), file=sys.stderr, flush=True)
        say(error=text)


def _state(settings: dict[str, Any]) -> dict[str, Any]:
    try:
        return dict(json.loads(Path(settings["state"]).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}


def _cache(settings: dict[str, Any]) -> Path:
    """The file that keeps the gallery of these photos for this model: not among the photos, nor in the run,
    which another process may be writing."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    key = hashlib.sha256(json.dumps([settings["model"], settings["photos"]]).encode()).hexdigest()[:12]
    return home / "sbirlib" / f"{Path(settings['photos']).name}-{key}.safetensors"


def _free_port(port: int) -> int:
    """This port, or any free one for 0. Raises InputError if another program has it."""
    if not 0 <= port < 65536:
        raise InputError(f"--port {port}: ports are numbers from 0 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("localhost", port))
        except OSError as error:
            way = "end the app or program that uses it, or choose another; --port 0 takes any free one"
            raise InputError(f"--port {port} cannot be used ({error.strerror}); {way}") from error
        return int(probe.getsockname()[1])


def _notebook(temporary: Path) -> Path:
    """`notebooks/app/draw.ipynb` of a clone; an installed package has none beside it, and writes the same."""
    clone = PACKAGE.parent / "notebooks" / "app" / "draw.ipynb"
    if clone.is_file():
        return clone
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [nbformat.v4.new_markdown_cell(WAIT), nbformat.v4.new_code_cell(CODE)]
    metadata = {"title": "Draw and search", "kernelspec": spec}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=metadata)
    nbformat.write(notebook, temporary / clone.name)
    return temporary / clone.name


def _serve(notebook: Path, options: list[str]) -> None:
    # A second to import, which no other command needs.
    from voila.app import Voila

    Voila.launch_instance([str(notebook), *options], tornado_settings=WEB)
