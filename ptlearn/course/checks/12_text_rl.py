"""Lesson 12: a record of text, the loop, scores; weighted finetuning, RLOO, noise; samplers, normalizers, pass@k,
credit by sampling on; the contest of 600 answers; a lab of losses.

The expectations are plain Python on lists, from the definitions; tensors are made in `drive` and in the lab alone.
"""

import math
import statistics

from ptlearn.course.cases import log_softmax, lost_on_padding, masks, rows, softmax, spread
from ptlearn.course.diagnosis import Alternatives
from ptlearn.course.exercise import Exercise
from ptlearn.course.lab import lab_of_runs

# Texts with logits ---------------------------------------------------------------------------------------------------


def written_logprobs(logits, tokens, mask):
    """The package's recomputation, on logits that are there already."""
    from types import SimpleNamespace

    from ptlearn.rollout import action_logprobs

    record = SimpleNamespace(observations=tokens[:, :-1], actions=tokens[:, 1:], mask=mask)
    return action_logprobs(lambda _: logits, record)


def scored(case, shift=1, score=log_softmax, everywhere=False):
    """score(logits) of the token `shift` places on, at each step of the mask, and 0 elsewhere."""
    logits, tokens, mask = (case[name] for name in ("logits", "tokens", "mask"))
    return [[score(logits[b][t])[tokens[b][t + shift]] if m or everywhere else 0.0 for t, m in enumerate(row)]
            for b, row in enumerate(mask)]  # fmt: skip


def misread(case):
    """{diagnosis: the log-probabilities that this mistake gives}; none where junk stands beside the mask."""
    logits, tokens, mask = case["logits"], case["tokens"], case["mask"]
    expected = scored(case)
    if case["junk"]:
        return {}

    def across(normalizers):
        return [[logits[b][t][tokens[b][t + 1]] - math.log(sum(map(math.exp, normalizers(b, t)))) if m else 0.0
                 for t, m in enumerate(row)] for b, row in enumerate(mask)]  # fmt: skip

    def safe(function):
        """A function of a row's logits where exp would be too large for a float."""
        return lambda row: [function(x) for x in log_softmax(row)]

    lost = scored(case, score=safe(lambda x: x if math.exp(x) else -math.inf))
    likeliest = scored(case, score=lambda row: [max(log_softmax(row))] * len(row))
    wrong = {
        "shifted: logits at step t say what is written, token t + 1, and not what was read": scored(case, shift=0),
        "these are logits: log_softmax is missing": scored(case, score=list),
        "these are probabilities: take the logarithm": scored(case, score=safe(math.exp)),
        "the sign is turned: a log-probability is at most 0": [[-x for x in row] for row in expected],
        "prompt and padding are not cut off: 0 where mask is False": scored(case, everywhere=True),
        "cut off the wrong way round: mask is True where the model chose":
            [[0.0 if m else x for x, m in zip(*pair)] for pair in zip(scored(case, everywhere=True), mask)],
        "the likeliest token is scored: the one that was written is asked for": likeliest,
        "one number per text: one per step is asked for": [sum(row) for row in expected],
        "infinite: a probability that softmax rounds to 0 has no logarithm; log_softmax takes both at once": lost,
    }  # fmt: skip
    if max(max(max(row) for row in text) for text in logits) < 100:
        wrong |= {
            "softmax goes over the steps: over the vocabulary, the last axis":
                across(lambda b, t: [logits[b][other][tokens[b][t + 1]] for other in range(len(mask[0]))]),
            "softmax goes over the texts: over the vocabulary, the last axis":
                across(lambda b, t: [logits[other][t][tokens[b][t + 1]] for other in range(len(mask))]),
        }  # fmt: skip
    return wrong


# 12.1 An answer as a record ------------------------------------------------------------------------------------------


def as_record(prompts, answers, logits):
    """The package's layout: one table of tokens, read without its last column and written without its first."""
    import torch

    from ptlearn.rollout import pad_and_stack

    tokens, _ = pad_and_stack([prompt + answer for prompt, answer in zip(prompts, answers)])
    past = torch.arange(tokens.shape[1] - 1) - torch.tensor([[len(prompt) - 1] for prompt in prompts])
    mask = (past >= 0) & (past < torch.tensor([[len(answer)] for answer in answers]))
    return {"observations": tokens[:, :-1], "actions": tokens[:, 1:], "mask": mask,
            "logprobs": written_logprobs(logits, tokens, mask)}  # fmt: skip


def record_cases(rng):
    """Texts of different lengths, a prompt of one token, an answer of one; the last case has junk outside mask."""
    cases = []
    for junk in (None, None, -math.inf):
        some = [(3, rng.randint(3, 4)), (rng.randint(2, 3), 1), (1, rng.randint(2, 3))]
        lengths = [(1, 3), (4, 2)] if not cases else some
        texts = [[[rng.randint(1, 6) for _ in range(count)] for count in pair] for pair in lengths]
        steps = max(map(sum, lengths)) - 1
        logits = [[[round(rng.uniform(-2, 2), 3) if junk is None or p - 1 <= t < p - 1 + c else junk for _ in range(7)]
                   for t in range(steps)] for p, c in lengths]  # fmt: skip
        cases.append({"prompts": [text[0] for text in texts], "answers": [text[1] for text in texts],
                      "logits": logits, "junk": junk is not None})  # fmt: skip
    first, written = len(cases[1]["prompts"][0]) - 1, cases[1]["answers"][0][0]
    cases[1]["logits"][0][first][written], cases[1]["logits"][0][first][0] = -500.0, 500.0  # rounded to 0
    return cases


def expect_record(case):
    pairs = [(len(prompt), len(answer)) for prompt, answer in zip(case["prompts"], case["answers"])]
    texts = [prompt + answer for prompt, answer in zip(case["prompts"], case["answers"])]
    longest = max(map(len, texts))

    def laid(texts, value=0, left=False):
        rest = [[value] * (longest - len(text)) for text in texts]
        return [more + text if left else text + more for text, more in zip(texts, rest)]

    def by(rule):
        return [[bool(rule(t, p, c)) for t in range(longest - 1)] for p, c in pairs]

    whole = laid(texts)
    expected = {
        "observations": [row[:-1] for row in whole],
        "actions": [row[1:] for row in whole],
        "mask": by(lambda t, p, c: p - 1 <= t < p - 1 + c),
    }
    laid_out = {"logits": case["logits"], "tokens": whole, "mask": expected["mask"], "junk": case["junk"]}
    expected["logprobs"] = scored(laid_out)
    long = {"observations": whole, "actions": [[*row[1:], 0] for row in whole]}
    mistakes = {
        ("observations", "the last token is read too: nothing is written after it"): long["observations"],
        ("observations", "observations and actions are exchanged: actions are one token later"): expected["actions"],
        ("observations", "padding stands on the left: it stands on the right, where nothing looks back at it"):
            [row[:-1] for row in laid(texts, left=True)],
        ("observations", "the last token of each text is cut off: of the padded table the last column"):
            [row[:-1] for row in laid([text[:-1] for text in texts])],
        ("actions", "the action is the token that was read: at step t it is the one that is written, token t + 1"):
            expected["observations"],
        ("actions", "the last column is there still: at step t token t + 1 is written, and there are T steps"):
            long["actions"],
        ("mask", "one step late: the step that reads the last prompt token, number p - 1, writes the first of the "
         "answer"): by(lambda t, p, c: p <= t < p + c),
        ("mask", "starts one step late: the first token of the answer is missing"):
            by(lambda t, p, c: p <= t < p - 1 + c),
        ("mask", "one step too many at the beginning: step p - 2 writes the last token of the prompt"):
            by(lambda t, p, c: p - 2 <= t < p - 1 + c),
        ("mask", "the end token is missing: the model chose it too"): by(lambda t, p, c: p - 1 <= t < p - 2 + c),
        ("mask", "the prompt is included: the model did not choose it"): by(lambda t, p, c: t < p - 1 + c),
        ("mask", "padding is included: the answer ends after its own length"): by(lambda t, p, c: t >= p - 1),
        ("mask", "True at the prompt: it should be True at the answer"): by(lambda t, p, c: t < p - 1),
        ("mask", "the prompt's length is ignored: the answer begins behind the prompt"): by(lambda t, p, c: t < c),
        ("mask", "everything is True: only what the model chose counts"): by(lambda t, p, c: True),
    }  # fmt: skip
    return expected, mistakes | {("logprobs", words): value for words, value in misread(laid_out).items()}


