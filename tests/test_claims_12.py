"""C28 and C39 to C41: tokens are actions. Exact on transformers whose texts can be listed; a pocket LM learns sums from
right and wrong alone. What is learned and weighed with are the answers that lesson 12 goes on with."""

import copy
import itertools
import math
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch.nn.functional import cross_entropy, pad

from ptlearn import policy_gradient as pg
from ptlearn.course.exercise import exercises
from ptlearn.grid.collection import collect
from ptlearn.grid.gridworld import GridWorld
from ptlearn.lm.models import load_lm, toy_lm
from ptlearn.lm.text import completions
from ptlearn.pocket import tasks
from ptlearn.pocket.rl_contest import finetuned
from ptlearn.rl.enumeration import enumerate_texts, exact_text_gradient, text_objective, text_values
from ptlearn.rl.policies import TabularPolicy
from ptlearn.rl.text_collection import attempt, collect_text, pay, sampled_scores, text_collector
from ptlearn.rl.training import train_policy
from ptlearn.rollout import action_logprobs, check_behavior, take_rows

pytestmark = pytest.mark.usefixtures("one_thread")
ANSWERS = {number: known.reference for number, known in exercises(12).items()}
LAB = exercises(12)["12.12"].runs
TASK = tasks.arithmetic(largest=50)
SEEDS = range(5)


def flat(gradients):
    return torch.cat([gradient.flatten() for gradient in gradients])


def cosine(a, b):
    return float(a @ b / a.norm() / b.norm())


def returns_of(rollout):
    return pg.episode_returns(rollout.rewards, rollout.mask)


# ---------------------------------------------------------------- C39: the exact gradient of a transformer


class Listed:
    """A toy transformer, all its texts with rewards and chances, and the exact gradient of J."""

    def __init__(self, seed=3, words="abcde", prompts=("b a", "c"), steps=4, paid=lambda text: 0.0):
        self.lm = toy_lm(["end", *words], seed=seed)
        texts, self.chance = enumerate_texts(self.lm, prompts, max_new_tokens=steps)
        self.texts = pay(texts, [paid(text.split()) for text in completions(self.lm, texts)])
        self.mask, self.returns = self.texts.mask, returns_of(self.texts)
        self.lengths = self.mask.sum(1)
        self.J, self.exact = float(self.chance @ self.returns), exact_text_gradient(self.lm, self.texts)

    def mean(self, weights, chance=None):
        """Over all texts, of the estimate that these weights, (B, T) or (B,), give."""
        weights = weights if weights.ndim == 2 else weights[:, None] * self.mask
        chance = self.chance if chance is None else chance
        total = (chance[:, None] * weights * action_logprobs(self.lm, self.texts)).sum()
        return flat(torch.autograd.grad(total, list(self.lm.parameters())))

    def off(self, mean):
        return float((mean - self.exact).norm() / self.exact.norm())

    def sampled_at(self, temperature):
        """log μ of a sampler at another temperature."""
        with torch.no_grad():
            return action_logprobs(self.lm, self.texts, temperature=temperature)


@cache
def listed():
    return Listed(paid=lambda text: text.count("c") - 0.5 * text.count("a"))


@cache
def of_the_lesson(seed):
    """One prompt, paid for the share of c: the lesson's toy, and others like it."""
    return Listed(seed, prompts=("a b",), paid=lambda text: text.count("c") / 4)


def test_c39_the_grids_weights_have_the_exact_gradient_as_their_mean_on_text():
    toy = listed()
    total, to_go = (form(toy.texts.rewards, toy.mask) for form in (pg.total_return, pg.reward_to_go))
    for weights in (total, to_go, toy.returns - toy.J, toy.returns + 7):
        assert toy.off(toy.mean(weights)) <= 1e-10
    assert toy.off(toy.mean(pg.reward_to_go(toy.texts.rewards, toy.mask, gamma=0.99))) > 1e-3


def test_c39_a_baseline_takes_variance_away_in_the_toy_world():
    toy = Listed(0, prompts=("a b",), steps=2, paid=lambda text: text.count("c") / 4)
    scores = ANSWERS["12.3"](toy.lm, toy.texts, list(toy.lm.parameters()))

    def spread(weights):
        each = weights[:, None] * scores
        return float(toy.chance @ ((each - toy.chance @ each) ** 2).sum(1))

    best = pg.optimal_baseline(toy.chance * (scores**2).sum(1), toy.returns)
    assert spread(toy.returns - best) < spread(toy.returns - toy.J) < 0.7 * spread(toy.returns)


