"""Lesson 12: the action mask of text, sampler against learner, RLOO, three normalisations, pass@k; a lab.

The expectations are plain Python on lists, from the definitions; tensors are made in `drive` alone.
"""

import math

from ptlearn.course.cases import rows, spread, tensors, untouched
from ptlearn.course.diagnosis import differences, misnamed, named_differences
from ptlearn.course.exercise import Exercise
from ptlearn.rl.tasks import pass_at_k

# 12.1 Where the model acted ------------------------------------------------------------------------------------------


def action_mask(prompt_lengths, completion_lengths, steps):
    """From the step that reads the last token of the prompt on, as many steps as there are tokens to write."""
    import torch

    past = torch.arange(steps) - prompt_lengths[:, None] + 1
    return (past >= 0) & (past < completion_lengths[:, None])


def mask_cases(rng):
    """A text that fills its row, a padded one, and one with a short completion; then spare columns for all."""
    prompts, completions = [rng.randint(2, 3), rng.randint(4, 5), 3], [7, 2, rng.randint(2, 3)]
    longest = max(p + c for p, c in zip(prompts, completions))
    return [{"prompts": prompts, "completions": completions, "steps": longest - 1 + extra} for extra in (0, 2)]


def drive_mask(answer, case):
    import torch

    prompts, completions = torch.tensor(case["prompts"]), torch.tensor(case["completions"])
    result = torch.as_tensor(untouched(answer, prompts, completions, case["steps"]))
    return result.int().tolist() if result.dtype == torch.bool else str(result.dtype)


def verify_mask(case, data):
    if isinstance(data, str):
        return f"the mask is of type {data}: True and False are expected, as comparisons give them"
    pairs, steps = list(zip(case["prompts"], case["completions"])), range(case["steps"])

    def by(rule):
        return [[int(rule(t, p, c)) for t in steps] for p, c in pairs]

    expected = by(lambda t, p, c: p - 1 <= t < p - 1 + c)
    mistakes = {
        "one step late: the step that reads the last prompt token, number p - 1, writes the first of the answer": (
            by(lambda t, p, c: p <= t < p + c)
        ),
        "one step early: step p - 2 writes the last token of the prompt, which the model did not choose": (
            by(lambda t, p, c: p - 2 <= t < p - 2 + c)
        ),
        "the end token is left out: the model chose it too, so a completion of n tokens has n steps": (
            by(lambda t, p, c: p - 1 <= t < p - 2 + c)
        ),
        "starts one step late: the first token of the answer is missing": by(lambda t, p, c: p <= t < p - 1 + c),
        "one step too many at the end: behind the completion stands padding": (by(lambda t, p, c: p - 1 <= t < p + c)),
        "one step too many at the beginning: step p - 2 writes the last token of the prompt": (
            by(lambda t, p, c: p - 2 <= t < p - 1 + c)
        ),
        "the prompt is included: the model did not choose it": by(lambda t, p, c: t < p - 1 + c),
        "padding is included: the completion ends after its own length": by(lambda t, p, c: t >= p - 1),
        "turned round: True is where the model chose": by(lambda t, p, c: not p - 1 <= t < p - 1 + c),
        "True at the prompt: it should be True at the completion": by(lambda t, p, c: t < p - 1),
        "the prompt's length is ignored: the completion begins behind the prompt": by(lambda t, p, c: t < c),
        "completion_lengths is taken for the end of the text: it counts the completion alone": (
            by(lambda t, p, c: p - 1 <= t < c)
        ),
        "prompt_lengths and completion_lengths are swapped": by(lambda t, p, c: c - 1 <= t < c - 1 + p),
        "everything is True: a step counts from the first token on and before the end, both at once (&)": (
            by(lambda t, p, c: True)
        ),
    }
    return differences(data, expected, mistakes)


# 12.2 Sampler and learner --------------------------------------------------------------------------------------------


def disagreement(logits, tokens, recorded, mask):
    """The package's recomputation, on logits that are there already."""
    from types import SimpleNamespace

    from ptlearn.rollout import action_logprobs

    record = SimpleNamespace(observations=tokens[:, :-1], actions=tokens[:, 1:], mask=mask)
    return (action_logprobs(lambda _: logits, record) - recorded).where(mask, recorded.new_zeros(())).abs().max()


