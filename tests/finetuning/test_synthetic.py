"""Self-Instruct: exact yields with teachers that are functions, ROUGE-L as all pairs give it, a real kill, costs."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rouge_score.rouge_scorer import RougeScorer

from ptlearn.finetuning import synthetic
from ptlearn.finetuning.synthetic import (
    Pool,
    conversations,
    read_items,
    read_seed_tasks,
    self_instruct,
    teacher,
    yields,
)
from ptlearn.lm.chat import read_conversations

VERBS = ("name", "draw", "find", "count", "sell", "paint", "carry", "wash", "read", "build", "hide", "open")
THINGS = ("apples", "boats", "chairs", "doors", "eggs", "flags", "goats", "hats", "inks", "jars", "kites", "lamps")
SEEDS = [(f"please {verb} the {thing}", f"I {verb} the {thing}") for verb, thing in zip(VERBS, THINGS, strict=True)]
SMALL = {"batch": 4, "shown": 3, "demonstrations": 2}


def propose(prompts, seed):
    """Instructions at random, as a teacher's would be: a function of the prompt and the seed."""
    drawn = []
    for row, prompt in enumerate(prompts):
        rng = random.Random(f"{seed}:{row}:{prompt}")
        drawn.append(" ".join(rng.choice(rng.choice((VERBS, THINGS))) for _ in range(rng.randint(1, 5))))
    return drawn


def answer(prompts, seed):
    return [f"{seed} {len(prompt)}" for prompt in prompts]


def scripted(*texts):
    """A teacher that says these texts one after the other, whatever it is asked."""
    texts = iter(texts)
    return lambda prompts, seed: [next(texts) for _ in prompts]


def test_each_filter_takes_what_it_is_for_and_the_table_adds_up(tmp_path):
    proposals = [
        "list seven rivers now",
        "  list seven rivers now\n",  # a duplicate once it is stripped
        "list seven rivers today",  # 3 of 4 words: 0.75
        "list seven rivers of France",  # 3 of 4 and of 5: 0.67
        "", None, "go", "one two three four five six",
        "please paint the goats",  # 3 of 4 words of a seed
        "where is Oslo", "who is Ada", "why does rain fall", "when did Rome burn", "what means abacus", "how are you",
        "tell me more",
    ]  # fmt: skip
    responses = ["Seine", "Loire", "I'm sorry, no.", None, "  ", "when did rome BURN", "a b c d e", "fine", "no"]
    options = {"batch": 16, "shown": 3, "demonstrations": 2, "words": (2, 5), "response_words": (1, 4)}
    items = self_instruct(tmp_path / "items", SEEDS, scripted(*proposals), scripted(*responses), count=16, **options)
    verdicts = [
        "kept", "duplicate", "similar", "kept", "empty", "unfinished", "length", "length", "similar",
        "refusal", "response unfinished", "response empty", "echo", "response length", "kept", "kept",
    ]  # fmt: skip
    assert [item.verdict for item in items] == verdicts
    found = yields(items)
    assert (found.proposed, found.instructions, found.kept) == (16, 9, 4)
    assert sum(found.rejected.values()) == 12
    table = str(found).splitlines()
    assert len(table) == 13 and table[0].split() == ["proposed", "16", "100.0", "%"]
    assert table[-1].split() == ["kept", "4", "25.0", "%"]
    assert conversations(items)[0] == [
        {"role": "user", "content": "list seven rivers now"},
        {"role": "assistant", "content": "Seine"},
    ]
    assert len(conversations(items)) == 4
    assert read_items(tmp_path / "items") == items