def test_c39_without_the_end_token_the_gradient_is_another():
    toy = listed()
    last = toy.mask & (toy.mask.cumsum(1) == toy.lengths[:, None])
    assert toy.off(toy.mean(pg.total_return(toy.texts.rewards, toy.mask) * ~last)) > 0.1


def test_the_right_run_of_the_lab_has_the_exact_gradient_and_no_other_one():
    toy = listed()
    tokens = torch.cat([toy.texts.observations[:, :1], toy.texts.actions], 1)
    advantages = len(toy.chance) * toy.chance * (toy.returns + 1)  # a mean over rows is then one over texts
    off = {}
    for name, run in LAB.items():
        loss = run(toy.lm(toy.texts.observations), tokens, toy.mask, advantages)
        off[name] = toy.off(-flat(torch.autograd.grad(loss, list(toy.lm.parameters()))))
    assert off.pop("right") <= 1e-10 < 0.1 < min(off.values()), off


def test_credit_by_sampling_on_is_what_a_token_changed_and_its_mean_is_the_exact_gradient():
    toy = of_the_lesson(1)
    values = text_values(toy.texts, toy.chance)
    rows = [row for row in range(len(values)) if toy.lengths[row] == 4][:5]
    for row in rows:
        acted, paid = values[row][toy.mask[row]].tolist(), float(toy.returns[row])
        credit = ANSWERS["12.10"]([7, 8, 9, 10], paid, lambda begun, n, acted=acted: [acted[len(begun)]] * n, 3)
        assert sum(credit) == pytest.approx(paid - acted[0])  # and the prompt's value is J
        assert acted[0] == pytest.approx(toy.J)
    later = pad(values, (0, 1))[:, 1:] + toy.texts.rewards
    assert toy.off(toy.mean((later - values) * toy.mask)) <= 1e-10
    assert toy.off(toy.mean((later - 0.9 * values) * toy.mask)) <= 1e-10  # a part of a baseline is a baseline
    assert toy.off(toy.mean((0.9 * later - values) * toy.mask)) > 1e-2


# ---------------------------------------------------------------- weights that compare, exactly


@cache
def grouped(size=3):
    """Every draw of so many answers to one of two prompts: rows of texts (draws, size), and the chance of each draw."""
    toy = Listed(5, words="ac", prompts=("a", "c"), steps=2, paid=lambda text: text.count("c") + 0.3 * (text == ["a"]))
    half = len(toy.chance) // 2
    draws = [rows for first in (0, half) for rows in itertools.product(range(first, first + half), repeat=size)]
    draws = torch.tensor(draws)
    return toy, draws, (2 * toy.chance[draws]).prod(1) / 2


def off_of(advantages_of):
    """How far the mean over all draws is from the gradient, and the cosine: advantages_of(returns, groups) -> (B,)."""
    toy, draws, chance = grouped()
    groups = torch.arange(len(draws)).repeat_interleave(draws.shape[1])
    advantages = advantages_of(toy.returns[draws].flatten(), groups)
    weights = advantages * chance.repeat_interleave(draws.shape[1]) / draws.shape[1]
    by_text = torch.zeros(len(toy.chance), dtype=weights.dtype).index_add(0, draws.flatten(), weights)
    mean = toy.mean(by_text, torch.ones_like(toy.chance))
    return toy.off(mean), cosine(mean, toy.exact)


def test_c40_rloo_is_unbiased_with_the_row_itself_it_is_too_short_and_standardized_it_is_another_direction():
    def rloo(returns, groups):
        return ANSWERS["12.5"](returns, groups, torch.ones(len(returns), 1, dtype=torch.bool))[:, 0]

    def with_itself(returns, groups):
        return returns - returns.view(-1, 3).mean(1).repeat_interleave(3)

    assert off_of(rloo)[0] <= 1e-10
    off, turned = off_of(with_itself)
    assert off == pytest.approx(1 / 3, abs=1e-10) and turned == pytest.approx(1, abs=1e-12)
    off, turned = off_of(pg.standardized)
    assert off > 0.05 and turned < 0.999


