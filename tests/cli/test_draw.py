"""The command `app` up to its web server: what it hands to the page, and what it says when it cannot."""

import json
import os
import re
import socket

import pytest
from filelock import FileLock

import sbirlib.cli.draw as command
from sbirlib.cli.app import main
from sbirlib.cli.draw import draw_page
from sbirlib.errors import InputError


@pytest.fixture
def served(monkeypatch, tmp_path):
    """Voila's options, instead of being served; settings and cache are this test's own."""
    calls = []
    monkeypatch.setattr(command, "_serve", lambda *options: calls.append(options))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    monkeypatch.setenv(command.SETTINGS, "")
    return calls


def app(run, photos, *words):
    return main(["app", "--run", str(run), "--photos", str(photos), "--port", "0", *words])


def page():
    page = draw_page()
    page.thread.join(60)
    return page


def test_the_page_embeds_the_photos_and_keeps_them(run, clothes, served, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(run.parent)
    assert app(run.name, clothes / "testB", "--no-browser", "--top", "3") == 0
    [(_, window)] = served
    assert window == "--no-browser"
    assert "The page is at http://localhost:" in capsys.readouterr().out
    settings = json.loads(os.environ[command.SETTINGS])
    os.mkdir(os.path.dirname(settings["lock"]))  # which ended with the command
    monkeypatch.chdir(tmp_path)  # the page runs elsewhere
    with FileLock(settings["lock"]):
        waiting = draw_page()
        waiting.panel.stroke([(100, 100), (200, 200)])
        assert waiting.panel.hits == []
    waiting.thread.join(60)
    assert "8 photos" in waiting.news.value
    assert len(waiting.panel.hits) == 3
    [kept] = (tmp_path / "cache" / "sbirlib").glob("testB-*.safetensors")
    written = kept.stat().st_mtime_ns
    assert "8 photos" in page().news.value
    assert kept.stat().st_mtime_ns == written


def test_what_cannot_be_kept_is_told_and_searched_all_the_same(run, clothes, served, tmp_path, capsys):
    (tmp_path / "cache").write_text("a file, not a folder")
    assert app(run, clothes / "testB") == 0
    told = f"{tmp_path / 'cache' / 'sbirlib'} cannot be written: .* set XDG_CACHE_HOME"
    assert re.search(told, capsys.readouterr().out)
    settings = json.loads(os.environ[command.SETTINGS])
    os.mkdir(os.path.dirname(settings["lock"]))
    full = page()
    assert "8 photos" in full.news.value
    full.panel.stroke([(100, 100), (200, 200)])
    assert len(full.panel.hits) == 8


def test_a_port_in_use_is_named(run, clothes, served, capsys):
    with socket.socket() as other:
        other.bind(("localhost", 0))
        other.listen()
        port = other.getsockname()[1]
        assert app(run, clothes / "testB", "--port", str(port)) == 2
    assert f"--port {port} cannot be used (Address already in use" in capsys.readouterr().err
    assert app(run, clothes / "testB", "--port", "70000") == 2
    assert "ports are numbers from 0 to 65535" in capsys.readouterr().err
    assert served == []


def test_what_is_wrong_with_photos_and_run_is_told_before_a_page_opens(
    run, clothes, served, tmp_path, capsys
):
    (tmp_path / "empty").mkdir()
    cases = {
        "nowhere: no such folder": (run, tmp_path / "nowhere"),
        "empty: no photos to search in": (run, tmp_path / "empty"),
        f"{tmp_path / 'empty'}": (tmp_path / "empty", clothes / "testB"),
    }
    for message, (model, photos) in cases.items():
        assert app(model, photos) == 2
        assert message in capsys.readouterr().err
    assert app(run, clothes / "testB", "--top", "0") == 2
    assert served == []


def test_the_notebook_alone_says_how_it_is_shown(served, monkeypatch):
    monkeypatch.delenv(command.SETTINGS)
    with pytest.raises(InputError, match="python -m sbirlib app"):
        draw_page()
