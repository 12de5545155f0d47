"""Checks on a GPU that the kit does there what it does on a CPU, and how fast; `tests/gpu.sh` runs it.

`PYTHONPATH=.:tests python -m tools.gpu_checks` prints one Markdown table, a row as soon as it is known, and
exits with 1 if a check failed. With `--device cpu` the same checks run in a tiny form, which shows that they
work, and nothing about a GPU. What only notebooks, panels and the command line import is not needed.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from safetensors.torch import load_file
from tools import tiny_models  # noqa: F401  # registers the ViT of two layers
from tools.steps import flat_gradient
from tools.trainers import trainer_of
from torch.utils.benchmark import timer

from sbirlib.analysis import attention_maps, recycling_shares, rollout
from sbirlib.bench.run import ceiling, flops_of, released_recipe
from sbirlib.config.config import Config
from sbirlib.data import Epoch, PairFolder, load_split, to_float
from sbirlib.layers.backbone import Backbone
from sbirlib.layers.chance import drawing
from sbirlib.methods import Method, build
from sbirlib.miniclothes import draw_miniclothes
from sbirlib.retrieval import Gallery, evaluate
from sbirlib.runs import load_run
from sbirlib.runs.records import code_state, versions
from sbirlib.training import train, trainer
from sbirlib.training.setup import make_accelerator
from sbirlib.training.signals import Stop
from sbirlib.training.steps import backward

Found = Iterator[tuple[str, str]]  # what was looked at, and what was found


class CheckError(Exception):
    """What is not as it must be."""


class NotRunError(Exception):
    """What this machine lacks for a check."""


class Form(NamedTuple):
    """How large everything is."""

    photos: tuple[int, int]
    sketches: tuple[int, int]
    small: dict[str, Any]  # settings, beside those of `mini_full`, of the model that is trained
    large: dict[str, Any]  # those, beside `full`, of the model that is compared and timed
    compared: int  # pairs of which the gradient is compared
    batches: tuple[int, ...]  # pairs in a step that is timed
    seconds: float  # for which steps are timed
    least_ratio: float  # of the kit's speed to that of the released recipe


FORMS = {
    "cuda": Form(
        photos=(120, 60),
        sketches=(300, 120),
        small={"run.epochs": 16},
        large={},
        compared=4,
        batches=(8, 16, 32, 64, 128),
        seconds=4,
        least_ratio=1,
    ),
    # So small that overheads decide how fast the ways are.
    "cpu": Form(
        photos=(24, 12),
        sketches=(48, 24),
        small={"model.image_size": 48, "mstr.scales": (1, 2), "optim.batch_size": 16, "run.epochs": 12},
        large={"model.backbone": "tiny_vit_with_registers", "model.image_size": 64, "mstr.scales": (1, 2, 4),
               "mstr.heads": 4},
        compared=8,
        batches=(2, 4),
        seconds=1,
        least_ratio=0.01,
    ),
}  # fmt: skip


@dataclass
class Site:
    """Where the checks run, and what they share."""

    device: str
    form: Form
    folder: Path

    @cached_property
    def pairs(self) -> PairFolder:
        """Pictures that this kit draws."""
        counts = {"photos": self.form.photos, "sketches": self.form.sketches}
        return PairFolder(draw_miniclothes(self.folder / "data", **counts, size=224))

    def config(self, preset: str, **changes: Any) -> Config:
        """The preset in this form, from scratch, in bf16, on the device."""
        own = self.form.small if preset == "mini_full" else self.form.large
        fixed = {
            "data.root": str(self.pairs.root),
            "model.pretrained": False,
            "run.device": self.device,
            "run.precision": "bf16",
            "run.tracker": "none",
        }
        return Config.preset(preset).updated(fixed | own | changes)

    @cached_property
    def run(self) -> Path:
        """A run that was trained on the device."""
        out = self.folder / "run"
        self.records = list(train(self.pairs, self.config("mini_full"), out=out))
        return out

    def model(self, device: str) -> Method:
        """The model of the run, there."""
        return load_run(self.run).to(device)


def require(holds: bool, what: str) -> None:
    """Raises CheckError unless it holds; `what` says what was found, too."""
    if not holds:
        raise CheckError(what)


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """How far from `other`, relative to its length."""
    one, other = one.double().cpu(), other.double().cpu()
    return float((one - other).norm() / other.norm())


def training(site: Site) -> Found:
    """The weights lie on the device, forward passes run in bf16, and the loss falls."""
    own = trainer_of(site.pairs, site.config("mini_full"), site.folder / "trainer")
    places = {weight.device.type for weight in own.model.parameters()}
    require(places == {site.device}, f"weights are on {places}")
    batch = own.plan(1).batch(torch.arange(2), own.accelerator.device)
    types = {rows.dtype for rows in own.model(batch).values() if rows.ndim}
    # Accelerate hands out fp32, whatever the layers computed in; so look at one of these.
    seen: list[torch.dtype] = []
    layer = own.method.sketch_encoder.embed
    handle = layer.register_forward_hook(lambda module, given, made: seen.append(made.dtype))
    own.model(batch)
    handle.remove()
    require(set(seen) == {torch.bfloat16}, f"the layers computed in {set(seen)}")
    require(types == {torch.float32}, f"the loss is computed of {types}")
    first, last = (site.run and site.records[i].losses["total"] for i in (0, -1))
    require(last < 0.9 * first, f"the loss went from {first:.3f} to {last:.3f}")
    yield "training", f"{len(site.records)} epochs in bf16: the loss fell from {first:.2f} to {last:.2f}"


def resume(site: Site) -> Found:
    """A training that was stopped in the middle of an epoch ends like one that was not."""
    config = site.config("mini_full", **{"run.epochs": 3, "optim.warmup": 0, "model.drop_path": 0.2})
    # Some kernels have no deterministic form: then two whole runs differ, too.
    torch.use_deterministic_algorithms(True, warn_only=True)

    def weights(name: str, **options: Any) -> torch.Tensor:
        out = site.folder / name
        records = list(train(site.pairs, config, out=out, **options))
        values = load_file(out / "last" / "model.safetensors").values() if records else [torch.zeros(1)]
        return torch.cat([value.flatten().double() for value in values])

    whole, again, stop, steps = weights("whole"), weights("again"), Stop(), []

    def counted(*given: Any) -> torch.Tensor:
        steps.append(given)
        if len(steps) == 3:
            stop.ask(now=True)
        return backward(*given)

    with patch.object(sys.modules[trainer.Trainer.__module__], "backward", counted):
        weights("stopped", stop=stop)
    require(len(steps) == 3, f"stopped after {len(steps)} steps, not 3")
    resumed = distance(weights("stopped", resume=True), whole)
    noise = distance(again, whole)
    torch.use_deterministic_algorithms(False)
    found = f"weights differ by {resumed:.1e}, those of two whole runs by {noise:.1e}"
    require(resumed <= 10 * noise, found)
    yield "resume", f"stopped after 3 steps, then gone on: {found}"


def gradient(site: Site, device: str, precision: str, chunk: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss terms and gradient of a step of the large model, on the CPU."""
    changes = {"run.device": device, "run.precision": precision, "mstr.dropout": 0.0}
    config = site.config("full", **changes)
    accelerator = make_accelerator(config, site.folder)
    with drawing(0):
        model = accelerator.prepare(build(config)).train()
    data = load_split(site.pairs.split("train"), config.data, config.model.image_size)
    rows, plan = torch.arange(site.form.compared), Epoch(data, config.data, seed=0, epoch=1)
    terms = backward(accelerator, model, plan, rows, (0, 0), chunk)
    return terms.cpu(), flat_gradient(model).cpu()