def test_c40_a_baseline_from_answers_to_other_prompts_is_unbiased_too():
    toy, pairs = grouped()[0], []
    count = len(toy.chance)
    by_text = torch.zeros_like(toy.chance)
    for pair in itertools.product(range(count), repeat=2):
        rows = torch.tensor(pair)
        gained = toy.returns[rows] - pg.leave_one_out(toy.returns[rows])
        by_text = by_text.index_add(0, rows, toy.chance[rows].prod() * gained / 2)
        pairs.append(float(toy.chance[rows].prod()))
    assert math.fsum(pairs) == pytest.approx(1, abs=1e-12)
    assert toy.off(toy.mean(by_text, torch.ones_like(by_text))) <= 1e-10


@pytest.mark.parametrize("seed", SEEDS)
def test_dividing_by_own_length_turns_the_gradient_and_pushes_short_wrong_answers_down_harder(seed):
    toy = of_the_lesson(seed)
    gained = toy.returns - toy.J
    means = {
        "constant": toy.mean(gained / 24),
        "sequence": toy.mean(gained / toy.lengths),
        "token": toy.mean(gained / (toy.chance @ toy.lengths.double())),  # a large batch's mean length is constant
    }
    for name in ("constant", "token"):
        assert cosine(means[name], toy.exact) == pytest.approx(1, abs=1e-12)
    assert cosine(means["sequence"], toy.exact) < 0.997
    short = (toy.returns == 0) & (toy.lengths == 1)
    pushed = {name: stepped(toy, mean, short) for name, mean in means.items()}
    assert pushed["token"] == pytest.approx(pushed["constant"], abs=1e-3)
    assert pushed["sequence"] < pushed["constant"] - 0.2


def stepped(toy, direction, rows, size=1e-5):
    """By how much log π of some texts changes per step of length 1 in a direction."""
    lm, start = copy.deepcopy(toy.lm), 0
    for parameter in lm.parameters():
        part = direction[start : start + parameter.numel()]
        start += len(part)
        parameter.data += size * part.view_as(parameter) / direction.norm()
    with torch.no_grad():
        moved = (action_logprobs(lm, toy.texts) - action_logprobs(toy.lm, toy.texts)).sum(1)[rows]
    return float(toy.chance[rows] @ moved / toy.chance[rows].sum() / size)


def test_of_one_batch_constant_and_per_token_point_one_way_and_per_sequence_another():
    for seed in SEEDS:
        rollout = sampled(seed)
        logprobs = action_logprobs(load_small(), rollout)
        values = (returns_of(rollout) - 0.3)[:, None] * logprobs
        ways = ANSWERS["12.8"](values, rollout.mask, TASK.max_new_tokens)
        found = {
            name: flat(torch.autograd.grad(way, biases(load_small()), retain_graph=True)) for name, way in ways.items()
        }
        assert cosine(found["token"], found["constant"]) == pytest.approx(1, abs=1e-9)
        assert cosine(found["sequence"], found["constant"]) < 0.9999


# ---------------------------------------------------------------- the sampler is not the learner, exactly


@pytest.mark.parametrize("seed", SEEDS)
def test_c39_at_temperature_half_only_the_whole_ratio_is_unbiased_and_the_cap_costs_a_part(seed):
    toy = of_the_lesson(seed)
    log_mu = toy.sampled_at(0.5)
    mu, now, gained = log_mu.sum(1).exp(), toy.texts.logprobs, (toy.returns - toy.J)[:, None]
    assert float(mu.sum()) == pytest.approx(1, abs=1e-12)

    def off(correction):
        return toy.off(toy.mean(gained * correction, mu))

    capped, free = (ANSWERS["12.7"](now, log_mu, toy.mask, cap)["weights"] for cap in (2.0, math.inf))
    whole = pg.trajectory_ratio(now, log_mu, toy.mask)
    assert off(whole) <= 1e-10 < 0.1 < off(free) < off(capped) < 0.95 * off(toy.mask) and off(toy.mask) > 0.4
    assert off(pg.trajectory_ratio(now, toy.sampled_at(0.55), toy.mask)) > 0.05  # the ratio to another sampler


def test_c39_a_sampler_at_another_temperature_gives_another_gradient():
    toy = listed()
    off = {t: toy.off(toy.mean(toy.returns, toy.sampled_at(t).sum(1).exp() / 2)) for t in (1.0, 0.9, 0.5)}
    assert off[1.0] <= 1e-10 < 0.05 < off[0.9] < off[0.5]


