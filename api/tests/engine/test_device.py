"""Devices by name, and cores by cgroup."""

from __future__ import annotations

import os

import pytest

from ml_inference.engine.device import Device, parse_device, usable_cores
from ml_inference.errors import ConfigurationInvalid


@pytest.mark.parametrize(
    ("text", "cuda", "expected"),
    [
        ("auto", False, Device("cpu")),
        ("auto", True, Device("cuda")),
        ("cpu", True, Device("cpu")),
        ("cuda", True, Device("cuda", 0)),
        ("cuda:3", True, Device("cuda", 3)),
    ],
)
def test_a_device_is_what_was_asked_for(text, cuda, expected):
    assert parse_device(text, cuda_available=cuda) == expected


@pytest.mark.parametrize("text", ["cuda", "cuda:1"])
def test_missing_cuda_is_a_refusal_never_a_silent_cpu(text):
    with pytest.raises(ConfigurationInvalid, match="DEVICE=cpu"):
        parse_device(text, cuda_available=False)


@pytest.mark.parametrize("text", ["gpu", "cuda:", "cuda:-1", "cuda:x", "CPU", ""])
def test_another_word_is_refused_with_the_legal_ones(text):
    with pytest.raises(ConfigurationInvalid, match="auto, cpu, cuda"):
        parse_device(text, cuda_available=True)


AFFINITY = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "100000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "9900000 100000"}, AFFINITY),
        ({"cpu.max": "max 100000"}, AFFINITY),
        ({"cpu.max": "nonsense"}, AFFINITY),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, AFFINITY),
        ({}, AFFINITY),
    ],
)
def test_cores_are_the_least_of_affinity_and_quota(tmp_path, files, expected):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + "\n")
    assert usable_cores(tmp_path) == expected
