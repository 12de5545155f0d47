"""Hostile input through the real command line: the message, the exit code, and that nothing is lost.

`PYTHONPATH=tests python tests/sources/test_hostile.py` prints the table of all kinds as Markdown.
"""

import json
import os
import pickle
import re
import struct
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tools.hostile_cases import (
    Bench,
    Case,
    beginning,
    call,
    checkpoint,
    config,
    demo,
    download,
    execute,
    gallery,
    image,
    matrix,
    result,
    resume,
    search,
    snapshot,
    special,
    unpacked,
    weights,
)
from tools.hostile_files import (
    Touch,
    animation,
    bad_checksum,
    claim,
    cut,
    evil_checkpoint,
    evil_pickle,
    laughs,
    matrix_bomb,
    noise,
    palette,
    picture,
    safetensors,
    text_bomb,
    turned,
)

from sbirlib.experiments.finished import RunScore
from sbirlib.runs.records import read_history

NO_PICTURE = "is not a PNG, JPEG, WEBP, BMP image"
SAVE_AS = "save it as one of .png"
UNREAD = "holds more than tensors, which could run a program; it was not read"  # instead of how to run it

CASES = [
    image("empty picture", "x.png", bytes, 1, "x.png: .*is empty .0 bytes.; copy it again"),
    image("text that is called .png", "x.png", lambda: b"hello", 1, f"x.png: .*{NO_PICTURE}"),
    image(
        "JPEG cut short", "x.jpg", lambda: noise("JPEG")[:900], 1, "x.jpg: .*is damaged .*; replace the file"
    ),
    image("PNG cut short", "x.png", lambda: noise()[:900], 1, "x.png: .*is damaged .*; replace the file"),
    image("WebP cut short", "x.webp", lambda: noise("WEBP")[:900], 1, f"x.webp: .*({NO_PICTURE}|is damaged)"),
    image("PNG with a wrong checksum", "x.png", bad_checksum, 1, f"x.png: .*({NO_PICTURE}|is damaged)"),
    image(
        "decompression bomb, 10 gigapixels in 80 bytes",
        "x.png",
        lambda: claim(100_000),
        1,
        "x.png: .*claims to have more than 64 million pixels; save it smaller",
    ),
    image(
        "picture just above the limit",
        "x.png",
        lambda: claim(8001),
        1,
        "8001 x 8001 px is more than 64 million",
    ),
    image("PNG with a comment of 80 MB in 80 kB", "x.png", text_bomb, 1, "x.png: .*(too large|is damaged)"),
    image("animated PNG", "x.png", lambda: animation("PNG"), 0, "1 test photos have no sketch"),
    image("animated WebP", "x.webp", lambda: animation("WEBP"), 0, "1 test photos have no sketch"),
    image("animated GIF", "x.gif", lambda: animation("GIF"), 1, f"x.gif: .*{SAVE_AS}"),
    image("CMYK", "x.jpg", lambda: picture("JPEG", "CMYK"), 0, "1 test photos have no sketch"),
    image("palette with alpha", "x.png", palette, 0, "1 test photos have no sketch"),
    image("16-bit grey", "x.png", lambda: picture(mode="I;16"), 0, "1 test photos have no sketch"),
    image("EXIF-rotated photo", "x.jpg", turned, 0, "16x16 .. 16x32 px"),
    image("one pixel", "x.png", lambda: picture(size=(1, 1)), 1, "1 x 1 px is too small to search"),
    image("TIFF", "x.tif", lambda: picture("TIFF"), 1, f"x.tif: .*{SAVE_AS}"),
    image("TIFF that is called .png", "x.png", lambda: picture("TIFF"), 1, f"x.png: .*{NO_PICTURE}"),
    image("SVG", "x.svg", lambda: b"<svg><script>1</script></svg>", 1, f"x.svg: .*{SAVE_AS}"),
    image("HTML that is called .jpg", "x.jpg", lambda: b"<html>404</html>", 1, f"x.jpg: .*{NO_PICTURE}"),
    image("JPEG that is called .png", "x.png", lambda: picture("JPEG"), 0, "test .* 0  16x16 px"),
    image(
        "PNG with a program behind it",
        "x.png",
        lambda: picture() + b"#!/bin/sh\nrm *",
        0,
        "test .* 0  16x16 px",
    ),
    special("folder that is called .png", Path.mkdir, "x.png: .*is a folder"),
    special("pipe that is called .png", os.mkfifo, "x.png: .*is a pipe or device"),
    special(
        "link to nowhere",
        lambda path: path.symlink_to("nowhere"),
        "x.png: .*links to a file that does not exist",
    ),
    special(
        "link to itself", lambda path: path.symlink_to(path), "x.png: .*links to a file that does not exist"
    ),
    image(
        "spaces and letters beyond ASCII",
        "Jäckchen rot 衣 12.png",
        picture,
        0,
        "1 test photos have no sketch",
    ),
    image("a name that looks like a flag", "--help.png", picture, 0, "1 test photos have no sketch"),
    image(
        "a name that looks like a command", "$(touch owned);`touch owned`.png", picture, 0, "have no sketch"
    ),
    image("a name with a line break", "x\ny.png", bytes, 1, r"x\\ny.png: .*is empty"),
    image("a name that clears the terminal", "\x1b[2Jx.png", bytes, 1, r"\\x1b\[2Jx.png: .*is empty"),
    image("a name that is not UTF-8", os.fsdecode(b"caf\xe9.png"), bytes, 1, "caf.*name is not UTF-8"),
    image("a name of 255 bytes", "x" * 251 + ".png", bytes, 1, "x.png: .*is empty"),
    image("two photos of one id", "c.jpg", lambda: picture("JPEG"), 1, "c.jpg, c.png; keep one"),
    image("resource fork of a Mac", "._c.png", lambda: b"\0\5", 0, "test .* 0  16x16 px"),
    search("sketch that is no picture", "sketch.png", b"hello", f"sketch.png: {NO_PICTURE}"),
    search(
        "sketch that is a bomb",
        "sketch.png",
        claim(100_000),
        "sketch.png: claims to have more than 64 million",
    ),
    download("zip", "a.zip", b"PK", "a.zip: is not a folder. Unpack a .zip with `python -m zipfile -e"),
    download(
        "zip whose name is a command",
        "$(touch owned).zip",
        b"PK",
        r"\$\(touch owned\).zip: is not a folder. Unpack a .zip with `python -m zipfile -e FILE FOLDER`",
    ),
    download("archive of another format", "a.rar", b"Rar!\x1a", "a.rar: is not a folder. Unpack a .zip with"),
    download("empty file", "a.7z", b"", "a.7z: is not a folder"),
    download(
        "pickle of coordinates",
        "ChairV2_Coordinate",
        lambda path: evil_pickle(path, path.parent / "owned"),
        "ChairV2_Coordinate: is not a folder",
    ),
    unpacked(
        "folder: an archive in it", {"b.zip": b"PK"}, "no MAT-file .archives in it are not opened: unpack"
    ),
    unpacked(
        "folder: no data set", {"x.txt": b""}, "down: needs chairs_sketch_db_test.mat and .* it holds no"
    ),
    unpacked(
        "folder: a name that clears the terminal", {"\x1b[2J.mat": b""}, r"it holds \\x1b\[2J.mat .archives"
    ),
    unpacked(
        "folder: a name that is not UTF-8",
        {os.fsdecode(b"caf\xe9.mat"): b""},
        r"it holds caf\\udce9.mat .archives",
    ),
    matrix("MAT-file: cut short", lambda data: data[:-9], "edge_db_train.mat: cannot be read as a MAT-file"),
    matrix("MAT-file: text", lambda data: b"hello", "edge_db_train.mat: cannot be read as a MAT-file"),
    matrix(
        "MAT-file: version 7.3", lambda data: data[:124] + b"\0\2IM", "cannot be read as a MAT-file .*v7.3"
    ),
    matrix("MAT-file: a bomb", matrix_bomb, "edge_db_train.mat: cannot be read as a MAT-file"),
    matrix(
        "MAT-file: a shape that it does not hold",
        lambda data: data.replace(struct.pack("<3I", 2, 256, 256), struct.pack("<3I", 2**30, 256, 256)),
        "edge_db_train.mat: cannot be read as a MAT-file",
    ),
    matrix(
        "MAT-file: a name that clears the terminal",
        lambda data: data.replace(b"data", b"\x1b[2J"),
        r"has no variable `data`, but \\x1b\[2J",
    ),
    Case(
        "--out that holds a thesis",
        lambda bench: bench.import_chairs(out=bench.data("thesis.tex")),
        2,
        "data: is not an empty folder; .* was touched",
    ),
    config("YAML: billion laughs", laughs(8), "config.yaml: "),
    config(
        "YAML: Python object", "!!python/object/apply:os.mknod [owned]", "config.yaml: .*could not determine"
    ),
    config("YAML: nested 5000 deep", "data: " + "[" * 5000, "config.yaml: "),
    config("YAML: 8 MB", "#" * 2**23, "config.yaml: "),
    config("YAML: date in the 13th month", "data: {root: 2024-13-45}", "config.yaml: "),
    config("YAML: whole number of 5000 digits", "run: {seed: " + "9" * 5000 + "}", "config.yaml: "),
    config(
        "YAML: holds itself",
        "data: &a {root: *a}",
        "config.yaml: cannot be read .\\*a is an alias; write out",
    ),
    beginning("start.yaml: billion laughs", laughs(10), "start.yaml: cannot be read .\\*a0 is an alias"),
    beginning("start.yaml: holds itself", "a: &a {b: *a}", "start.yaml: cannot be read .\\*a is an alias"),
    beginning("start.yaml: nested 5000 deep", "a: " + "[" * 5000, "start.yaml: cannot be read"),
    beginning("start.yaml: 8 MB", "#" * 2**23, "start.yaml: cannot be read .it is larger than 256 KiB"),
    beginning("start.yaml: a list", "[1]", "start.yaml does not hold what a run began from"),
    beginning(
        "start.yaml: names that steer a terminal",
        'weights: "a\\e]0;owned\\a\\nb"\n"c\\e[2J": {d: 1}',
        r'weights: "a\\e]0;owned\\a\\nb"\n  "c\\e\[2J":\n    d: 1',
        0,
    ),
    config("YAML: list instead of groups", "[1, 2]", "config.yaml: expected groups"),
    config("YAML: wrong types", "optim: {lr: [fast], batch_size: many}", "config.yaml: optim.lr = "),
    config("YAML: not a number", "optim: {lr: .nan}", "config.yaml: optim.lr = nan"),
    config("YAML: unknown field", "optim: {speed: 1}", "config.yaml: unknown field 'optim.speed'"),
    config("YAML: a field called self", "self: 1", "config.yaml: .*self"),
    config("YAML: not text", b"\xff\xfe\0", "config.yaml: "),
    config(
        "YAML: of another model",
        "model: {backbone: resnet18, pretrained: false}",
        "model.safetensors cannot be loaded; config.yaml beside it is of another model",
    ),
    weights(
        "weights: not a safetensors file",
        lambda path: path.write_bytes(b"hello"),
        "model.safetensors: is damaged",
    ),
    weights("weights: cut short", cut, "model.safetensors: is damaged"),
    weights(
        "weights: header of 2^60 bytes",
        lambda path: safetensors(path, {}, length=2**60),
        "model.safetensors: is damaged",
    ),
    weights(
        "weights: tensors that overlap",
        lambda path: safetensors(
            path, {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 4]}}, bytes(4)
        ),
        "model.safetensors: is damaged",
    ),
    weights(
        "weights: a pickle",
        lambda path: evil_pickle(path, path.parents[2] / "owned"),
        "model.safetensors: is damaged",
    ),
    weights(
        "weights: not a number",
        lambda path: save_file(
            {name: torch.full_like(tensor, torch.nan) for name, tensor in load_file(path).items()},
            path,
            {"queries": "9"},
        ),
        "contain NaN",
    ),
    checkpoint("checkpoint: malicious pickle", evil_pickle, f"model.pth: .*{UNREAD}"),
    checkpoint("checkpoint: malicious torch file", evil_checkpoint, f"model.pth: .*{UNREAD}"),
    checkpoint(
        "checkpoint: other content",
        lambda path, mark: torch.save({"epoch": 1}, path),
        "model.pth: does not hold the weights of 'resnet18'",
    ),
    checkpoint(
        "checkpoint: empty", lambda path, mark: path.write_bytes(b""), "model.pth: is damaged, or not a file"
    ),
    resume("state of a run: malicious pickle", evil_pickle, f"run cannot be resumed: .*{UNREAD}"),
    resume("state of a run: malicious torch file", evil_checkpoint, f"run cannot be resumed: .*{UNREAD}"),
    result("JSON: cut short", '{"variant": "a"', "result.json cannot be read .*; remove it"),
    result("JSON: a list", "[]", "result.json cannot be read"),
    result("JSON: nested 100000 deep", "[" * 100_000, "result.json cannot be read"),
    result("JSON: wrong types", json.dumps(dict.fromkeys(RunScore._fields, 1)), "result.json cannot be"),
    demo("JSON: a list for MiniClothes", "[]", "exists and is not this drawing of MiniClothes"),
    demo(
        "JSON: 100000 lists for MiniClothes", "[" * 100_000, "exists and is not this drawing of MiniClothes"
    ),
    call(
        "history.csv: not text",
        "history.csv",
        lambda path: path.write_bytes(b"\xff\0"),
        lambda bench, path: read_history(path),
        "history.csv: cannot be read",
    ),
    call(
        "history.csv: words for numbers",
        "history.csv",
        lambda path: path.write_text("epoch,lr\n1,fast\n"),
        lambda bench, path: read_history(path),
        "history.csv: cannot be read .*fast",
    ),
    call(
        "history.csv: more columns than names",
        "history.csv",
        lambda path: path.write_text("epoch\n1,2,3\n"),
        lambda bench, path: read_history(path),
        "history.csv: cannot be read",
    ),
    gallery("gallery: not a safetensors file", b"hello", "photos.safetensors: not a saved gallery"),
    gallery("gallery: a pickle", pickle.dumps(Touch("owned")), "photos.safetensors: not a saved gallery"),
    gallery(
        "gallery: of another model",
        '["a", 1, 1]\n["b", 1, 1]',
        "photos.safetensors: was embedded by another model",
        own=False,
    ),
    gallery("gallery: names that are no JSON", "[", "not a saved gallery, .*Expecting value"),
    gallery("gallery: numbers for names", "[1, 1, 1]\n[2, 1, 1]", "not a saved gallery, .*not int"),
    gallery("gallery: fewer names than photos", '["a", 1, 1]', "not a saved gallery, .* of 1 photos"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind)
