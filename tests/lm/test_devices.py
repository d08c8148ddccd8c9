"""The device of a run: facts of other machines are injected in place of torch's."""

import pytest
import torch

from ptlearn.lm.devices import check_bf16, check_memory, free_memory, pick_device


@pytest.fixture
def machine(monkeypatch):
    """A function that pretends: so many CUDA devices of that capability, an Apple GPU or none."""

    def pretend(cuda: int = 0, capability: tuple[int, int] = (9, 0), mps: bool = False, build: str | None = "12.8"):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Card")
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.version, "cuda", build)

    return pretend


def test_auto_takes_the_fastest(machine):
    for facts, kind in (({"cuda": 2, "mps": True}, "cuda"), ({"mps": True}, "mps"), ({}, "cpu")):
        machine(**facts)
        assert pick_device("auto").type == kind and pick_device("cpu").type == "cpu"


def test_a_device_that_is_absent_is_one_line(machine):
    machine(build=None)
    for name, words in (
        ("cuda", "a build without CUDA, sees 0 CUDA devices; use a torch built for CUDA"),
        ("mps", "torch sees no such device"),
        ("gpu", "expected auto, cpu, mps, cuda or cuda:N"),
        ("cuda:x", "expected auto"),
        ("cuda:", "expected auto"),
        ("cpu:1", "expected auto"),
    ):
        with pytest.raises(ValueError, match=words) as raised:
            pick_device(name)
        assert "\n" not in str(raised.value) and repr(name) in str(raised.value)
    machine(cuda=2)
    assert pick_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(ValueError, match=r"built for CUDA 12\.8, sees 2 CUDA devices; use a smaller number"):
        pick_device("cuda:2")


def test_bf16_needs_capability_8(machine):
    machine(cuda=1, capability=(7, 5))
    with pytest.raises(ValueError, match=r"bf16 on Card, compute capability 7\.5: expected at least 8\.0; use float32"):
        check_bf16(torch.device("cuda"))
    check_bf16(torch.device("cpu"))
    machine(cuda=1, capability=(8, 0))
    check_bf16(torch.device("cuda"))


def test_memory_names_both_sizes_and_what_to_lower():
    check_memory(1000, 1000)
    with pytest.raises(ValueError, match=r"1,001 bytes predicted, 1,000 bytes available; lower batch or length"):
        check_memory(1001, 1000, "batch or length")
    assert free_memory() > 2**20
