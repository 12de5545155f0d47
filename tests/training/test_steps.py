"""The gradient of one step: chunk by chunk and over several processes it is that of the whole batch."""

import subprocess
import sys
import weakref
from functools import partial
from pathlib import Path

import pytest
import torch
from einops import rearrange
from safetensors.torch import load_file
from tools.steps import EXACT, gradients, launch

from sbirlib import evaluate, load_run
from sbirlib.config.config import DataConfig
from sbirlib.data.batches import Epoch
from sbirlib.data.loading import load_split
from sbirlib.layers.chance import drawing
from sbirlib.methods import ARNet, build


@pytest.fixture(scope="module")
def config(tiny, pairs):
    return tiny.updated(
        {
            "mstr.enabled": True,
            "mstr.scales": (1, 2),
            "data.root": str(pairs.root),
            "data.val_fraction": 0.0,
            "run.epochs": 1,
        }
    )


@pytest.mark.parametrize("chunk", [1, 5, 8, 15])
def test_chunks_give_the_gradient_of_the_whole_batch(config, pairs, chunk):
    exact = config.updated({**EXACT, "model.drop_path": 0.0})
    rows = torch.arange(16)
    whole, cached = gradients(exact, pairs, rows, 0), gradients(exact, pairs, rows, chunk)
    torch.testing.assert_close(cached[0], whole[0], atol=1e-5, rtol=1e-5)
    assert (cached[1] - whole[1]).norm() <= 1e-5 * whole[1].norm()


def test_a_batch_put_together_from_chunks_knows_its_rows(config, pairs, monkeypatch):
    seen, compare = [], ARNet.compare

    def watched(method, rows, batch):
        seen.append(batch.rows.tolist())
        return compare(method, rows, batch)

    monkeypatch.setattr(ARNet, "compare", watched)
    for chunk in (0, 2):
        gradients(config, pairs, torch.tensor([4, 2, 7, 1, 0]), chunk)
    assert seen == [[4, 2, 7, 1, 0]] * 2


def test_dropout_is_repeated_exactly(config, pairs):
    # One chunk that is a whole batch, but for the second pass: the same dropout, so the same gradient.
    rows = torch.arange(6)
    dropping = config.updated({"mstr.dropout": 0.5, "mstr.weight": 0.9})
    whole = gradients(dropping, pairs, rows, 0, seed=3)
    other = gradients(dropping, pairs, rows, 0, seed=4)
    assert (whole[1] - other[1]).norm() > 1e-2 * whole[1].norm()
    one, again = (gradients(dropping, pairs, rows, 4, seed=3) for _ in range(2))
    assert torch.equal(one[1], again[1])
    by_hand = two_chunks_by_hand(dropping, pairs, seed=3)
    assert (one[1] - by_hand).norm() <= 1e-5 * by_hand.norm()


def two_chunks_by_hand(config, pairs, seed):
    """Both chunks with their graph at once: what caching must equal, dropout included."""
    torch.manual_seed(0)
    model = build(config).train()
    data = load_split(pairs.split("train"), DataConfig(root=str(pairs.root)), config.model.image_size)
    plan = Epoch(data, config.data, seed=0, epoch=1)
    encoded, batches = [], [plan.batch(rows, "cpu") for rows in (torch.arange(4), torch.arange(4, 6))]
    for number, batch in enumerate(batches):
        with drawing(seed, 0, number):
            encoded.append(model(batch))
    first, second = encoded
    rows = {
        name: torch.cat([value, second[name]]) if value.ndim else (4 * value + 2 * second[name]) / 6
        for name, value in first.items()
    }
    ids = torch.cat([batch.photo_ids for batch in batches])
    model.compare(rows, batches[0]._replace(photo_ids=ids))["total"].backward()
    return torch.cat([weights.grad.flatten() for weights in model.parameters()])


def most_kept(run):
    """The most bytes that the graph holds at once for the backward pass, but those of weights."""
    held, most = [0], [0]

    def count(size):
        held[0] += size
        most[0] = max(most[0], held[0])

    class Kept:
        def __init__(self, tensor):
            self.tensor = tensor
            if not tensor.is_leaf:
                count(tensor.nbytes)
                weakref.finalize(self, count, -tensor.nbytes)

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        run()
    return most[0]