# 12.2 REINFORCE, for both worlds --------------------------------------------------------------------------------------


def reinforce(policy, sample, weigh, updates, lr, clip_norm=math.inf):
    """The package's step in the package's order: score, weigh, update."""
    import torch

    from ptlearn.optimization import gradient_step
    from ptlearn.policy_gradient import episode_returns, policy_gradient_loss
    from ptlearn.rollout import action_logprobs, distinct_rows, take_rows

    adam = torch.optim.Adam(policy.parameters(), lr=lr)
    history = {"reward": [], "length": [], "nats": [], "norm": []}
    for _ in range(updates):
        rollout = sample(policy)
        first, which = distinct_rows(rollout)
        logprobs = action_logprobs(policy, take_rows(rollout, first))[which]
        loss = policy_gradient_loss(logprobs, weigh(rollout, logprobs.detach()), rollout.mask)
        history["norm"].append(gradient_step(adam, [loss], clip_norm)[1])
        history["reward"].append(float(episode_returns(rollout.rewards, rollout.mask).mean()))
        history["length"].append(float(rollout.mask.sum()) / len(rollout.mask))
        history["nats"].append(-float(logprobs.detach().sum() / rollout.mask.sum()))
    return history


def loop_cases(rng):
    """Scripted batches, another at each update, with rewards on padding; gradients that are clipped, or not."""
    cases = []
    for clip, updates in ((0.15, 4), (1e9, 3)):
        batches = []
        for number in range(updates + 1):
            lengths = [[3, 1, 2], [1, 3, 3]][number % 2]
            tables = ([[rng.randrange(3) for _ in range(3)] for _ in lengths] for _ in range(2))
            batch = dict(zip(("observations", "actions"), tables))
            mask = masks(lengths, 3)
            some = [[rng.choice((-1, 1)) * rng.uniform(0.5, 2.0) for _ in range(3)] for _ in lengths]
            weights = [[round(x, 3) if m else 0.0 for x, m in zip(*pair)] for pair in zip(some, mask)]
            batches.append(batch | {"rewards": rows(rng, (3, 3), 0.2, 2.0), "mask": mask, "weights": weights})
        cases.append({"logits": rows(rng, (3, 3), -1.0, 1.0), "batches": batches, "updates": updates, "lr": 0.3,
                      "clip": clip})  # fmt: skip
    return cases


NOTED = ("reward", "length", "nats", "norm")


def drive_loop(answer, case):
    """Where the policy ends, what was asked for, and the history."""
    import torch

    from ptlearn.rl.policies import TabularPolicy
    from ptlearn.rollout import Rollout

    policy, asked, given = TabularPolicy(3, 3).double(), [], []
    with torch.no_grad():
        policy.logits.copy_(torch.tensor(case["logits"]))

    def sample(now):
        batch = case["batches"][len(asked) % len(case["batches"])]
        asked.append(now)
        fields = {name: torch.tensor(batch[name]) for name in ("observations", "actions", "mask")}
        rewards = torch.tensor(batch["rewards"], dtype=torch.float64)
        return Rollout(**fields, rewards=rewards, logprobs=0 * rewards - 0.7, terminated=fields["mask"].all(1))

    def weigh(rollout, logprobs):
        given.append([bool(logprobs.requires_grad), float(torch.where(rollout.mask, logprobs, 0).detach().sum())])
        return torch.tensor(case["batches"][(len(asked) - 1) % len(case["batches"])]["weights"], dtype=torch.float64)

    history = answer(policy, sample, weigh, case["updates"], case["lr"], case["clip"])
    if history is None:
        return None
    if not isinstance(history, dict):
        raise ValueError(f"a dict of lists is returned, the history, not a {type(history).__name__}")
    missing = [name for name in NOTED if name not in history]
    if missing:
        raise ValueError(f"the history has no {missing[0]!r}: it is a dict of lists, {', '.join(NOTED)}")
    found = {name: [float(x) for x in history[name]] for name in NOTED}
    return {"logits": policy.logits.detach(), "batches": len(asked), "given": given} | found


def expect_loop(case):
    expected = simulated(case)
    lengths = [[sum(row) for row in batch["mask"]] for batch in case["batches"]][: case["updates"]]
    sums = [[sum(x for x, m in zip(*pair) if m) for pair in zip(batch["rewards"], batch["mask"])]
            for batch in case["batches"]][: case["updates"]]  # fmt: skip
    every = [sum(map(sum, batch["rewards"])) / 3 for batch in case["batches"]][: case["updates"]]
    nats, norm = expected["nats"], expected["norm"]
    steps = [sum(row) for row in lengths]
    recorded = [[False, -0.7 * count] for count in steps]
    mistakes = {
        "sampled once: after the first step these are another policy's episodes; sample at every update":
            simulated(case, fresh=False) | {"batches": 1},
        "gradients add up: set them to zero before each backward pass": simulated(case, zero=False),
        "a new Adam at every update forgets its moments: make it once, before the loop": simulated(case, renew=True),
        "the step is plain gradient descent: use torch.optim.Adam": simulated(case, adam=False),
        "the policy gets worse: the sign of the loss is turned": simulated(case, sign=-1.0),
        "divided by the number of steps: the loss is a mean over episodes": simulated(case, per_step=True),
        "not divided by the number of episodes: the loss is a mean over them": simulated(case, divided=False),
        "nothing is learned: no step is made, or a copy of the policy is trained": simulated(case, moved=False),
        "the weights are not used: each log π is multiplied by its own": simulated(case, weighted=False),
        ("given", "weigh gets log π with its gradient: weights carry none, hand it logprobs.detach()"):
            [[True, total] for _, total in expected["given"]],
        ("given", "weigh gets the sampler's log-probabilities: hand it those of the policy now"): recorded,
        ("batches", "one batch too many: one for each update"): case["updates"] + 1,
        "one update too few": shorter(expected, case["updates"] - 1) | {
            "logits": simulated(case | {"updates": case["updates"] - 1})["logits"]},
        "the history has the last update alone: a number per update": expected | {
            name: expected[name][-1:] for name in NOTED},
        "nothing is noted: a number per update": expected | {name: [] for name in NOTED},
        ("reward", "the mean over steps: an episode's rewards are summed, and the sums averaged over episodes"):
            [sum(one) / count for one, count in zip(sums, steps)],
        ("reward", "rewards on padding are counted: sum where mask is True"): every,
        ("reward", "the sum over episodes: take their mean"): [sum(one) for one in sums],
        ("length", "the number of columns, padding included: count where mask is True"): [3.0] * case["updates"],
        ("length", "all steps of the batch: the mean over episodes"): [float(count) for count in steps],
        ("nats", "the sign is turned: -log π"): [-x for x in nats],
        ("nats", "the mean over all T columns: over the steps where mask is True"):
            [x * count / 9 for x, count in zip(nats, steps)],
        ("nats", "summed over an episode's steps: the mean over steps"):
            [x * count / 3 for x, count in zip(nats, steps)],
        ("nats", "summed over all steps: their mean"): [x * count for x, count in zip(nats, steps)],
    }  # fmt: skip
    if case["clip"] < 1:
        mistakes["the gradient is not clipped: clip_grad_norm_ between backward and step"] = simulated(case, clip=False)
        mistakes["entries of the gradient are clipped: clip_grad_norm_ shortens it as a whole, by its norm"] = (
            simulated(case, clip=False, entries=True)
        )
        mistakes["norm", "the norm after clipping: clip_grad_norm_ returns the one before"] = [
            min(x, case["clip"]) for x in norm
        ]
    return expected, mistakes


