"""One step of training in as many processes as it is launched in; what came of it is written by the first."""

import sys

import torch
from accelerate import Accelerator

from sbirlib import Config, PairFolder
from sbirlib.config.config import DataConfig
from sbirlib.data.batches import Epoch
from sbirlib.data.loading import load_split
from sbirlib.methods import build
from sbirlib.training.steps import backward


def main(config_file: str, chunk: str, out: str) -> None:
    """Takes the first 16 sketches, an equal part in each process."""
    config, accelerator = Config.from_yaml(config_file), Accelerator(cpu=True)
    torch.manual_seed(0)
    model = accelerator.prepare(build(config)).train()
    data = load_split(
        PairFolder(config.data.root).split("train"),
        DataConfig(root=config.data.root),
        config.model.image_size,
    )
    rows = torch.arange(16).chunk(accelerator.num_processes)[accelerator.process_index]
    terms = backward(accelerator, model, Epoch(data, config.data, seed=0, epoch=1), rows, (0, 0), int(chunk))
    if accelerator.is_main_process:
        gradient = torch.cat([weights.grad.flatten() for weights in model.parameters()])
        torch.save({"terms": terms, "gradient": gradient}, out)
    accelerator.end_training()


if __name__ == "__main__":
    main(*sys.argv[1:])
