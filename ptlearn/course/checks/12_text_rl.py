"""Lesson 12: the action mask of text, sampler against learner, RLOO, three normalisations, pass@k; a lab.

The expectations are plain Python on lists, from the definitions; tensors are made in `drive` alone.
"""

import math

from ptlearn.course.cases import log_softmax, lost_on_padding, rows, spread
from ptlearn.course.diagnosis import Alternatives
from ptlearn.course.exercise import Exercise, lab
from ptlearn.rl.tasks import pass_at_k

# 12.1 Where the model acted ------------------------------------------------------------------------------------------


def action_mask(prompt_lengths, completion_lengths, steps):
    """From the step that reads the last token of the prompt on, as many steps as there are tokens to write."""
    import torch

    past = torch.arange(steps) - prompt_lengths[:, None] + 1
    return (past >= 0) & (past < completion_lengths[:, None])


def mask_cases(rng):
    """Short ones; a text that fills its row, a padded one, one with a short completion; then spare columns for all."""
    prompts, completions = [rng.randint(2, 3), rng.randint(4, 5), 3], [7, 2, rng.randint(2, 3)]
    longest = max(p + c for p, c in zip(prompts, completions))
    small = {"prompts": [1, 4], "completions": [3, 1], "steps": 4}
    return [
        small, *({"prompts": prompts, "completions": completions, "steps": longest - 1 + extra} for extra in (0, 2))
    ]  # fmt: skip


def drive_mask(answer, case):
    import torch

    return answer(torch.tensor(case["prompts"]), torch.tensor(case["completions"]), case["steps"])


def expect_mask(case):
    pairs, steps = list(zip(case["prompts"], case["completions"])), range(case["steps"])

    def by(rule):
        return [[bool(rule(t, p, c)) for t in steps] for p, c in pairs]

    expected = by(lambda t, p, c: p - 1 <= t < p - 1 + c)
    mistakes = {
        "one step late: the step that reads the last prompt token, number p - 1, writes the first of the answer":
            by(lambda t, p, c: p <= t < p + c),
        "starts one step late: the first token of the answer is missing": by(lambda t, p, c: p <= t < p - 1 + c),
        "one step too many at the beginning: step p - 2 writes the last token of the prompt":
            by(lambda t, p, c: p - 2 <= t < p - 1 + c),
        "the prompt is included: the model did not choose it": by(lambda t, p, c: t < p - 1 + c),
        "padding is included: the completion ends after its own length": by(lambda t, p, c: t >= p - 1),
        "the prompt is included, and one step too many at the end": by(lambda t, p, c: t < p + c),
        "one step late, and padding is included": by(lambda t, p, c: t >= p),
        "True at the prompt: it should be True at the completion": by(lambda t, p, c: t < p - 1),
        "the prompt's length is ignored: the completion begins behind the prompt": by(lambda t, p, c: t < c),
        "completion_lengths is taken for the end of the text: it counts the completion alone":
            by(lambda t, p, c: p - 1 <= t < c),
        "everything is True: a step counts from the first token on and before the end, both at once (&)":
            by(lambda t, p, c: True),
    }  # fmt: skip
    return expected, mistakes


# 12.2 Sampler and learner --------------------------------------------------------------------------------------------


def disagreement(logits, tokens, recorded, mask):
    """The package's recomputation, on logits that are there already."""
    from types import SimpleNamespace

    from ptlearn.rollout import action_logprobs

    record = SimpleNamespace(observations=tokens[:, :-1], actions=tokens[:, 1:], mask=mask)
    return (action_logprobs(lambda _: logits, record) - recorded).where(mask, recorded.new_zeros(())).abs().max()