def test_c39_the_effective_share_is_that_of_the_listed_ratios():
    toy = of_the_lesson(4)
    log_mu = toy.sampled_at(0.7)
    mu = log_mu.sum(1).exp()
    share = 1 / float(mu @ pg.trajectory_ratio(toy.texts.logprobs, log_mu, toy.mask).max(1).values ** 2)
    assert 0.5 < share < 0.95
    for seed in SEEDS:
        rows = torch.multinomial(mu, 4000, replacement=True, generator=torch.Generator().manual_seed(seed))
        seen = ANSWERS["12.7"](toy.texts.logprobs[rows], log_mu[rows], toy.mask[rows], 2.0)
        assert float(seen["ess"]) == pytest.approx(share, rel=0.1)


def test_c39_what_is_learned_from_a_colder_sampler_is_less():
    """The toy learns to write c, from samples at temperature 1 and 0.5; its exact J is that at temperature 1."""
    toy = of_the_lesson(0)
    for seed in SEEDS:
        ends = {}
        for temperature in (1.0, 0.5):
            lm, source = copy.deepcopy(toy.lm), torch.Generator().manual_seed(seed)

            def sample(policy, temperature=temperature, source=source):
                with torch.no_grad():
                    chances = action_logprobs(policy, toy.texts, temperature=temperature).sum(1).exp()
                return take_rows(toy.texts, torch.multinomial(chances, 32, replacement=True, generator=source))

            ANSWERS["12.2"](lm, sample, batch_mean, 15, 0.01)
            ends[temperature] = float(text_objective(lm, toy.texts).detach())
        assert toy.J + 0.1 < ends[0.5] < ends[1.0] - 0.02, (seed, ends)


def batch_mean(rollout, _):
    return (returns_of(rollout) - pg.leave_one_out(returns_of(rollout)))[:, None] * rollout.mask


# ---------------------------------------------------------------- models and samples


@cache
def load_small():
    return load_lm("pocket-s").double()


@cache
def start(examples=300):
    return finetuned("pocket-m", examples)


def biases(lm):
    return [parameter for name, parameter in lm.named_parameters() if name.endswith("bias")]


@cache
def sampled(seed):
    """Two answers of a small base model to each of four sums, with made rewards: not many are right."""
    problems = [problem for problem in TASK.train[4 * seed : 4 * seed + 4] for _ in range(2)]
    return pay(attempt(TASK, load_small(), problems, seed=seed), [0.5, 0, 1, 2, -1, 0.25, 1, 3])


def reward(rollout, _):
    return pg.total_return(rollout.rewards, rollout.mask)


def rloo(rollout, _):
    return ANSWERS["12.5"](returns_of(rollout), pg.prompt_groups(rollout.observations, rollout.mask), rollout.mask)


def going_on(problem):
    return replace(problem, prompt=problem.prompt.removeprefix("What is ").rstrip("?") + " is")


BARE = replace(
    TASK, train=tuple(map(going_on, TASK.train)), held_out=tuple(map(going_on, TASK.held_out)), chat=False
)  # for a base model to go on with


def learner(weigh, seed, begin, updates=8, *, about=TASK, lr=1e-4, shift=0.0, **sampling):
    """A copy that has learned from 8 sums with 4 answers each per update, and its history."""
    lm, source = copy.deepcopy(begin), torch.Generator().manual_seed(seed)

    def sample(policy):
        rollout, _ = collect_text(about, policy, prompts=8, group=4, generator=source, **sampling)
        return pay(rollout, (returns_of(rollout) + shift).tolist()) if shift else rollout

    return lm, ANSWERS["12.2"](lm, sample, weigh, updates, lr, 1.0)


@cache
def learned(seed):
    return learner(rloo, seed, start())


def held_out(lm, about=TASK, problems=50, samples=2):
    return float(sampled_scores(about, lm, about.held_out[:problems], samples=samples, seed=5).mean())


# ---------------------------------------------------------------- C28: finetuning on own text, weighted by return


