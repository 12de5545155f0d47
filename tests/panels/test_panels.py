"""Panels: controls change the picture, a training starts, stops and fails in plain sight."""

import base64
import time

import numpy as np
import pytest
import torch
from ipywidgets import Checkbox, Dropdown, FloatsInput, FloatText, IntsInput, IntText, Text, fixed
from tools.panels import PNG, picture_changes

from sbirlib import Config, Gallery, evaluate, load_run
from sbirlib.config.config import knobs
from sbirlib.data import load_split
from sbirlib.errors import ConfigError
from sbirlib.figures import message
from sbirlib.methods import build
from sbirlib.miniclothes.dataset import near_twins
from sbirlib.panels.base import Dials
from sbirlib.panels.data import demo_config
from sbirlib.panels.draw import DrawPanel
from sbirlib.panels.model import RetrievalBrowser
from sbirlib.panels.training import TrainPanel, load_or_train


@pytest.fixture
def train_panel(pairs, tiny, tmp_path):
    panel = TrainPanel(pairs, tiny, tmp_path / "runs")
    yield panel
    panel.stop()
    if panel.running:
        panel._thread.join(60)


@pytest.fixture(scope="module")
def searched(pairs, run):
    """A model, the loaded test split, and its scores."""
    model = load_run(run)
    return model, load_split(pairs.split("test"), model.config.data, model.image_size), evaluate(model, pairs)


def test_a_panel_carries_its_picture_for_pages_without_widgets(searched):
    panel = RetrievalBrowser(*searched)
    bundle = panel._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"]) == panel.png
    assert panel.png.startswith(PNG)
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert bundle["text/plain"].startswith("RetrievalBrowser: A query sketch")


def test_dials_draw_with_the_values_of_their_controls():
    def draw(number, fixed_text, colour="red"):
        drawn.append((number, fixed_text, colour))
        return message(f"{number} {colour}")

    drawn: list[tuple] = []
    panel = Dials(draw, number=(0, 9), fixed_text=fixed("kept"), colour=["blue", "red"])
    number, colour, _ = panel.children
    assert drawn == [(4, "kept", "red")]
    assert panel._repr_mimebundle_()["image/png"]
    assert picture_changes(panel, number, 7)
    assert picture_changes(panel, colour, "blue")
    assert drawn[-1] == (7, "kept", "blue")


def test_a_static_panel_says_below_its_picture_what_the_controls_are_set_to(monkeypatch):
    panel = Dials(lambda **_: message("drawn"), percent=(0, 90), rule=[("the nearest", 1), ("none", 2)])
    plain = panel.png
    panel.arguments[1].value = 2
    assert panel.png != plain, "the same figure, with another line below"
    monkeypatch.setattr("sbirlib.panels.base.png_bytes", lambda _, caption: caption.encode())
    assert panel.png == b"percent: 45    rule: none"


def test_train_panel_has_a_fitting_control_for_every_hyper_parameter(train_panel, tiny):
    assert list(train_panel.controls) == [knob.name for knob in knobs()]
    kinds = {int: IntText, float: FloatText, bool: Checkbox, str: Text}
    for knob in knobs(tiny):
        control = train_panel.controls[knob.name]
        several = {"mstr.scales": IntsInput, "run.sizes": FloatsInput}
        kind = Dropdown if knob.choices else several.get(knob.name) or kinds[knob.kind]
        assert isinstance(control, kind), knob.name
        assert control.tooltip == knob.help
    root = train_panel.config.data.root
    assert train_panel.config == tiny.updated({"data.root": root})
    assert train_panel.settings.titles == ("most used", "data", "model", "mstr", "loss", "optim", "run")


def test_train_panel_shows_a_changed_setting_before_the_first_epoch(train_panel):
    assert picture_changes(train_panel, train_panel.controls["run.epochs"], 7)
    assert train_panel.config.run.epochs == 7


def test_finish_trains_once_and_returns_the_run(train_panel, capsys):
    before = train_panel.png
    folder = train_panel.finish()
    assert folder.name == "run-01"
    assert train_panel.png != before
    assert len(train_panel.records) == 2
    assert capsys.readouterr().out.count("epoch ") == 2
    assert "Done after epoch 2" in train_panel.status.value
    assert load_run(folder).config.run.epochs == 2
    assert not train_panel.train_button.disabled
    assert train_panel.finish() == folder, "a second call must not train again"
    assert not (folder.parent / "run-02").exists()


def test_two_panels_started_together_train_in_folders_of_their_own(pairs, tiny, tmp_path):
    panels = [TrainPanel(pairs, tiny.updated({"run.seed": seed}), tmp_path / "runs") for seed in (0, 1)]
    for panel in panels:
        panel.start()
    assert sorted(panel.finish().name for panel in panels) == ["run-01", "run-02"]
    assert all(load_run(panel.folder) for panel in panels)


def test_stop_ends_the_training_and_leaves_a_loadable_run(train_panel):
    train_panel.controls["run.epochs"].value = 100
    train_panel.train_button.click()
    assert train_panel.running
    assert train_panel.train_button.disabled
    assert not train_panel.stop_button.disabled
    deadline = time.monotonic() + 60
    while not train_panel.records and time.monotonic() < deadline:
        time.sleep(0.02)
    train_panel.stop_button.click()
    folder = train_panel.finish()
    assert 1 <= len(train_panel.records) < 100
    assert "Stopped after epoch" in train_panel.status.value
    assert load_run(folder).image_size == 48
    assert train_panel.stop_button.disabled


