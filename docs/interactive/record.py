"""What the interactive pages show of a pocket model, made by running it: `make interactive` writes it into the pages.

    python docs/interactive/record.py [attention] [token_credit]

Each page keeps its record as JSON in a <script type="application/json" id="record">; everything is seeded.
Order: attention; answers, their log-probabilities under sampler and learner, and the credit of each token; writing.
"""

import base64
import copy
import itertools
import json
import random
import re
import sys
from pathlib import Path

import torch

from ptlearn.finetuning.sft import fit_sft
from ptlearn.lm.attention import attention_weights, token_spans
from ptlearn.lm.chat import render_all
from ptlearn.lm.models import load_lm
from ptlearn.lm.text import completions, encode, sample_text
from ptlearn.pocket import assistant, relations, tasks, world
from ptlearn.policy_gradient import episode_returns, leave_one_out, prompt_groups
from ptlearn.rl.tasks import prompt_texts
from ptlearn.rl.text_collection import attempt, text_collector
from ptlearn.rl.training import train_policy
from ptlearn.rollout import action_logprobs

MODEL, SEED = "pocket-m", 0
HERE = Path(__file__).parent
RECORD = re.compile(r'(<script type="application/json" id="record">\n).*?(\n</script>)', re.DOTALL)

# ---------------------------------------------------------------- attention


def label_list(lm, shots):
    """A list with nonsense labels, cut off before the last one, the label that fits, and the tokens where it stands."""
    kind = {word: category for category, members in world.WORDS.items() for word in members}
    shown, (query, answer) = relations.episode(relations.EVALUATED["2 labels"], shots, random.Random(SEED))
    pieces = [piece for word, label in shown for piece in (f"{word} =", f" {label}", "\n")] + [f"{query} ="]
    fitting = [kind[word] == kind[query] for word, _ in shown]
    spans = itertools.compress(token_spans(lm, pieces)[1::3], fitting)
    return "".join(pieces), answer, list(itertools.chain.from_iterable(itertools.starmap(range, spans)))


def words_twice(lm):
    """Words, and most of them again; what an induction head would look at is the word that came next the first time."""
    words = random.Random(SEED).sample(sorted(world.WORDS["animal"]), 4)
    pieces = ["The list:"] + [piece for word in words + words[:3] for piece in (f" {word}", ",")]
    return "".join(pieces), words[3], list(range(*token_spans(lm, pieces)[7]))


def texts(lm):
    """(name, text, what comes next, tokens that are marked at first) of each recorded text."""
    shown, (query, english) = relations.episode(relations.RELATIONS["french to english"], 2, random.Random(SEED))
    translation = "".join(f"{french} = {said}\n" for french, said in shown) + f"{query} ="
    return [
        ("nonsense labels (lesson 02)", *label_list(lm, 4)),
        ("words said twice", *words_twice(lm)),
        ("French to English", translation, english, []),
        ("a fact", "Kenya is a country in Africa. The capital of Kenya is", "Nairobi", []),
    ]


def attention(lm, name, text, answer, marks):
    """One text: its tokens, where every head looks from each of them, in 255ths, and what would be written next."""
    [ids] = encode(lm, [text])
    weights = attention_weights(lm, text)
    below = torch.ones(len(ids), len(ids)).tril() > 0  # the rows end to end, each up to its own token
    levels = (255 * weights[:, :, below]).round().to(torch.uint8)
    with torch.inference_mode():
        chances, tokens = lm(torch.tensor([ids]))[0, -1].float().softmax(-1).topk(3)
    return {
        "name": name, "tokens": [lm.tokenizer.decode([token]) for token in ids], "answer": answer, "marks": marks,
        "layers": weights.shape[0], "heads": weights.shape[1],
        "weights": base64.b64encode(levels.numpy().tobytes()).decode(),
        "next": [[lm.tokenizer.decode([token]), round(chance, 3)] for token, chance in
                 zip(tokens.tolist(), chances.tolist())],
    }  # fmt: skip


def record_attention():
    lm = load_lm(MODEL)
    return {"model": MODEL, "seed": SEED, "texts": [attention(lm, *each) for each in texts(lm)]}


# ---------------------------------------------------------------- answers

TASK = tasks.arithmetic(largest=50)
PROMPTS, ANSWERS, CONTINUATIONS = 4, 4, 64
WIDER = 12  # sums that are asked first: those whose answers are all right or all wrong teach nothing, and are left out