def simulated(case, *, fresh=True, **change):
    """Where the loop with a change goes on the scripted batches, in plain Python."""
    theta, zeros = [list(row) for row in case["logits"]], [[0.0] * 3 for _ in range(3)]
    moments, summed = (zeros, zeros), zeros
    found = {name: [] for name in ("given", "reward", "length", "nats", "norm")}
    for number in range(case["updates"]):
        batch = case["batches"][number if fresh else 0]
        gradient, logprobs = slope(theta, batch, change)
        if not change.get("zero", True):
            gradient = combined(lambda x, y: x + y, summed, gradient)
        norm = math.sqrt(sum(x * x for row in gradient for x in row))
        found["norm"].append(norm)
        if change.get("clip", True):
            gradient = [[x * min(1.0, case["clip"] / (norm + 1e-6)) for x in row] for row in gradient]
        if change.get("entries"):
            gradient = [[max(-case["clip"], min(case["clip"], x)) for x in row] for row in gradient]
        step, summed, clock = gradient, gradient, number + 1  # what is clipped is what stands in .grad
        if change.get("adam", True):
            if change.get("renew"):
                moments, clock = (zeros, zeros), 1
            first = combined(lambda m, g: 0.9 * m + 0.1 * g, moments[0], gradient)
            second = combined(lambda v, g: 0.999 * v + 0.001 * g * g, moments[1], gradient)
            moments, a, b = (first, second), 1 - 0.9**clock, 1 - 0.999**clock
            step = combined(lambda m, v, a=a, b=b: m / a / (math.sqrt(v / b) + 1e-8), first, second)
        steps = sum(map(sum, batch["mask"]))
        found["given"].append([False, logprobs])
        found["reward"].append(sum(x for row in zip(batch["rewards"], batch["mask"]) for x, m in zip(*row) if m) / 3)
        found["length"].append(steps / 3)
        found["nats"].append(-logprobs / steps)
        if change.get("moved", True):
            theta = combined(lambda x, y: x - case["lr"] * y, theta, step)
    return {"logits": theta, "batches": case["updates"]} | found


def shorter(found, updates):
    """The history of the first updates."""
    return found | {"batches": updates} | {name: found[name][:updates] for name in ("given", *NOTED)}


def combined(function, left, right):
    """A function of two tables, entry by entry."""
    return [[function(x, y) for x, y in zip(*pair)] for pair in zip(left, right)]


def slope(theta, batch, change):
    """The gradient of the loss on a batch by the logits, 3 x 3, and the sum of log π; `change` names what is wrong."""
    gradient, total, steps = [[0.0] * 3 for _ in range(3)], 0.0, sum(map(sum, batch["mask"]))
    divisor = steps if change.get("per_step") else 3 if change.get("divided", True) else 1
    names = ("observations", "actions", "weights", "mask")
    for states, actions, weights, mask in zip(*(batch[name] for name in names)):
        for s, a, weight, acted in zip(states, actions, weights, mask):
            if acted:
                weight = weight if change.get("weighted", True) else 1.0
                pi = softmax(theta[s])
                total += math.log(pi[a])
                for b in range(3):
                    gradient[s][b] -= change.get("sign", 1.0) * weight / divisor * ((a == b) - pi[b])
    return gradient, total


# 12.3 The score of each answer ----------------------------------------------------------------------------------------


def answer_scores(policy, rollout, parameters):
    """The package's answer: row by row; equal rows once."""
    import torch

    from ptlearn.rollout import action_logprobs, distinct_rows, take_rows

    first, which = distinct_rows(rollout)
    totals = (action_logprobs(policy, take_rows(rollout, row[None])).sum() for row in first)
    rows = [torch.cat([part.flatten() for part in torch.autograd.grad(total, parameters)]) for total in totals]
    return torch.stack(rows)[which]


def scores_cases(rng):
    """Episodes of different lengths that come back to states, with junk on padding; rewards say nothing here."""
    cases = []
    for states, actions, lengths in ((2, 3, [2, 1]), (3, 4, [4, 2, 3])):
        tables = [[[rng.randrange(count) for _ in range(max(lengths))] for _ in lengths] for count in (states, actions)]
        cases.append({"logits": rows(rng, (states, actions), -1.0, 1.0), "observations": tables[0],
                      "actions": tables[1], "rewards": rows(rng, (len(lengths), max(lengths)), 0.5, 2.0),
                      "mask": masks(lengths, max(lengths))})  # fmt: skip
    return cases


def drive_scores(answer, case):
    """Of a table of logits in two halves, each a parameter: rows of the table, laid end to end."""
    import torch

    from ptlearn.rollout import Rollout

    table = torch.tensor(case["logits"], dtype=torch.float64)
    halves = [table[:1].clone().requires_grad_(), table[1:].clone().requires_grad_()]
    fields = {name: torch.tensor(case[name]) for name in ("observations", "actions", "mask")}
    rewards = torch.tensor(case["rewards"], dtype=torch.float64)
    rollout = Rollout(**fields, rewards=rewards, logprobs=0 * rewards, terminated=fields["mask"].all(1))

    class Table:
        def __call__(self, observations):
            return torch.cat(halves)[observations]

    return answer(Table(), rollout, halves)


