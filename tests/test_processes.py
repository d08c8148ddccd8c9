"""Two processes do what one does: the same numbers from SFT and RL, under DDP and FSDP2; files that go from one to the
other; a process that is killed.

One launch runs everything on two processes (gloo) and leaves files, which the tests compare with the same runs of the
one process that they are. The two are forked from a process that has only imported libraries: one that has run other
tests has threads, and a fork of it may crash.
"""

import json
import multiprocessing
import os
import shutil
import signal
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import accelerate
import pytest
import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file
from torch import distributed
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from toy_tasks import WORDS, toy_task

from ptlearn import optimization, processes
from ptlearn import policy_gradient as pg
from ptlearn.checkpoints import read_state
from ptlearn.finetuning.parameter_efficient import lora
from ptlearn.finetuning.sft import fit_sft
from ptlearn.lm.chat import Example
from ptlearn.lm.models import load_lm, toy_lm
from ptlearn.lm.text import sample_text
from ptlearn.rl.text_collection import collect_text, text_collector
from ptlearn.rl.training import train_policy

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="two processes on CPUs: not tried beside a GPU")

TASK = toy_task()
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


# ---------------------------------------------------------------- four runs, each of three steps


def made(count, length=6):
    """Examples of different lengths, whose responses differ in length too."""
    rows = [[1 + (7 * row + 3 * i) % 250 for i in range(length + row % 5)] for row in range(count)]
    return [Example(row, [False] * (3 + i % 2) + [True] * (len(row) - 3 - i % 2)) for i, row in enumerate(rows)]


def sft_run(lm, checkpoint, steps, watch=iter):
    """Eleven examples in steps of five, five and one, which is fewer than there are processes."""
    return fit_sft(
        lm, made(11), batch=5, micro_batch=2, held_out=made(5, length=4), evaluate_every=1, patience=3,
        seed=1, checkpoint=checkpoint, checkpoint_every=1, progress=lambda left: watch(left[: steps - left.start]),
    )  # fmt: skip


def ppo(rollout, values, bootstrap, logprobs):
    returns = pg.episode_returns(rollout.rewards, rollout.mask)
    groups = pg.prompt_groups(rollout.observations, rollout.mask)
    weights = (returns - pg.leave_one_out(returns, groups=groups))[:, None] * rollout.mask
    return pg.clipped_weights(pg.step_ratio(logprobs, rollout.logprobs, rollout.mask), weights, epsilon=0.01)


def rl_run(lm, checkpoint, steps, **options):
    return train_policy(lm, text_collector(TASK, prompts=4, group=3), ppo, updates=steps, lr=0.02, epochs=2,
                        micro_batch=4, checkpoint=checkpoint, checkpoint_every=1, **options)  # fmt: skip


def tokens(rollout):
    return rollout.mask.sum()


def steps_of_each(rollout):
    return len(rollout.mask) * rollout.mask.sum(1, keepdim=True)


def with_reference(lm, checkpoint, steps):
    return rl_run(lm, checkpoint, steps, reference=lm, beta=0.1, normalizer=steps_of_each)


RUNS = {  # name: (a fresh model, its run)
    "sft": (lambda folder: load_lm(folder, dtype=torch.float64), sft_run),
    "sft lora": (lambda _: lora(load_lm("pocket-s", dtype=torch.float64), targets=".*_proj", rank=2), sft_run),
    "rl": (lambda _: toy_lm(WORDS), lambda *given: rl_run(*given, normalizer=tokens)),
    "rl lora": (lambda _: lora(toy_lm(WORDS), targets=".*_proj", rank=2), with_reference),
}
WRAPPED = [("ddp", name) for name in RUNS] + [("fsdp2", name) for name in ("sft", "rl lora")]


# ---------------------------------------------------------------- on two processes


def accelerator(wrapper):
    AcceleratorState._reset_state()
    made = Accelerator(cpu=True)
    if wrapper == "fsdp2":
        # the environment of `accelerate launch` would say so; without a GPU it is not listened to
        made.state.distributed_type = accelerate.DistributedType.FSDP
        made.state.fsdp_plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2, auto_wrap_policy="transformer_based_wrap", reshard_after_forward=True,
            cpu_ram_efficient_loading=False,
        )  # fmt: skip
    return made


def report(folder, lm, history):
    """Whole parameters and the history, which must be one on both processes."""
    parameters = {name: processes.whole(parameter.detach()).clone() for name, parameter in lm.named_parameters()}
    histories = [None] * processes.size()
    if processes.size() > 1:
        distributed.all_gather_object(histories, asdict(history))
        assert histories[0] == histories[1]
    if processes.rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(parameters, folder / "parameters")
        (folder / "history").write_text(json.dumps(asdict(history)))