def agreement_cases(rng):
    """The record is the learner's own, moved: most at one step, upwards, then downwards; padding holds anything."""
    cases = []
    for sign, anything in ((1, -40.0), (-1, -math.inf)):
        logits = [rows(rng, (4, 5), -2.0, 2.0) for _ in range(2)]
        tokens = [rng.sample(range(5), 5) for _ in range(2)]
        mask = [[False, True, True, True], [False, True, True, False]]
        recorded = [
            [log_softmax(logits[b][t])[tokens[b][t + 1]] + rng.uniform(-0.2, 0.2) for t in range(4)] for b in range(2)
        ]
        recorded[0][2] += sign * rng.uniform(0.6, 0.8)
        recorded[1][3] = recorded[0][0] = anything
        cases.append({"logits": logits, "tokens": tokens, "recorded": recorded, "mask": mask})
    return cases


def log_softmax(row):
    """Logits as log-probabilities."""
    total = math.log(sum(math.exp(x) for x in row))
    return [x - total for x in row]


def drive_agreement(answer, case):
    import torch

    logits, recorded, mask = tensors(case, "logits", "recorded", "mask")
    return untouched(answer, logits, torch.tensor(case["tokens"]), recorded, mask)


def verify_agreement(case, data):
    logits, tokens, recorded, mask = (case[name] for name in ("logits", "tokens", "recorded", "mask"))
    steps = [(b, t) for b in range(2) for t in range(4)]
    acted = [(b, t) for b, t in steps if mask[b][t]]

    def apart(b, t, shift=1, score=log_softmax):
        return score(logits[b][t])[tokens[b][t + shift]] - recorded[b][t]

    def across(b, t, normalizers):
        return logits[b][t][tokens[b][t + 1]] - math.log(sum(math.exp(x) for x in normalizers)) - recorded[b][t]

    def written(b, t):
        return log_softmax(logits[b][t])[tokens[b][t + 1]]

    gaps = [apart(b, t) for b, t in acted]
    sizes = [abs(gap) for gap in gaps]
    mistakes = {
        "not a number: 0 times infinity. Padding may hold anything, so select with [mask] or torch.where": math.nan,
        "the sign is kept: the record may be too high as well as too low, so take absolute values": max(gaps),
        "the sign is turned, not dropped: the record may be too low as well as too high": -min(gaps),
        "the average: one step that is far off must not hide among the others, take the largest": (
            sum(sizes) / len(sizes)
        ),
        "the average over all steps, padding included: take the largest where mask is True": (sum(sizes) / len(steps)),
        "summed: take the largest difference": sum(sizes),
        "prompt and padding count: look where mask is True alone": max(abs(apart(b, t)) for b, t in steps),
        "shifted: logits at step t are compared with token t, which was read; they say what is written, token t + 1": (
            max(abs(apart(b, t, shift=0)) for b, t in acted)
        ),
        "logits are taken for log-probabilities: log_softmax is missing": (
            max(abs(apart(b, t, score=list)) for b, t in acted)
        ),
        "probabilities are compared with log-probabilities: take the logarithm": (
            max(abs(apart(b, t, score=lambda row: [math.exp(x) for x in log_softmax(row)])) for b, t in acted)
        ),
        "the smallest difference: one step that agrees says nothing, take the largest": min(sizes),
        "squared: the difference is asked for, in nats": max(size**2 for size in sizes),
        "whole texts are compared: the difference of one token is asked for": (
            max(abs(sum(apart(b, t) for t in range(4) if mask[b][t])) for b in range(2))
        ),
        "one number per text: the largest of all is asked for": (
            [max(abs(apart(b, t)) for t in range(4) if mask[b][t]) for b in range(2)]
        ),
        "one number per step: the largest of all is asked for": sizes,
        "softmax goes over the steps: over the vocabulary, the last axis": max(
            abs(across(b, t, [logits[b][other][tokens[b][t + 1]] for other in range(4)])) for b, t in acted
        ),
        "softmax goes over the texts: over the vocabulary, the last axis": max(
            abs(across(b, t, [logits[other][t][tokens[b][t + 1]] for other in range(2)])) for b, t in acted
        ),
        "the likeliest token is scored: the one that was written is asked for": max(
            abs(max(log_softmax(logits[b][t])) - recorded[b][t]) for b, t in acted
        ),
        "probabilities are subtracted: the difference of their logarithms is asked for": max(
            abs(math.exp(written(b, t)) - math.exp(recorded[b][t])) for b, t in acted
        ),
    }
    return differences(data, max(sizes), mistakes)


