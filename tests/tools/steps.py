"""One step of training: its gradient in this process, and scripts in several processes."""

import os
import subprocess
import sys

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from sbirlib.config.config import DataConfig
from sbirlib.data.batches import Epoch
from sbirlib.data.loading import load_split
from sbirlib.methods import build
from sbirlib.training.steps import backward

# Two processes add up in another order than one, and draw other dropout: none of it here, and full precision.
EXACT = {"mstr.dropout": 0.0, "run.precision": "fp32"}


def gradients(config, pairs, rows, chunk, *, seed=0, stage=""):
    """Loss terms and the gradient of every parameter, flattened, in one process; `seed` is dropout's."""
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(0)
    model = build(config)
    model.stage = stage
    data = load_split(pairs.split("train"), DataConfig(root=str(pairs.root)), config.model.image_size)
    if stage in [later.name for later in model.stages()[1:]]:
        model.enter(stage, data)
    model = accelerator.prepare(model).train()
    terms = backward(accelerator, model, Epoch(data, config.data, seed=0, epoch=1), rows, (seed, 0), chunk)
    return terms, flat_gradient(model)


def flat_gradient(model):
    """The gradient of every parameter in one row; 0 for those that have none."""
    return torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in model.parameters()]
    )


def launch(processes, *words):
    """Runs a Python script in several CPU processes and returns what it prints.

    `accelerate launch` starts several only for GPUs; it uses this launcher of torch, too.
    """
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            str(processes),
            *words,
        ],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
