"""Grids, resuming, and comparisons of an ablation."""

import csv
import itertools
import json
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from tools.summaries import shown

from sbirlib import evaluate, train
from sbirlib.cli.app import main
from sbirlib.config.config import RELEASED, Config, released_options
from sbirlib.errors import ConfigError, InputError
from sbirlib.experiments import ablation
from sbirlib.experiments.ablation import ablate
from sbirlib.experiments.finished import compare, read_rows, summary, write_tables
from sbirlib.experiments.grids import GRIDS, Variant, grid, vary
from sbirlib.retrieval.intervals import bootstrap_accuracy, paired_bootstrap
from sbirlib.runs.model import frozen
from sbirlib.training.trainer import TrainingError

VARIANTS = [Variant("one", {}), Variant("other, warmer", {"loss.temperature": 0.5})]


@pytest.fixture(scope="module")
def base(tiny, pairs):
    return tiny.updated({"run.epochs": 1, "data.root": str(pairs.root)})


@pytest.fixture(scope="module")
def done(base, tmp_path_factory):
    out = tmp_path_factory.mktemp("ablation")
    assert len(list(ablate(base, VARIANTS, (0, 1), out=out))) == 4
    return out


def test_a_row_a_run_and_a_figure(done):
    with (done / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["variant"], row["seed"]) for row in rows] == list(
        itertools.product(["one", "other, warmer"], ["0", "1"])
    )
    for row, run in zip(rows, read_rows(done), strict=True):
        ranks = np.array(run.ranks)
        assert float(row["acc@1"]) == pytest.approx(100 * (ranks == 1).mean())
        assert int(row["queries"]) == len(ranks) == 16
        assert float(row["low@5"]) <= float(row["acc@5"]) <= float(row["high@5"])
    with Image.open(done / "ablation.png") as picture:
        assert picture.width > 800


def test_finished_runs_are_not_trained_again(done, base, monkeypatch):
    monkeypatch.setattr(ablation, "train", None)
    again = list(ablate(base, VARIANTS, (0, 1), out=done))
    assert sorted(row.variant for row in again) == sorted(row.variant for row in read_rows(done))


def test_a_grid_goes_on_where_it_was_stopped(base, tmp_path, monkeypatch):
    rows = ablate(base, VARIANTS, (0,), out=tmp_path)
    first = next(rows)
    rows.close()
    trained, train = [], ablation.train
    monkeypatch.setattr(
        ablation, "train", lambda *a, out, **k: (trained.append(out.name), train(*a, out=out, **k))[1]
    )
    # What a run that was killed leaves: weights, but no result.
    (tmp_path / "runs" / "other_warmer@0").mkdir()
    (tmp_path / "runs" / "other_warmer@0" / "start.yaml").write_text("seed: 0\n")
    assert [row.variant for row in ablate(base, VARIANTS, (0,), out=tmp_path)] == [
        first.variant,
        "other, warmer",
    ]
    assert trained == ["other_warmer@0"]


def test_another_configuration_under_the_same_name_is_refused(done, base):
    for seeds in ((0,), (5,)):  # of another seed too: both would be averaged
        with pytest.raises(
            InputError, match=rf"one@0 was trained with another .* \(optim.lr {base.optim.lr}, now 1e-05"
        ):
            next(ablate(base.updated({"optim.lr": 1e-5}), VARIANTS, seeds, out=done))


def test_what_would_stop_a_grid_half_way_is_found_first(base, tmp_path, monkeypatch, clothes):
    monkeypatch.setattr(ablation, "train", None)
    with pytest.raises(InputError, match="3 does not divide"):
        next(
            ablate(
                base.updated({"mstr.enabled": True}), vary(["mstr.scales=[1,2],[1,3]"]), (0,), out=tmp_path
            )
        )
    with pytest.raises(ConfigError, match="names that make the same folder"):
        next(ablate(base, [Variant("a b", {}), Variant("a/b", {})], (0,), out=tmp_path))
    with pytest.raises(ConfigError, match="nothing to do"):
        next(ablate(base, VARIANTS, (), out=tmp_path))
    for side in ("trainA", "trainB"):
        shutil.copytree(clothes / side, tmp_path / "half" / side)
    with pytest.raises(InputError, match="no test split"):
        next(ablate(base.updated({"data.root": str(tmp_path / "half")}), VARIANTS, (0,), out=tmp_path))


