"""The page to draw on, in a real browser: `python -m sbirlib app` as a person starts and uses it."""

import json
import re

import pytest
from tools.app import DESK, PHONE, captions, chromium, opened, running_app
from tools.browser import SCREENS, draw_stroke, expect, wait_for_ink

BODY = ((0.35, 0.2), (0.34, 0.85), (0.66, 0.85), (0.65, 0.2), (0.35, 0.2))
STRIPES = ((0.36, 0.4), (0.64, 0.45), (0.36, 0.5), (0.64, 0.55), (0.36, 0.6), (0.64, 0.65))


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def app(browser, run, clothes, tmp_path_factory):
    SCREENS.mkdir(parents=True, exist_ok=True)
    with running_app(run, clothes / "trainB", tmp_path_factory.mktemp("cache")) as app:
        yield app


@pytest.fixture(scope="module")
def page(browser, app):
    with opened(browser, app[0], DESK) as page:
        yield page


def until_other(page, before):
    """Waits for ten other captions than these, which come one by one; returns them."""
    page.wait_for_function(
        "before => { const now = [...document.querySelectorAll('.sbir-hit button')].map(b => b.innerText);"
        " return now.length === 10 && now.every(text => text) && JSON.stringify(now) !== before }",
        arg=json.dumps(before, separators=(",", ":"), ensure_ascii=False),
    )
    now, then = captions(page), []
    while now != then:
        page.wait_for_timeout(300)
        now, then = captions(page), now
    return now


def test_photos_change_while_one_draws_erases_and_undoes(page, app):
    canvas = page.locator(".sbir-canvas canvas")
    expect(page.get_by_text("16 photos")).to_be_visible()
    draw_stroke(canvas, BODY)
    first = until_other(page, [])
    assert len(first) == 10
    ink = wait_for_ink(canvas, ">", 300)
    draw_stroke(canvas, STRIPES)
    second = until_other(page, first)
    more = wait_for_ink(canvas, ">", ink)
    page.screenshot(path=SCREENS / "app_desk.png")
    page.get_by_role("button", name="Eraser").click()
    draw_stroke(canvas, ((0.3, 0.5), (0.7, 0.5)))
    third = until_other(page, second)
    wait_for_ink(canvas, "<", more)
    page.get_by_role("button", name="Eraser").click()
    page.get_by_role("button", name="Undo").click()
    assert until_other(page, third) == second
    page.get_by_role("button", name="Undo").click()
    assert until_other(page, second) == first
    page.get_by_role("button", name="Clear").click()
    wait_for_ink(canvas, "===", 0)
    expect(page.locator(".sbir-hit")).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    assert until_other(page, []) == first


def test_a_click_shows_a_photo_in_full_size_with_its_name(page):
    name = re.search(r"\S+\.png", captions(page)[2])[0]
    page.locator(".sbir-hit button").nth(2).click()
    large = page.locator(".sbir-full")
    expect(large).to_be_visible()
    expect(large).to_contain_text(name)
    box = large.bounding_box()
    assert (box["x"], box["y"], box["width"], box["height"]) == (0, 0, 1280, 860)
    page.screenshot(path=SCREENS / "app_full.png")
    large.locator("button").click()
    expect(large).to_be_hidden()


def test_rubbish_gets_a_message_and_a_sketch_is_searched(page, clothes, tmp_path):
    (tmp_path / "notes.png").write_text("no picture at all")
    before = captions(page)
    for file in (tmp_path / "notes.png", next((clothes / "testA").iterdir())):
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Upload").click()
        chooser.value.set_files(file)
        if file.name == "notes.png":
            expect(page.get_by_text("notes.png: is not a PNG")).to_be_visible()
            assert captions(page) == before
    until_other(page, before)
    expect(page.get_by_text("notes.png")).to_be_hidden()


def test_a_finger_draws_on_a_phone_beside_another_page(browser, app, page):
    with opened(browser, app[0], PHONE) as phone:
        expect(phone.get_by_text("16 photos")).to_be_visible()
        canvas = phone.locator(".sbir-canvas canvas")
        box = canvas.bounding_box()
        assert 330 < box["width"] == box["height"] < 390
        assert phone.evaluate("document.documentElement.scrollWidth") <= 390
        fingers = phone.context.new_cdp_session(phone)
        at = [{"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]} for x, y in BODY]
        fingers.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": at[:1]})
        for point in at[1:]:
            fingers.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
        fingers.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        until_other(phone, [])
        with phone.expect_download() as download:
            phone.get_by_text("Save these strokes").tap()
        drawing = json.loads(download.value.path().read_text())
        assert drawing["size"] == [320, 320]
        [stroke] = drawing["strokes"]
        assert stroke == [pytest.approx([320 * x, 320 * y], abs=2) for x, y in BODY]
        assert phone.locator(".sbir-hit").first.bounding_box()["y"] > box["y"] + box["height"]
        phone.screenshot(path=SCREENS / "app_phone.png")
        phone.locator(".sbir-hit button").first.tap()
        expect(phone.locator(".sbir-full")).to_be_visible()
        assert phone.locator(".sbir-full").bounding_box()["height"] == 844
        phone.screenshot(path=SCREENS / "app_phone_full.png")