def expect_scores(case):
    logits, lengths = case["logits"], [sum(row) for row in case["mask"]]
    pis = [softmax(row) for row in logits]
    states, actions = range(len(logits)), range(len(logits[0]))
    episodes = [list(zip(*three)) for three in zip(case["observations"], case["actions"], case["rewards"])]

    def summed(term=lambda s, a, b, w: (a == b) - pis[s][b], kept=lambda steps, n: steps[:n]):
        """For each episode the sum of term over the steps kept, the table's rows end to end."""
        return [[sum(term(s, a, b, w) for s, a, w in kept(steps, n) if s == row) for row in states for b in actions]
                for steps, n in zip(episodes, lengths)]  # fmt: skip

    expected = summed()
    total = [sum(column) for column in zip(*expected)]
    first = len(actions)
    mistakes = {
        "one gradient for the whole batch: each answer has its own": Alternatives(
            total, [x / len(expected) for x in total], [total] * len(expected), [[x / len(expected) for x in total]],
            [total]),
        "divided by the answer's length: log π of an answer is a sum over its steps":
            [[x / n for x in row] for row, n in zip(expected, lengths)],
        "the first parameter alone: all parameters, laid end to end": [row[:first] for row in expected],
        "the last parameter alone: all parameters, laid end to end": [row[first:] for row in expected],
        "a list of parts for each answer: flatten them, and lay them end to end":
            [[[row[:first]], [row[first * n : first * n + first] for n in states[1:]]] for row in expected],
        "each row has all rows before it in it: backward adds to what stands in .grad":
            [[sum(column) for column in zip(*expected[: n + 1])] for n in range(len(expected))],
        "the parameters in reverse order": [row[first:] + row[:first] for row in expected],
        "the first step alone: an answer's log π is the sum over its steps": summed(kept=lambda steps, n: steps[:1]),
        "the last step alone: an answer's log π is the sum over its steps":
            summed(kept=lambda steps, n: steps[n - 1 : n]),
        "weighted by the rewards: a score is the gradient of log π alone":
            summed(lambda s, a, b, w: w * ((a == b) - pis[s][b])),
        "weighted by the return: a score is the gradient of log π alone":
            [[x * sum(w for *_, w in steps[:n]) for x in row] for row, steps, n in zip(expected, episodes, lengths)],
        "the sign is turned: this is the gradient of a loss": [[-x for x in row] for row in expected],
        "the gradient of π: of log π": [[x * math.prod(pis[s][a] for s, a, _ in steps[:n]) for x in row]
                                        for row, steps, n in zip(expected, episodes, lengths)],
        "padding is differentiated too: nobody acted there": summed(kept=lambda steps, n: steps),
    }  # fmt: skip
    return expected, mistakes


# 12.4 Finetuning, weighted by return ----------------------------------------------------------------------------------


def weighted_cross_entropy(logits, tokens, mask, returns):
    """The package's loss: REINFORCE's, with the return on every token."""
    from ptlearn.policy_gradient import policy_gradient_loss

    return policy_gradient_loss(written_logprobs(logits, tokens, mask), returns[:, None] * mask, mask)


def finetuning_cases(rng):
    """Texts with prompt and padding, each token another one; returns that are no 0 or 1, one of them negative."""
    cases = []
    for texts, steps, words in ((2, 4, 6), (3, 5, 6), (2, 5, 7)):
        cases.append({
            "logits": [rows(rng, (steps, words), -2.0, 2.0) for _ in range(texts)],
            "tokens": [rng.sample(range(words), words)[: steps + 1] for _ in range(texts)],
            "mask": [[0 < t < steps - b for t in range(steps)] for b in range(texts)],
            "returns": [round(rng.uniform(0.5, 2.0), 3) * (-1 if b == 1 else 1) for b in range(texts)],
        })  # fmt: skip
    return cases


def expect_finetuning(case):
    returns, mask, count = case["returns"], case["mask"], len(case["mask"])

    def weighted(scores, divided=lambda b: 1, by=count, weights=returns):
        return -sum(weight * sum(row) / divided(b) for b, (weight, row) in enumerate(zip(weights, scores))) / by

    scores = scored(case)
    expected = weighted(scores)
    tokens, columns = sum(map(sum, mask)), len(mask[0])
    mistakes = {
        "the sign is turned: cross-entropy is minus log π, and it is minimised": -expected,
        "unshifted: logits at step t predict token t + 1": weighted(scored(case, shift=0)),
        "prompt and padding are trained on: only where mask is True": weighted(scored(case, everywhere=True)),
        "not weighted: each answer's loss is multiplied by its return": weighted(scores, weights=[1.0] * count),
        "each answer's mean over its tokens: its losses are summed":
            weighted(scores, divided=lambda b: sum(mask[b])),
        "each answer's mean over all T columns: its losses are summed": weighted(scores, by=count * columns),
        "divided by the number of tokens: the mean over answers": weighted(scores, by=tokens),
        "summed over answers: their mean": weighted(scores, by=1),
        "divided by the sum of the returns: by the number of answers": weighted(scores, by=sum(returns)),
        "every answer gets the mean return: each its own": weighted(scores, weights=[sum(returns) / count] * count),
        "the mean return times the mean over all tokens of the batch: each answer has a return of its own":
            weighted(scores, weights=[sum(returns) / count] * count, by=tokens),
        "negative returns are cut off: such an answer becomes less likely":
            weighted(scores, weights=[max(x, 0.0) for x in returns]),
        "one number per answer: take the mean": [-x * sum(row) for x, row in zip(returns, scores)],
    }  # fmt: skip
    return expected, mistakes


# 12.5 RLOO ------------------------------------------------------------------------------------------------------------


def rloo_weights(returns, groups, mask):
    """The package's leave-one-out, within groups."""
    from ptlearn.policy_gradient import leave_one_out

    return (returns - leave_one_out(returns, groups=groups))[:, None] * mask


def rloo_cases(rng):
    """Groups of 2 to 4, in order and mixed, with ties, one with equal returns; ragged rows with a prompt."""
    cases = []
    mixed = [4, 2, 4, 2, 2, 4, 2]
    for groups, right, steps in (([1, 0, 1, 0, 1], None, 3), ([0, 0, 0, 1, 1, 1, 1], None, 5), (mixed, None, 4),
                                 (mixed, [1, 0, 0, 1, 0, 1, 0], 5), ([0, 5, 0, 5, 5], [2, 1, 2, 0, 1], 4)):  # fmt: skip
        returns = right or [round(rng.uniform(0, 1) + (2 if group in (1, 4) else 0), 3) for group in groups]
        lengths = [rng.randint(1, min(3, steps - 1)) for _ in groups]
        mask = [[1 <= t <= length for t in range(steps)] for length in lengths]
        cases.append({"returns": returns, "groups": groups, "mask": mask})
    return cases