def test_a_training_that_diverges_is_passed_over_and_named_at_the_end(base, tmp_path, monkeypatch):
    train = ablation.train

    def diverge(root, config, **options):
        if config.loss.temperature != base.loss.temperature:
            raise TrainingError("the loss is no longer a number")
        return train(root, config, **options)

    monkeypatch.setattr(ablation, "train", diverge)
    rows = ablate(base, VARIANTS[::-1], (0,), out=tmp_path)
    assert next(rows).variant == "one"
    with pytest.raises(TrainingError, match="other_warmer@0: the loss is no longer a number"):
        next(rows)


def test_files_left_out_of_the_test_split_leave_ranks_and_names_in_step(base, clothes, tmp_path):
    shutil.copytree(clothes, tmp_path / "data")
    spoilt = sorted((tmp_path / "data" / "testA").iterdir())[3]
    spoilt.write_text("no image")
    config = base.updated({"data.root": str(tmp_path / "data"), "data.on_fault": "skip"})
    [row] = ablate(config, [Variant("one", {})], (0,), out=tmp_path / "out")
    assert len(row.ranks) == len(row.sketches) == len(row.photos) == 15
    assert spoilt.name not in row.sketches
    assert shown(summary(tmp_path / "out"), "one")[:2] == ["1", "15"]


def test_the_reference_is_the_first_variant_of_the_grid_whatever_the_dates(done, tmp_path):
    shutil.copytree(done, tmp_path / "copy")
    for path in (tmp_path / "copy").glob("runs/one*/result.json"):
        os.utime(path, (2e9, 2e9))
    assert summary(tmp_path / "copy") == summary(done)


def test_a_damaged_result_is_named(done, tmp_path):
    shutil.copytree(done, tmp_path / "copy")
    whole = json.loads((done / "runs" / "one@0" / "result.json").read_text())
    for text, why in (
        ('{"variant"', "Invalid JSON"),
        ("[" * 9000, "Invalid JSON"),
        ("[]", "Field required"),
        ('{"variant": "one"}', "place"),
        (json.dumps(whole | {"ranks": [1]}), "its queries or its score are not complete"),
    ):
        (tmp_path / "copy" / "runs" / "one@0" / "result.json").write_text(text)
        with pytest.raises(InputError, match=rf"result.json cannot be read \(.*{why}.*; remove it"):
            read_rows(tmp_path / "copy")


def test_scores_that_the_test_set_chose_are_marked_wherever_they_stand(base, tmp_path, capsys):
    variants = [Variant("honest", {}), Variant("chosen", {"run.protocol": "released"})]
    assert len(list(ablate(base, variants, (0,), out=tmp_path))) == 2
    text = summary(tmp_path)
    assert shown(text, "chosen [TEST SET chose the epoch]")[0] == "1"
    assert shown(text, "honest")[0] == "1"
    assert main(["compare", str(tmp_path), "honest", "chosen"]) == 0
    assert "CHOSEN ON THE TEST SET" in capsys.readouterr().out


def test_compare_pairs_seeds_and_queries(done):
    rows = read_rows(done)
    first, second = rows[:2], rows[2:]
    expected = paired_bootstrap(
        [row.ranks for row in first], [row.ranks for row in second], rows[0].photos, 5
    )
    found = compare(done, "one", "other, warmer", 5)
    assert found.points == pytest.approx(expected.points)
    assert found.low == pytest.approx(expected.low, abs=1)
    assert compare(done, "one@0", "one@0").points == 0
    one, two = (np.array(row.ranks) == 1 for row in first)
    assert compare(done, "one@0", "one@1").points == pytest.approx(100 * (two.mean() - one.mean()))


def test_compare_uses_the_queries_that_both_scored(done, base, tmp_path):
    for name, keep in (("all", 16), ("some", 10)):
        result = json.loads((done / "runs" / "one@0" / "result.json").read_text()) | {"variant": name}
        for key in ("sketches", "photos", "ranks"):
            result[key] = result[key][:keep]
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "result.json").write_text(json.dumps(result))
    assert compare(tmp_path, "all", "some").points == 0


