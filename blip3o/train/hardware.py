"""What the device of a process can do at most: what a training's speed is compared with."""

from __future__ import annotations

import time

import torch

# Dense bf16 tensor-core TFLOP/s, from the vendors' data sheets; the longest name that fits counts.
PEAK_TFLOPS = {
    "B200": 2250.0,
    "H200": 989.0,
    "H100": 989.0,
    "H100 PCIe": 756.0,
    "A100": 312.0,
    "A40": 149.7,
    "A30": 165.0,
    "A10": 125.0,
    "L40S": 362.0,
    "L40": 181.0,
    "L4": 121.0,
    "RTX 4090": 165.2,
    "RTX 3090": 71.0,
    "MI300X": 1307.4,
    "MI250X": 383.0,
}


def peak_tflops(device: torch.device) -> tuple[float, str] | None:
    """TFLOP/s of one process's device in bf16, and where the figure is from; None for a GPU that is not listed.

    A GPU's is its data sheet's. A CPU has none that means anything here: what it reaches on large products with this
    process's threads is measured, in about a second.
    """
    if device.type == "cpu":
        return measured_tflops(torch.bfloat16), "measured on products of 1024 x 1024 matrices"
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    known = [key for key in PEAK_TFLOPS if key in name]
    return (PEAK_TFLOPS[max(known, key=len)], f"data sheet of {name}") if known else None


def measured_tflops(dtype: torch.dtype, side: int = 1024, tries: int = 5) -> float:
    """Best of ``tries`` products of two square matrices of random numbers on this CPU."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(side, side, generator=generator).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(tries + 1):  # the first one warms up
        start = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best / 1e12