# 12.3 RLOO ------------------------------------------------------------------------------------------------------------


def rloo_weights(returns, groups, mask):
    """The package's leave-one-out, within groups."""
    from ptlearn.policy_gradient import leave_one_out

    return (returns - leave_one_out(returns, groups=groups))[:, None] * mask


def rloo_cases(rng):
    """Groups of 3 and 4, in order and mixed, the second with returns of 0 and 1; ragged rows with a prompt."""
    cases = []
    mixed = [4, 2, 4, 2, 2, 4, 2]
    for groups, right in (([0, 0, 0, 1, 1, 1, 1], None), (mixed, [1, 0, 0, 1, 0, 1, 0]), (mixed, None)):
        returns = right or [round(rng.uniform(0, 1) + (2 if group in (1, 4) else 0), 3) for group in groups]
        lengths = [rng.randint(1, 3) for _ in groups]
        mask = [[1 <= t <= length for t in range(5)] for length in lengths]
        cases.append({"returns": returns, "groups": groups, "mask": mask})
    return cases


def drive_rloo(answer, case):
    import torch

    returns, mask = tensors(case, "returns", "mask")
    return untouched(answer, returns, torch.tensor(case["groups"]), mask)


def verify_rloo(case, data):
    returns, groups, mask = case["returns"], case["groups"], case["mask"]
    count = len(returns)

    def mates(i):
        return [returns[j] for j in range(count) if groups[j] == groups[i]]

    def deviation(values):
        mean = sum(values) / len(values)
        return math.sqrt(sum((x - mean) ** 2 for x in values) / (len(values) - 1))

    def by(rule):
        return [rule(i) for i in range(count)]

    def others(i):
        return (sum(mates(i)) - returns[i]) / (len(mates(i)) - 1)

    def unlike(i):
        kept = [x for x in mates(i) if x != returns[i]]
        return sum(kept) / len(kept) if kept else 0.0

    def strangers(i):
        kept = [returns[j] for j in range(count) if groups[j] != groups[i]]
        return sum(kept) / len(kept)

    def biased(values):
        return math.sqrt(sum((x - sum(values) / len(values)) ** 2 for x in values) / len(values))

    advantages = by(lambda i: returns[i] - others(i))
    order = sorted(range(count), key=groups.__getitem__)
    expected = spread(advantages, mask)
    everything = [[x] * len(mask[0]) for x in advantages]
    wrong = {
        "the mean includes the row itself: leave it out": by(lambda i: returns[i] - sum(mates(i)) / len(mates(i))),
        "the others' sum is divided by the size of the group: there are one fewer of them": (
            by(lambda i: returns[i] - (sum(mates(i)) - returns[i]) / len(mates(i)))
        ),
        "the whole mean is divided by one too few: take the row's own return out of the sum": (
            by(lambda i: returns[i] - sum(mates(i)) / (len(mates(i)) - 1))
        ),
        "groups are ignored: compare with the other answers to the same prompt alone": (
            by(lambda i: returns[i] - (sum(returns) - returns[i]) / (count - 1))
        ),
        "groups are ignored and the row itself is included: compare with the others of the same prompt": (
            by(lambda i: returns[i] - sum(returns) / count)
        ),
        "the sign is turned: return minus baseline": by(lambda i: others(i) - returns[i]),
        "this is the baseline: subtract it from the return": by(others),
        "divided by the standard deviation: that is GRPO's advantage, with the row itself in the mean": (
            by(lambda i: (returns[i] - sum(mates(i)) / len(mates(i))) / deviation(mates(i)))
        ),
        "divided by the standard deviation: GRPO's advantage": (
            by(lambda i: (returns[i] - sum(mates(i)) / len(mates(i))) / biased(mates(i)))
        ),
        "divided by the group's standard deviation too: the difference alone is asked for": (
            by(lambda i: advantages[i] / deviation(mates(i)))
        ),
        "no baseline in it: this is the return itself": list(returns),
        "the others' sum is subtracted: their mean is asked for": by(lambda i: 2 * returns[i] - sum(mates(i))),
        "all equal returns are left out of the others: leave out the row itself, whatever the others got": (
            by(lambda i: returns[i] - unlike(i))
        ),
        "the baseline comes from the other groups: it is the mean of the same group": (
            by(lambda i: returns[i] - strangers(i))
        ),
        "sorted by group and not put back: weights belong to other rows": [advantages[i] for i in order],
    }
    mistakes = {text: spread(values, mask) for text, values in wrong.items()}
    mistakes["filled everywhere: prompt and padding have weight 0, so multiply with mask"] = everything
    mistakes["one number per row: write it on each chosen token, (B, T)"] = advantages
    mistakes["on the last token alone: every chosen token of the row has the weight"] = [
        [x if m and not any(row[t + 1 :]) else 0.0 for t, m in enumerate(row)] for x, row in zip(advantages, mask)
    ]
    mistakes["the mask is turned round: prompt and padding have weight 0"] = [
        [0.0 if m else x for m in row] for x, row in zip(advantages, mask)
    ]
    mistakes["shared out over the tokens: each of them gets the whole weight"] = [
        [x / sum(row) if m else 0.0 for m in row] for x, row in zip(advantages, mask)
    ]
    return differences(data, expected, mistakes)