def equality(site: Site) -> Found:
    """A step has the loss and the gradient that it has on the CPU in fp32, within the number format."""
    terms, whole = gradient(site, "cpu", "fp32")
    gradients = {}
    for precision, near, most in (("fp32", 0.01, 0.01), ("bf16", 0.02, 0.05)):
        there, gradients[precision] = gradient(site, site.device, precision)
        apart, turned = distance(there, terms), distance(gradients[precision], whole)
        found = (
            f"from the CPU in fp32: loss terms {apart:.1e}, gradient {turned:.1e}, relative to their length"
        )
        require(apart <= near and turned <= most, f"{precision} is too far {found}")
        yield f"step in {precision}", found
    rounded = distance(gradients["bf16"], gradients["fp32"])
    require(rounded > 1e-4, f"bf16 and fp32 have gradients that differ by {rounded:.1e}: the formats are one")
    cached = distance(gradient(site, site.device, "fp32", chunk=2)[1], gradients["fp32"])
    require(cached <= 1e-3, f"with optim.chunk the gradient is off by {cached:.1e}")
    yield "gradient caching", f"in chunks of 2 pairs, gradient {cached:.1e} from that of the whole batch"


def retrieval(site: Site) -> Found:
    """Ranks are those of the CPU, a gallery finds the same photos, and the model has learnt its pairs."""
    model = site.model(site.device)
    there, here = evaluate(model, site.pairs, "train"), evaluate(site.model("cpu"), site.pairs, "train")
    same = float((there.ranks == here.ranks).mean())
    require(same >= 0.95, f"{same:.1%} of the ranks are those of the CPU")
    chance = mean(1 / rank for rank in range(1, there.gallery + 1))
    found = f"mean reciprocal rank {there.mrr:.3f} of {there.gallery} photos it was trained on"
    require(there.mrr > 2 * chance, f"{found}; guessing has {chance:.3f}")
    yield "retrieval", f"{same:.1%} of the ranks are those of the CPU; {found}"
    folder, file = site.pairs.root / "trainB", site.folder / "gallery.safetensors"
    Gallery.from_folder(model, folder).save(file)
    gallery = Gallery.load(file, model)
    queries = list(zip(there.sketches, there.photos, there.ranks == 1, strict=True))[:32]
    hits = [gallery.search(site.pairs.root / "trainA" / name, k=1)[0].path.stem for name, _, _ in queries]
    agree = mean((hit == photo) == bool(first) for hit, (_, photo, first) in zip(hits, queries, strict=True))
    require(agree >= 0.95, f"a saved gallery agrees in {agree:.1%} of {len(queries)} searches")
    yield "gallery", f"saved, loaded and searched: agrees in {agree:.1%} of {len(queries)} searches"