@pytest.mark.parametrize("seed", SEEDS)
def test_c28_weighted_finetuning_has_the_gradient_of_reinforce(seed):
    """Against labels as finetuning makes them, text by text; without its end token it is another gradient."""
    lm, rollout = load_small(), sampled(seed)
    parameters, returns = list(lm.parameters()), returns_of(rollout).double()
    # rows as they stand: trees of prefixes round apart from them where transformers goes through float32
    logprobs = action_logprobs(lm.forward, rollout)
    reinforce = flat(torch.autograd.grad(-(returns[:, None] * logprobs).sum() / 8, parameters))
    tokens = torch.cat([rollout.observations[:, :1], rollout.actions], 1)
    logits = lm(rollout.observations)
    weighted = flat(torch.autograd.grad(ANSWERS["12.4"](logits, tokens, rollout.mask, returns), parameters))
    by_labels = {}
    for name, mask in (
        ("whole", rollout.mask),
        ("cut", rollout.mask & (rollout.mask.cumsum(1) < rollout.mask.sum(1)[:, None])),
    ):
        labels, total = tokens[:, 1:].masked_fill(~mask, -100), 0.0
        for row in range(8):
            one = lm(rollout.observations[row : row + 1])[0]
            total = total + returns[row] * cross_entropy(one, labels[row], reduction="sum") / 8
        by_labels[name] = flat(torch.autograd.grad(total, parameters))
    largest = float(reinforce.abs().max())
    for supervised in (weighted, by_labels["whole"]):
        assert float((supervised - reinforce).abs().max()) <= 1e-9 * largest
    assert float((by_labels["cut"] - reinforce).abs().max()) > 1e-2 * largest


# ---------------------------------------------------------------- C39: one loop, two worlds; sampler and learner


def test_c39_the_loop_that_trains_the_language_model_trains_the_robot():
    world = GridWorld("default", pit_reward=0.0).to_mdp()
    for seed in SEEDS:
        robot, source = TabularPolicy(world.states, world.actions), torch.Generator().manual_seed(seed)

        def sample(policy, source=source):
            return collect(world, policy, 64, horizon=50, generator=source)[0]

        history = ANSWERS["12.2"](robot, sample, reward, 40, 0.1)
        assert sum(history["reward"][-4:]) / 4 > sum(history["reward"][:4]) / 4 + 0.3, seed


def test_c39_the_packages_training_is_the_same_run():
    lm, history = copy.deepcopy(start()), learned(0)[1]
    collector = text_collector(TASK, prompts=8, group=4)
    theirs = train_policy(lm, collector, lambda rollout, *_: rloo(rollout, None), updates=2, lr=1e-4, clip_norm=1.0)
    assert theirs.returns == history["reward"][:2] and theirs.length == pytest.approx(history["length"][:2])
    assert theirs.gradient_norm == pytest.approx(history["norm"][:2], rel=1e-4)


def test_c39_disagreement_between_sampler_and_learner_is_seen_at_once():
    lm, problems = start(), TASK.train[:16]
    fresh = attempt(TASK, lm, problems)
    assert check_behavior(lm, fresh) < 1e-4
    wrong = [
        (lm, attempt(TASK, lm, problems, temperature=0.7)),
        (lm, attempt(TASK, lm, problems, top_k=2)),
        (lm, replace(fresh, logprobs=fresh.logprobs.roll(-1, 1))),
        (load_lm("pocket-m"), fresh),
    ]
    for model, rollout in wrong:
        with pytest.raises(ValueError, match="^logprobs are off by up to"):
            check_behavior(model, rollout)


def test_c39_a_sampler_in_bfloat16_is_a_tenth_of_a_nat_away_and_costs_few_answers():
    half = copy.deepcopy(start()).to(torch.bfloat16)
    for seed in SEEDS:
        seen = {}
        for name, sampler, options in (("bfloat16", half, {}), ("colder", start(), {"temperature": 0.5})):
            rollout = attempt(TASK, sampler, TASK.train[12 * seed : 12 * seed + 12], seed=seed, **options)
            with torch.no_grad():
                now = action_logprobs(start(), rollout)
            seen[name] = ANSWERS["12.7"](now, rollout.logprobs.to(now.dtype), rollout.mask, 2.0)
        assert 1e-3 < float(seen["bfloat16"]["largest"]) < 0.5 < float(seen["colder"]["largest"])
        assert float(seen["bfloat16"]["ess"]) > max(0.97, float(seen["colder"]["ess"]))


# ---------------------------------------------------------------- C40: sample, weigh, step


def test_c40_held_out_sums_rise_by_twenty_points_on_five_of_five_seeds():
    before = held_out(start(), problems=100, samples=4)
    rises = [held_out(learned(seed)[0]) - before for seed in SEEDS]
    assert 0.4 < before < 0.6 and min(rises) >= 0.2, rises
    assert held_out(learner(lambda *given: -rloo(*given), 0, start(), 1, lr=3e-4)[0]) < before - 0.1  # turned


