"""Which device runs a model, and with how many threads."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from ml_inference.errors import ConfigurationInvalid

CGROUP: Final = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Device:
    """A processor that models run on; `str(device)` is how settings spell it."""

    kind: Literal["cpu", "cuda"]
    index: int = 0

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"cuda:{self.index}"


def parse_device(text: str, *, cuda_available: bool) -> Device:
    """Turn `auto`, `cpu`, `cuda` or `cuda:1` into a device.

    Raises:
        ConfigurationInvalid: CUDA was asked for and this ONNX Runtime or machine has none; never a silent CPU.
    """
    kind, _, index = text.partition(":")
    if text == "auto":
        return Device("cuda") if cuda_available else Device("cpu")
    if text == "cpu":
        return Device("cpu")
    if kind != "cuda" or not (index.isdecimal() or text == "cuda"):
        raise ConfigurationInvalid(f"DEVICE={text!r} is not one of auto, cpu, cuda, cuda:N")
    if not cuda_available:
        raise ConfigurationInvalid(
            f"DEVICE={text} but this ONNX Runtime finds no CUDA: install ml-inference-processor[gpu] on a machine "
            "with a CUDA device, or set DEVICE=cpu"
        )
    return Device("cuda", int(index or 0))


def usable_cores(cgroup: Path = CGROUP) -> int:
    """Cores this process may really use: the least of its CPU affinity and its cgroup's quota, at least 1.

    ONNX Runtime by itself would start a thread for each core of the *host*.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota(cgroup)
    return max(1, cores if quota is None else min(cores, int(quota)))


def _cgroup_quota(cgroup: Path) -> float | None:
    """CPU quota in cores: cgroup v2 `cpu.max`, or v1 `cpu.cfs_quota_us` ÷ `cpu.cfs_period_us`; None without limit."""
    try:
        if (cgroup / "cpu.max").exists():
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota = (cgroup / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text().strip()
        limited = quota != "max" and int(quota) > 0
        return int(quota) / int(period) if limited else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