def attention(site: Site) -> Found:
    """Attention maps are those of the CPU; the shares of recycled cells add up to the whole."""
    found = {}
    for device in ("cpu", site.device):
        model = site.model(device)
        data = load_split(site.pairs.split("test"), site.config("mini_full").data, model.image_size)
        encoder, images = model.sketch_encoder, to_float(data.sketches[:8], device)
        maps = attention_maps(encoder.backbone, images)
        require(maps.maps.device.type == device, f"the maps are on {maps.maps.device}, not on {device}")
        fused = [block.attn.fused_attn for block in encoder.backbone.encoder.blocks]
        require(all(fused), "the fused kernel is not used again after the maps were read")
        followed, shares = rollout(maps).maps, recycling_shares(encoder, images)
        sums = maps.maps.sum(-1), followed.sum(-1), sum(part.sum((1, 2)) for part in shares)
        off = max(float((value - 1).abs().max()) for value in sums)
        require(off < 1e-3, f"maps, rollout or shares add up to 1 +- {off:.1e}")
        found[device] = maps.maps.cpu()
    apart = float((found[site.device] - found["cpu"]).abs().max())
    require(apart < 0.01, f"attention differs from the CPU's by up to {apart:.1e}")
    yield (
        "attention",
        f"maps within {apart:.1e} of the CPU's; maps, rollout and shares add up to 1 +- {off:.1e}",
    )


