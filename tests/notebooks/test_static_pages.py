"""Pages that need no kernel and no network: those of `make demo`, and the site of `make book`."""

import os
import subprocess
import sys
from contextlib import contextmanager
from html.parser import HTMLParser
from urllib.parse import quote

import nbformat
import pytest
from tools.browser import find_chromium, playwright
from tools.pages import FIGURES, FOLDER, NAMES, alt_text

ROOT = FOLDER.parent
CONFIG = FOLDER / "_config"
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="


class Tags(HTMLParser):
    """The tags of a page that load or show something, with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag in ("script", "link", "img", "iframe"):
            self.found.append((tag, dict(attrs)))

    @property
    def pictures(self):
        return [attrs for tag, attrs in self.found if tag == "img"]

    @property
    def addresses(self):
        """What is loaded from outside; the address that a page gives itself is not."""
        loads = (a.get("src") or a.get("href") or "" for _, a in self.found if a.get("rel") != "canonical")
        return [address for address in loads if address.startswith(("http:", "https:", "//"))]


@contextmanager
def opened(path, query=""):
    """A page opened as a file, with no network, and the list of what it asks for from outside."""
    program = find_chromium()
    if program is None:
        pytest.skip("needs a browser: apt-get install chromium")
    asked = []

    def note(request):
        if not request.url.startswith(("file:", "data:")):
            asked.append(request.url)

    with (
        playwright.sync_playwright() as api,
        api.chromium.launch(executable_path=program, args=["--no-sandbox"]) as browser,
    ):
        page = browser.new_context(offline=True).new_page()
        page.on("request", note)
        page.goto(path.as_uri() + query)
        yield page, asked


@pytest.fixture(scope="module")
def static_page(tmp_path_factory):
    """A notebook that has been run, as `make demo` would write it."""
    figure = nbformat.v4.new_code_cell("figure", metadata={"mystnb": {"image": {"alt": 'a "dot" & no more'}}})
    figure.outputs = [
        nbformat.v4.new_output("display_data", {"image/png": DOT, "text/plain": "Dials: what is drawn"}),
        nbformat.v4.new_output("display_data", {"text/plain": "epochs: 100 %"}),
    ]
    text = nbformat.v4.new_markdown_cell("# One\n\nWith $\\tau$ above 0:\n\n$$L = -\\sum_i \\log p_i$$")
    folder = tmp_path_factory.mktemp("pages")
    nbformat.write(nbformat.v4.new_notebook(cells=[text, figure]), folder / "one.ipynb")
    command = ["-m", "nbconvert", "--log-level", "ERROR", "--to", "html", "--config"]
    subprocess.run([sys.executable, *command, CONFIG / "static_page.py", folder / "one.ipynb"], check=True)
    return folder / "one.html"


def test_make_demo_writes_such_pages():
    assert "--config notebooks/_config/static_page.py" in (ROOT / "Makefile").read_text()


def test_a_static_page_has_alt_text_and_loads_nothing(static_page):
    text = static_page.read_text(encoding="utf-8")
    tags = Tags(text)
    assert [picture["alt"] for picture in tags.pictures] == ['a "dot" & no more']
    assert tags.addresses == []
    assert "100 %" not in text, "a progress bar"


def test_a_static_page_shows_formulas_without_a_network(static_page):
    with opened(static_page) as (page, asked):
        page.locator("mjx-container svg").nth(1).wait_for()
        assert page.locator("mjx-container").count() == 2
        assert asked == []


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """The site, with all notebooks run on the small data set."""
    pytest.importorskip("myst_nb", reason="needs the site's tools: pip install -e '.[book]'")
    folder = tmp_path_factory.mktemp("book")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-c", CONFIG]
    command += ["-d", folder / "pages", "-D", f"nb_execution_cache_path={folder / 'executed'}"]
    subprocess.run([*command, ROOT, folder / "html"], env=os.environ | {"SBIR_FAST": "1"}, check=True)
    return folder / "html"


@pytest.mark.slow
def test_the_book_holds_every_page_and_loads_nothing(book):
    home = (book / "index.html").read_text(encoding="utf-8")
    pages = [*FOLDER.glob("*.ipynb"), *FOLDER.glob("*/*.md"), *FOLDER.glob("exercises/*.ipynb")]
    assert len(pages) > 20
    for page in pages:
        built = page.relative_to(ROOT).with_suffix(".html")
        assert (book / built).is_file()
        assert f'href="{quote(built.as_posix())}"' in home
    for path in book.rglob("*.html"):
        assert Tags(path.read_text(encoding="utf-8")).addresses == [], path


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_pictures_in_the_book_have_the_alt_text_of_their_cells(name, book):
    pictures = Tags((book / f"notebooks/{name}.html").read_text(encoding="utf-8")).pictures
    cells = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells
    assert len(pictures) >= FIGURES[name]
    assert {picture["alt"] for picture in pictures} <= set(map(alt_text, cells)) - {""}


@pytest.mark.slow
def test_the_book_shows_formulas_and_is_searched_as_a_folder_of_files(book):
    with opened(book / "notebooks/02_train.html") as (page, asked):
        page.locator("mjx-container svg").first.wait_for()
        assert asked == []
    with opened(book / "search.html", "?q=hard+negative") as (page, asked):
        assert "2_train.html" in page.locator("ul.search li a", has_text="Train").first.get_attribute("href")
        assert asked == []
