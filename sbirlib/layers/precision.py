"""Which number format is fast on a device."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]


def wants_bf16(precision: Precision, device: torch.device) -> bool:
    """Whether forward passes run in bf16; `auto`: where the device has instructions for it."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        # Older GPUs only emulate bf16, slower than fp32.
        return torch.cuda.get_device_capability(device)[0] >= 8
    return device.type == "cpu" and (_cpu_has("avx512_bf16") or _cpu_has("amx_bf16"))


def forward_in(precision: Precision, device: torch.device) -> AbstractContextManager:
    """Runs forward passes on `device` in this precision; embeddings stay close, not equal."""
    if wants_bf16(precision, device):
        return torch.autocast(device.type, torch.bfloat16)
    # Without autocast, even a disabled one: not every torch has it on every device.
    return nullcontext()


def _cpu_has(feature: str) -> bool:
    # Older torch cannot tell.
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return capabilities.get(feature, False)