def test_hostile_input_is_told_and_harms_nothing(case, run, tmp_path):
    states = []

    def build(bench):
        words = case.build(bench)
        states.append(snapshot(bench.root))
        return words

    bench = Bench(tmp_path, run)
    code, text = execute(case._replace(build=build), bench)
    assert (code, re.search(case.words, text) is not None) == (case.code, True), text[:3000]
    assert len(text) < 10_000
    assert "Traceback" not in text
    assert "\x1b" not in text
    after = snapshot(tmp_path)
    assert {name: after.get(name) for name in states[0]} == states[0]
    made = {name.split("/")[0] for name in after.keys() - states[0].keys()}
    assert made <= ({"out"} if code == 0 else set())
    assert not bench.mark.exists()


def test_a_terminal_that_lacks_letters_shows_their_numbers(run, tmp_path):
    case = image("a name in Chinese", "衣.png", bytes, 1, "")
    assert "\\u8863.png: cannot be read: is empty" in execute(case, Bench(tmp_path, run), "ascii").text


def test_there_are_many_kinds_and_each_has_a_name():
    assert len({case.kind for case in CASES}) == len(CASES) >= 40


def print_table():
    """The table of all kinds, as Markdown: each is run as the test runs it."""
    from conftest import TINY

    from sbirlib import Config
    from sbirlib.miniclothes.dataset import draw_miniclothes
    from sbirlib.training.trainer import train

    print("| kind | command | exit code | what is said |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        draw_miniclothes(root / "clothes", photos=(16, 8), sketches=(32, 16), size=64)
        list(train(root / "clothes", Config.preset("mini").updated(TINY), out=root / "run"))
        for number, case in enumerate(CASES):
            bench, commands = Bench(root / str(number), root / "run"), []
            bench.root.mkdir()

            def build(bench, case=case, commands=commands):
                commands.append(case.build(bench))
                return commands[0]

            code, text = execute(case._replace(build=build), bench)
            line = next((line for line in text.splitlines() if re.search(case.words, line)), text)
            said = re.sub(r"\S*/" + str(number) + r"/(data/|run/best/)?", "", line.strip()).replace("|", "/")
            words = commands[0] if isinstance(commands[0], list) else ["in Python"]
            command = " ".join(words[:2]) if words[0] == "data" else words[0]
            print(f"| {case.kind} | {command} | {code} | {said[:160]}{' ...' if len(said) > 160 else ''} |")


if __name__ == "__main__":
    sys.exit(print_table())
