"""The notebooks in a real browser: JupyterLab as `make lab` starts it, driven with mouse and keyboard."""

import csv
import re

import nbformat
import pytest
from tools.browser import (
    HAVE_PICTURES,
    SCREENS,
    WAIT_MS,
    cell,
    dials,
    drag,
    draw_stroke,
    errors,
    expect,
    find_chromium,
    panel,
    pictures,
    playwright,
    redrawn,
    report_failure,
    run_notebook,
    running_lab,
    wait_for_ink,
    wait_until_idle,
)
from tools.pages import FIGURES, FOLDER, NAMES, alt_text


@pytest.fixture(scope="module")
def chromium():
    program = find_chromium()
    if program is None:
        pytest.skip("needs a browser: apt-get install chromium")
    expect.set_options(timeout=WAIT_MS)
    with (
        playwright.sync_playwright() as api,
        api.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"]
        ) as browser,
    ):
        yield browser


@pytest.fixture(scope="module")
def lab(chromium, tmp_path_factory):
    with running_lab(tmp_path_factory.mktemp("lab")) as lab:
        yield lab


class Notebook:
    """What every notebook must do; the page of a class is opened and run once, for all its tests."""

    name: str

    @pytest.fixture(scope="class")
    def page(self, request, chromium, lab):
        with run_notebook(chromium, lab, request.cls.name) as page:
            yield page

    @pytest.fixture(autouse=True)
    def report(self, request, page, lab):
        failures = request.session.testsfailed
        yield
        if request.session.testsfailed > failures:
            report_failure(page, lab, self.name)

    def test_every_cell_runs_without_an_error(self, page):
        assert errors(page) == []
        prompts = page.locator(".jp-CodeCell .jp-InputPrompt").all_inner_texts()
        assert [prompt.strip() for prompt in prompts] == [
            f"[{number}]:" for number in range(1, len(prompts) + 1)
        ]

    def test_everything_is_shown(self, page):
        text = page.locator(".jp-Notebook").inner_text()
        assert "Error displaying widget" not in text
        assert "Loading widget" not in text
        # JupyterLab shows the first 50 outputs of a cell and hides the rest behind this button.
        assert page.get_by_text("Show more outputs").count() == 0

    def test_every_cell_with_a_picture_has_alt_text(self, page):
        cells = nbformat.read(FOLDER / f"{self.name}.ipynb", as_version=4).cells
        cells = [cell for cell in cells if cell.cell_type == "code"]
        shown = page.locator(".jp-Notebook .jp-CodeCell").evaluate_all(HAVE_PICTURES)
        assert sum(shown) > 0
        shows = zip(cells, shown, strict=True)
        assert [cell.source for cell, picture in shows if picture and not alt_text(cell)] == []

    def test_every_picture_is_visible_and_whole(self, page):
        shown = pictures(page)
        assert len(shown) >= FIGURES[self.name]
        for picture in shown:
            assert min(picture.width, picture.height, picture.shown_width, picture.shown_height) > 0
            assert picture.cut_off == 0


def found(page):
    """The photos that the draw panel has found, once they have settled after a step."""
    wait_until_idle(page)
    page.wait_for_timeout(500)
    return panel(page, "DrawPanel").locator(".sbir-hit button").all_inner_texts()


def press(page, name):
    panel(page, "DrawPanel").get_by_role("button", name=name).click()
    return found(page)


class TestStart(Notebook):
    name = "00_start"

    def test_photos_are_found_for_a_stroke_of_the_mouse(self, page):
        assert len(found(page)) == 10  # those of the sample
        assert press(page, "Clear") == []
        draw_stroke(page.locator(".sbir-canvas canvas").first, ((0.2, 0.3), (0.5, 0.8), (0.8, 0.3)))
        assert len(found(page)) == 10


class TestExplore(Notebook):
    name = "01_explore_data"

    def test_a_slider_redraws_the_views(self, page):
        views = dials(page, "show_views")
        with redrawn(views):
            assert drag(views, "rotation", 1.0) == 180
        with redrawn(views):
            assert drag(views, "rotation", 0.0) == 0

    def test_leafing_through_the_photos_and_their_sketches(self, page):
        pairs = dials(page, "show_pair")
        with redrawn(pairs):
            assert drag(pairs, "number", 1.0) > 0
        with redrawn(pairs):
            pairs.locator("select").select_option("3")


