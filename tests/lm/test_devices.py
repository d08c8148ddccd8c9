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


def test_too_little_memory_names_both_numbers_and_what_to_lower(cards, monkeypatch):
    cards((9, 0))
    cuda = torch.device("cuda")
    assert free_bytes(cuda) == 8_900_000_000  # what torch keeps for itself and does not use counts
    require_memory(8_900_000_000, cuda, "--micro-batch")
    with pytest.raises(ValueError, match="^a step needs 8.9 GB, cuda has 8.9 GB free: lower --micro-batch$"):
        require_memory(8_900_000_001, cuda, "--micro-batch")
    assert 10**8 < free_bytes(torch.device("cpu")) < 2**50
    monkeypatch.setattr(devices, "open", lambda *_, **__: (_ for _ in ()).throw(OSError), raising=False)
    assert 10**9 < free_bytes(torch.device("cpu"))
