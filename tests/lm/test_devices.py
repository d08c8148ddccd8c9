"""Devices that are absent, too old or too small: one line each, on facts that the tests make up."""

import pytest
import torch

from ptlearn.lm import devices
from ptlearn.lm.devices import free_bytes, pick_device, require_memory


@pytest.fixture
def cards(monkeypatch):
    """One card of a given compute capability, with 8 GB free of 10."""

    def install(capability, count=1):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Old Card")
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (8 * 10**9, 10 * 10**9))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 10**9)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 10**8)

    return install


def test_auto_is_the_gpu_where_there_is_one(cards):
    cards((9, 0))
    assert pick_device() == torch.device("cuda") and pick_device("cpu", bf16=True).type == "cpu"
    assert pick_device("cuda:0", bf16=True).index == 0
    cards((9, 0), count=0)
    assert pick_device().type == "cpu"


def test_what_is_not_there_is_one_line(cards):
    cards((9, 0), count=0)
    with pytest.raises(ValueError, match=r"^device='cuda': torch \S+, .*, sees 0 of them: expected cpu, or .*$"):
        pick_device("cuda")
    cards((7, 5))
    with pytest.raises(ValueError, match="sees 1 of them"):
        pick_device("cuda:1")
    with pytest.raises(ValueError, match=r"^bf16=True: Old Card has compute capability 7.5: expected 8.0 or more"):
        pick_device("cuda", bf16=True)
    for name in ("gpu", "tpu:x", ""):
        with pytest.raises(ValueError, match="expected auto, cpu, cuda or mps"):
            pick_device(name)


def test_too_little_memory_names_both_numbers_and_what_to_lower(cards):
    cards((9, 0))
    cuda = torch.device("cuda")
    assert free_bytes(cuda) == 8_900_000_000  # what torch keeps for itself and does not use counts
    require_memory(8_900_000_000, cuda, "--micro-batch")
    with pytest.raises(ValueError, match="^a step needs 8.9 GB, cuda has 8.9 GB free: lower --micro-batch$"):
        require_memory(8_900_000_001, cuda, "--micro-batch")
    assert 10**8 < free_bytes(torch.device("cpu")) < 2**50


def test_a_container_s_limit_counts(monkeypatch, tmp_path):
    files = {"/proc/meminfo": "MemTotal: 9 kB\nMemAvailable:  5000 kB\n",
             "/sys/fs/cgroup/memory.max": "4000000\n", "/sys/fs/cgroup/memory.current": "1500000\n"}  # fmt: skip
    for number, text in enumerate(files.values()):
        (tmp_path / str(number)).write_text(text)
    monkeypatch.setattr(devices, "Path", lambda name: tmp_path / str(list(files).index(name)))
    assert free_bytes(torch.device("cpu")) == 2_500_000
    (tmp_path / "1").write_text("max\n")
    assert free_bytes(torch.device("cpu")) == 5_120_000
