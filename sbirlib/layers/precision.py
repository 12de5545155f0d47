"""Which number format is fast on a device."""

from typing import Literal

import torch


def wants_bf16(precision: Literal["auto", "fp32", "bf16"], device: torch.device) -> bool:
    """Whether forward passes run in bf16; `auto`: where the device has instructions for it."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        # Older GPUs only emulate bf16, slower than fp32.
        return torch.cuda.get_device_capability(device)[0] >= 8
    return device.type == "cpu" and (_cpu_has("avx512_bf16") or _cpu_has("amx_bf16"))


def _cpu_has(feature: str) -> bool:
    # Older torch cannot tell.
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return capabilities.get(feature, False)