class Busy:
    """How busy the device is meanwhile: the share of the time in which it computes, in percent."""

    def __init__(self, device: str) -> None:
        self.device, self.seen, self.over = device, [], threading.Event()

    def __enter__(self) -> Busy:
        self.began, self.cpu = time.perf_counter(), time.process_time()
        self.thread = threading.Thread(target=self._ask, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.thread.join()
        if self.device == "cpu":
            wall = (time.perf_counter() - self.began) * torch.get_num_threads()
            self.seen = [100 * (time.process_time() - self.cpu) / wall]

    def _ask(self) -> None:
        if self.device == "cpu" or not shutil.which("nvidia-smi"):
            return
        card = getattr(torch.cuda.get_device_properties(0), "uuid", None)  # older torch does not know it
        words = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        words += [f"--id=GPU-{card}"] if card else []
        while not self.over.wait(0.3):
            answer = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
            self.seen += [float(answer)] if answer.isdigit() else []

    def __str__(self) -> str:
        return f"busy {median(self.seen):.0f} %" if self.seen else "how busy is not known"


def speed(site: Site) -> Found:
    """A step of the large model, at each batch that fits: the kit beside the released recipe."""
    config = site.config("full", **{"optim.batch_size": site.form.batches[-1]})
    own = trainer_of(site.pairs, config, site.folder / "speed")
    device, plan, best = own.accelerator.device, own.plan(1), {}
    ceilings = {"bf16": ceiling(device, torch.bfloat16), "fp32": ceiling(device, torch.float32)}
    told = ", ".join(f"{value / 1000:.3g} TFLOP/s in {name}" for name, value in ceilings.items())
    yield "a matrix product", told
    ways = {"kit, bf16": lambda: own.step, "released recipe, fp32": lambda: released_recipe(own)}
    for name, make in ways.items():
        way, top = make(), ceilings[name[-4:]]
        own.batch_size = site.form.batches[0]
        flops = flops_of(way, plan) / (own.method.passes * own.batch_size)
        best[name], once = 0.0, partial(seconds_of, way, plan, 0)
        for batch in site.form.batches:
            own.batch_size, what = batch, f"{config.model.backbone}, {name}, batch {batch}"
            try:
                views, notes = timed(site, once, own.method.passes * batch)
            except torch.cuda.OutOfMemoryError:
                yield what, "out of memory"
                break
            finally:
                own.optimizer.zero_grad()
                torch.cuda.empty_cache()
            share = views * flops / top / 1e9
            require(0 < share < 1.05, f"{what}: {share:.0%} of what a matrix product reaches")
            best[name] = max(best[name], views)
            yield what, f"{views:.4g} views/s, {share:.0%} of the ceiling, {notes}"
        del way, once
    kit, released = best.values()
    require(kit > site.form.least_ratio * released, f"the kit's best is {kit / released:.2f} of the recipe's")
    yield "best of the kit", f"{kit / released:.2f} times the best of the released recipe"


def seconds_of(way: Callable[..., object], *given: Any) -> float:
    """How long a call takes; `timer` waits for the device."""
    started = timer()
    way(*given)
    return timer() - started


def timed(site: Site, once: Callable[[], float], views: float) -> tuple[float, str]:
    """Views a second, by the median; and how busy the device was, and the most memory that was taken."""
    torch.cuda.reset_peak_memory_stats() if site.device == "cuda" else None
    for _ in range(2):
        once()
    times, end = [], time.perf_counter() + site.form.seconds
    with Busy(site.device) as busy:
        while len(times) < 3 or time.perf_counter() < end:
            times.append(once())
    if site.device == "cuda":
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return views / median(times), f"{busy}, peak memory {peak / 2**30:.2f} GiB"


def compiled(site: Site) -> Found:
    """torch.compile of the encoder: the same tokens and gradient, and what it costs and gains."""
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        raise NotRunError("torch.compile needs a C++ compiler")
    config = site.config("full")
    options = {"image_size": config.model.image_size, "pretrained": False}
    with drawing(0):
        backbone = Backbone(config.model.backbone, **options).to(site.device).train()
    batch = site.form.batches[-1]
    images = torch.rand(batch, 3, config.model.image_size, config.model.image_size, device=site.device)

    def passed(model: Callable[..., Any]) -> torch.Tensor:
        with torch.autocast(site.device, torch.bfloat16):
            tokens = model(images)
        backbone.zero_grad()
        (tokens.cls.float().square().mean() + tokens.patches.float().square().mean()).backward()
        return tokens.cls.detach()

    def once(model: Callable[..., Any]) -> float:
        return seconds_of(passed, model)

    expected, slope = passed(backbone), flat_gradient(backbone)
    plain, _ = timed(site, lambda: once(backbone), batch)
    fast = torch.compile(backbone)
    took = once(fast)
    apart, turned = distance(passed(fast), expected), distance(flat_gradient(backbone), slope)
    found = f"tokens {apart:.1e} and gradient {turned:.1e} from those of the encoder as it is"
    require(apart < 0.03 and turned < 0.1, found)
    gain = timed(site, lambda: once(fast), batch)[0] / plain
    took_at = (
        f"{config.model.backbone}, {batch} images: compiled in {took:.0f} s, then {gain:.2f} times as fast"
    )
    yield "torch.compile of the encoder", f"{took_at}; {found}"


CHECKS = training, resume, equality, retrieval, attention, speed, compiled


def machine(device: str) -> Found:
    """What is measured, in words."""
    if device == "cuda":
        card = torch.cuda.get_device_properties(0)
        memory = f"{card.total_memory / 2**30:.0f} GiB, compute capability {card.major}.{card.minor}"
        yield "device", f"{card.name}, {memory}, CUDA {torch.version.cuda}"
    else:
        yield "device", f"CPU ({torch.backends.cpu.get_cpu_capability()}), {torch.get_num_threads()} threads"
    yield "host", f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    yield "versions", ", ".join(f"{name} {number}" for name, number in versions().items())
    yield "commit", code_state()


def run(site: Site, checks: Sequence[Callable[[Site], Found]] = CHECKS) -> int:
    """Prints the table; returns the number of checks that failed."""
    failed = 0
    print("| what | result | found |\n|---|---|---|", flush=True)
    for check in (machine, *checks):
        began = time.perf_counter()
        # What compares numbers with a CPU's does without TF32, which torch allows in convolutions.
        torch.backends.cudnn.allow_tf32 = check in (speed, compiled)
        try:
            for what, found in check(site.device if check is machine else site):
                print(f"| {what} | {'' if check is machine else 'passed'} | {found} |", flush=True)
        except NotRunError as error:
            print(f"| {check.__name__} | not run | {error} |", flush=True)
        except Exception as error:  # whatever it is, the other checks still have something to say
            failed += 1
            traceback.print_exc()
            words = " ".join(f"{type(error).__name__}: {error}".replace("|", "/").split())
            print(f"| {check.__name__} | FAILED | {words[:400]} |", flush=True)
        print(f"{check.__name__}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return failed


def main(argv: Sequence[str] | None = None) -> int:
    """Runs all checks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=sorted(FORMS), default="cuda")
    device = parser.parse_args(argv).device
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device here; --device cpu runs the same checks in a tiny form")
    with tempfile.TemporaryDirectory() as folder:
        return int(run(Site(device, FORMS[device], Path(folder))) > 0)


if __name__ == "__main__":
    sys.exit(main())