def expect_rloo(case):
    returns, groups, mask = case["returns"], case["groups"], case["mask"]
    count = len(returns)

    def mates(i):
        return [returns[j] for j in range(count) if groups[j] == groups[i]]

    def deviation(values, less=1):
        mean = sum(values) / len(values)
        return math.sqrt(sum((x - mean) ** 2 for x in values) / (len(values) - less))

    def by(rule):
        return [rule(i) for i in range(count)]

    def rest(i):
        return [returns[j] for j in range(count) if groups[j] == groups[i] and j != i]

    def others(i):
        return sum(rest(i)) / len(rest(i))

    def unlike(i):
        kept = [x for x in mates(i) if x != returns[i]]
        return sum(kept) / len(kept) if kept else 0.0

    def strangers(i):
        kept = [returns[j] for j in range(count) if groups[j] != groups[i]]
        return sum(kept) / len(kept)

    advantages = by(lambda i: returns[i] - others(i))
    order = sorted(range(count), key=groups.__getitem__)
    expected = spread(advantages, mask)
    wrong = {
        "the mean includes the row itself: leave it out": by(lambda i: returns[i] - sum(mates(i)) / len(mates(i))),
        "the others' sum is divided by the size of the group: there are one fewer of them":
            by(lambda i: returns[i] - (sum(mates(i)) - returns[i]) / len(mates(i))),
        "the whole mean is divided by one too few: take the row's own return out of the sum":
            by(lambda i: returns[i] - sum(mates(i)) / (len(mates(i)) - 1)),
        "groups are ignored and the row itself is included: compare with the others of the same prompt":
            by(lambda i: returns[i] - sum(returns) / count),
        "this is the baseline: subtract it from the return": by(others),
        "no baseline in it: this is the return itself": list(returns),
        "the others' sum is subtracted: their mean is asked for": by(lambda i: 2 * returns[i] - sum(mates(i))),
        "all equal returns are left out of the others: leave out the row itself, whatever the others got":
            by(lambda i: returns[i] - unlike(i)),
        "the baseline comes from the other groups: it is the mean of the same group":
            by(lambda i: returns[i] - strangers(i)),
        "compared with the best of the others: with their mean": by(lambda i: returns[i] - max(rest(i))),
        "compared with the row before: with the mean of the others of the same group":
            by(lambda i: returns[i] - returns[i - 1]),
        "(n - 1) / n of the deviation from the group's mean: it is n / (n - 1) of it":
            by(lambda i: advantages[i] * ((len(mates(i)) - 1) / len(mates(i))) ** 2),
        "the others' sum is divided by the size of the batch less one: by the number of the others":
            by(lambda i: returns[i] - sum(rest(i)) / (count - 1)),
        "sorted by group and not put back: weights belong to other rows": [advantages[i] for i in order],
    }  # fmt: skip
    if all(deviation(mates(i)) for i in range(count)):
        centred = by(lambda i: returns[i] - sum(mates(i)) / len(mates(i)))
        wrong["divided by the standard deviation: that is GRPO's advantage, with the row itself in the mean"] = (
            by(lambda i: centred[i] / deviation(mates(i)))
        )
        wrong["divided by the standard deviation: GRPO's advantage"] = (
            by(lambda i: centred[i] / deviation(mates(i), less=0))
        )
        wrong["divided by the group's standard deviation too: the difference alone is asked for"] = (
            by(lambda i: advantages[i] / deviation(mates(i)))
        )
    mistakes = {text: spread(values, mask) for text, values in wrong.items()}
    mistakes["one number per row: write it on each chosen token, (B, T)"] = advantages
    return expected, mistakes


# 12.6 Noise and signal ------------------------------------------------------------------------------------------------


def noise_and_signal(gradients, prompts):
    """The package's answer, from the mean of all squares and the square of the mean."""
    count = len(gradients)
    square = (gradients.mean(0) ** 2).sum()
    spread = ((gradients**2).sum(1).mean() - square) * count / (count - 1)
    return {"noise": spread / prompts, "signal": square - spread / count}


def noise_cases(rng):
    """Few gradients, around a mean that is not 0; another number of prompts than there are gradients."""
    return [
        {"gradients": [[round(rng.gauss(mean, 1), 3) for mean in (1.5, -1.0, 2.0, 0.5)[:parameters]]
                       for _ in range(count)], "prompts": prompts}
        for count, parameters, prompts in ((3, 2, 2), (6, 4, 4), (5, 3, 8))
    ]  # fmt: skip


def expect_noise(case):
    gradients, prompts = case["gradients"], case["prompts"]
    count, columns = len(gradients), list(zip(*case["gradients"]))
    means = [sum(column) / count for column in columns]
    variances = [sum((x - m) ** 2 for x in column) / (count - 1) for column, m in zip(columns, means)]
    spread, square = sum(variances), sum(m * m for m in means)
    expected = {"noise": spread / prompts, "signal": square - spread / count}
    mistakes = {
        ("noise", "the noise of one prompt's gradient: a batch averages `prompts` of them"): spread,
        ("noise", "divided by the number of gradients K: a batch averages `prompts` of them"): spread / count,
        ("noise", "the squared deviations are divided by K: from the sample's own mean it is K - 1"):
            spread * (count - 1) / count / prompts,
        ("noise", "the mean of the variances: the trace is their sum"): spread / len(columns) / prompts,
        ("noise", "the variance of all entries together: each parameter has one of its own, and they are summed"):
            statistics.variance(x for row in gradients for x in row) / prompts,
        ("noise", "the mean is not taken off: a variance is that of the deviations from it"):
            sum(x * x for row in gradients for x in row) / count / prompts,
        ("noise", "standard deviations are added: variances are"): sum(map(math.sqrt, variances)) / prompts,
        ("noise", "the root: variances are asked for"): math.sqrt(spread / prompts),
        ("noise", "divided by the root of `prompts`: a variance falls with their number"): spread / math.sqrt(prompts),
        ("signal", "not corrected: the sample mean is longer than the expectation, by a K-th of the spread"): square,
        ("signal", "corrected by the noise of a batch: the mean is over K gradients"): square - spread / prompts,
        ("signal", "the noise is added: the mean of a sample is too long, not too short"): square + spread / count,
        ("signal", "the mean squared length of the gradients: the squared length of their mean"):
            sum(x * x for row in gradients for x in row) / count,
        ("signal", "the mean over all entries, squared: each parameter's mean is squared, and they are summed"):
            (sum(means) / len(means)) ** 2,
        ("signal", "all of the spread is taken off: a K-th of it is in the mean"): square - spread,
        ("signal", "the length: its square is asked for"): math.sqrt(square),
    }  # fmt: skip
    return expected, mistakes


# 12.7 The learner against its sampler ---------------------------------------------------------------------------------


def against_the_sampler(logprobs, recorded, mask, cap):
    """The package's ratios, and its effective sample size."""
    import torch

    from ptlearn.policy_gradient import effective_sample_size, trajectory_ratio, truncated_ratio

    ratios = trajectory_ratio(logprobs, recorded, mask).max(1).values
    gaps = torch.where(mask, logprobs - recorded, 0)
    return {
        "largest": gaps.abs().max(),
        "weights": truncated_ratio(logprobs, recorded, mask, cap=cap),
        "ess": effective_sample_size(ratios) / len(ratios),
    }


def sampler_cases(rng):
    """Gaps on both sides, the largest one down and then up, some beyond the cap; junk on padding in the last case."""
    cases = []
    for sign, steps, lengths, junk in ((-1, 4, [3, 2], None), (1, 5, [4, 1, 3], None), (-1, 4, [2, 3], math.nan)):
        mask = [[1 <= t <= length for t in range(steps)] for length in lengths]
        recorded = rows(rng, (len(lengths), steps), -2.5, -1.5)
        gaps = rows(rng, (len(lengths), steps), -0.9, 0.9)
        gaps[0][1] = sign * round(rng.uniform(1.2, 1.4), 3)
        gaps[1][1] = -sign * round(rng.uniform(0.9, 1.1), 3)
        gaps[0][0] = 1.45  # a prompt, where nothing counts
        logprobs = [[a + b for a, b in zip(*pair)] for pair in zip(recorded, gaps)]
        if junk is not None:
            logprobs = [[x if m else junk for x, m in zip(*pair)] for pair in zip(logprobs, mask)]
        cases.append({"logprobs": logprobs, "recorded": recorded, "mask": mask, "cap": 1.15, "junk": junk is not None})
    return cases


