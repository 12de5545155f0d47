"""The script for a GPU: in its tiny form it passes on a CPU, and each of its checks can fail."""

import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import pytest
import torch
from accelerate.optimizer import AcceleratedOptimizer
from tools import gpu_checks
from tools.gpu_checks import CHECKS, FORMS, Site, main, run

from sbirlib.layers.backbone import Tokens
from sbirlib.training import setup

SCRIPT = Path(__file__).parents[1] / "gpu.sh"


def script(python, **env):
    words = [SCRIPT, "--device", "cpu"]
    return subprocess.run(
        words, capture_output=True, text=True, env=os.environ | {"PYTHON": str(python)} | env
    )


@pytest.mark.slow
def test_the_tiny_form_passes_and_prints_one_table():
    done = script(sys.executable, GPU_SECONDS="3600")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert {line.count("|") for line in lines} == {4}
    results = {
        what.strip(): result.strip() for what, result, _ in (line[1:-1].split("|") for line in lines[2:])
    }
    assert set(results.values()) <= {"", "passed", "not run"}
    assert {"device", "training", "resume", "gradient caching", "gallery", "attention"} <= results.keys()


def test_what_is_missing_is_said_with_the_commands_that_fetch_it(tmp_path):
    venv.create(tmp_path / "bare", with_pip=False)
    done = script(tmp_path / "bare/bin/python", PYTHONPATH="")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(r"^error: missing here: accelerate, .*pydantic, .*torch", done.stderr)
    commands = [line for line in done.stderr.splitlines() if "pip install --target gpu-site" in line]
    version = f"--python-version {sys.version_info[0]}.{sys.version_info[1]}"
    assert commands[0].endswith(f"{version} einops filelock joblib lazy-loader pydantic tqdm pyyaml")
    assert commands[1].endswith(
        f"{version} --no-deps accelerate numpy pillow safetensors scipy shapely timm torch torchvision"
    )


def test_what_a_folder_brings_is_not_missing(tmp_path):
    venv.create(tmp_path / "bare", with_pip=False)
    (tmp_path / "site/shapely").mkdir(parents=True)
    (tmp_path / "site/shapely/__init__.py").touch()
    done = script(tmp_path / "bare/bin/python", PYTHONPATH="", GPU_SITE=str(tmp_path / "site"))
    assert done.returncode == 2
    assert "shapely" not in done.stderr
    assert "scipy" in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_checks_are_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "torch sees no CUDA device here; --device cpu" in capsys.readouterr().err


def test_a_check_that_fails_leaves_the_others_their_turn(tmp_path, capsys):
    def bad(site):
        yield "one", "found"
        gpu_checks.require(False, "a | is no border")

    def lacking(site):
        raise gpu_checks.NotRunError("no compiler")
        yield

    def good(site):
        yield "another", "found"

    assert run(Site("cpu", FORMS["cpu"], tmp_path), [bad, lacking, good]) == 1
    assert capsys.readouterr().out.splitlines()[-4:] == [
        "| one | passed | found |",
        "| bad | FAILED | CheckError: a / is no border |",
        "| lacking | not run | no compiler |",
        "| another | passed | found |",
    ]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    made = Site("cpu", FORMS["cpu"], tmp_path_factory.mktemp("gpu"))
    assert made.run.is_dir()  # trained before anything is spoilt
    return made


def without_bf16(patch, site):
    patch.setattr(setup, "wants_bf16", lambda precision, device: False)


def without_learning(patch, site):
    still = site.form._replace(small=site.form.small | {"optim.lr": 1e-9, "run.epochs": 1})
    patch.setattr(site, "form", still)
    patch.setattr(site, "folder", Path(tempfile.mkdtemp(dir=site.folder)))
    patch.delitem(site.__dict__, "run", raising=False)


def without_optimiser(patch, site):
    patch.setattr(AcceleratedOptimizer, "load_state_dict", lambda optimizer, state: None)
    patch.setattr(site, "folder", site.folder / "forgotten")


def other_weights(patch, site):
    made, build = [], gpu_checks.build

    def changed(config):
        made.append(build(config))
        if len(made) > 1:
            for weight in made[-1].parameters():
                weight.data *= 1.1
        return made[-1]

    patch.setattr(gpu_checks, "build", changed)


def half_a_batch(patch, site):
    backward = gpu_checks.backward

    def halved(accelerator, model, plan, rows, key, chunk):
        return backward(accelerator, model, plan, rows[:2] if chunk else rows, key)

    patch.setattr(gpu_checks, "backward", halved)


def the_worst(patch, site):
    search = gpu_checks.Gallery.search
    patch.setattr(gpu_checks.Gallery, "search", lambda gallery, sketch, k: search(gallery, sketch, 99)[-1:])


def other_ranks(patch, site):
    evaluate, calls = gpu_checks.evaluate, []

    def turned(*given):
        calls.append(evaluate(*given))
        return calls[-1]._replace(ranks=calls[-1].ranks + len(calls) - 1)

    patch.setattr(gpu_checks, "evaluate", turned)


def larger_attention(patch, site):
    rollout = gpu_checks.rollout
    patch.setattr(gpu_checks, "rollout", lambda maps: rollout(maps._replace(maps=1.1 * maps.maps)))


def low_ceiling(patch, site):
    patch.setattr(gpu_checks, "ceiling", lambda device, dtype: 1e-6)


def fast_recipe(patch, site):
    product = torch.rand(8, 8)
    patch.setattr(gpu_checks, "released_recipe", lambda trainer: lambda plan, number: product @ product)


def other_encoder(patch, site):
    patch.setattr(torch, "compile", lambda model: lambda images: Tokens(*(1.1 * t for t in model(images))))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("check", "spoil", "message"),
    [
        ("training", without_bf16, "the layers computed in {torch.float32}"),
        ("training", without_learning, "the loss went from"),
        ("resume", without_optimiser, "weights differ by"),
        ("equality", without_bf16, "the formats are one"),
        ("equality", other_weights, "fp32 is too far from the CPU in fp32"),
        ("equality", half_a_batch, "with optim.chunk the gradient is off by"),
        ("retrieval", other_ranks, "0.0% of the ranks are those of the CPU"),
        ("retrieval", without_learning, "guessing has"),
        ("retrieval", the_worst, "a saved gallery agrees in"),
        ("attention", larger_attention, "maps, rollout or shares add up to"),
        ("speed", low_ceiling, "of what a matrix product reaches"),
        ("speed", fast_recipe, "the kit's best is"),
        ("compiled", other_encoder, "from those of the encoder as it is"),
    ],
)
def test_each_check_can_fail(site, monkeypatch, capsys, check, spoil, message):
    [chosen] = [function for function in CHECKS if function.__name__ == check]
    spoil(monkeypatch, site)
    assert run(site, [chosen]) == 1
    assert re.search(rf"\| {check} \| FAILED \| CheckError: .*{re.escape(message)}", capsys.readouterr().out)
