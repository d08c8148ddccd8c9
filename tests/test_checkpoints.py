"""A checkpoint: everything comes back to the bit, the frozen stay out, and a kill leaves the file before it whole.

A run: it saves when it is due, goes on where it was, and refuses the file of another run by naming what differs.
"""

import signal
import threading
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save, save_file
from torch import nn

from ptlearn import checkpoints
from ptlearn.checkpoints import Run, fingerprint, load_checkpoint, read_state, save_checkpoint


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
    assert [path.name for path in tmp_path.iterdir()] == ["a"]  # and nothing half written


def test_no_space_is_one_line_and_leaves_the_last_file(tmp_path):
    """The system refuses to let a file grow as it does where no space is left."""
    resource = pytest.importorskip("resource")
    one = made(0)
    save_checkpoint(tmp_path / "a", {"steps": 1}, *parts(*one))
    needed = sum(tensor.nbytes for tensor in load_file(tmp_path / "a").values())
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (needed // 2, limits[1]))
        told = rf"^checkpoint .*a cannot be written \(.+\): it takes {needed:,} bytes, [\d,]+ are free; a file that"
        with pytest.raises(ValueError, match=told):
            save_checkpoint(tmp_path / "a", {"steps": 2}, *parts(*one))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert load_checkpoint(tmp_path / "a", *parts(*made(1))) == {"steps": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_place_that_cannot_be_written_to_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"^checkpoint .*file.a cannot be written \(.*(exists|directory)"):
        save_checkpoint(tmp_path / "file" / "a", {}, *parts(*made(0)))


def test_two_writers_at_once_leave_a_whole_file(tmp_path):
    one, failures = made(0), []

    def write(number):
        try:
            for _ in range(30):
                save_checkpoint(tmp_path / "a", {"writer": number}, *parts(*one))
        except OSError as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and load_checkpoint(tmp_path / "a", *parts(*made(1)))["writer"] in (0, 1)


def header(state):
    return save({"a": torch.zeros(1)}, {"state": state})


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\x08" + b"\0" * 7 + b"notjson!", b"\xff" * 64, header("[1]"), header("{"), header("3")]
)
def test_what_is_no_checkpoint_is_one_line(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    for read in (read_state, lambda path: load_checkpoint(path, {}, {}, {})):
        with pytest.raises(ValueError, match=r"^checkpoint .*a is damaged or none \(.+\): remove it") as error:
            read(tmp_path / "a")
        assert "\n" not in str(error.value)


def test_other_modules_are_refused_before_anything_is_put_back(tmp_path):
    save_checkpoint(tmp_path / "a", {}, *parts(*made(0)))
    other = nn.Sequential(made(1)[0], nn.Linear(2, 2))
    before = [parameter.detach().clone() for parameter in other.parameters()]
    with pytest.raises(ValueError, match="lacks 'module.0.weight': expected one of the same modules"):
        load_checkpoint(tmp_path / "a", {"module": other}, {}, {})
    assert all(torch.equal(old, new) for old, new in zip(before, other.parameters(), strict=True))


def test_weights_and_folders_are_no_checkpoints(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "weights")
    for path in (tmp_path / "weights", tmp_path):
        with pytest.raises(ValueError, match="is damaged or none"):
            read_state(path)


# ---------------------------------------------------------------- a run


@dataclass
class Log:
    losses: list = field(default_factory=list)


def run_of(path, *, seed=0, every=2, frozen=0.0, dtype=torch.float32, **changes):
    """A run of one module with a frozen bias; `changes` replaces settings or fixed data."""
    module, optimizer, generator = made(seed)
    with torch.no_grad():
        module.bias.fill_(frozen)
    given = {"settings": {"lr": 0.1}, "fixed": {"data": [1, 2]}} | changes
    return Run(Log(), *parts(module.to(dtype), optimizer, generator), path=path, every=every, **given)


def test_a_run_is_saved_when_it_is_due_and_at_the_end(tmp_path):
    run = run_of(str(tmp_path / "new" / "run"), every=3)  # a path as text
    saved = []
    for steps in range(1, 6):
        run.history.losses.append(steps)
        run.save(steps, last=steps == 5)
        saved.append(len(read_state(run.path)["history"]["losses"]) if run.path.exists() else 0)
    assert saved == [0, 0, 3, 3, 5]
    again = run_of(tmp_path / "new" / "run", seed=1, every=9)
    again.resume()
    assert again.history == run.history and torch.equal(again.modules["module"].weight, run.modules["module"].weight)


OTHER_RUNS = {
    "lr was 0.1, now 0.2": {"settings": {"lr": 0.2}},
    "data was": {"fixed": {"data": [1, 3]}},
    "frozen weights was": {"frozen": 1e-7},
    "dtype was float32, now float64": {"dtype": torch.float64},
}


@pytest.mark.parametrize("message", OTHER_RUNS)
def test_a_checkpoint_of_another_run_is_refused_by_what_differs(tmp_path, message):
    run_of(tmp_path / "run").save(1, last=True)
    other = run_of(tmp_path / "run", seed=1, **OTHER_RUNS[message])
    before = other.modules["module"].weight.detach().clone()
    with pytest.raises(ValueError, match=f"^checkpoint .*run is of another run: .*{message}"):
        other.resume()
    assert torch.equal(other.modules["module"].weight, before) and other.history == Log()


def test_numbers_of_numpy_are_numbers(tmp_path):
    run_of(tmp_path / "run", settings={"lr": np.float64(0.1), "batch": np.int64(4)}).save(1, last=True)
    run_of(tmp_path / "run", settings={"lr": 0.1, "batch": 4}).resume()


def test_what_is_free_may_be_otherwise_and_without_a_path_nothing_is_written(tmp_path):
    run_of(tmp_path / "run", free={"micro_batch": 1}).save(1, last=True)
    run_of(tmp_path / "run", free={"micro_batch": 2}).resume()
    none = run_of(None)
    none.resume()
    none.save(1, last=True)
    with pytest.raises(ValueError, match="^checkpoint_every=0: expected at least 1$"):
        run_of(tmp_path / "run", every=0)


def test_errors_name_the_step_and_the_checkpoint_that_is_left(tmp_path):
    run = run_of(tmp_path / "run")
    with pytest.raises(ValueError, match="^step 3: odd$"), run.naming("step 3"):
        raise ValueError("odd")
    run.save(2)
    with pytest.raises(ValueError, match="^step 3: odd; the last checkpoint is .*run$"), run.naming("step 3"):
        raise ValueError("odd")


def test_fingerprints_tell_contents_apart():
    zeros = torch.zeros(2)
    tensors = [zeros, zeros.bfloat16(), zeros[0], torch.tensor([0.0, -0.0]), torch.eye(3)[:, :2]]
    assert all(fingerprint(tensor) == fingerprint(tensor.clone()) for tensor in tensors)
    assert len({fingerprint(tensor) for tensor in tensors}) == 5
    long, changed = torch.zeros(2000), torch.zeros(2000)
    changed[1000] = 1  # which no printed tensor shows
    for holder in (lambda t: [t], lambda t: ([1, t], "a"), lambda t: [[0], [t.numpy()]]):
        assert fingerprint(holder(long)) == fingerprint(holder(long.clone())) != fingerprint(holder(changed))
    assert fingerprint([1, 2]) == fingerprint((1, 2)) != fingerprint([[1], [2]])
    one, same, other = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)
    same.load_state_dict(one.state_dict())
    assert fingerprint(one) == fingerprint(same) != fingerprint(other)
    assert fingerprint(nn.Sequential(one)) != fingerprint(nn.Sequential(one, nn.ReLU()))