def test_the_seed_is_no_variant(base, tmp_path, capsys):
    with pytest.raises(ConfigError, match=r"run.seed is no variant.*--seeds"):
        next(ablate(base, vary(["run.seed=1,2", "optim.lr=1e-3"]), (0,), out=tmp_path))
    assert main(["ablate", "--out", str(tmp_path), "--vary", "run.seed=1,2", "--seeds", "0"]) == 2
    assert "--seeds" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_queries_of_different_data_are_not_paired(done, tmp_path):
    shutil.copytree(done, tmp_path / "out")
    for name in ("other", "same"):
        row = json.loads((done / "runs" / "other_warmer@0" / "result.json").read_text())
        row["config"]["data"]["root"] = str(tmp_path / name)
        row["tested"] = "0" * 64 if name == "other" else row["tested"]
        place = tmp_path / "out" / "runs" / f"{name}@0"
        place.mkdir()
        (place / "result.json").write_text(json.dumps(row | {"variant": name, "place": 2}))
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"'one' and 'other' were scored on different pictures \(.* and "):
        compare(out, "one", "other")
    assert compare(out, "one", "same") == compare(out, "one@0", "other, warmer@0")
    text = summary(out)
    heading = "Acc@1 less that of 'one', paired:"
    assert text.partition(heading)[2].count("points") == 2
    assert re.search(r"^other +not compared: it was scored on other data$", text, re.MULTILINE)