# 12.4 Three normalisations -------------------------------------------------------------------------------------------


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
    """Three lengths; in the second case prompt and padding hold what cannot be multiplied away."""
    cases = []
    for lengths, anything in (([5, 2, 1], None), ([3, 4, 1], -math.inf)):
        mask = [[1 <= t <= length for t in range(6)] for length in lengths]
        values = rows(rng, (3, 6), 0.5, 3.0)
        if anything:
            values = [[x if m else anything for x, m in zip(row, flags)] for row, flags in zip(values, mask)]
        cases.append({"values": values, "mask": mask, "room": 8})
    return cases


def drive_normalizing(answer, case):
    values, mask = tensors(case, "values", "mask")
    return untouched(answer, values, mask, case["room"])


def verify_normalizing(case, data):
    room, count, columns = case["room"], len(case["values"]), len(case["mask"][0])
    kept = [[x for x, m in zip(row, flags) if m] for row, flags in zip(case["values"], case["mask"])]
    total, tokens = sum(map(sum, kept)), sum(map(len, kept))
    filled = sum(map(sum, case["values"]))
    right = {
        "constant": total / (count * room),
        "sequence": sum(sum(row) / len(row) for row in kept) / count,
        "token": total / tokens,
    }
    longest, means = max(map(len, kept)), [sum(row) / len(row) for row in kept]
    wrong = {
        ("constant", "divided by the answers alone: by B times room"): total / count,
        ("constant", "divided by the room alone: by B times room"): total / room,
        ("constant", "divided by B times T: T depends on the longest text of the batch, room does not"): (
            total / (count * columns)
        ),
        ("constant", "divided by B times the longest answer: that depends on the sample, room does not"): (
            total / (count * longest)
        ),
        ("constant", "prompt and padding are summed: cut them off with mask"): filled / (count * room),
        ("sequence", "each row is divided by T, padding included: by its own number of tokens"): (
            total / (count * columns)
        ),
        ("sequence", "summed over rows: take the mean of the rows' means"): sum(means),
        ("sequence", "one number per row: take their mean"): means,
        ("sequence", "the mean over all tokens: every row counts alike here, however long it is"): total / tokens,
        ("sequence", "prompt and padding are summed: cut them off with mask"): (
            sum(sum(row) / len(short) for row, short in zip(case["values"], kept)) / count
        ),
        ("sequence", "each row is divided by the room: by its own number of tokens"): total / (count * room),
        ("token", "divided by B times T, padding included: by the number of tokens where mask is True"): (
            total / (count * columns)
        ),
        ("token", "the mean of the rows' means: every token counts alike here"): right["sequence"],
        ("token", "prompt and padding are averaged too: only where mask is True"): filled / (count * columns),
        ("token", "prompt and padding are summed: cut them off with mask"): filled / tokens,
        ("token", "divided by the number of answers: by that of tokens"): total / count,
    }
    for name, value in right.items():
        wrong[name, "the sign is turned: nothing is minimised here"] = -value
        wrong[name, "not a number: 0 times infinity. Padding may hold anything, so cut it off with torch.where"] = (
            math.nan
        )
    return named_differences(data, right, wrong)


# 12.5 pass@k ----------------------------------------------------------------------------------------------------------


