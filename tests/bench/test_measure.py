"""What a row says, how things are measured in turn, and what happens where memory does not suffice."""

import json
import math
import signal
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from sbirlib.bench import costs as bench_costs
from sbirlib.bench import measure
from sbirlib.bench import run as bench
from sbirlib.bench.measure import (
    Failed,
    Row,
    Spread,
    alone,
    attempt,
    ceilings,
    cores,
    in_turn,
    in_turn_warm,
    seconds,
    shortage,
)
from sbirlib.bench.train import flops


@pytest.mark.parametrize(("better", "ratio"), [("higher", 2.0), ("lower", 0.5)])
def test_a_ratio_above_one_is_in_favour_of_the_kit(better, ratio):
    row = Row("step", "unit", better, Spread.of([1, 6, 9]), Spread.of([3]), share_of_ceiling=0.456)
    assert row.ratio == ratio
    assert row.as_line() == f"| step | unit | 6 (1-9) | 3 | released recipe | {ratio:.2f} | 46 % |"
    assert row.as_dict() == {
        "part": "step",
        "unit": "unit",
        "kit": 6,
        "released": 3,
        "ratio": ratio,
        "share_of_ceiling": 0.456,
        "against": "released recipe",
        "kit_range": [1, 9],
        "released_range": [3, 3],
    }


def test_a_row_with_nothing_beside_it_is_against_nothing():
    row = Row("panels", "ms", "lower", Spread.of([1234.5]), against="faiss")
    assert row.as_line() == "| panels | ms | 1234 |  |  |  |  |"
    written = row.as_dict()
    assert [written[key] for key in ("released", "ratio", "against", "released_range")] == [None] * 4


@pytest.mark.parametrize(("kit", "beside"), [(0, 3), (3, 0), (0, 0)])
@pytest.mark.parametrize("better", ["higher", "lower"])
def test_nothing_is_divided_by_zero(kit, beside, better):
    row = Row("memory", "MiB", better, Spread.of([kit]), Spread.of([beside]))
    assert row.ratio is None
    assert row.as_line() == f"| memory | MiB | {kit} | {beside} | released recipe |  |  |"


def test_what_was_not_reached_is_said_and_null():
    row = Row("accuracy", "min", "lower", Spread.of([2.5]), Spread.of([math.inf]))
    assert row.ratio is None
    assert row.as_line() == "| accuracy | min | 2.5 | not reached | released recipe |  |  |"
    written = json.loads(bench.as_json({"gpu": None}, bench.Measured([row], [Failed("step", "too large")])))
    assert written["machine"] == {"gpu": None}
    assert (written["rows"][0]["kit"], written["rows"][0]["released"]) == (2.5, None)
    assert written["failed"] == [{"part": "step", "why": "too large"}]


def test_measurements_take_turns_after_one_to_warm_up():
    calls, numbers = [], iter(range(100))

    def way(name):
        return lambda: calls.append(name) or float(next(numbers))

    first, second = in_turn(way("a"), way("b"), 3)
    assert "".join(calls) == "abababab"
    assert (first, second) == (Spread(4, 2, 6), Spread(5, 3, 7))
    assert alone(way("c"), 1) == Spread(9, 9, 9)


@pytest.mark.parametrize(("repeats", "times"), [(1, 1), (2, 2), (5, 2)])
def test_what_takes_long_is_measured_twice_at_most(repeats, times, monkeypatch):
    monkeypatch.setattr(measure, "LONG", -1.0)
    numbers = iter(range(100))
    first, second = in_turn_warm(lambda: next(numbers), lambda: 7.0, repeats)
    assert first == Spread.of(range(times))
    assert second == Spread(7, 7, 7)


def test_ceilings_are_those_of_both_formats_and_of_memory():
    found = ceilings("cpu", side=32, repeats=1)
    assert all(0 < value < 1e16 for value in found)


def test_products_and_attention_are_counted_forwards_and_back():
    first, second = torch.randn(3, 5), torch.randn(5, 7)
    assert flops(lambda: first @ second) == 2 * 3 * 5 * 7
    images, heads, tokens, width = 2, 3, 6, 4
    q, k, v = (torch.randn(images, heads, tokens, width, requires_grad=True) for _ in range(3))
    product = 2 * images * heads * tokens * tokens * width
    assert flops(lambda: F.scaled_dot_product_attention(q, k, v)) == 2 * product
    # Back: the four products of the two gradients, and the scores once more.
    assert flops(lambda: F.scaled_dot_product_attention(q, k, v).sum().backward()) == (2 + 5) * product


@pytest.mark.parametrize("before", ["", "cuda", "mps"])
def test_every_kind_of_device_is_waited_for(before, monkeypatch):
    """With torch's interface for all of them, or before it, with the one of its kind."""
    waited = []

    def device(name):
        return SimpleNamespace(is_available=lambda: True, synchronize=lambda: waited.append(name))

    if before:
        monkeypatch.delattr(torch, "accelerator", raising=False)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: before == "cuda")
        monkeypatch.setattr(torch.cuda, "synchronize", device("cuda").synchronize)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
        monkeypatch.setattr(torch.mps, "synchronize", device("mps").synchronize)
    else:
        monkeypatch.setattr(torch, "accelerator", device(""), raising=False)
    seconds(lambda: waited.append("action"))
    assert waited == [before, "action", before]


def test_the_cores_are_those_that_may_be_used(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {3, 5, 7}, raising=False)
    assert cores() == 3
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: 12)
    assert cores() == 12


ROW = Row("step", "ms", "lower", Spread.of([1]))


def broken(error):
    yield ROW
    raise error


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA has no more"),
        MemoryError(),
        OSError(12, "Cannot allocate memory"),
        RuntimeError("MPS backend out of memory"),
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
    ],
)
def test_where_memory_does_not_suffice_the_rest_goes_on(error, monkeypatch):
    freed = []
    monkeypatch.setattr(measure, "free", lambda: freed.append(True))
    row, failed = attempt("step, batch 256", lambda: broken(error))
    assert row is ROW
    assert failed.part == "step, batch 256"
    assert failed.why.startswith("memory does not suffice: ")
    assert freed == [True]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes differ"),
        ValueError("out of memory"),
        OSError("no such file"),
        KeyboardInterrupt(),
    ],
)
def test_every_other_error_is_raised(error):
    with pytest.raises(type(error)):
        list(attempt("step", lambda: broken(error)))


def test_memory_that_the_processor_has_not_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert shortage(caught.value)


def test_a_measuring_process_that_is_killed_is_told():
    (failed,) = attempt("memory", lambda: iter([bench_costs._alone(signal.raise_signal, signal.SIGKILL)]))
    assert failed == Failed(
        "memory", "the process that measured it was killed, as systems do when memory runs out"
    )


def test_a_gpu_is_given_back_what_lies_in_a_cycle(monkeypatch):
    class Model:
        def __init__(self):
            self.itself = self

        def __del__(self):
            calls.append("collected")

    calls = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append("emptied"))

    def rows():
        Model()
        yield ROW

    assert list(attempt("step", rows)) == [ROW]
    assert calls == ["collected", "emptied"]