@cache
def scored(seed):
    """Score of each of 64 answers by the model's biases, and the answers."""
    rollout, _ = collect_text(TASK, start(), prompts=16, group=4, generator=torch.Generator().manual_seed(seed))
    return ANSWERS["12.3"](start(), rollout, biases(start())), rollout


def noise(weigh, seed, shift=0.0):
    """Of one prompt's gradient; comparable where the mean is the same, as it is here."""
    scores, rollout = scored(seed)
    weights = weigh(pay(rollout, (returns_of(rollout) + shift).tolist()), None).sum(1) / rollout.mask.sum(1)
    return float(ANSWERS["12.6"]((weights[:, None] * scores).view(16, 4, -1).mean(1), 1)["noise"])


def test_c40_wrong_answers_have_the_long_scores_so_the_reward_alone_has_less_noise():
    """Of all five draws together: a few wrong answers with very long scores make the noise; a draw may lack them."""
    for seed in SEEDS:
        scores, rollout = scored(seed)
        returns, squares = returns_of(rollout), (scores**2).sum(1)
        assert squares[returns == 0].mean() > 1.5 * squares[returns == 1].mean()
        assert pg.optimal_baseline(squares, returns) < 0.7 * returns.mean()
    found = {name: [noise(weigh, seed) for seed in SEEDS] for name, weigh in (("reward", reward), ("RLOO", rloo))}
    assert sum(found["reward"]) < 0.8 * sum(found["RLOO"]), found
    assert sum(a < b for a, b in zip(*found.values())) >= 4, found


@pytest.mark.parametrize("seed", SEEDS)
def test_c40_a_baseline_makes_the_noise_independent_of_the_rewards_zero(seed):
    for shift in (-1, 3):
        assert noise(rloo, seed, shift) == pytest.approx(noise(rloo, seed), rel=1e-3)
        assert noise(reward, seed, shift) > 1.2 * noise(rloo, seed)
    _, rollout = scored(seed)
    moved = pay(rollout, (returns_of(rollout) + 3).tolist())
    torch.testing.assert_close(rloo(moved, None), rloo(rollout, None), rtol=0, atol=1e-6)  # so the run is the same


def test_the_estimates_of_noise_and_signal_are_unbiased():
    """Means over all samples of two of four gradients with putting back, against the definition."""
    four = torch.tensor([[1.0, 2.0], [0.5, -1.0], [3.0, 0.0], [-1.0, 1.5]], dtype=torch.float64)
    found = [ANSWERS["12.6"](four[list(pair)], 5) for pair in itertools.product(range(4), repeat=2)]
    for name, right in (("noise", four.var(0, correction=0).sum() / 5), ("signal", (four.mean(0) ** 2).sum())):
        mean = sum(float(each[name]) for each in found) / 16
        assert mean == pytest.approx(float(right), abs=1e-12)
    raw = sum(float((four[list(pair)].mean(0) ** 2).sum()) for pair in itertools.product(range(4), repeat=2)) / 16
    assert raw > float((four.mean(0) ** 2).sum()) + 0.1


# ---------------------------------------------------------------- C41: what RL starts from


def test_c41_at_a_success_rate_of_0_there_is_nothing_to_reinforce():
    base = load_lm("pocket-m")
    for seed in SEEDS:
        lm, history = learner(rloo, seed, base, 1)
        assert history["reward"] == history["norm"] == [0.0]
        assert all(torch.equal(a, b) for a, b in zip(base.parameters(), lm.parameters(), strict=True))
    _, paid = learner(rloo, 0, base, 1, about=replace(TASK, train=tuple(map(any_text, TASK.train))))
    assert paid["norm"][0] > 0.1  # where answers are paid differently, the same model learns


def any_text(problem):
    return replace(problem, score=lambda text: float(len(text) % 2))


def test_c41_where_the_base_sometimes_succeeds_rl_makes_more_of_it():
    base = load_lm("pocket-m")
    before = held_out(base, BARE, samples=4)
    assert 0.05 < before < 0.35 and held_out(base, samples=1) == 0
    after = [held_out(learner(rloo, seed, base, 5, about=BARE, lr=2e-4)[0], BARE, samples=1) for seed in SEEDS]
    assert min(after) > before + 0.05 and sum(after) / 5 > before + 0.3, (before, after)