def finetuned():
    """Lesson 12's policy: a pocket model after a short finetuning on 300 conversations."""
    lm = load_lm(MODEL)
    requests = assistant.requests(300, use_cases=["other"])
    fit_sft(lm, render_all(lm, assistant.conversations(requests))[0], lr=1e-3)
    return lm


def mixed(lm):
    """The first training sums of which some answers are right and some are wrong."""
    problems = TASK.train[:WIDER]
    won = attempt(TASK, lm, [each for each in problems for _ in range(ANSWERS)], seed=SEED).rewards.sum(1)
    shares = won.view(-1, ANSWERS).mean(1).tolist()
    return [problem for problem, share in zip(problems, shares) if 0 < share < 1][:PROMPTS]


def rloo(rollout, *_):
    won, groups = episode_returns(rollout.rewards, rollout.mask), prompt_groups(rollout.observations, rollout.mask)
    return (won - leave_one_out(won, groups=groups))[:, None] * rollout.mask


def learned(lm, updates):
    """The policy after some updates of REINFORCE with a leave-one-out baseline, on fresh answers each time."""
    later = copy.deepcopy(lm)
    sample = text_collector(TASK, prompts=8, group=4)
    train_policy(later, sample, rloo, updates=updates, lr=1e-4, clip_norm=1.0, seed=SEED)
    return later


def sampled(lm, problems, **options):
    return attempt(TASK, lm, [problem for problem in problems for _ in range(ANSWERS)], seed=SEED, **options)


def answers(lm, rollout, learner):
    """Each answer: its tokens, and what sampler and learner think of every one of them, in nats."""
    with torch.inference_mode():
        thought = action_logprobs(learner, rollout)
    return [
        {
            "prompt": row // ANSWERS, "reward": float(rollout.rewards[row].sum()),
            "tokens": [written(lm, token) for token in rollout.actions[row][kept].tolist()],
            "mu": rounded(rollout.logprobs[row][kept]), "pi": rounded(thought[row][kept]),
        }
        for row, kept in enumerate(rollout.mask)
    ]  # fmt: skip


def written(lm, token):
    return "end" if token in lm.end_tokens else lm.tokenizer.decode([token])


def rounded(numbers, digits=4):
    return [round(float(number), digits) for number in numbers]


def credit(lm, problem, rollout, row):
    """How much each token of an answer changed the expected reward, by sampling on from every prefix of it."""
    tokens = rollout.actions[row][rollout.mask[row]].tolist()
    begun = [lm.tokenizer.decode(tokens[:count]) for count in range(len(tokens))]
    [prompt] = prompt_texts(lm, TASK, [problem])
    limits = {"max_new_tokens": TASK.max_new_tokens, "stop": TASK.stop}
    values = []
    for seed, said in enumerate(begun):
        rest = sample_text(lm, [prompt + said] * CONTINUATIONS, seed=seed, **limits)
        ends = completions(lm, rest, TASK.stop)
        values.append(sum(problem.score(said + end) for end in ends) / CONTINUATIONS)
    values.append(float(rollout.rewards[row].sum()))
    return rounded([after - before for before, after in itertools.pairwise(values)])


def record_token_credit():
    lm = finetuned()
    problems, coarse = mixed(lm), copy.deepcopy(lm).to(torch.bfloat16)
    own, cold, rough = sampled(lm, problems), sampled(lm, problems, temperature=0.5), sampled(coarse, problems)
    credits = [credit(lm, problems[row // ANSWERS], own, row) for row in range(len(own.mask))]
    pairs = {
        "the same weights": answers(lm, own, lm),
        "4 updates later": answers(lm, own, learned(lm, 4)),
        "24 updates later": answers(lm, own, learned(lm, 24)),
        "sampled in bfloat16": answers(lm, rough, lm),
        "sampled at temperature 0.5": answers(lm, cold, lm),
    }
    return {
        "model": MODEL, "seed": SEED, "continuations": CONTINUATIONS, "prompts": [each.prompt for each in problems],
        "credits": credits, "credited": 3, "pairs": pairs,  # the first three pairs have the same answers
    }  # fmt: skip


# ---------------------------------------------------------------- into the pages

RECORDS = {"attention": record_attention, "token_credit": record_token_credit}


def put(page, record):
    """The page's text with this record in it."""
    found = json.dumps(record, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
    return RECORD.sub(lambda marks: marks[1] + found + marks[2], page)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:] or RECORDS:
        path = HERE / f"{name}.html"
        path.write_text(put(path.read_text(encoding="utf-8"), RECORDS[name]()), encoding="utf-8")