def test_a_step_in_chunks_keeps_less_at_a_time(config, pairs):
    whole, chunked = (most_kept(partial(gradients, config, pairs, torch.arange(16), n)) for n in (0, 4))
    assert 0 < chunked < whole / 2


def test_adding_up_smaller_batches_is_not_the_same(config, pairs):
    exact, rows = config.updated(EXACT), torch.arange(16)
    whole = gradients(exact, pairs, rows, 0)[1]
    halves = sum(gradients(exact, pairs, part, 0)[1] for part in rows.split(8)) / 2
    assert (halves - whole).norm() > 1e-2 * whole.norm()


@pytest.mark.parametrize(
    ("method", "processes", "chunk"), [("arnet", 2, 0), ("arnet", 4, 0), ("arnet", 2, 3), ("b_siamese", 2, 3)]
)
def test_processes_together_take_the_step_of_one(config, pairs, tmp_path, method, processes, chunk):
    exact = config.updated({"method": method, **EXACT})
    exact.to_yaml(tmp_path / "config.yaml")
    out = tmp_path / "step.pt"
    launch(
        processes,
        str(Path(__file__).parents[1] / "tools" / "one_step.py"),
        str(tmp_path / "config.yaml"),
        str(chunk),
        str(out),
    )
    found = torch.load(out, weights_only=True)
    terms, whole = gradients(exact, pairs, torch.arange(16), 0)
    torch.testing.assert_close(found["terms"], terms, atol=1e-5, rtol=1e-5)
    assert (found["gradient"] - whole).norm() <= 1e-5 * whole.norm()


def train_words(config, out, batch, *words):
    return [
        "train",
        "--preset",
        "mini_full",
        "--data.root",
        config.data.root,
        "--model.image-size",
        "48",
        "--model.embed-dim",
        "16",
        "--optim.batch-size",
        str(batch),
        "--optim.warmup",
        "0",
        "--run.epochs",
        "2",
        "--run.tracker",
        "none",
        "--run.precision",
        "fp32",
        "--run.device",
        "cpu",
        "--data.val-fraction",
        "0.25",
        "--mstr.scales",
        "1",
        "2",
        "--mstr.dropout",
        "0",
        "--out",
        str(out),
        *words,
    ]


@pytest.mark.slow
def test_two_processes_train_the_model_of_one_and_resume(config, pairs, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    subprocess.run(
        [sys.executable, "-m", "sbirlib", *train_words(config, one, 8)], check=True, capture_output=True
    )
    printed = launch(2, "-m", "sbirlib", *train_words(config, two, 4))
    assert printed.count("epoch   1") == 1  # one process speaks
    first, second = (load_run(run, "last") for run in (one, two))
    for name, weights in first.state_dict().items():
        same = second.state_dict()[name]
        if name.endswith(("qkv.bias", "in_proj_bias")):
            # A bias of the keys changes no attention: Adam scales its rounding error up to whole steps.
            weights, same = (
                rearrange(bias, "(part d) -> part d", part=3)[[0, 2]] for bias in (weights, same)
            )
        torch.testing.assert_close(same, weights, atol=1e-4, rtol=1e-3)
    assert evaluate(first, pairs).ranks.tolist() == evaluate(second, pairs).ranks.tolist()
    assert (two / "history.csv").read_text().splitlines()[0] == (
        one / "history.csv"
    ).read_text().splitlines()[0]
    # Stopped in the middle, and gone on with: the same.
    cut = tmp_path / "cut"
    launch(2, str(Path(__file__).parents[1] / "tools" / "stopped.py"), "3", *train_words(config, cut, 4))
    assert not (cut / "history.csv").exists() or len((cut / "history.csv").read_text().splitlines()) < 3
    assert "The run is in" in launch(2, "-m", "sbirlib", "train", "--out", str(cut), "--resume")
    for name, weights in load_file(two / "last" / "model.safetensors").items():
        assert torch.equal(load_file(cut / "last" / "model.safetensors")[name], weights)
    # Random numbers are those of each process: another number of them cannot go on.
    done = subprocess.run(
        [sys.executable, "-m", "sbirlib", "train", "--out", str(two), "--resume"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "was trained in 2 processes, not 1; start as many" in done.stderr
