"""The runs of lessons 15 and 16 on models and data that are not the pocket world's: folders and files.

Only the cells of the run are executed: the experiments before them have tests of their own.
"""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file

from conftest import tiny_model, tiny_tokenizer
from ptlearn.course import session
from ptlearn.course.lesson import cells_of, keys, lesson_files
from ptlearn.course.recorded import record, recorded_runs
from ptlearn.lm.models import load_lm
from ptlearn.processes import rank

pytestmark = pytest.mark.usefixtures("one_thread")
TEMPLATE = """{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}{% if m['role'] == 'assistant' %}\
{{ eos_token }}{% endif %}
{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"""
CHATS = [{"instruction": f"Say {number}.", "output": f"It is {number}."} for number in range(60)]
SUMS = [
    {"question": f"Ann has {a} eggs and finds {b}. How many?", "answer": f"<<{a}+{b}={a + b}>>{a + b}\n#### {a + b}"}
    for a in range(2, 8)
    for b in range(3, 7)
]


@pytest.fixture(scope="module", params=["llama", "qwen2", "gpt2"])
def folder(request, tmp_path_factory):
    """A random model with room for a question, and a chat template."""
    made, tokenizer = tmp_path_factory.mktemp(request.param), tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("conftest.CONTEXT", 512)
        tiny_model(request.param).save_pretrained(made)
    tokenizer.save_pretrained(made)
    return made


@pytest.fixture
def place(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(session, "rendered", lambda picture, alt: ("text/html", ""))
    for name, rows in {"chats": CHATS, "sums": SUMS}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def run(lesson, monkeypatch, *knobs, without=()):
    """The imports, the answers and the cells from the run on; what they define."""
    [path] = [path for path in lesson_files() if path.stem.startswith(lesson)]
    monkeypatch.setattr(sys, "argv", [str(path), *map(str, knobs)])
    names = {"__name__": "__main__", "__file__": str(path)}
    cells = [cell for cell in cells_of(path) if cell.cell_type == "code"]
    start = next(index for index, cell in enumerate(cells) if "accelerator = None" in cell.source)
    weights = [cell for cell in cells[1:start] if "ESTIMATORS = " in cell.source or keys(cell).get("role") == "answer"]
    helpers = [cell for cell in cells[1:start] if "def solved" in cell.source]
    sources = [cells[0].source, *(cell.source for cell in weights)]
    sources += [cell.source.split("\n\nbefore = ")[0] for cell in helpers]
    sources += [cell.source for cell in cells[start:] if not any(word in cell.source for word in without)]
    for source in sources:
        exec(compile(source, path.stem, "exec"), names)
    return names


def test_sft_of_a_folder_on_a_file_learns_and_goes_on(folder, place, monkeypatch):
    knobs = ["--model", folder, "--data", "chats.jsonl", "--epochs", 2, "--batch", 8, "--micro-batch", 2, "--lr", 3e-3]
    knobs += ["--packed", 128, "--checkpoint", "run.safetensors", "--checkpointed", "--record", "told/run.json"]
    lora = [] if "gpt2" in folder.name else ["--method", "lora", "--rank", 4]
    names = run("15", monkeypatch, *knobs, *lora, "--out", "tuned", without=["undisturbed"])
    losses = names["history"].loss
    assert losses[-1] < losses[0] and len(losses) == 16
    told = json.loads((place / "told" / "run.json").read_text())
    assert told["curves"]["loss"] == losses and told["command"].startswith("python lessons/15_gpu_sft.py --model")
    assert told["numbers"]["mfu"] > 0 and told["numbers"]["foretold"] > 0
    tuned = load_lm(place / "tuned" / ("merged" if lora else ""))
    tokens = torch.arange(20)[None]
    assert torch.allclose(tuned(tokens), names["lm"](tokens), atol=1e-4)
    again = run("15", monkeypatch, *knobs, *lora, without=["undisturbed"])  # all of it is in the checkpoint
    assert again["history"].loss == losses and not again["clock"].seconds


def test_rl_on_problems_of_a_file_logs_what_it_saw(folder, place, monkeypatch):
    weights = {"llama": "dapo", "qwen2": "rloo", "gpt2": "ppo"}[folder.name[:-1]]
    knobs = ["--model", folder, "--data", "sums.jsonl", "--held-out", "sums.jsonl", "--weights", weights]
    knobs += ["--updates", 2, "--prompts", 2, "--group", 4, "--new-tokens", 6, "--quiz", 20, "--log", "curves"]
    knobs += ["--record", "run.json"]
    lora = [] if "gpt2" in folder.name else ["--lora", 4, "--beta", 0.01]
    names = run("16", monkeypatch, *knobs, *lora, "--sampler", "fast", "--checkpoint", "run.safetensors")
    history = names["history"]
    assert len(history.returns) == 2 and history.length[0] <= 6 and history.sampler_gap[0] < 1e-3
    assert bool(history.kl) == bool(lora) and rank() == 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    seen = EventAccumulator("curves").Reload()
    assert [event.value for event in seen.Scalars("entropy")] == pytest.approx(history.entropy, rel=1e-5)
    assert {"returns", "clip_fraction", "length", "sampler_gap"} <= set(seen.Tags()["scalars"])
    assert json.loads((place / "run.json").read_text())["curves"]["entropy"] == history.entropy
    assert any(key.startswith("policy.") for key in load_file("run.safetensors"))


def test_a_recorded_run_is_found_again_and_written_by_the_first_process_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["somewhere/lessons/16_gpu_text_rl.py", "--updates", "3"])
    for number in (0, 1):
        monkeypatch.setattr("ptlearn.course.recorded.rank", lambda number=number: number)
        record(tmp_path / f"16_gpu_text_rl_{number}.json", torch.device("cpu"), {"mfu": 0.5}, {"loss": [1.0]})
    [run] = recorded_runs("16_gpu_text_rl", tmp_path)
    assert run["numbers"] == {"mfu": 0.5} and run["curves"] == {"loss": [1.0]} and "CPU" in run["title"]
    assert run["command"] == "python lessons/16_gpu_text_rl.py --updates 3"


def test_a_model_without_a_chat_template_is_one_line(folder, place, monkeypatch, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in folder.iterdir():
        if file.name != "chat_template.jinja":
            (bare / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ValueError, match="has no chat template: expected one, as chat models have"):
        run("15", monkeypatch, "--model", bare, "--data", "chats.jsonl", without=["undisturbed"])


DATA = {"15": ("--data", "chats.jsonl"), "16": ("--data", "sums.jsonl", "--held-out", "sums.jsonl")}


@pytest.mark.parametrize("lesson", DATA)
def test_a_step_that_does_not_fit_is_refused_before_it_is_tried(lesson, folder, place, monkeypatch):
    monkeypatch.setattr("ptlearn.lm.devices.free_bytes", lambda device: 1000)
    with pytest.raises(ValueError, match=r"^a step needs 0\.\d GB, cpu has 0\.0 GB free: lower --micro-batch"):
        run(lesson, monkeypatch, "--model", folder, *DATA[lesson], without=["undisturbed"])
