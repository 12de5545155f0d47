"""One step of training in as many processes as it is launched in; what came of it is written by the first."""

import sys

import torch
from accelerate import Accelerator
from steps import flat_gradient  # beside this file

from sbirlib import Config, PairFolder
from sbirlib.config.config import DataConfig
from sbirlib.data.batches import Epoch
from sbirlib.data.loading import load_split
from sbirlib.methods import build
from sbirlib.training.steps import backward


def main(accelerator: Accelerator, config_file: str, chunk: str, out: str) -> None:
    """Takes the first 16 sketches, an equal part in each process."""
    config = Config.from_yaml(config_file)
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
        torch.save({"terms": terms, "gradient": flat_gradient(model)}, out)


if __name__ == "__main__":
    # For each step a configuration, the size of a chunk, and a file to write.
    everyone, words = Accelerator(cpu=True), iter(sys.argv[1:])
    for step in zip(words, words, words, strict=True):
        main(everyone, *step)
    everyone.end_training()