def test_prompts_hold_seeds_few_machine_instructions_and_the_question(tmp_path):
    seen = {"propose": [], "answer": []}
    new = iter(range(100))

    def watch(name, reply):
        return lambda prompts, seed: seen[name].extend(prompts) or [reply() for _ in prompts]

    options = {"batch": 2, "shown": 5, "demonstrations": 3, "rouge_below": 2.0}
    self_instruct(
        tmp_path / "items", SEEDS, watch("propose", lambda: f"machine task {next(new)}"), watch("answer", lambda: "ok"),
        count=8, proposal_prompt="|".join, response_prompt=lambda shown, text: json.dumps([shown, text]), **options,
    )  # fmt: skip
    people = {instruction for instruction, _ in SEEDS}
    written = [[text for text in prompt.split("|") if text not in people] for prompt in seen["propose"]]
    assert [len(texts) for texts in written] == [0, 0, 2, 2, 2, 2, 2, 2]
    assert all(len(set(prompt.split("|"))) == 5 for prompt in seen["propose"])
    # a batch sees what earlier batches made, never its own
    assert all(int(text.split()[-1]) < 2 * (row // 2) for row, texts in enumerate(written) for text in texts)
    asked = [json.loads(prompt) for prompt in seen["answer"]]
    assert [text for _, text in asked] == [f"machine task {n}" for n in range(8)]
    assert all(len(shown) == 3 and {tuple(pair) for pair in shown} <= set(SEEDS) for shown, _ in asked)


def test_the_prompts_that_come_with_it():
    assert synthetic.task_and_output([("a", "b")], "c") == "Task: a\nOutput: b\n\nTask: c\nOutput:"


# ROUGE-L -------------------------------------------------------------------------------------------------------------


def all_pairs(texts, threshold):
    """The plain computation: which texts are kept when each is compared with all that were kept before."""
    scorer, kept = RougeScorer(["rougeL"]), []
    for text in texts:
        if all(scorer.score(other, text)["rougeL"].fmeasure < threshold for other in kept):
            kept.append(text)
    return kept


def random_texts(count, seed, words=("a", "b", "C", "d", "é", "x-y", "!", "7")):
    rng = random.Random(seed)
    return [" ".join(rng.choices(words, k=rng.randint(0, 9))) for _ in range(count)]


# 2/3, 4/5, … are values that pairs take exactly, where one rounding error would decide
@pytest.mark.parametrize("threshold", [0.7, 2 / 3, 0.8, 0.5, 6 / 7, 1.0, 0.01])
def test_the_pool_keeps_what_all_pairs_keep(threshold):
    texts = random_texts(250, 1)
    pool = Pool()
    for text in texts:
        if not pool.holds_similar(text, threshold):
            pool.add(text)
    kept = all_pairs(texts, threshold)
    assert 5 < len(kept) < 250
    assert len(pool) == len(kept) and all(text in pool for text in kept)
    assert kept != all_pairs(texts, threshold * 0.9 if threshold > 0.1 else 0.6)


def test_few_pairs_are_searched(monkeypatch):
    searched = []
    rouge = Pool._rouge
    monkeypatch.setattr(Pool, "_rouge", lambda pool, *pair: searched.append(pair) or rouge(pool, *pair))
    rng = random.Random(0)
    texts = [" ".join(f"w{rng.randrange(200)}" for _ in range(8)) for _ in range(300)]
    pool = Pool(texts)
    assert not any(pool.holds_similar(" ".join(f"w{rng.randrange(200)}" for _ in range(8)), 0.7) for _ in range(300))
    assert len(searched) < 30  # of 90,000


# A file that is continued --------------------------------------------------------------------------------------------


def run(path, count=22, **options):
    return self_instruct(path, SEEDS, propose, answer, count=count, **{**SMALL, "words": (2, 9), **options})


def test_whatever_byte_it_was_cut_at_the_file_ends_up_the_same(tmp_path):
    items = run(tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    assert [item.number for item in items] == list(range(22))
    assert 5 < yields(items).kept < 20
    for cut in [0, 1, 150, len(whole) - 1, *range(200, len(whole), 200)]:
        (tmp_path / "cut").write_bytes(whole[:cut])
        assert run(tmp_path / "cut") == items
        assert (tmp_path / "cut").read_bytes() == whole


def test_a_longer_run_begins_with_the_shorter(tmp_path):
    run(tmp_path / "a", count=9)
    assert run(tmp_path / "a", count=22) == run(tmp_path / "b", count=22)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert run(tmp_path / "a", count=9) == run(tmp_path / "b", count=22)[:9]


def test_seeds_matter_and_a_file_of_other_settings_is_refused(tmp_path):
    items = run(tmp_path / "a")
    assert run(tmp_path / "b", seed=1) != items
    with pytest.raises(ValueError, match="a was made with another seed: expected the same, or another file$"):
        run(tmp_path / "a", seed=1)
    with pytest.raises(ValueError, match="another teacher_name:"):
        run(tmp_path / "a", teacher_name="pocket-l")
    with pytest.raises(ValueError, match="another shown, seeds:"):
        self_instruct(tmp_path / "a", SEEDS[1:], propose, answer, count=22, **{**SMALL, "shown": 2, "words": (2, 9)})


def test_a_file_that_is_damaged_inside_is_refused_with_the_line(tmp_path):
    run(tmp_path / "a")
    lines = (tmp_path / "a").read_bytes().split(b"\n")
    for number, line, words in (
        (4, b"{", "not JSON"),
        (6, b"\xff", "not UTF-8"),
        (3, lines[5], "expected item 1 with"),
    ):
        (tmp_path / "b").write_bytes(b"\n".join([*lines[: number - 1], line, *lines[number:]]))
        with pytest.raises(ValueError, match=f"b, line {number}: .*{words}"):
            run(tmp_path / "b")


RUN = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_synthetic as t

def slowly(prompts, seed):
    time.sleep(0.02)
    return t.propose(prompts, seed)

t.self_instruct(Path({path!r}), t.SEEDS, slowly, t.answer, count=120, **{{**t.SMALL, "words": (2, 9)}})
"""


def test_a_killed_process_resumes_to_the_same_file(tmp_path):
    path = tmp_path / "killed"
    code = RUN.format(tests=str(Path(__file__).parent), path=str(path))
    process = subprocess.Popen([sys.executable, "-c", code])
    while process.poll() is None and (not path.exists() or path.stat().st_size < 2000):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 10 < path.read_bytes().count(b"\n") < 120
    assert run(path, count=120) == run(tmp_path / "whole", count=120)
    assert path.read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_second_run_on_a_file_in_use_is_one_line_and_leaves_it_alone(tmp_path):
    """Whatever the file is called, and while the first run goes on, which ends as if it had been alone."""
    path = tmp_path / "a"
    (tmp_path / "same").symlink_to(path)
    refused = []

    def interrupted(prompts, seed):
        for name in ("a", "same", "../" + tmp_path.name + "/a"):
            before = path.read_bytes()
            with pytest.raises(ValueError, match=r"^\S* cannot be locked \(.*\): expected a file that no other run"):
                run(tmp_path / name)
            assert path.read_bytes() == before
            refused.append(name)
        return propose(prompts, seed)

    self_instruct(path, SEEDS, interrupted, answer, count=8, **SMALL)
    assert len(refused) == 6
    self_instruct(tmp_path / "b", SEEDS, propose, answer, count=8, **SMALL)
    assert path.read_bytes() == (tmp_path / "b").read_bytes()
    assert run(path.with_name("other"), count=4)  # another file is another matter


def test_a_killed_run_is_refused_company_while_it_lives_and_leaves_no_lock(tmp_path):
    path = tmp_path / "killed"
    code = RUN.format(tests=str(Path(__file__).parent), path=str(path)).replace("time.sleep(0.02)", "sys.stdin.read()")
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    while process.poll() is None and not path.exists():
        time.sleep(0.005)
    with pytest.raises(ValueError, match="cannot be locked"):
        run(path, count=120)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert len(run(path, count=120)) == 120


@pytest.mark.parametrize("quote", ["'", "\u2019", "\u02bc", "\u2018"])
def test_a_refusal_is_one_with_any_apostrophe(tmp_path, quote):
    refusals = [f"I{quote}m sorry, no.", f"I can{quote}t do that.", f"I don{quote}t know."]
    proposals = ["list seven rivers", "who is Ada", "what means abacus", "why does rain fall"]
    answers = scripted(*refusals, "It cant.")
    items = self_instruct(tmp_path / "a", SEEDS, scripted(*proposals), answers, count=4, **SMALL)
    assert [item.verdict for item in items] == ["refusal"] * 3 + ["kept"]


# A language model as the teacher -------------------------------------------------------------------------------------


def test_any_language_model_teaches_and_resumes(tiny_lm, tmp_path):
    options = {"count": 12, "batch": 6, "shown": 2, "demonstrations": 0, "words": (1, 50), "rouge_below": 2.0}
    seeds = [("a café", "b"), ("c", "d"), ("e f", "g")]
    writer = teacher(tiny_lm, max_new_tokens=12, stop=("a", "e"))

    def write(name):
        return self_instruct(tmp_path / name, seeds, writer, writer, proposal_prompt="\n".join, **options)

    items = write("a")
    assert yields(items).kept > 0
    data = (tmp_path / "a").read_bytes()
    (tmp_path / "b").write_bytes(data[: len(data) // 2])
    assert write("b") == items and (tmp_path / "b").read_bytes() == data


def test_a_text_that_breaks_off_is_none_and_so_is_one_without_room(llama_lm):
    assert teacher(llama_lm, max_new_tokens=3, stop=())(["a", "b " * 62], 0)[1] is None
    assert teacher(llama_lm, max_new_tokens=3, stop=())(["b " * 70], 0) == [None]
    ids = llama_lm.tokenizer("film", add_special_tokens=False)["input_ids"]
    texts = teacher(llama_lm, max_new_tokens=1, stop=())(["film"] * 40, 0)
    assert len(ids) >= 1 and set(texts) <= {None, ""}  # one token: either the end token or broken off
    greedy = teacher(llama_lm, max_new_tokens=8, top_k=1)
    assert greedy(["The capital"], 0) == greedy(["The capital"], 5)


# Errors --------------------------------------------------------------------------------------------------------------


def test_nothing_usable_is_one_line_with_the_counts(tmp_path):
    with pytest.raises(ValueError) as error:
        self_instruct(tmp_path / "a", SEEDS, scripted(*["", "x y z"] * 2), scripted(" ", " "), count=4, **SMALL)
    assert str(error.value) == (
        "the teacher returned nothing usable: proposed 4, empty 2, duplicate 1, response empty 1, kept 0"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"count": 0}, "count=0: expected at least 1"),
        ({"batch": 0}, "batch=0: expected at least 1"),
        ({"shown": 0}, "shown=0: expected at least 1"),
        ({"shown": 13}, "12 seeds: expected at least shown=13"),
        ({"demonstrations": -1}, "demonstrations=-1: expected at least 0"),
        ({"demonstrations": 13}, "12 seeds: expected at least .* demonstrations=13"),
        ({"rouge_below": 0.0}, "rouge_below=0.0: expected more than 0"),
        ({"words": (5, 4)}, r"^words=\(5, 4\): expected 0 < fewest <= most"),
        ({"response_words": (0, 4)}, r"^response_words=\(0, 4\): expected 0 < fewest"),
    ],
)
def test_arguments_out_of_range_are_named(tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        run(tmp_path / "a", **options)
    assert not (tmp_path / "a").exists()


def test_a_teacher_must_return_a_text_for_each_prompt(tmp_path):
    with pytest.raises(ValueError, match="propose returned 1 texts for 4 prompts: expected one each"):
        self_instruct(tmp_path / "a", SEEDS, lambda prompts, seed: ["x"], answer, count=4, **SMALL)


# Costs ---------------------------------------------------------------------------------------------------------------


# Files ---------------------------------------------------------------------------------------------------------------

TASK = {"id": "seed_task_0", "instruction": "Name it.", "instances": [{"input": "a fruit", "output": "plum"}]}


def write_lines(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_seed_tasks_are_pairs_one_per_instance(tmp_path):
    two = {**TASK, "instances": [{"input": "", "output": " été "}, {"output": "2"}]}
    assert read_seed_tasks(write_lines(tmp_path / "a", TASK, two)) == [
        ("Name it.\na fruit", "plum"),
        ("Name it.", "été"),
        ("Name it.", "2"),
    ]


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"instances": TASK["instances"]}, "no instruction: expected messages, or instruction and output"),
        ({**TASK, "instruction": " "}, "instruction is ' ': expected a string with some text"),
        ({**TASK, "instances": []}, r"instances is \[\]: expected objects with input and output"),
        ({**TASK, "instances": ["x"]}, r"instances is \['x'\]: expected objects with input and output"),
        ({**TASK, "instances": [{"input": "x", "output": ""}]}, "message 1 is an empty response: expected text"),
        ({**TASK, "instances": [{"input": 3, "output": "x"}]}, "input is 3: expected a string"),
        ([], "a list, expected a JSON object"),
    ],
)
def test_a_bad_seed_task_is_named_with_its_line(tmp_path, record, words):
    with pytest.raises(ValueError, match=f"a, line 2: {words}"):
        read_seed_tasks(write_lines(tmp_path / "a", TASK, record))


def test_missing_and_empty_files(tmp_path):
    for read in (read_seed_tasks, read_items):
        with pytest.raises(FileNotFoundError, match="no file .*nowhere"):
            read(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="a holds no seed task"):
        read_seed_tasks(write_lines(tmp_path / "a"))
    assert read_items(tmp_path / "a") == []
    (tmp_path / "blank").write_text("\n\n")
    assert run(tmp_path / "blank") == run(tmp_path / "new")


@pytest.mark.parametrize("lock", ["a folder", "no database"])
def test_a_lock_that_cannot_be_one_is_one_line(tmp_path, lock):
    place = tmp_path / "items.lock"
    place.mkdir() if lock == "a folder" else place.write_text("words and words and words, a page of a database" * 99)
    with pytest.raises(ValueError, match=r"items cannot be locked \(.+\): expected a file that no other run writes$"):
        run(tmp_path / "items")


def test_the_training_set_is_read_back_as_conversations(tmp_path):
    made = conversations(run(tmp_path / "a"))
    assert read_conversations(write_lines(tmp_path / "b", *[{"messages": turns} for turns in made])) == made
