"""A checkpoint: everything comes back to the bit, the frozen stay out, and a kill leaves the file before it whole."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from ptlearn import checkpoints
from ptlearn.checkpoints import load_checkpoint, read_state, save_checkpoint


def made(seed):
    """A small module with a frozen bias, its optimizer after one step, and a generator in use."""
    generator = torch.Generator().manual_seed(seed)
    module = nn.Linear(3, 2)
    module.bias.requires_grad_(False).zero_()
    nn.init.normal_(module.weight, generator=generator)
    optimizer = torch.optim.Adam([module.weight], lr=0.1)
    step(module, optimizer, generator)
    return module, optimizer, generator


def step(module, optimizer, generator):
    optimizer.zero_grad()
    module(torch.randn(4, 3, generator=generator)).square().sum().backward()
    optimizer.step()


def parts(module, optimizer, generator):
    return {"module": module}, {"adam": optimizer}, {"generator": generator}


def test_what_was_saved_goes_on_as_if_nothing_had_happened(tmp_path):
    one, other = made(0), made(1)
    state = {"steps": 1, "words": ["é"], "loss": 0.1}
    save_checkpoint(tmp_path / "new" / "a", state, *parts(*one))
    assert load_checkpoint(tmp_path / "new" / "a", *parts(*other)) == read_state(tmp_path / "new" / "a") == state
    for _ in range(3):
        step(*one)
        step(*other)
    assert torch.equal(one[0].weight, other[0].weight)
    assert torch.equal(one[2].get_state(), other[2].get_state())


def test_the_frozen_are_not_in_the_file_and_stay_as_they_are(tmp_path):
    one, other = made(0), made(1)
    with torch.no_grad():
        other[0].bias.fill_(7.0)
    save_checkpoint(tmp_path / "a", {}, *parts(*one))
    assert {name for name in load_file(tmp_path / "a") if name.startswith("module")} == {"module.weight"}
    load_checkpoint(tmp_path / "a", *parts(*other))
    assert other[0].bias.tolist() == [7.0, 7.0]


def test_dying_while_writing_leaves_the_last_file(tmp_path, monkeypatch):
    one = made(0)
    save_checkpoint(tmp_path / "a", {"steps": 1}, *parts(*one))

    def die(tensors, path, metadata):
        path.write_bytes(b"half a fi")
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "save_file", die)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "a", {"steps": 2}, *parts(*one))
    assert load_checkpoint(tmp_path / "a", *parts(*made(1))) == {"steps": 1}