def passing_cases(rng):
    """Many problems at once, and with few wrong ones, where not all k can be wrong; the last one is a large n."""
    some = [(3, rng.choice((11, 13)), 3), (9, 11, 3), (0, 5, 2), (5, 5, 1), (rng.randint(2, 7), 16, 1)]
    return [{"successes": c, "samples": n, "k": k} for c, n, k in (*some, (3, 2000, 100))]


def drive_passing(answer, case):
    return float(answer(case["successes"], case["samples"], case["k"]))


def verify_passing(case, data):
    c, n, k = case["successes"], case["samples"], case["k"]
    expected = 1 - math.comb(n - c, k) / math.comb(n, k)

    def by(wrong, of, draws=range(k)):
        return 1 - math.prod(max(wrong(draw), 0) / max(of(draw), 1) for draw in draws)

    mistakes = {
        "1 - (1 - c/n)^k draws with putting back and is biased: draw without": 1 - (1 - c / n) ** k,
        "this is pass@1, c / n: k is not used": c / n,
        "k times c / n: chances of overlapping events do not add up": k * c / n,
        "k times c / n, cut at 1: chances of overlapping events do not add up": min(1.0, k * c / n),
        "all k are right: at least one of them is asked for": math.comb(c, k) / math.comb(n, k),
        "all k are wrong: take the complement": math.comb(n - c, k) / math.comb(n, k),
        "(c/n)^k, all k are right: at least one of them is asked for": (c / n) ** k,
        "(1 - c/n)^k, all k are wrong: take the complement": (1 - c / n) ** k,
        "exactly one of k is right: at least one is asked for": (c * math.comb(n - c, k - 1) / math.comb(n, k)),
        "1 if any sample was right: that is pass@n, whatever k (or // rounded down)": float(c > 0),
        "all k right, and the complement: at least one right is the complement of all wrong": (
            1 - math.comb(c, k) / math.comb(n, k)
        ),
        "the first draw is missing: k draws begin at 0": by(lambda d: n - c - d, lambda d: n - d, range(1, k)),
        "one draw too few: k of them": by(lambda d: n - c - d, lambda d: n - d, range(k - 1)),
        "one draw too many: k of them": by(lambda d: n - c - d, lambda d: n - d, range(k + 1)),
        "the number of wrong ones left does not fall: each draw takes one": by(lambda d: n - c, lambda d: n - d),
        "the number of samples left does not fall: each draw takes one": by(lambda d: n - c - d, lambda d: n),
    }
    return differences(data, expected, mistakes)


# 12.6 The lab ---------------------------------------------------------------------------------------------------------

BUGS = {"A": "stale sampler", "B": "shift", "C": "first token", "D": "discount"}
SIGNS = {
    "temperature": "sets sampler and learner apart at the very first update",
    "stale sampler": "is right at the first update, sets sampler and learner apart from the second on, and its batches "
    "do not get better",
    "prompt": "adds the prompt's tokens, whose weights cancel within a group: cosine 1",
    "shift": "pulls at all tokens alike, but in a wrong direction",
    "first token": "pulls at token 1 alone",
    "discount": "pulls at early tokens less than at late ones, by the same factor from each to the next",
    "end token": "pulls at all tokens but the last",
    "normalizer": "changes the length of the gradient and not its direction: cosine 1",
}
SEEN = {
    "A": "run A has cosine 1 and length 1, and at the second update sampler and learner are apart",
    "B": "run B has cosine 0.43 although it pulls at all tokens about alike",
    "C": "run C pulls at 1.00, 0.00, 0.00, 0.00",
    "D": "run D pulls at 0.12, 0.25, 0.50, 1.00",
}


def verify_lab(case, data):
    return misnamed(data, BUGS, SIGNS, SEEN)


EXERCISES = {
    "12.1": Exercise(mask_cases, drive_mask, verify_mask, points=2, reference=action_mask),
    "12.2": Exercise(agreement_cases, drive_agreement, verify_agreement, points=2, reference=disagreement),
    "12.3": Exercise(rloo_cases, drive_rloo, verify_rloo, points=2, reference=rloo_weights),
    "12.4": Exercise(normalizing_cases, drive_normalizing, verify_normalizing, points=2, reference=normalized),
    "12.5": Exercise(passing_cases, drive_passing, verify_passing, points=2, reference=pass_at_k),
    "12.6": Exercise(
        lambda rng: [{"runs": list(BUGS)}], lambda answer, case: answer, verify_lab, points=4, reference=dict(BUGS)
    ),
}