def test_a_grid_goes_on_where_its_data_are_now_unless_they_changed(base, clothes, tmp_path, monkeypatch):
    shutil.copytree(clothes, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    here, one = base.updated({"data.root": "data"}), VARIANTS[:1]
    list(ablate(here, one, (0,), out="out"))
    (tmp_path / "data").rename(tmp_path / "moved")
    moved = base.updated({"data.root": str(tmp_path / "moved")})
    with monkeypatch.context() as patch:
        patch.setattr(ablation, "train", None)
        assert len(list(ablate(moved, one, (0,), out="out"))) == 1
    photo = next((tmp_path / "moved" / "testB").iterdir())
    Image.new("RGB", (64, 64), "white").save(photo)
    with pytest.raises(InputError, match=r"one@0 was scored on other pictures than .*moved holds"):
        next(ablate(moved, one, (0, 1), out="out"))


def test_a_run_begun_with_other_epochs_is_not_taken_for_this_one(base, tmp_path):
    constant = base.updated({"optim.schedule": "constant", "run.epochs": 3})
    config = constant.updated({"run.seed": 0})
    records = train(config.data.root, config, out=tmp_path / "runs" / "one@0")
    next(records)
    records.close()
    shorter = constant.updated({"run.epochs": 2})
    with pytest.raises(InputError, match="one@0 was begun with run.epochs 3, now 2"):
        list(ablate(shorter, VARIANTS[:1], (0,), out=tmp_path))
    assert len(list(ablate(constant, VARIANTS[:1], (0,), out=tmp_path))) == 1


def test_a_table_of_ones_own_is_not_overwritten(base, tmp_path):
    (tmp_path / "results.csv").write_text("my,table\n")
    with pytest.raises(InputError, match="holds a results.csv, but no runs"):
        next(ablate(base, VARIANTS, (0,), out=tmp_path))
    assert (tmp_path / "results.csv").read_text() == "my,table\n"


def test_a_field_that_does_nothing_is_no_variant(base, tmp_path):
    with pytest.raises(ConfigError, match=r"mstr.weight=0.1: needs token recycling"):
        next(ablate(base, vary(["mstr.weight=0.1,0.5"]), (0,), out=tmp_path))


def test_names_from_elsewhere_steer_no_terminal(done, tmp_path, capsys):
    row = json.loads((done / "runs" / "one@0" / "result.json").read_text())
    names = ("\x1b[2Jone", "plain")
    for place, name in enumerate(names):
        extra = {"protocol": f"\x1b]0;{name}\a", "another": -1.5}
        (tmp_path / "runs" / str(place)).mkdir(parents=True)
        other = row | {"variant": name, "place": place, "score": row["score"] | extra}
        (tmp_path / "runs" / str(place) / "result.json").write_text(json.dumps(other))
    shutil.copytree(done / "runs" / "one@0", tmp_path / "runs" / "one@0")  # without that key
    write_tables(tmp_path)
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = {row["variant"]: row for row in csv.DictReader(file)}
    assert set(rows) == {*names, "one"}
    assert (rows["plain"]["another"], rows["one"]["another"]) == ("-1.5", "")
    assert main(["compare", str(tmp_path), names[0], "plain"]) == 0
    assert "\x1b" not in summary(tmp_path) + capsys.readouterr().out
    assert r"\x1b[2Jone" in summary(tmp_path)


def test_names_that_are_not_there_are_refused_with_those_that_are(done, tmp_path):
    with pytest.raises(InputError, match=r"no finished run 'two'; variants: one, other, warmer"):
        compare(done, "one", "two")
    with pytest.raises(InputError, match="no seeds or no queries in common"):
        compare(done, "one", "one@0")
    with pytest.raises(InputError, match="holds no finished run"):
        read_rows(tmp_path)
    with pytest.raises(InputError, match="k = 0"):
        compare(done, "one", "one", 0)


def test_the_summary_has_every_variant_with_counts_interval_difference_and_protocol(done):
    text = summary(done)
    assert text.split()[:7] == ["runs", "queries", "Acc@1", "Acc@5", "Acc@10", "minutes", "ms"]
    first = bootstrap_accuracy([row.ranks for row in read_rows(done)[:2]], read_rows(done)[0].photos)
    interval = f"({first.low:.1f}-{first.high:.1f})"
    assert shown(text, "one")[:4] == ["2", "16", f"{first.percent:.1f}", interval]
    minutes, milliseconds = map(float, shown(text, "one")[-2:])
    assert minutes >= 0
    assert milliseconds > 0
    difference = text.partition("Acc@1 less that of 'one', paired:\n")[2]
    assert difference.startswith(
        f"other, warmer  {compare(done, 'one', 'other, warmer')}\n\ntest split, every"
    )


def test_every_change_of_every_grid_fits_the_presets(pairs):
    for preset, name in itertools.product(("mini_full", "full"), GRIDS):
        if (preset, name) == ("full", "methods"):
            continue  # asking seven large models takes long, and `lite` is tried elsewhere
        base = Config.preset(preset).updated({"data.root": str(pairs.root)})
        variants = [variant for variant in grid(name, base) if variant.trained]
        assert len({variant.name for variant in variants}) == len(variants)
        configs = [base.updated(variant.changes) for variant in variants]
        assert sum(config == base for config in configs) <= 1


def test_the_released_grid_turns_on_one_behaviour_at_a_time():
    base = Config.preset("mini_full")
    default, *singles, together = grid("released", base)
    assert [released_options(base.updated(variant.changes)) for variant in singles] == [
        [field] for field in RELEASED if field != "data.pattern"
    ]
    assert default.changes == {}
    assert len(released_options(base.updated(together.changes))) == len(singles)


def test_the_views_are_those_of_the_papers_figure():
    names = [variant.name for variant in grid("views", Config.preset("full"))]
    assert names == ["A0", "A1", "A2", "A0+A1", "A0+A2", "A1+A2", "A2+A1"]


@pytest.mark.parametrize("name", ["mstr", "released"])
def test_a_grid_about_recycling_needs_recycling(name):
    with pytest.raises(ConfigError, match="use preset mini_full or full"):
        grid(name, Config.preset("mini"))


def test_vary_makes_every_combination():
    variants = vary(["mstr.weight=0.1,0.5", "mstr.scales=[1],[1,2]"])
    assert [variant.changes for variant in variants] == [
        {"mstr.weight": weight, "mstr.scales": scales} for weight in (0.1, 0.5) for scales in ([1], [1, 2])
    ]
    assert variants[0].name == "mstr.weight=0.1 mstr.scales=[1]"
    [other] = vary(["optim.lr=1e-3"])  # which YAML takes for a word
    assert (other.name, Config().updated(other.changes).optim.lr) == ("optim.lr=1e-3", 0.001)
    assert vary(["mstr.enabled=false,true"])[1].name == "mstr.enabled=true"


def test_vary_takes_a_field_once():
    with pytest.raises(ConfigError, match=r"names optim.lr twice.*optim.lr=value,value"):
        vary(["optim.lr=1e-3", "optim.lr=1e-4"])


@pytest.mark.parametrize("setting", ["mstr.weight", "mstr.weight=", "mstr.weight=[1"])
def test_what_vary_cannot_read_is_refused(setting):
    with pytest.raises(ConfigError, match="expected field=value,value"):
        vary([setting])


def test_a_frozen_backbone_has_a_row_beside_every_run(done, base, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(done, out)
    variants = [Variant("frozen", {}, trained=False)]
    [row] = ablate(base, variants, (), out=out)
    expected = evaluate(frozen(base), base.data.root)
    assert row.ranks == expected.ranks.tolist()
    assert read_rows(out)[-1] == row
    assert shown(summary(out), "frozen")[:2] == ["1", "16"]
    trained = np.mean([np.array(run.ranks) == 1 for run in read_rows(out)[:2]])
    points = 100 * (np.mean(np.array(row.ranks) == 1) - trained)
    assert compare(out, "one", "frozen").points == pytest.approx(points)
    assert compare(out, "frozen", "one@1").points == pytest.approx(
        100 * np.mean(np.array(read_rows(out)[1].ranks) == 1) - row.score["acc@1"]
    )
    # A second time nothing is scored again; for other data it is refused.
    assert list(ablate(base, variants, (), out=out)) == [row]
    with pytest.raises(InputError, match="data.fit pad, now stretch"):
        list(ablate(base.updated({"data.fit": "stretch"}), variants, (), out=out))


def test_from_the_command_line(base, tmp_path, capsys):
    out, flags = (
        tmp_path / "out",
        [
            "--model.image-size",
            "48",
            "--run.epochs",
            "1",
            "--run.tracker",
            "none",
            "--mstr.scales",
            "1",
            "2",
            "--data.root",
            base.data.root,
        ],
    )
    assert (
        main(["ablate", "--out", str(out), "--vary", "mstr.enabled=false,true", "--seeds", "3", *flags]) == 0
    )
    assert "mstr.enabled=true, seed 3: Acc@1" in capsys.readouterr().out
    assert main(["compare", str(out), "mstr.enabled=false", "mstr.enabled=true", "--k", "5"]) == 0
    assert "Acc@5 of 'mstr.enabled=true' less that of 'mstr.enabled=false'" in capsys.readouterr().out
    assert main(["ablate", "--out", str(out), *flags]) == 2
    assert "name either --grid or --vary" in capsys.readouterr().err
    assert main(["ablate", "--out", str(out), "--vary", "mstr.wight=1", *flags]) == 2
    assert "unknown field 'mstr.wight'" in capsys.readouterr().err


def test_two_methods_are_trained_and_compared(base, tmp_path, capsys):
    rows = list(ablate(base, vary(["method=arnet,b_siamese"]), (0,), out=tmp_path))
    assert [row.variant for row in rows] == ["method=arnet", "method=b_siamese"]
    assert rows[0].ranks != rows[1].ranks
    # A change of method brings its defaults, and its own settings in place of the other's.
    assert rows[1].config["model"]["share_encoders"]
    assert rows[1].config["model"]["pool"] == "mean"
    assert ("b_siamese" in rows[1].config, "loss" in rows[1].config) == (True, False)
    assert main(["compare", str(tmp_path), "method=arnet", "method=b_siamese"]) == 0
    found = compare(tmp_path, "method=arnet", "method=b_siamese")
    first, second = (100 * np.mean(np.array(row.ranks) == 1) for row in rows)
    assert found.points == pytest.approx(second - first)
    assert f"{found.points:+.1f} points" in capsys.readouterr().out
    with pytest.raises(
        InputError, match="method=b_siamese@0 was trained with another .*b_siamese.margin 0.3"
    ):
        next(
            ablate(
                base.updated({"b_siamese.margin": 0.1}), vary(["method=arnet,b_siamese"]), (0,), out=tmp_path
            )
        )


def test_a_field_that_the_method_does_not_have_is_refused(base, tmp_path, monkeypatch):
    monkeypatch.setattr(ablation, "train", None)
    with pytest.raises(ConfigError, match=r"b_siamese .*: method b_siamese has no loss.temperature"):
        next(ablate(base, vary(["method=arnet,b_siamese", "loss.temperature=0.1"]), (0,), out=tmp_path))


@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_of_arnet_is_refused_for_another_method(name):
    base = Config.preset("mini_full").updated({"method": "b_siamese"})
    with pytest.raises(ConfigError, match=f"grid '{name}' does not fit method b_siamese: .* those of arnet"):
        grid(name, base)


def test_an_unknown_grid_is_refused_with_those_that_there_are():
    with pytest.raises(
        ConfigError, match=r"unknown grid 'best'; known: methods, losses, views, mstr, released"
    ):
        grid("best", Config())
