"""What must hold for any names of files and any configuration."""

import tempfile
import unicodedata
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sbirlib.config.config import Config, knobs
from sbirlib.config.methods import GROUPS
from sbirlib.data.images import EXTENSIONS
from sbirlib.data.pairs import PairFolder
from sbirlib.errors import ConfigError

# The same examples every time; how long a disk takes says nothing.
relaxed = settings(
    deadline=None,
    max_examples=100,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

STEMS = st.one_of(
    st.from_regex(r"[ab]{1,2}(_[01]{1,2}){0,2}", fullmatch=True),
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=9),
)
FILES = st.lists(st.tuples(STEMS, st.sampled_from([*EXTENSIONS, ".PNG", ".txt", ".gif"])), max_size=8)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.binary(max_size=4)
)
KEYS = st.one_of(
    st.sampled_from(["data", "model", "mstr", "loss", "optim", "run", "self", "cls"]),
    st.sampled_from([knob.name.partition(".")[2] for knob in knobs()]),
    st.text(max_size=6),
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)


@relaxed
@given(sketches=FILES, photos=FILES, pattern=st.sampled_from(["digits", "one_character"]))
def test_every_file_is_a_sketch_a_photo_or_a_fault_and_once(sketches, photos, pattern):
    with tempfile.TemporaryDirectory() as folder:
        for side, files in (("A", sketches), ("B", photos)):
            (Path(folder) / f"train{side}").mkdir()
            for stem, extension in files:
                (Path(folder) / f"train{side}" / f"{stem}{extension}").touch()
        there = sorted(
            path
            for side in "AB"
            for path in (Path(folder) / f"train{side}").iterdir()
            if path.suffix.lower() in (*EXTENSIONS, ".gif") and not path.name.startswith(".")
        )
        split = PairFolder(folder, pattern=pattern).splits["train"]
    found = [item.path for item in (*split.sketches, *split.photos, *split.faults)] + list(split.overlooked)
    assert sorted(found) == there
    assert len({photo.id for photo in split.photos}) == len(split.photos)
    for sketch, row in zip(split.sketches, split.photo_index, strict=True):
        assert split.photos[row].id == sketch.photo_id
        name, digits = unicodedata.normalize("NFC", sketch.path.stem), ""
        if sketch.designer:
            name, _, digits = name.rpartition("_")
        number = str(int(digits)) if digits.isdecimal() else digits
        assert (sketch.photo_id, sketch.designer) == (name, number)


@relaxed
@given(
    photo=st.from_regex(r"[a-z]{1,3}(_[0-9]{1,3})?", fullmatch=True),
    designer=st.from_regex(r"[0-9]{1,4}", fullmatch=True),
    extension=st.sampled_from(EXTENSIONS),
)
def test_the_name_of_a_sketch_tells_photo_and_designer(photo, designer, extension):
    with tempfile.TemporaryDirectory() as folder:
        for name in (f"testA/{photo}_{designer}", f"testB/{photo}"):
            (Path(folder) / name).parent.mkdir()
            (Path(folder) / f"{name}{extension}").touch()
        (sketch,) = PairFolder(folder).split("test").sketches
    assert (sketch.photo_id, sketch.designer) == (photo, str(int(designer)))


def message_of(read, *arguments):
    """What a ConfigError says, or "" if there is none; any other error fails the test."""
    try:
        assert isinstance(read(*arguments), Config)
        return ""
    except ConfigError as error:
        return str(error)


@relaxed
@given(values=TREES)
def test_any_values_make_a_configuration_or_a_short_message(values):
    assert len(message_of(Config.from_dict, values)) < 5000


@relaxed
@given(
    content=st.one_of(
        st.binary(max_size=60),
        st.text(max_size=60).map(str.encode),
        st.text(st.sampled_from("&*a: -[]{}!|>'\"\n0.?%@#,"), max_size=40).map(str.encode),
        TREES.map(yaml.safe_dump).map(str.encode),
    )
)
def test_any_file_makes_a_configuration_or_a_message_that_names_it(content, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    message = message_of(Config.from_yaml, path)
    assert message == "" or (str(path) in message and len(message) < 5000)


EVERY = {knob.name: knob for method in GROUPS for knob in knobs(Config(method=method))}.values()


def values_of(knob):
    """Allowed values of a field."""
    if knob.choices:
        return st.sampled_from(knob.choices)
    if knob.kind is bool:
        return st.booleans()
    if knob.kind is int:
        return st.integers(int(knob.low), int(knob.high))
    if knob.kind is float:
        return st.floats(knob.low, knob.high, exclude_min=True, exclude_max=True)
    if knob.kind is str:
        return st.text(max_size=12)
    inner = st.floats(0.25, 1) if "float" in str(knob.kind) else st.integers(1, 64)
    return st.lists(inner, min_size=1, max_size=4).map(tuple)


@relaxed
@given(changes=st.fixed_dictionaries({}, optional={knob.name: values_of(knob) for knob in EVERY}))
def test_what_is_written_is_read_back(changes, tmp_path):
    config = Config().updated(changes)
    config.to_yaml(tmp_path / "config.yaml")
    # What is another method's own is not written.
    found = Config.from_yaml(tmp_path / "config.yaml").flat()
    assert found == config.flat()
    assert {name: value for name, value in changes.items() if name in found}.items() <= found.items()


@pytest.mark.parametrize("knob", EVERY, ids=lambda knob: knob.name)
def test_a_value_just_out_of_range_is_refused_by_name(knob):
    below = {int: -1, float: -1.0, bool: "perhaps", str: 1}.get(knob.kind, "none of these")
    with pytest.raises(ConfigError, match=knob.name):
        Config().updated({knob.name: below})
