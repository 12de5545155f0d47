"""How `make book` makes a site of the README, the notebooks and the pages beside them: Sphinx with MyST-NB.

A new notebook, page or folder in `notebooks/` is taken in without a line here. The site needs no server and
nothing from outside: MathJax and the index that is searched are in it.
"""

import hashlib
import os
import shutil
from importlib.resources import files
from pathlib import Path

from nbclient import NotebookClient
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
LEFT_OUT = ["notebooks/app", "notebooks/exercises/masters", "notebooks/solutions"]
BESIDE = ["data/README.md", "data/models/README.md", "outputs/README.md"]


def key() -> str:
    """A name for all that notebooks show but for their own code: where it changes, all run again."""
    hashed = hashlib.sha256(os.environ.get("SBIR_FAST", "").encode())
    for folder in ("sbirlib", "data/models", "notebooks/results"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                hashed.update(path.read_bytes())
    return hashed.hexdigest()[:16]


project, author, copyright = "sbirlib", "", ""
root_doc = "README"
include_patterns = ["README.md", *BESIDE, "notebooks/**"]
exclude_patterns = [*LEFT_OUT, "**/.ipynb_checkpoints"]
extensions = ["myst_nb", "sphinx.ext.mathjax"]
suppress_warnings = ["mystnb.mime_priority"]  # of progress bars

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "cache"
nb_execution_cache_path = str(ROOT / "outputs/.book" / key())
nb_execution_excludepatterns = ["notebooks/exercises/*"]  # the reader's part
nb_execution_timeout = 1800  # s for a cell; that of notebook 2 trains a model
nb_execution_raise_on_error = True
nb_merge_streams = True
# A page without a kernel shows a panel's picture instead of the panel, and leaves progress bars out.
nb_mime_priority_overrides = [
    ("html", "image/png", 0),
    ("html", "application/vnd.jupyter.widget-view+json", None),
    ("html", "text/plain", None),
]

html_theme = "sphinx_book_theme"
html_title = "sbirlib"
html_show_copyright = html_show_sphinx = html_copy_source = False
html_theme_options = {"use_download_button": False, "navbar_persistent": [], "footer_content_items": []}
html_static_path = ["book.css", str(files("mathjax") / "static/mathjax/es5/tex-svg.js")]
html_css_files = ["book.css"]
mathjax_path = "tex-svg.js"


def setup(app: Sphinx) -> None:
    """What no setting does."""
    # A kernel that nobody else can reach need not warn of listeners.
    NotebookClient.extra_arguments.default_args = (["--IPKernelApp.log_level=40"],)
    app.connect("source-read", add_contents)
    app.connect("doctree-read", forget_widgets)
    app.connect("build-finished", add_front_door)


def add_contents(app: Sphinx, page: str, source: list[str]) -> None:
    """Lists all pages on the home page, for the sidebar: notebooks first, then folder by folder."""
    if page != root_doc:
        return
    folders: dict[str, list[str]] = {}
    for name in sorted(app.env.found_docs - {root_doc}):
        place = name.split("/")[:-1]
        title = place[-1] if place[0] == "notebooks" else "files"
        folders.setdefault(title, []).append(name)
    for title in sorted(folders, key=lambda title: (title != "notebooks", title == "files", title)):
        lines = "\n".join(folders[title])
        source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {title.capitalize()}\n\n{lines}\n```\n"


def forget_widgets(app: Sphinx, doctree: object) -> None:
    """Leaves out what would draw widgets, which needs a kernel and scripts from outside."""
    app.env.nb_metadata.get(app.env.docname, {}).pop("js_files", None)


def add_front_door(app: Sphinx, failed: Exception | None) -> None:
    """Gives the home page the name that a web server, or a person in a folder of files, looks for."""
    if failed is None:
        shutil.copy(Path(app.outdir) / f"{root_doc}.html", Path(app.outdir) / "index.html")