def in_two(folder, model_folder):
    """What each of the two processes does."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    for wrapper, name in WRAPPED:
        (fresh, run), here = RUNS[name], folder / wrapper / name
        run(processes.spread(fresh(model_folder), accelerator(wrapper)), here / "run", 2)
        if processes.rank() == 0:
            shutil.copy(here / "run", here / "two steps")
        for start, path in (("own", here / "run"), ("one's", folder / "one" / name / f"for {wrapper}")):
            lm = processes.spread(fresh(model_folder), accelerator(wrapper))
            report(here / start, lm, run(lm, path, 3))
    unwrapped(folder, model_folder)
    perturbed(folder)
    cases(folder)
    last_words(folder, model_folder)


def unwrapped(folder, model_folder):
    """Without DDP or FSDP2 gradients are summed at the end of a step."""
    for name in ("sft", "rl"):
        fresh, run = RUNS[name]
        lm = fresh(model_folder)
        report(folder / "unwrapped" / name / "own", lm, run(lm, None, 3))


def perturbed(folder):
    """Mistakes that the comparison must notice."""
    wrong = {"own normalizer": {"total": lambda value: value}, "mean of gradients": {"size": lambda: 1}}
    for name, changes in wrong.items():
        lm = processes.spread(toy_lm(WORDS), accelerator("ddp"))
        with mock.patch.multiple(optimization, **changes):
            report(folder / "perturbed" / name, lm, rl_run(lm, None, 3, normalizer=tokens))


def cases(folder):
    """Small things, asserted where they happen."""
    number = processes.rank()
    assert processes.total(1 + number) == 3 and processes.total(0.25) == 0.5 and processes.most(number) == 1
    assert processes.total(torch.tensor([number, 1])).tolist() == [1, 2]
    assert processes.gather(torch.full((2 - number, 2), float(number))).tolist() == [[0, 0], [0, 0], [1, 1]]
    assert processes.share(range(5)) == [range(0, 5, 2), range(1, 5, 2)][number]
    pieces = list(processes.in_step(torch.nn.Linear(1, 1), "abc"[: 3 - 2 * number]))
    assert pieces == [[("a", True), ("b", True), ("c", True)], [("a", True), ("a", False), ("a", False)]][number]
    with pytest.raises(ValueError, match="^prompts=3: expected a multiple of the number of processes, 2$"):
        collect_text(TASK, toy_lm(WORDS), prompts=3, group=2)
    if number == 0:
        (folder / "mine").touch()
    distributed.barrier()
    with (
        mock.patch("pathlib.Path.exists", lambda path: number == 0),
        pytest.raises(ValueError, match="is there for 1 of 2 processes: expected a folder that all of them see$"),
    ):
        rl_run(toy_lm(WORDS), folder / "mine", 1)
    with pytest.raises(ValueError, match="^update 0: the gradient's norm is nan"):  # on both, for one has it
        train_policy(toy_lm(WORDS), text_collector(TASK, prompts=2, group=2), broken, updates=1)
    seen = []
    train_policy(toy_lm(WORDS), text_collector(TASK, prompts=2, group=2), ppo, updates=9,
                 until=lambda policy, history: seen.append(0) or (number == 0 and len(seen) == 2))  # fmt: skip
    assert len(seen) == 2


def broken(rollout, values, bootstrap, logprobs):
    return logprobs * (float("nan") if processes.rank() else 1.0)


def last_words(folder, model_folder):
    """The second process is killed after two steps, as by a machine that goes down."""
    def fatal(planned):
        for step in planned:
            if step == 2 and processes.rank() == 1:
                (folder / "here").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield step

    lm = processes.spread(RUNS["sft"][0](model_folder), accelerator("ddp"))
    sft_run(lm, folder / "killed", 3, fatal)


# ---------------------------------------------------------------- compared


@pytest.fixture(scope="module")
def results(tmp_path_factory, tiny_folders):
    """A folder of what one process did and what two did."""
    folder, threads = tmp_path_factory.mktemp("processes"), torch.get_num_threads()
    torch.set_num_threads(1)
    for name, (fresh, run) in RUNS.items():
        here = folder / "one" / name
        run(fresh(tiny_folders["llama"]), here / "run", 2)
        for wrapper in ("ddp", "fsdp2"):
            shutil.copy(here / "run", here / f"for {wrapper}")
        lm = fresh(tiny_folders["llama"])
        report(here, lm, run(lm, None, 3))
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=2, max_restarts=0, start_method="forkserver", rdzv_backend="c10d",
        rdzv_endpoint="localhost:0", run_id="test", monitor_interval=0.1,
    )  # fmt: skip
    multiprocessing.set_forkserver_preload(["accelerate", "transformers", "torch._dynamo", "ptlearn.rl.training"])
    try:
        with pytest.raises(ChildFailedError) as ended:
            elastic_launch(config, in_two)(folder, tiny_folders["llama"])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        torch.set_num_threads(threads)
    # it got as far as to the kill, whichever process is found dead first: the other one loses its connection
    assert (folder / "here").exists(), str(ended.value)
    return folder


def gap(one, other):
    """The largest difference of parameters and of numbers of the history, relative where a number is above 1, such as
    the norm of a gradient: of so long a sum in another order the sixth digit is rounding."""
    first, second = (load_file(folder / "parameters") for folder in (one, other))
    assert first.keys() == second.keys()
    moved = max(float((first[name] - second[name]).abs().max()) for name in first)
    histories = [json.loads((folder / "history").read_text()) for folder in (one, other)]
    assert histories[0].keys() == histories[1].keys() and len(histories[0]) > 4
    pairs = [zip(histories[0][name], histories[1][name], strict=True) for name in histories[0]]
    return max(moved, *(abs(a - b) / max(1, abs(a)) for pair in pairs for a, b in pair))


@pytest.mark.parametrize(("wrapper", "name"), WRAPPED)
def test_two_processes_take_the_steps_of_one(results, wrapper, name):
    """And so they do when they go on from a file of two, or of one."""
    for start in ("own", "one's"):
        assert gap(results / "one" / name, results / wrapper / name / start) < 1e-5


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("wrapper", "name"), WRAPPED)
def test_one_process_goes_on_from_a_file_of_two(results, tiny_folders, tmp_path, wrapper, name):
    fresh, run = RUNS[name]
    lm = fresh(tiny_folders["llama"])
    report(tmp_path, lm, run(lm, results / wrapper / name / "two steps", 3))
    assert gap(results / "one" / name, tmp_path) < 1e-5


@pytest.mark.parametrize("name", ["sft", "rl"])
def test_a_model_without_a_wrapper_has_the_same_gradient(results, name):
    assert gap(results / "one" / name, results / "unwrapped" / name / "own") < 1e-5


@pytest.mark.parametrize("mistake", ["own normalizer", "mean of gradients"])
def test_the_comparison_notices_a_step_of_another_size(results, mistake):
    assert gap(results / "one" / "rl", results / "perturbed" / mistake) > 1e-3


@pytest.mark.usefixtures("one_thread")
def test_what_a_killed_process_leaves_goes_on_to_the_same_numbers(results, tiny_folders, tmp_path):
    fresh, run = RUNS["sft"]
    assert len(read_state(results / "killed")["history"]["loss"]) == 2
    lm = fresh(tiny_folders["llama"])
    report(tmp_path, lm, run(lm, results / "killed", 3))
    assert gap(results / "one" / "sft", tmp_path) < 1e-5
    assert not list(results.glob("*.tmp"))


def test_alone_everything_is_what_it_was(llama_lm):
    assert (processes.rank(), processes.size(), processes.total(3), processes.most(0.5)) == (0, 1, 3, 0.5)
    rows = torch.arange(4)
    assert processes.share(rows).tolist() == rows.tolist() and processes.gather(rows) is rows
    assert list(processes.in_step(llama_lm, "ab")) == [("a", True), ("b", True)] and not processes.averages(llama_lm)


def test_precision_stays_what_the_model_and_the_run_say(tiny_folders):
    """An accelerator's autocast would reach the prompts of a sampler and not its steps."""
    AcceleratorState._reset_state()
    plain, spread = (load_lm(tiny_folders["llama"]) for _ in range(2))
    assert processes.spread(spread, Accelerator(cpu=True, mixed_precision="bf16")) is spread
    AcceleratorState._reset_state()
    tokens = torch.arange(8)[None]
    assert torch.equal(spread(tokens), plain(tokens)) and "forward" not in vars(spread.model)
    runs = [fit_sft(lm, made(4), bf16=True) for lm in (plain, spread)]
    assert runs[0] == runs[1]
    assert sample_text(spread, ["The", "A"], max_new_tokens=3, seed=1).mask.sum() > 0


def test_the_first_version_of_fsdp_is_refused(llama_lm):
    old = SimpleNamespace(distributed_type="FSDP", is_fsdp2=False)
    with pytest.raises(ValueError, match="^accelerator has fsdp_version=1: expected fsdp_version: 2 in its config"):
        processes.spread(llama_lm, old)


@pytest.mark.parametrize("name", ["ddp", "fsdp2"])
def test_the_configurations_are_ones_that_accelerate_takes(name):
    """It refuses keys that it does not know."""
    config = load_config_from_file(str(Path(__file__).parents[1] / "lessons" / "accelerate" / f"{name}.yaml"))
    assert config.distributed_type == {"ddp": "MULTI_GPU", "fsdp2": "FSDP"}[name] and config.num_processes == 2
    assert config.fsdp_config.get("fsdp_version") == {"ddp": None, "fsdp2": 2}[name]
