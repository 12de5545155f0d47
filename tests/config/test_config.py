import dataclasses

import pytest

from sbirlib.config.config import PRESETS, RELEASED, Config, OptimConfig, knobs, released_options
from sbirlib.errors import ConfigError


@pytest.mark.parametrize("preset", list(PRESETS))
def test_yaml_round_trip(preset, tmp_path):
    config = Config.preset(preset)
    config.to_yaml(tmp_path / "config.yaml")
    assert Config.from_yaml(tmp_path / "config.yaml") == config


def test_basic_is_the_recipe_of_the_paper():
    config = Config.preset("basic")
    assert config.model.backbone == "vit_base_patch16_224"
    assert (config.optim.name, config.optim.lr, config.optim.weight_decay) == ("adam", 6e-6, 1e-4)
    assert (config.optim.batch_size, config.run.epochs, config.run.seed) == (16, 500, 0)
    assert (config.loss.temperature, config.model.embed_dim, config.model.image_size) == (0.07, 512, 224)


def test_full_presets_differ_in_recycling_alone():
    for preset in ("mini", "basic"):
        full = Config.preset({"mini": "mini_full", "basic": "full"}[preset])
        assert full.mstr.enabled
        assert dataclasses.replace(full, mstr=Config.preset(preset).mstr) == Config.preset(preset)


def test_released_options_are_off_by_default_and_counted_where_they_matter():
    full = Config.preset("full")
    assert released_options(full) == []
    assert released_options(full.updated(RELEASED)) == list(RELEASED)
    basic = Config.preset("basic").updated({"mstr.attention": "batch", "model.normalise": False})
    assert released_options(basic) == ["model.normalise"]


def test_configs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().optim.lr = 1.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optim.lr": -1}, ["optim.lr", "-1", "> 0", "<= 1"]),
        ({"optim.lr": float("nan")}, ["optim.lr", "finite"]),
        ({"run.epochs": 1.5}, ["run.epochs", "1.5", ">= 1"]),
        ({"data.fit": "crop"}, ["data.fit", "'pad', 'stretch' or 'frame'"]),
        ({"optim.learning_rate": 1e-3}, ["unknown field 'optim.learning_rate'", "optim.lr"]),
        ({"lr": 1e-3}, ["unknown field 'lr'"]),
        ({"mstr.scales": (1, 0)}, ["mstr.scales", "0"]),
    ],
)
def test_bad_values_are_refused_with_field_and_range(changes, words):
    with pytest.raises(ConfigError) as error:
        Config().updated(changes)
    assert all(word in str(error.value) for word in words), error.value


def test_a_group_refuses_by_its_full_name():
    with pytest.raises(ConfigError, match=r"optim\.lr = 2"):
        OptimConfig(lr=2)


def test_unknown_fields_of_a_file_are_named_with_the_file(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("optim: {lr: 0.1, momentum: 0.9}\n")
    with pytest.raises(ConfigError, match=r"config\.yaml.*optim\.momentum.*weight_decay"):
        Config.from_yaml(path)
    path.write_text("optim: [unclosed\n")
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        Config.from_yaml(path)
    path.write_text("just words\n")
    with pytest.raises(ConfigError, match="expected groups data, model"):
        Config.from_yaml(path)


def test_unknown_preset_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"'huge'.*mini, mini_full, lite, lite_full, basic, full"):
        Config.preset("huge")


def test_updated_leaves_the_original_alone():
    config = Config()
    assert config.updated({"optim.lr": 0.5}).optim.lr == 0.5
    assert config.optim.lr == 6e-6


def test_every_knob_has_help_and_a_value_inside_its_range():
    found = list(knobs(Config.preset("mini")))
    assert len(found) == len({knob.name for knob in found})
    for knob in found:
        assert knob.help.endswith("."), knob.name
        if knob.low is not None:
            assert knob.low <= knob.default <= knob.high
        if knob.choices:
            assert knob.default in knob.choices