def expect_sampler(case):
    mask, cap = case["mask"], case["cap"]
    count = len(mask)
    gaps = [[a - b if m else 0.0 for a, b, m in zip(*rows)] for rows in zip(case["logprobs"], case["recorded"], mask)]
    flat = [x for row, flags in zip(gaps, mask) for x, m in zip(row, flags) if m]

    def weights(rule):
        return [[rule(x) if m else 0.0 for x, m in zip(*pair)] for pair in zip(gaps, mask)]

    def effective(ratios):
        return sum(ratios) ** 2 / sum(x * x for x in ratios)

    whole = [math.exp(sum(row)) for row in gaps]
    expected = {
        "largest": max(map(abs, flat)),
        "weights": weights(lambda x: min(math.exp(x), cap)),
        "ess": effective(whole) / count,
    }
    if case["junk"]:
        return expected, {}
    every = [[a - b for a, b in zip(*pair)] for pair in zip(case["logprobs"], case["recorded"])]
    mistakes = {
        ("largest", "the sign is kept: the record may be too high as well as too low, so take absolute values"):
            max(flat),
        ("largest", "the sign is turned, not dropped: the record may be too low as well as too high"): -min(flat),
        ("largest", "the mean: one step that is far off must not hide among the others, take the largest"):
            sum(map(abs, flat)) / len(flat),
        ("largest", "prompt and padding count: look where mask is True alone"):
            max(abs(x) for row in every for x in row),
        ("largest", "whole answers are compared: the difference of one token is asked for"):
            max(abs(sum(row)) for row in gaps),
        ("largest", "a ratio: the difference of the logarithms is asked for"): max(map(math.exp, flat)),
        ("largest", "one number per answer: the largest of all"): [max(map(abs, row)) for row in gaps],
        ("weights", "not cut off: at most cap"): weights(math.exp),
        ("weights", "the ratio is turned round, μ/π: π/μ repairs samples of μ"):
            weights(lambda x: min(math.exp(-x), cap)),
        ("weights", "raised to the cap: at most cap, and not at least"): weights(lambda x: max(math.exp(x), cap)),
        ("weights", "0 beyond the cap: such a token keeps the cap as its weight"):
            weights(lambda x: math.exp(x) if math.exp(x) <= cap else 0.0),
        ("weights", "cut off below 1/cap too: the cap is for large ratios alone"):
            weights(lambda x: min(max(math.exp(x), 1 / cap), cap)),
        ("weights", "the difference is cut off at the cap: the ratio is, after the exponential"):
            weights(lambda x: math.exp(min(x, cap))),
        ("weights", "the difference of the logarithms: a ratio is its exponential"): weights(lambda x: min(x, cap)),
        ("weights", "the whole answer's ratio on each token: each token has its own"):
            spread([min(x, cap) for x in whole], mask),
        ("weights", "1 where mask is False: prompt and padding weigh nothing"):
            [[min(math.exp(x), cap) if m else 1.0 for x, m in zip(*pair)] for pair in zip(gaps, mask)],
        ("ess", "a number of answers: as a share of B"): effective(whole),
        ("ess", "from the tokens' ratios: from those of whole answers"): Alternatives(
            effective([math.exp(x) for x in flat]) / len(flat), effective([math.exp(x) for x in flat]) / count),
        ("ess", "from ratios that are cut off: from the whole answers' own"): Alternatives(
            effective([min(x, cap) for x in whole]) / count,
            effective([math.prod(min(math.exp(x), cap) for x in row) for row in gaps]) / count),
        ("ess", "the sum of the ratios is not squared"): sum(whole) / sum(x * x for x in whole) / count,
        ("ess", "the mean ratio of each answer's tokens: a product of ratios, the exponential of a sum"):
            effective([sum(math.exp(x) for x, m in zip(*two) if m) / sum(two[1]) for two in zip(gaps, mask)]) / count,
        ("ess", "upside down: the squared sum over the sum of squares"): 1 / effective(whole) / count,
    }  # fmt: skip
    return expected, mistakes


# 12.8 Three normalizers -------------------------------------------------------------------------------------------


def normalized(values, mask, room):
    """All three through the course's loss: its normalizer, and for the second its weights."""
    import torch

    from ptlearn.policy_gradient import policy_gradient_loss

    ones = torch.ones_like(values)
    lengths = mask.sum(1, keepdim=True)
    return {
        "constant": -policy_gradient_loss(values, ones, mask, len(values) * room),
        "sequence": -policy_gradient_loss(values, ones / lengths, mask),
        "token": -policy_gradient_loss(values, ones, mask, lengths.sum()),
    }


def normalizing_cases(rng):
    """Several lengths; in the last two cases prompt and padding hold what cannot be multiplied away."""
    cases = []
    for lengths, columns, room, junk in (([1, 2], 3, 4, None), ([5, 2, 1], 6, 8, None), ([3, 1, 2, 3], 5, 4, None),
                                         ([3, 4, 1], 6, 8, -math.inf), ([2, 1], 4, 3, math.nan)):  # fmt: skip
        mask = [[1 <= t <= length for t in range(columns)] for length in lengths]
        values = rows(rng, (len(lengths), columns), 0.5, 3.0)
        if junk is not None:
            values = [[x if m else junk for x, m in zip(row, flags)] for row, flags in zip(values, mask)]
        cases.append({"values": values, "mask": mask, "room": room, "junk": junk is not None})
    return cases


def expect_normalizing(case):
    room, count, columns = case["room"], len(case["values"]), len(case["mask"][0])
    kept = [[x for x, m in zip(row, flags) if m] for row, flags in zip(case["values"], case["mask"])]
    total, tokens = sum(map(sum, kept)), sum(map(len, kept))
    filled = sum(map(sum, case["values"]))
    right = {
        "constant": total / (count * room),
        "sequence": sum(sum(row) / len(row) for row in kept) / count,
        "token": total / tokens,
    }
    if case["junk"]:
        return right, {}
    longest, means = max(map(len, kept)), [sum(row) / len(row) for row in kept]
    wrong = {
        ("constant", "divided by the answers alone: by B times room"): total / count,
        ("constant", "divided by the room alone: by B times room"): total / room,
        ("constant", "divided by B times T: T depends on the longest text of the batch, room does not"):
            total / (count * columns),
        ("constant", "divided by B times the longest answer: that depends on the sample, room does not"):
            total / (count * longest),
        ("constant", "prompt and padding are summed: cut them off with mask"): filled / (count * room),
        ("sequence", "each row is divided by T, padding included: by its own number of tokens"):
            total / (count * columns),
        ("sequence", "summed over rows: take the mean of the rows' means"): sum(means),
        ("sequence", "one number per row: take their mean"): means,
        ("sequence", "the mean over all tokens: every row counts alike here, however long it is"): total / tokens,
        ("sequence", "prompt and padding are summed: cut them off with mask"):
            sum(sum(row) / len(short) for row, short in zip(case["values"], kept)) / count,
        ("sequence", "each row is divided by the room: by its own number of tokens"): total / (count * room),
        ("token", "divided by B times T, padding included: by the number of tokens where mask is True"):
            total / (count * columns),
        ("token", "the mean of the rows' means: every token counts alike here"): right["sequence"],
        ("token", "prompt and padding are averaged too: only where mask is True"): filled / (count * columns),
        ("token", "prompt and padding are summed: cut them off with mask"): filled / tokens,
        ("token", "divided by the number of answers: by that of tokens"): total / count,
        ("token", "not divided: by the number of tokens"): total,
        ("constant", "not divided: by B times room"): total,
        ("constant", "divided by the number of tokens: by B times room, whatever the lengths are"): total / tokens,
    }  # fmt: skip
    return right, wrong


# 12.9 pass@k ----------------------------------------------------------------------------------------------------------


def pass_curve(right, ks):
    """The package's estimator, problem by problem."""
    from ptlearn.rl.tasks import pass_at_k

    samples, counts = right.shape[1], right.sum(1).tolist()
    return [sum(pass_at_k(count, samples, k) for count in counts) / len(counts) for k in ks]