def test_an_interrupt_while_waiting_acts_as_stop(train_panel, monkeypatch):
    train_panel.controls["run.epochs"].value = 100
    train_panel.start()
    join, interrupts = train_panel._thread.join, [KeyboardInterrupt]

    def interrupted_join(timeout=None):
        join(timeout)
        if train_panel.records and interrupts:
            raise interrupts.pop()

    monkeypatch.setattr(train_panel._thread, "join", interrupted_join)
    assert (train_panel.finish() / "last").is_dir()
    assert len(train_panel.records) < 100


def test_train_is_refused_while_a_training_runs_and_takes_a_new_folder_afterwards(train_panel):
    train_panel.controls["run.epochs"].value = 1
    train_panel.start()
    first = train_panel.folder
    train_panel.train_button.click()
    assert "Stop first" in train_panel.status.value
    assert train_panel.folder == first
    train_panel.finish()
    train_panel.start()
    assert train_panel.finish().name == "run-02"


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [("run.epochs", 0, "run.epochs = 0"), ("model.backbone", "no_such_net", "no_such_net")],
)
def test_errors_stand_in_the_panel_in_red_and_are_raised(train_panel, name, value, word):
    train_panel.controls[name].value = value
    with pytest.raises(ValueError, match=word):
        train_panel.finish()
    assert word in train_panel.status.value
    assert "#b00020" in train_panel.status.value
    assert not train_panel.train_button.disabled


def test_the_panel_works_again_after_an_error(train_panel):
    train_panel.controls["loss.temperature"].value = 0.0
    with pytest.raises(ConfigError):
        train_panel.finish()
    train_panel.controls["loss.temperature"].value = 0.07
    train_panel.train_button.click()
    assert (train_panel.finish() / "best").is_dir()


def test_retrieval_browser_names_the_rank_and_leafs_through_failures_and_designers(searched):
    model, data, scores = searched
    panel = RetrievalBrowser(model, data, scores)
    assert panel.query.max == len(scores.ranks)
    assert picture_changes(panel, panel.query, 4)
    texts = [text.get_text() for text in panel.figure().axes[0].texts]
    assert f"rank {scores.ranks[3]} of {scores.gallery}" in texts[0]
    assert sum(f"rank {scores.ranks[3]} true" in text for text in texts) == 1

    panel.failures.value = True
    assert panel.rows == np.flatnonzero(scores.ranks > 1).tolist()
    designer = panel.designer.options[1]
    panel.designer.value = designer
    assert {data.split.sketches[row].designer for row in panel.rows} <= {designer}


def test_retrieval_browser_adds_the_true_photo_where_it_is_not_among_the_first(searched):
    model, data, scores = searched
    panel = RetrievalBrowser(model, data, scores, k=2)
    panel.query.value = 1 + int(np.flatnonzero(scores.ranks > 2)[0])
    titles = [text.get_text() for text in panel.figure().axes[0].texts][2:]
    assert len(titles) == 3
    assert "true" in titles[2]


def test_retrieval_browser_says_so_where_no_query_is_left(searched):
    model, data, scores = searched
    panel = RetrievalBrowser(model, data, scores._replace(ranks=np.ones_like(scores.ranks)))
    assert picture_changes(panel, panel.failures, True)


def test_panels_show_the_scores_of_a_method_that_compares_pairs(pairs, tiny):
    torch.manual_seed(0)
    model = build(tiny.updated({"method": "part_sbir"})).eval()
    panel = DrawPanel(Gallery.from_folder(model, pairs.root / "testB"), k=3)
    panel.stroke([(80, 60), (240, 60), (240, 260), (80, 260)])
    assert 0 > panel.hits[0].similarity > panel.hits[1].similarity > panel.hits[2].similarity
    heading, *_ = (text.get_text() for text in panel.figure().axes[0].texts)
    assert heading == "the 3 most similar of 8 photos: rank and score"
    data = load_split(pairs.split("test"), tiny.data, tiny.model.image_size)
    browser = RetrievalBrowser(model, data, evaluate(model, pairs))
    shown, best = [text.get_text() for text in browser.figure().axes[0].texts], browser.similarity[0].max()
    assert best < 0
    assert any(f"{best:.2f}" in text for text in shown)


def test_load_or_train_trains_once(pairs, tiny, tmp_path, capsys):
    config = tiny.updated({"run.epochs": 1})
    first = load_or_train(pairs, config, out=tmp_path / "run")
    assert "holds no run yet" in capsys.readouterr().out
    again = load_or_train(pairs, config, out=tmp_path / "run")
    assert capsys.readouterr().out == ""
    for one, other in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_near_twins_point_at_each_other(pairs):
    twins = near_twins(pairs.root)
    assert twins
    for photo, twin in twins.items():
        assert twins[twin.twin].twin == photo
        assert twin.both == sorted([photo, twin.twin])
        assert 1 <= len(twin.differs) <= 2


def test_demo_config_is_a_small_preset_and_smaller_where_time_is_short(monkeypatch):
    monkeypatch.delenv("SBIR_FAST", raising=False)
    assert demo_config() == Config.preset("mini_full")
    assert demo_config(preset="mini") == Config.preset("mini")
    assert demo_config(epochs=3).run.epochs == 3
    monkeypatch.setenv("SBIR_FAST", "1")
    threads = torch.get_num_threads()
    try:
        assert demo_config().run.epochs <= 12
    finally:
        torch.set_num_threads(threads)