def agreement_cases(rng):
    """The record is the learner's own, moved: most at one step, up or down, last a little; padding holds anything."""
    cases = []
    for sign, padding, (texts, steps, words) in ((1, -5.0, (1, 3, 4)), (-1, -40.0, (2, 4, 5)), (1, -7.0, (3, 3, 4)),
                                                 (-1, -math.inf, (2, 4, 5)), (1, math.nan, (2, 3, 4))):  # fmt: skip
        logits = [rows(rng, (steps, words), -2.0, 2.0) for _ in range(texts)]
        tokens = [rng.sample(range(words), words)[: steps + 1] for _ in range(texts)]
        mask = [[0 < t < max(2, steps - b) for t in range(steps)] for b in range(texts)]
        acted = [(b, t) for b in range(texts) for t in range(steps) if mask[b][t]]
        if texts == 3:  # an unlikely token, whose probability is rounded to 0
            logits[0][1][tokens[0][2]], logits[0][1][tokens[0][1]] = -500.0, 500.0
        size = 0.1 if math.isnan(padding) else 1.0
        recorded = [
            [log_softmax(logits[b][t])[tokens[b][t + 1]] + rng.uniform(-0.2, 0.2) * size if mask[b][t] else padding
             for t in range(steps)]
            for b in range(texts)
        ]  # fmt: skip
        b, t = rng.choice(acted)
        recorded[b][t] += sign * rng.uniform(0.6, 0.8) * (size if texts < 3 else 2.5)
        junk = not math.isfinite(padding)
        cases.append({"logits": logits, "tokens": tokens, "recorded": recorded, "mask": mask, "junk": junk})
    return cases


def expect_agreement(case):
    logits, tokens, recorded, mask = (case[name] for name in ("logits", "tokens", "recorded", "mask"))
    texts, columns = range(len(mask)), range(len(mask[0]))
    steps = [(b, t) for b in texts for t in columns]
    acted = [(b, t) for b, t in steps if mask[b][t]]

    def apart(b, t, shift=1, score=log_softmax):
        return score(logits[b][t])[tokens[b][t + shift]] - recorded[b][t]

    def across(b, t, normalizers):
        return logits[b][t][tokens[b][t + 1]] - math.log(sum(math.exp(x) for x in normalizers)) - recorded[b][t]

    def written(b, t):
        return log_softmax(logits[b][t])[tokens[b][t + 1]]

    gaps = [apart(b, t) for b, t in acted]
    sizes = [abs(gap) for gap in gaps]
    if case["junk"]:
        return max(sizes), {}
    mistakes = {
        "infinite: a probability that softmax rounds to 0 has no logarithm; log_softmax takes both at once":
            max(abs(apart(b, t)) if math.exp(written(b, t)) else math.inf for b, t in acted),
        "the difference of the averages: compare token by token": abs(sum(gaps) / len(gaps)),
        "only the last chosen token of each text is compared: the largest of all is asked for":
            max(abs(apart(b, max(t for t in columns if mask[b][t]))) for b in texts),
        "the sign is kept: the record may be too high as well as too low, so take absolute values": max(gaps),
        "the sign is turned, not dropped: the record may be too low as well as too high": -min(gaps),
        "the average: one step that is far off must not hide among the others, take the largest":
            sum(sizes) / len(sizes),
        "the average over all steps, padding included: take the largest where mask is True": (sum(sizes) / len(steps)),
        "summed: take the largest difference": sum(sizes),
        "the root of the squares: one step that is far off must not hide among the others, take the largest":
            Alternatives(*(math.sqrt(sum(x * x for x in sizes) / count) for count in (1, len(sizes), len(steps)))),
        "the mean of the largest of each text: take the largest of all":
            sum(max(abs(apart(b, t)) for t in columns if mask[b][t]) for b in texts) / len(texts),
        "the first chosen token alone is compared: take the largest difference of all": sizes[0],
        "prompt and padding count: look where mask is True alone": max(abs(apart(b, t)) for b, t in steps),
        "shifted: logits at step t are compared with token t, which was read; they say what is written, token t + 1":
            max(abs(apart(b, t, shift=0)) for b, t in acted),
        "logits are taken for log-probabilities: log_softmax is missing":
            max(abs(apart(b, t, score=list)) for b, t in acted),
        "probabilities are compared with log-probabilities: take the logarithm":
            max(abs(apart(b, t, score=lambda row: [math.exp(x) for x in log_softmax(row)])) for b, t in acted),
        "the smallest difference: one step that agrees says nothing, take the largest": min(sizes),
        "whole texts are compared: the difference of one token is asked for":
            max(abs(sum(apart(b, t) for t in columns if mask[b][t])) for b in texts),
        "softmax goes over the steps: over the vocabulary, the last axis":
            max(abs(across(b, t, [logits[b][other][tokens[b][t + 1]] for other in columns])) for b, t in acted),
        "softmax goes over the texts: over the vocabulary, the last axis":
            max(abs(across(b, t, [logits[other][t][tokens[b][t + 1]] for other in texts])) for b, t in acted),
        "the likeliest token is scored: the one that was written is asked for":
            max(abs(max(log_softmax(logits[b][t])) - recorded[b][t]) for b, t in acted),
        "probabilities are subtracted: the difference of their logarithms is asked for":
            max(abs(math.exp(written(b, t)) - math.exp(recorded[b][t])) for b, t in acted),
    }  # fmt: skip
    return max(sizes), mistakes