def curve_cases(rng):
    """Few answers to problems of all difficulties, more than one k; a problem where not all k can be wrong."""
    cases = []
    for samples, counts, ks in ((5, [1, 3], [2]), (7, [rng.randint(1, 2), 3, 6, 0], [1, 2, 4]),
                                (11, [rng.randint(2, 4), 9, 0, 11], [3, 5])):  # fmt: skip
        right = [rng.sample([True] * count + [False] * (samples - count), samples) for count in counts]
        cases.append({"right": right, "ks": ks})
    return cases


def expect_curve(case):
    ks, counts = case["ks"], [sum(row) for row in case["right"]]
    n, problems = len(case["right"][0]), len(case["right"])

    def exact(c, n, k):
        return 1 - math.comb(n - c, k) / math.comb(n, k)

    def curve(rule):
        return [sum(rule(c, n, k) for c in counts) / problems for k in ks]

    def by(wrong, of, draws=range):
        return curve(lambda c, n, k: 1 - math.prod(max(wrong(c, n, d), 0) / max(of(n, d), 1) for d in draws(k)))

    def left(c, n, d):
        return n - c - d

    pooled = [exact(sum(counts), n * problems, k) for k in ks]
    mean = sum(counts) / problems
    expected = curve(exact)
    return expected, {
        "1 - (1 - c/n)^k draws with putting back and is biased: draw without":
            curve(lambda c, n, k: 1 - (1 - c / n) ** k),
        "this is pass@1, c / n: k is not used": curve(lambda c, n, k: c / n),
        "k times c / n: chances of overlapping events do not add up": curve(lambda c, n, k: k * c / n),
        "k times c / n, cut at 1: chances of overlapping events do not add up":
            curve(lambda c, n, k: min(1.0, k * c / n)),
        "all k are right: at least one of them is asked for":
            curve(lambda c, n, k: math.comb(c, k) / math.comb(n, k)),
        "(1 - c/n)^k, all k are wrong: take the complement": curve(lambda c, n, k: (1 - c / n) ** k),
        "all k are wrong: take the complement": curve(lambda c, n, k: math.comb(n - c, k) / math.comb(n, k)),
        "exactly one of k is right: at least one is asked for":
            curve(lambda c, n, k: c * math.comb(n - c, k - 1) / math.comb(n, k)),
        "1 if any answer was right: that is pass@n, whatever k": curve(lambda c, n, k: float(c > 0)),
        "whether one of the first k answers is right: all n answers tell more, and their order nothing":
            [sum(any(row[:k]) for row in case["right"]) / problems for k in ks],
        "all k right, and the complement: at least one right is the complement of all wrong":
            curve(lambda c, n, k: 1 - math.comb(c, k) / math.comb(n, k)),
        "one draw too few: k of them": by(left, lambda n, d: n - d, lambda k: range(k - 1)),
        "one draw too many: k of them": by(left, lambda n, d: n - d, lambda k: range(k + 1)),
        "1 - (1 - k/n)^c: each right answer is drawn with the chance k/n, but not independently of the others":
            curve(lambda c, n, k: 1 - (1 - k / n) ** c),
        "0 where fewer than k are wrong: one of k is right then, for certain":
            curve(lambda c, n, k: exact(c, n, k) if n - c >= k else 0.0),
        "the number of wrong ones left does not fall: each draw takes one":
            by(lambda c, n, d: n - c, lambda n, d: n - d),
        "the number of answers left does not fall: each draw takes one": by(left, lambda n, d: n),
        "all problems' answers in one pot: each problem has a pass@k of its own, the mean comes last": pooled,
        "from the mean number of right answers: each problem has a pass@k of its own, the mean comes last":
            [1 - math.prod(max(n - mean - d, 0) / (n - d) for d in range(k)) for k in ks],
        "summed over problems: take the mean": [x * problems for x in expected],
        "one number for all k: one for each": sum(expected) / len(ks),
        "a row per problem: the mean over problems": [[exact(c, n, k) for k in ks] for c in counts],
        "the median over problems: take the mean":
            [sum(sorted(exact(c, n, k) for c in counts)[(problems - 1) // 2 : problems // 2 + 1])
             / (problems // 2 - (problems - 1) // 2 + 1) for k in ks] if problems > 2 else [-1.0] * len(ks),
    }  # fmt: skip


# 12.10 Credit by sampling on ------------------------------------------------------------------------------------------


def token_credit(tokens, paid, go_on, samples):
    """The package's answer: the values of all prefixes, and their differences."""
    values = [sum(go_on(tokens[:n], samples)) / samples for n in range(len(tokens))]
    return [after - before for before, after in zip(values, [*values[1:], paid])]


def credit_cases(rng):
    """What going on from each prefix earns, with another mean for each; an answer of one token."""
    cases = []
    for length, samples in ((1, 2), (3, 4), (5, 3)):
        earned = [[round(rng.uniform(-0.3, 0.3) + mean, 3) for _ in range(samples)]
                  for mean in (rng.uniform(0.2, 2.0) for _ in range(length + 1))]  # fmt: skip
        tokens = rng.sample(range(10, 99), length)
        cases.append({"tokens": tokens, "paid": round(rng.uniform(2.5, 3.0), 3), "earned": earned, "samples": samples})
    return cases


def drive_credit(answer, case):
    tokens, earned = case["tokens"], case["earned"]

    def go_on(begun, samples):
        begun = list(begun)
        if begun != tokens[: len(begun)]:
            raise ValueError(f"go_on: the first tokens of the answer are expected, not {begun}")
        if samples != case["samples"]:
            raise ValueError(f"go_on: {case['samples']} samples are asked for, not {samples!r}")
        return list(earned[len(begun)])

    return answer(list(tokens), case["paid"], go_on, case["samples"])


def expect_credit(case):
    paid, length = case["paid"], len(case["tokens"])
    means = [sum(row) / len(row) for row in case["earned"]]
    values = [*means[:-1], paid]

    def changes(values):
        return [after - before for before, after in zip(values, values[1:])]

    expected = changes(values)
    mistakes = {
        "the same credit for all, the reward less the value of the prompt: each token has its own":
            [paid - values[0]] * length,
        "the sign is turned: V after the token minus V before it": [-x for x in expected],
        "these are the values after each token: what it changed is asked for": values[1:],
        "these are the values before each token: what it changed is asked for": values[:-1],
        "the last value is sampled: the whole answer is worth what it was paid": changes(means),
        "the reward less the value before each token: the tokens that follow are credited too":
            [paid - value for value in values[:-1]],
        "the reward less the value after each token: its own change is asked for":
            [paid - value for value in values[1:]],
        "rewards are summed: a value is their mean": changes([sum(row) for row in case["earned"][:-1]] + [paid]),
        "the first sample alone: a value is the mean of all": changes([row[0] for row in case["earned"][:-1]] + [paid]),
        "the best sample: a value is the mean of all": changes([max(row) for row in case["earned"][:-1]] + [paid]),
        "the last token is missing: after it the answer is worth what it was paid": expected[:-1],
        "the first token is missing: it is what follows the empty beginning": expected[1:],
        "compared with the value of the prompt: with the value before the token":
            [value - values[0] for value in values[1:]],
        "relative changes: differences are asked for":
            [after / before - 1 for before, after in zip(values, values[1:])],
        "the sizes alone: a token may do harm": [abs(x) for x in expected],
        "all values, one more than tokens: their differences are asked for": values,
    }  # fmt: skip
    return expected, mistakes


# 12.11 The contest ----------------------------------------------------------------------------------------------------

LEVELS = (0.6, 0.75, 0.85, 0.92)


def with_600_answers(lm, ask):
    """The package's answer: REINFORCE with the reward itself, 18 updates of 16 sums with 2 answers each."""
    from ptlearn.policy_gradient import total_return

    def reward(rollout, _):
        return total_return(rollout.rewards, rollout.mask)

    reinforce(lm, lambda policy: ask(policy, 16, 2), reward, updates=18, lr=1e-4, clip_norm=1.0)
    return lm


def drive_contest(answer, case):
    """What came back, and what it says to held-out sums: asked only where something was learned."""
    from ptlearn.pocket import rl_contest

    ask = rl_contest.asker()
    lm = answer(rl_contest.start(), ask)
    if lm is None:
        return None
    kind, asked = type(lm).__name__, rl_contest.BUDGET - ask.left()
    if not hasattr(lm, "logits_at"):
        return {"model": False, "kind": kind}
    changed = rl_contest.changed(lm)
    said = rl_contest.answers(lm) if changed and asked else []
    return {"model": True, "kind": kind, "changed": changed, "asked": asked, "said": said}


def remark_contest(case, data):
    if not data["model"]:
        return f"this is no language model but a {data['kind']}: return the one that has learned"
    if not data["asked"]:
        return "not one answer was asked for: learn from answers that `ask` gives, with their rewards"
    return None if data["changed"] else "the model is as it was handed over: nothing was learned"


def score_contest(cases, data):
    from ptlearn.pocket import rl_contest

    score = sum(rl_contest.share_right(one["said"]) for one in data) / len(data)
    left = rl_contest.BUDGET - data[0]["asked"]
    if score < 0.45:
        return score, "worse than it was handed over, with about 0.5: a smaller learning rate, clipped gradients"
    if left >= 200:
        return score, f"{left} answers were not asked for"
    return score, "look at the noise of different weights where wrong answers are paid 0, and at rate and batch"


# 12.12 The lab --------------------------------------------------------------------------------------------------------


def loss_of(weigh, temperature=1.0, shift=1):
    """A loss of the lab: minus the mean over answers of weigh(mask) times advantage times log π."""

    def run(logits, tokens, mask, advantages):
        chosen = tokens[:, shift : shift + logits.shape[1], None]
        logprobs = (logits / temperature).log_softmax(-1).gather(-1, chosen)[..., 0]
        return -(weigh(mask) * advantages[:, None] * logprobs).sum() / len(mask)

    return run


def left_to_write(mask):
    """How many tokens of the answer follow each step's."""
    return mask.sum(1, keepdim=True) - mask.cumsum(1)


RUNS = {
    "right": loss_of(lambda mask: mask),
    "shift": loss_of(lambda mask: mask, shift=0),
    "temperature": loss_of(lambda mask: mask, temperature=0.5),
    "first token": loss_of(lambda mask: mask & (mask.cumsum(1) == 1)),
    "discount": loss_of(lambda mask: mask * 0.5 ** left_to_write(mask)),
    "end token": loss_of(lambda mask: mask & (left_to_write(mask) > 0)),
    "prompt": loss_of(lambda mask: left_to_write(mask) + 1 * mask > 0),
    "padding counts": loss_of(lambda mask: mask / mask.shape[1]),
}
HINTS = {
    "shift": "which entry of the logits at step t must the loss raise, that of the token read or of the one written?",
    "temperature": "ask for the size of the gradient, not for its sign: at another temperature it is another softmax",
    "first token": "ask which tokens of an answer are credited",
    "discount": "ask whether all tokens of an answer are credited alike",
    "end token": "ask for the last token of an answer too",
    "prompt": "let a prompt stand before the answer, and advantages that do not cancel",
    "padding counts": "ask for the size of the gradient: it must not depend on the number of columns",
}


def refuses_the_wrong(run):
    """The package's test: by the logits the gradient is -A / B times (one-hot - π) where mask is True, 0 elsewhere."""
    import torch
    from torch.nn.functional import one_hot

    source = torch.Generator().manual_seed(1)
    tokens = torch.randint(5, (3, 8), generator=source)
    logits = torch.randn(3, 7, 5, generator=source, dtype=torch.float64).requires_grad_()
    mask = torch.tensor(masks([4, 2, 3], 6))
    mask = torch.cat([torch.zeros(3, 1, dtype=torch.bool), mask], 1)
    advantages = torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64)
    (found,) = torch.autograd.grad(run(logits, tokens, mask, advantages), logits)
    scores = one_hot(tokens[:, 1:], 5) - logits.detach().softmax(-1)
    return torch.allclose(found, -(advantages[:, None] * mask)[..., None] * scores / 3)


EXERCISES = {
    "12.1": Exercise(record_cases, None, expect_record, points=3, reference=as_record, remark=lost_on_padding,
        signature="as_record(prompts: list, answers: list, logits: float[B T V]) -> {observations: int[B T],"
        " actions: int[B T], mask: bool[B T], logprobs: float[B T]}"),
    "12.2": Exercise(loop_cases, drive_loop, expect_loop, points=4, reference=reinforce),
    "12.3": Exercise(scores_cases, drive_scores, expect_scores, points=2, reference=answer_scores,
        signature="answer_scores(policy: any, rollout: any, parameters: list) -> float[B P]"),
    "12.4": Exercise(finetuning_cases, None, expect_finetuning, points=2, reference=weighted_cross_entropy,
        signature="weighted_cross_entropy(logits: float[B T V], tokens: int[B T+1], mask: bool[B T],"
        " returns: float[B]) -> float[] with gradient of logits"),
    "12.5": Exercise(rloo_cases, None, expect_rloo, points=2, reference=rloo_weights,
        signature="rloo_weights(returns: float32[B], groups: int[B], mask: bool[B T]) -> float[B T]"),
    "12.6": Exercise(noise_cases, None, expect_noise, points=2, reference=noise_and_signal,
        signature="noise_and_signal(gradients: float[K P], prompts: int) -> {noise: number, signal: number}"),
    "12.7": Exercise(sampler_cases, None, expect_sampler, points=3, reference=against_the_sampler,
        remark=lost_on_padding,
        signature="against_the_sampler(logprobs: float[B T], recorded: float[B T], mask: bool[B T], cap: number) ->"
        " {largest: number, weights: float[B T], ess: number}"),
    "12.8": Exercise(normalizing_cases, None, expect_normalizing, points=2, reference=normalized,
        remark=lost_on_padding,
        signature="normalized(values: float[B T], mask: bool[B T], room: int) -> {constant: float[], sequence:"
        " float[], token: float[]} with gradient of values"),
    "12.9": Exercise(curve_cases, None, expect_curve, points=2, reference=pass_curve,
        signature="pass_curve(right: bool[P N], ks: list) -> list"),
    "12.10": Exercise(credit_cases, drive_credit, expect_credit, points=2, reference=token_credit,
        signature="token_credit(tokens: list, paid: number, go_on: function, samples: int) -> list"),
    "12.11": Exercise(lambda rng: ["600 answers"], drive_contest, None, points=4, reference=with_600_answers,
        remark=remark_contest, score=score_contest, levels=LEVELS, ranked=True, seconds=60.0),
    "12.12": lab_of_runs(RUNS, HINTS, refuses_the_wrong, levels=(2, 5, 7)),
}  # fmt: skip
