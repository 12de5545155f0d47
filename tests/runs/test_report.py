import hashlib
import re
import shutil

import pytest
import yaml

from sbirlib import train
from sbirlib.cli.app import main
from sbirlib.runs.atomic import RunError
from sbirlib.runs.folder import describe
from sbirlib.runs.records import code_state, data_fingerprint, versions


def test_a_run_is_told_on_one_page(run, tiny):
    text = describe(run)
    assert "2 of 2 epochs" in text
    assert "--resume" not in text
    assert re.search(r"kept epoch [12], chosen on 9 sketches of held-out photos: Acc@1 \d+\.\d %", text)
    assert "  model.backbone = sbir_mini\n" in text
    assert "loss.temperature" not in text  # the paper's
    start = yaml.safe_load((run / "start.yaml").read_text())
    for value in (
        start["backbone_sha256"],
        start["data"]["sha256"],
        start["versions"]["torch"],
        start["code"],
    ):
        assert value in text


def test_an_unfinished_run_says_how_to_go_on(pairs, tiny, tmp_path, capsys):
    records = train(pairs, tiny.updated({"run.epochs": 9}), out=tmp_path / "run")
    next(records)
    records.close()
    assert main(["report", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    assert "1 of 9 epochs" in printed
    assert f"goes on with: python -m sbirlib train --out {tmp_path / 'run'} --resume" in printed
    assert describe(tmp_path / "run") == printed.rstrip("\n")


def test_what_is_not_a_run_is_named(tmp_path, capsys):
    with pytest.raises(RunError, match="history.csv: no such file"):
        describe(tmp_path)
    assert main(["report", str(tmp_path / "none")]) == 2
    assert "history.csv: no such file" in capsys.readouterr().err


def test_the_data_are_known_by_their_bytes_and_names_not_by_their_place(pairs, tmp_path):
    def fingerprint(root):
        from sbirlib import PairFolder

        return data_fingerprint([PairFolder(root).split("train")])

    shutil.copytree(pairs.root, tmp_path / "moved")
    found = fingerprint(pairs.root)
    assert found == fingerprint(tmp_path / "moved")
    assert (found["sketches"], found["photos"]) == (32, 16)
    by_hand = hashlib.sha256()
    for folder in ("trainA", "trainB"):
        for path in sorted((pairs.root / folder).glob("*.png")):
            by_hand.update(f"{folder}/{path.name}".encode() + hashlib.sha256(path.read_bytes()).digest())
    assert found["sha256"] == by_hand.hexdigest()
    first, second = sorted((tmp_path / "moved" / "trainA").iterdir())[:2]
    shutil.copy(first, second)
    assert fingerprint(tmp_path / "moved")["sha256"] != found["sha256"]


def test_strokes_belong_to_the_data_of_methods_that_need_them(pairs, tmp_path):
    from sbirlib import PairFolder

    def fingerprints():
        splits = [PairFolder(tmp_path / "data").split("train")]
        return data_fingerprint(splits)["sha256"], data_fingerprint(splits, strokes=True)["sha256"]

    shutil.copytree(pairs.root, tmp_path / "data")
    first = sorted((tmp_path / "data" / "trainA").iterdir())[0]
    bare, bare_too = fingerprints()
    assert bare == bare_too
    first.with_suffix(".json").write_text("{}")
    pictures, strokes = fingerprints()
    assert pictures == bare != strokes
    first.unlink()  # now the strokes are the sketch
    alone, alone_too = fingerprints()
    assert alone == alone_too != pictures


def test_versions_and_code_are_known():
    assert {"python", "torch", "timm", "sbirlib"} <= versions().keys()
    assert re.fullmatch(r"[0-9a-f]{40}(, with changes)?|no git checkout", code_state())
