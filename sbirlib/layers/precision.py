"""Which number format and which attention kernel are fast on a device."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn

Precision = Literal["auto", "fp32", "bf16"]


def wants_bf16(precision: Precision, device: torch.device) -> bool:
    """Whether forward passes run in bf16; `auto`: where the device has instructions for it."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        # Older GPUs only emulate bf16, slower than fp32.
        return torch.cuda.get_device_capability(device)[0] >= 8
    return device.type == "cpu" and (_cpu_has("avx512_bf16") or _cpu_has("amx_bf16"))


def choose_attention(model: nn.Module, device: torch.device, bf16: bool) -> list[Any]:
    """Takes timm's attention layers off the fused kernel where the plain one, the same maths, is faster.

    On CPUs with bf16 but no matrix unit (AMX), torch's fused kernel is slower in bf16, as measured, than two
    products with a softmax between them. Returns the layers that this changed, of whatever class.
    """
    slow = bf16 and device.type == "cpu" and not _cpu_has("amx_bf16")
    changed: list[Any] = [layer for layer in model.modules() if slow and getattr(layer, "fused_attn", False)]
    for layer in changed:
        layer.fused_attn = False
    return changed


@contextmanager
def forward_in(precision: Precision, model: nn.Module) -> Iterator[None]:
    """Runs forward passes of `model` in this precision, on its device; embeddings stay close, not equal."""
    device = next(model.parameters()).device
    if not wants_bf16(precision, device):
        # Without autocast, even a disabled one: not every torch has it on every device.
        yield
        return
    changed = choose_attention(model, device, bf16=True)
    try:
        with torch.autocast(device.type, torch.bfloat16):
            yield
    finally:
        for layer in changed:
            layer.fused_attn = True


def _cpu_has(feature: str) -> bool:
    # Older torch cannot tell.
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return capabilities.get(feature, False)