class TestTrain(Notebook):
    name = "02_train"

    def test_the_temperature_redraws_the_loss(self, page):
        example = dials(page, "show,")
        for share, temperature in ((1.0, 10), (0.0, 0.01)):
            with redrawn(example):
                assert drag(example, "temperature", share) == temperature

    def test_a_training_is_started_watched_and_stopped(self, page, lab):
        training = panel(page, "TrainPanel")
        train, stop = (training.get_by_role("button", name=name) for name in ("Train", "Stop"))
        status = training.locator(".widget-html").last
        expect(stop).to_be_disabled()
        epochs = training.get_by_label("epochs", exact=True).locator("visible=true")
        epochs.fill("400")
        epochs.press("Enter")
        train.click()
        expect(train).to_be_disabled()
        expect(status).to_contain_text(re.compile(r"epoch\s+\d+.*\(of 400\)"))
        # An epoch takes less than a look at the page.
        seen = re.search(r"epoch\s+(\d+)", status.inner_text())[1]
        with redrawn(training):
            expect(status).to_contain_text(re.compile(rf"epoch\s+(?!{seen}\b)\d+.*\(of 400\)"))
        stop.click()
        expect(status).to_contain_text("Stopped after epoch")
        expect(train).to_be_enabled()
        expect(stop).to_be_disabled()
        found = re.fullmatch(
            r"Stopped after epoch (\d+)\. The run is in \.\./(\S+)", status.inner_text().strip()
        )
        kept = lab.root / found[2]
        with (kept / "history.csv").open(newline="") as history:
            assert len(list(csv.DictReader(history))) == int(found[1])
        assert (kept / "last" / "model.safetensors").is_file()


class TestEvaluate(Notebook):
    name = "03_evaluate"

    def test_leafing_through_the_queries_and_the_failures(self, page):
        browser = panel(page, "RetrievalBrowser")
        counted = re.search(r"Acc@1 [\d.]+ % \((\d+)/(\d+)", cell(page, "print(scores)").inner_text())
        hits, queries = int(counted[1]), int(counted[2])
        failures, last = (
            browser.get_by_role("checkbox", name="failures only"),
            browser.locator(".noUi-handle"),
        )
        failures.uncheck()
        expect(last).to_have_attribute("aria-valuemax", f"{queries:.1f}")
        with redrawn(browser):
            assert drag(browser, "query", 1.0) == queries
        with redrawn(browser):
            failures.check()
        expect(last).to_have_attribute("aria-valuemax", f"{max(1, queries - hits):.1f}")


class TestAttention(Notebook):
    name = "04_attention_and_tokens"

    def test_another_patch_has_another_attention(self, page):
        explorer = dials(page, "show_attention")
        with redrawn(explorer):
            assert drag(explorer, "query", 1.0) > 1
        with redrawn(explorer):
            explorer.locator("select").filter(has_text="rollout").select_option("rollout")

    def test_tokens_are_discarded(self, page):
        discarded = dials(page, "show_discarded")
        with redrawn(discarded):
            assert 0 < drag(discarded, "percent", 0.1) < 50
        for choice in ("norm", "output"):
            with redrawn(discarded):
                discarded.locator("select").filter(has_text=choice).select_option(choice)


class TestPaperAndCode(Notebook):
    name = "05a_paper_and_code"


class TestPaperAndScores(Notebook):
    name = "05b_paper_and_scores"


class TestDraw(Notebook):
    name = "06_draw_and_search"
    # A shirt, as shares of the canvas: the body, two sleeves, stripes. Each changes much, so that even a
    # model that has hardly been trained sees another drawing.
    STROKES = (
        ((0.35, 0.2), (0.34, 0.85), (0.66, 0.85), (0.65, 0.2), (0.35, 0.2)),
        ((0.35, 0.2), (0.14, 0.65), (0.23, 0.7), (0.34, 0.45)),
        ((0.65, 0.2), (0.86, 0.65), (0.77, 0.7), (0.66, 0.45)),
        ((0.36, 0.4), (0.64, 0.45), (0.36, 0.5), (0.64, 0.55), (0.36, 0.6), (0.64, 0.65), (0.36, 0.7)),
    )

    def test_a_shirt_is_drawn_with_the_mouse(self, page):
        canvas = page.locator(".sbir-canvas canvas").first
        photos, ink = [press(page, "Clear")], [wait_for_ink(canvas, "===", 0)]
        for points in self.STROKES:
            draw_stroke(canvas, points)
            photos.append(found(page))
            ink.append(wait_for_ink(canvas, ">", ink[-1]))
        panel(page, "DrawPanel").screenshot(path=SCREENS / "06_drawn.png")
        assert len(set(map(tuple, photos))) == len(self.STROKES) + 1
        assert press(page, "Undo") == photos[-2]
        less = wait_for_ink(canvas, "<", ink[-1])
        assert press(page, "Clear") == photos[0] == []
        assert wait_for_ink(canvas, "===", 0) < less
        assert press(page, "Undo") == photos[-2]

    def test_a_picture_is_uploaded(self, page, lab):
        press(page, "Clear")
        sketch = next(lab.root.glob("data/*/testA/*.png"))
        with page.expect_file_chooser() as chooser:
            panel(page, "DrawPanel").get_by_role("button", name="Upload").click()
        chooser.value.set_files(sketch)
        assert len(found(page)) == 10


class TestReal(Notebook):
    name = "07_real_drawings"

    def test_a_dial_redraws_what_is_made_of_a_photo(self, page):
        drawings = dials(page, "show_drawings")
        with redrawn(drawings):
            assert drag(drawings, "pen", 1.0) == 1
        with redrawn(drawings):
            assert drag(drawings, "redrawn", 0.0) == 0


def test_every_notebook_with_panels_is_opened():
    without = {"08_methods_compared"}
    assert sorted({*(kind.name for kind in Notebook.__subclasses__()), *without}) == NAMES