# 12.3 RLOO ------------------------------------------------------------------------------------------------------------


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


# 12.5 pass@k ----------------------------------------------------------------------------------------------------------


def passing_cases(rng):
    """Many problems at once, and with few wrong ones, where not all k can be wrong; the last one is a large n."""
    some = [(3, rng.choice((11, 13)), 3), (9, 11, 3), (10, 11, 3), (0, 5, 2), (5, 5, 1), (rng.randint(2, 7), 16, 1)]
    return [{"successes": c, "samples": n, "k": k} for c, n, k in (*some, (3, 2000, 100))]


def expect_passing(case):
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
        "(c/n)^k, all k are right: at least one of them is asked for": (c / n) ** k,
        "(1 - c/n)^k, all k are wrong: take the complement": (1 - c / n) ** k,
        "exactly one of k is right: at least one is asked for": (c * math.comb(n - c, k - 1) / math.comb(n, k)),
        "1 if any sample was right: that is pass@n, whatever k (or // rounded down)": float(c > 0),
        "all k right, and the complement: at least one right is the complement of all wrong":
            1 - math.comb(c, k) / math.comb(n, k),
        "the first draw is missing: k draws begin at 0": by(lambda d: n - c - d, lambda d: n - d, range(1, k)),
        "one draw too few: k of them": by(lambda d: n - c - d, lambda d: n - d, range(k - 1)),
        "1 - (1 - k/n)^c: draw without putting back, k times among the wrong ones": 1 - (1 - k / n) ** c,
        "0 where fewer than k are wrong: one of k is right then, for certain": expected if n - c >= k else 0.0,
        "the number of wrong ones left does not fall: each draw takes one": by(lambda d: n - c, lambda d: n - d),
        "the number of samples left does not fall: each draw takes one": by(lambda d: n - c - d, lambda d: n),
    }  # fmt: skip
    return expected, mistakes


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


EXERCISES = {
    "12.1": Exercise(mask_cases, drive_mask, expect_mask, points=2, reference=action_mask,
        signature="action_mask(prompt_lengths: int[B], completion_lengths: int[B], steps: int) -> bool[B steps]"),
    "12.2": Exercise(agreement_cases, None, expect_agreement, points=2, reference=disagreement, remark=lost_on_padding,
        signature="disagreement(logits: float[B T V], tokens: int[B T+1], recorded: float[B T], mask: bool[B T]) ->"
        " number"),
    "12.3": Exercise(rloo_cases, None, expect_rloo, points=2, reference=rloo_weights,
        signature="rloo_weights(returns: float32[B], groups: int[B], mask: bool[B T]) -> float[B T]"),
    "12.4": Exercise(normalizing_cases, None, expect_normalizing, points=2, reference=normalized,
        remark=lost_on_padding,
        signature="normalized(values: float[B T], mask: bool[B T], room: int) -> {constant: float[], sequence:"
        " float[], token: float[]} with gradient of values"),
    "12.5": Exercise(passing_cases, None, expect_passing, points=2, reference=pass_at_k,
        signature="pass_at_k(successes: int, samples: int, k: int) -> number"),
    "12.6": lab(4, BUGS, SIGNS, SEEN),
}  # fmt: skip
