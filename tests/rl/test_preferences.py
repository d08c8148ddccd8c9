"""Learning from pairs against what is known exactly: logistic regression, log odds, and the closed form of DPO.

Toy models, all of whose texts can be listed, in float64.
"""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from toy_tasks import WORDS, counted, toy_task

from ptlearn import policy_gradient as pg
from ptlearn.finetuning.parameter_efficient import freeze, lora
from ptlearn.lm.models import toy_lm
from ptlearn.optimization import update
from ptlearn.rl.enumeration import enumerate_texts
from ptlearn.rl.policies import hidden_states
from ptlearn.rl.preferences import (
    Pairs,
    RewardModel,
    accuracy,
    best_of_n,
    best_of_n_kl,
    best_policy,
    dpo_weights,
    fit_dpo,
    fit_reward_model,
    implicit_rewards,
    label_pairs,
    model_rewards,
    paid_by,
    preference_loss,
)
from ptlearn.rl.tasks import Problem
from ptlearn.rl.text_collection import collect_text, pay, text_collector
from ptlearn.rl.training import train_policy
from ptlearn.rollout import action_logprobs, take_rows

pytestmark = pytest.mark.usefixtures("one_thread")

FEW = ("end", "a", "b")
TASK = toy_task()
ONE = toy_task(train=(Problem("a b", counted("c")),))


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def collected(lm=None, task=TASK, seed=0, group=8):
    generator = torch.Generator().manual_seed(seed)
    rollout, _ = collect_text(task, lm or toy_lm(WORDS), prompts=len(task.train), group=group, generator=generator)
    return replace(rollout, rewards=rollout.rewards.double())


def texts(prompts=("",), lm=None, steps=2):
    """All texts of a toy model, each with a reward of its own: 7 for each prompt."""
    rollout, probabilities = enumerate_texts(lm or toy_lm(FEW), prompts, max_new_tokens=steps)
    return pay(rollout, normal(len(probabilities), seed=5)), probabilities


def parameters_of(module):
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


# ---------------------------------------------------------------- pairs


def test_all_pairs_of_a_prompt_are_labelled_by_the_verifier():
    rollout = collected()
    rewards, groups = rollout.rewards.sum(1).tolist(), pg.prompt_groups(rollout.observations, rollout.mask).tolist()
    expected, ties = set(), 0
    for i, j in itertools.combinations(range(len(rewards)), 2):
        if groups[i] == groups[j]:
            ties += rewards[i] == rewards[j]
            if rewards[i] != rewards[j]:
                expected.add((i, j) if rewards[i] > rewards[j] else (j, i))
    pairs = label_pairs(rollout)
    found = list(zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True))
    assert set(found) == expected and len(found) == len(expected) and pairs.ties == ties > 0
    assert len(found) + ties == 5 * 8 * 7 / 2


def test_labels_are_wrong_as_often_as_stated_and_by_the_seed():
    rollout = collected(group=40)
    right, pairs = label_pairs(rollout), label_pairs(rollout, error_rate=0.2, seed=1)
    wrong = pairs.chosen == right.rejected
    assert torch.equal(wrong, pairs.rejected == right.chosen)
    assert torch.equal(pairs.chosen[~wrong], right.chosen[~wrong])
    count = len(wrong)
    assert count > 1000 and abs(int(wrong.sum()) - 0.2 * count) <= 4 * math.sqrt(0.2 * 0.8 * count)
    again, other = (label_pairs(rollout, error_rate=0.2, seed=seed) for seed in (1, 2))
    assert torch.equal(again.chosen, pairs.chosen) and not torch.equal(other.chosen, pairs.chosen)
    # who knows the truth is right about 1 - e of them, exactly so many as there were no errors
    assert accuracy(rollout.rewards.sum(1), pairs.chosen, pairs.rejected) == pytest.approx(
        1 - float(wrong.double().mean())
    )
    assert accuracy(rollout.rewards.sum(1), right.chosen, right.rejected) == 1


def test_pairs_that_cannot_be_are_one_line():
    rollout = collected()
    for rate in (-0.1, 0.5, 1.0, math.nan):
        with pytest.raises(ValueError, match=rf"^error_rate={rate}: expected a number in \[0, 0\.5\), below that of"):
            label_pairs(rollout, error_rate=rate)
    equal = pay(rollout, torch.ones(len(rollout.mask)))
    with pytest.raises(ValueError, match="^rollout has 40 completions of 5 prompts and 140 pairs of equal reward: exp"):
        label_pairs(equal)
    one_each = take_rows(rollout, torch.arange(0, 40, 8))
    with pytest.raises(ValueError, match="^rollout has 5 completions of 5 prompts and 0 pairs of equal reward"):
        label_pairs(one_each)
    silent = replace(rollout, mask=rollout.mask & (torch.arange(40) != 7)[:, None])
    for use in (label_pairs, lambda rollout: model_rewards(RewardModel(toy_lm(WORDS)), rollout)):
        with pytest.raises(ValueError, match="^row 7 of the rollout has no action: expected a completion of at least"):
            use(silent)


# ---------------------------------------------------------------- the reward model


def features(lm, rollout):
    """The hidden state at the last token of each completion, one text at a time and without padding."""
    rows = []
    for observed, taken, mask in zip(rollout.observations, rollout.actions, rollout.mask, strict=True):
        last = int(mask.nonzero()[-1])
        tokens = torch.cat([observed[: last + 1], taken[last : last + 1]])
        rows.append(hidden_states(lm, tokens[None])[0, -1])
    return torch.stack(rows).detach()


def logistic_regression(differences):
    """The maximum of the likelihood by Newton's method: sum of log sigma(differences @ w)."""
    weights = torch.zeros(differences.shape[1], dtype=torch.float64)
    for _ in range(50):
        sigma = torch.sigmoid(differences @ weights)
        gradient = differences.T @ (1 - sigma)
        curvature = differences.T @ (differences * (sigma * (1 - sigma))[:, None])
        weights = weights + torch.linalg.solve(curvature, gradient)
    return weights


def test_the_reward_is_read_at_the_last_token():
    lm = toy_lm(WORDS)
    model, rollout = RewardModel(lm), collected()
    assert (model(rollout) == 0).all()
    model.head.weight.data = normal(1, 8, seed=0)
    model.head.bias.data = normal(1, seed=1)
    expected = features(lm, rollout) @ model.head.weight[0] + model.head.bias
    assert len(set(rollout.mask.sum(1).tolist())) > 1  # of several lengths
    assert float((model(rollout) - expected).detach().abs().max()) <= 1e-12
    assert float((model_rewards(model, rollout) - expected).detach().abs().max()) <= 1e-12
    assert float(expected.detach().std()) > 0.1


def test_equal_completions_are_read_once():
    calls = []

    def model(rollout):
        calls.append(len(rollout.mask))
        return rollout.actions.double().sum(1)

    rollout = collected()
    twice = take_rows(rollout, torch.arange(40).repeat(2))
    rewards = model_rewards(model, twice)
    kinds = {tuple(row) for row in torch.cat([rollout.observations, rollout.actions, rollout.mask], 1).tolist()}
    assert calls == [len(kinds)] and torch.equal(rewards[:40], rewards[40:])
    assert torch.equal(rewards[:40], rollout.actions.double().sum(1))


def test_a_head_on_fixed_features_is_logistic_regression():
    lm = toy_lm(WORDS)
    rollout = collected(lm)
    pairs = label_pairs(rollout, error_rate=0.3)
    known = features(lm, rollout)
    differences = known[pairs.chosen] - known[pairs.rejected]
    expected = logistic_regression(differences)
    model = RewardModel(freeze(lm))
    before = parameters_of(lm)
    loss = preference_loss(model(rollout), pairs.chosen, pairs.rejected)
    (gradient,) = torch.autograd.grad(loss, model.head.weight)
    assert float((gradient[0] + 0.5 * differences.mean(0)).abs().max()) <= 1e-12  # sigma(0) = 1/2
    for lr in (0.3, 0.03, 0.003):
        history = fit_reward_model(model, pairs, epochs=60, batch=10_000, lr=lr)
    assert float((model.head.weight[0] - expected).detach().norm()) <= 1e-2 * float(expected.norm())
    least = -float(torch.nn.functional.logsigmoid(differences @ expected).mean())
    assert history.loss[-1] == pytest.approx(least, rel=1e-6) and least < 0.65
    assert torch.equal(parameters_of(lm), before)  # frozen


def test_margins_are_the_log_odds_of_the_labels():
    """Two completions of each prompt, of which one was chosen so many times out of 40: nothing else can be learnt."""
    rollout, _ = texts(("", "a", "b"))
    starts, wins = torch.tensor([0, 7, 14]), (30, 20, 8)
    ahead = torch.cat([torch.tensor([start] * won + [start + 3] * (40 - won)) for start, won in zip(starts, wins)])
    behind = torch.cat([torch.tensor([start + 3] * won + [start] * (40 - won)) for start, won in zip(starts, wins)])
    model = RewardModel(toy_lm(FEW))  # all of it learns
    for lr in (0.03, 0.003, 0.0003):
        fit_reward_model(model, Pairs(rollout, ahead, behind), epochs=70, batch=1000, lr=lr)
    rewards = model_rewards(model, rollout)
    odds = [math.log(won / (40 - won)) for won in wins]
    assert (rewards[starts] - rewards[starts + 3]).tolist() == pytest.approx(odds, abs=0.01)
    assert odds[0] > 1


def test_held_out_pairs_are_ranked_as_well_as_their_labels_allow():
    """Labels of which a fifth is wrong teach nearly the truth: the wrong ones among the held-out remain."""
    model = RewardModel(toy_lm(WORDS, width=16))
    held_out_rollout = collected(task=ONE, seed=9, group=80)
    held_out, truth = label_pairs(held_out_rollout, error_rate=0.2, seed=9), label_pairs(held_out_rollout)
    pairs = label_pairs(collected(task=ONE, group=80), error_rate=0.2)
    history = fit_reward_model(model, pairs, epochs=6, batch=64, lr=3e-3, held_out=held_out)
    rewards = model_rewards(model, held_out_rollout)
    bound = accuracy(held_out_rollout.rewards.sum(1), held_out.chosen, held_out.rejected)
    assert accuracy(rewards, truth.chosen, truth.rejected) > 0.9
    assert history.held_out_accuracy[-1] == accuracy(rewards, held_out.chosen, held_out.rejected)
    assert bound - 0.06 < history.held_out_accuracy[-1] < bound + 0.01 and abs(bound - 0.8) < 0.01
    assert len(history.loss) == 6 * -(-len(pairs.chosen) // 64) == history.held_out_step[-1]
    assert history.loss[0] == pytest.approx(math.log(2)) and history.accuracy[0] == 0.5
    assert len(history.held_out_step) == len(history.held_out_loss) == 6


def test_fitting_is_a_function_of_the_seed():
    pairs, runs = label_pairs(collected()), []
    for seed in (0, 0, 1):
        model, policy = RewardModel(toy_lm(WORDS)), toy_lm(WORDS)
        fit_reward_model(model, pairs, seed=seed, batch=16)
        fit_dpo(policy, pairs, seed=seed, batch=16)
        runs.append((parameters_of(model), parameters_of(policy)))
    for same, other, another in zip(*runs, strict=True):
        assert torch.equal(same, other) and not torch.equal(same, another)


def test_rl_against_the_model_is_paid_by_the_model():
    model = RewardModel(toy_lm(WORDS, seed=1))
    model.head.weight.data = normal(1, 8, seed=0)
    collect, true = text_collector(TASK, prompts=3, group=6), []

    def watched(policy, generator):
        rollout, last = collect(policy, generator)
        true.append(rollout)
        return rollout, last

    rollout, _ = paid_by(model, watched)(toy_lm(WORDS), torch.Generator().manual_seed(0))
    assert torch.equal(rollout.actions, true[0].actions) and true[0].rewards.unique().numel() > 1
    expected = features(model.lm, rollout) @ model.head.weight[0].detach() + model.head.bias.detach()
    torch.testing.assert_close(rollout.rewards.sum(1), expected.float())
    assert ((rollout.rewards != 0).sum(1) == 1).all()

    def mean_baseline(rollout, *_):
        returns = pg.episode_returns(rollout.rewards, rollout.mask)
        groups = pg.prompt_groups(rollout.observations, rollout.mask)
        return (returns - pg.leave_one_out(returns, groups=groups))[:, None] * rollout.mask

    history = train_policy(toy_lm(WORDS), paid_by(model, collect), mean_baseline, updates=30, lr=0.02)
    assert sum(history.returns[-5:]) / 5 > sum(history.returns[:5]) / 5 + 1
    with pytest.raises(
        ValueError, match="^update 0: the reward model has a vocabulary of 3 tokens, the policy another"
    ):
        train_policy(toy_lm(WORDS), paid_by(RewardModel(toy_lm(FEW)), collect), mean_baseline, updates=1)


# ---------------------------------------------------------------- DPO


def likelihoods(count=6, steps=5, seed=0):
    """(logprobs, reference, mask, chosen, rejected): rows of several lengths, and rows in several pairs."""
    logprobs, reference = -normal(2, count, steps, seed=seed).abs()
    mask = torch.arange(steps) < torch.tensor([5, 3, 1, 4, 2, 5])[:, None]
    return logprobs, reference, mask, torch.tensor([0, 1, 2, 0, 3]), torch.tensor([1, 2, 4, 4, 5])


@pytest.mark.parametrize("beta", [0.1, 1.0, 5.0])
def test_dpo_is_the_one_loss_with_its_weights(beta):
    logprobs, reference, mask, chosen, rejected = likelihoods()
    logprobs.requires_grad_()
    totals, known = ((x * mask).sum(1) for x in (logprobs, reference))
    margins = (totals[chosen] - known[chosen]) - (totals[rejected] - known[rejected])
    loss = -torch.log(1 / (1 + torch.exp(-beta * margins))).mean()
    (expected,) = torch.autograd.grad(loss, logprobs)
    weights = dpo_weights(logprobs, reference, mask, chosen, rejected, beta=beta)
    assert not weights.requires_grad
    one_loss = pg.policy_gradient_loss(logprobs, weights, mask, normalizer=len(chosen))
    (gradient,) = torch.autograd.grad(one_loss, logprobs)
    assert float((gradient - expected).abs().max()) <= 1e-14 < 1e-3 < float(expected.abs().max())
    rewards = implicit_rewards(logprobs, reference, mask, beta=beta)
    assert abs(float((preference_loss(rewards, chosen, rejected) - loss).detach())) <= 1e-14


def test_dpo_through_a_language_model():
    """fit_dpo's step is `update` with dpo_weights, and both are autograd's gradient of the loss."""
    rollout = collected()
    pairs, reference = label_pairs(rollout), toy_lm(WORDS, seed=3)
    with torch.no_grad():
        known = action_logprobs(reference, rollout)
    lm = toy_lm(WORDS)
    logprobs = action_logprobs(lambda observations: lm(observations), rollout)
    margins = (logprobs - known)[pairs.chosen].sum(1) - (logprobs - known)[pairs.rejected].sum(1)
    loss = torch.nn.functional.softplus(-0.7 * margins).mean()
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(lm.parameters()))])
    before, norm = parameters_of(lm), float(expected.norm())
    weights = dpo_weights(logprobs, known, rollout.mask, pairs.chosen, pairs.rejected, beta=0.7)
    sgd = torch.optim.SGD(lm.parameters(), lr=1.0)
    assert update(lm, sgd, rollout, weights, normalizer=len(pairs.chosen)) == pytest.approx(norm, rel=1e-9)
    assert float((before - parameters_of(lm) - expected).abs().max()) <= 1e-7 * norm
    history = fit_dpo(toy_lm(WORDS), pairs, beta=0.7, reference=reference, batch=10_000)
    assert history.gradient_norm == [pytest.approx(norm, rel=1e-6)]
    assert history.loss == [pytest.approx(float(loss.detach()), rel=1e-6)]
    assert history.accuracy == [float((margins > 0).double().mean())]


def test_the_expected_dpo_loss_is_least_at_the_closed_form():
    """All texts, all pairs, labels by Bradley-Terry of a known reward: the policy becomes ref exp(r / beta) / Z."""
    lm, beta = toy_lm(FEW, width=16), 0.8
    rollout, reference = texts(lm=lm)
    rewards = rollout.rewards.sum(1)
    expected = best_policy(reference, rewards, beta=beta)
    # every two texts in both orders, each pair on two rows of its own, so that it can count as much as it is likely
    first, second = torch.tensor(list(itertools.permutations(range(7), 2))).T
    rows, share = torch.cat([first, second]), torch.sigmoid(rewards[first] - rewards[second]).repeat(2)[:, None]
    chosen, rejected = torch.arange(len(rows)).view(2, -1)
    optimizer = torch.optim.Adam(lm.parameters(), betas=(0.8, 0.95))
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.05 * 0.97**step
        with torch.no_grad():
            logprobs = action_logprobs(lm, rollout)
        mask, known = rollout.mask[rows], rollout.logprobs[rows]
        weights = share * dpo_weights(logprobs[rows], known, mask, chosen, rejected, beta=beta)
        summed = torch.zeros_like(logprobs).index_add(0, rows, weights)
        update(lm, optimizer, rollout, summed, normalizer=len(first))
    found = action_logprobs(lm, rollout).sum(1).exp().detach()
    assert float((found - expected).abs().max()) <= 1e-7 < 0.05 < float((reference - expected).abs().max())


def test_the_closed_form_has_the_highest_objective():
    _, reference = texts()
    rewards = normal(7, seed=5)

    def objective(policy):
        return float(policy @ rewards - 0.8 * (policy * (policy / reference).log()).sum())

    best = best_policy(reference, rewards, beta=0.8)
    assert float(best.sum()) == pytest.approx(1)
    for seed in range(20):
        assert objective(best) > objective((best.log() + 0.1 * normal(7, seed=seed)).softmax(0)) + 1e-5
    # and its implicit rewards are the rewards, up to a number
    gaps = 0.8 * (best / reference).log() - rewards
    assert float(gaps.max() - gaps.min()) <= 1e-12


def test_dpo_learns_what_the_labels_say():
    """From pairs alone the policy comes to prefer the completions that a verifier would pay."""
    lm = toy_lm(WORDS)
    rollout, held_out = (collected(lm, ONE, seed=seed, group=50) for seed in (0, 4))
    history = fit_dpo(lm, label_pairs(rollout), beta=0.5, epochs=2, lr=0.01, held_out=label_pairs(held_out))
    assert history.loss[0] == pytest.approx(math.log(2)) and history.held_out_accuracy[-1] > 0.9
    after = collected(lm, ONE, seed=7, group=50)
    assert float(after.rewards.sum(1).mean()) > float(rollout.rewards.sum(1).mean()) + 0.15


def lora_on_toy():
    return lora(toy_lm(WORDS), targets=("q_proj", "v_proj", "up_proj"), rank=2, alpha=8)


def test_the_reference_is_where_the_policy_began_or_the_adapter_switched_off_or_a_model():
    pairs, runs = label_pairs(collected()), []
    for reference in ("begin", "adapter", "model"):
        lm = lora_on_toy()
        base = [p.clone() for p in lm.parameters() if not p.requires_grad]
        chosen = {"begin": None, "adapter": lm, "model": toy_lm(WORDS)}[reference]
        history = fit_dpo(lm, pairs, reference=chosen, epochs=3, lr=0.02, held_out=pairs)
        assert all(map(torch.equal, base, (p for p in lm.parameters() if not p.requires_grad)))
        runs.append((history, parameters_of(lm)))
    for history, after in runs[1:]:
        assert torch.equal(after, runs[0][1]) and history == runs[0][0]
    assert runs[0][0].held_out_accuracy[-1] > 0.7


def test_fits_that_cannot_be_are_one_line():
    pairs, lm = label_pairs(collected()), toy_lm(WORDS)
    none = pairs._replace(chosen=pairs.chosen[:0], rejected=pairs.rejected[:0])
    model = RewardModel(toy_lm(WORDS))
    for fit in (lambda **options: fit_reward_model(model, **options), lambda **options: fit_dpo(lm, **options)):
        with pytest.raises(ValueError, match="^pairs is empty: expected at least one$"):
            fit(pairs=none)
        for name in ("epochs", "batch"):
            with pytest.raises(ValueError, match=f"^{name}=0: expected at least 1$"):
                fit(pairs=pairs, **{name: 0})
    for beta in (0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=rf"^beta={beta}: expected a finite number above 0$"):
            fit_dpo(lm, pairs, beta=beta)
        with pytest.raises(ValueError, match=rf"^beta={beta}: expected a finite number above 0$"):
            best_policy(torch.ones(1), torch.ones(1), beta=beta)
    with pytest.raises(ValueError, match="^reference 'toy' has a vocabulary of 3 tokens, the policy another of 6"):
        fit_dpo(lm, pairs, reference=toy_lm(FEW))
    with pytest.raises(ValueError, match="^nothing requires a gradient: expected some parameters to train$"):
        fit_dpo(freeze(toy_lm(WORDS)), pairs)
    with pytest.raises(ValueError, match="^step 1: the gradient's norm is "):
        fit_reward_model(RewardModel(toy_lm(WORDS)), pairs, lr=1e200, batch=8)


# ---------------------------------------------------------------- the best of n


def every_draw(probabilities, rewards, n):
    """The distribution of the best by listing all draws; equally good ones share."""
    result = torch.zeros_like(probabilities)
    for draw in itertools.product(range(len(probabilities)), repeat=n):
        best = [i for i in draw if rewards[i] == max(rewards[j] for j in draw)]
        for i in best:
            result[i] += probabilities[list(draw)].prod() / len(best)
    return result


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("tied", [False, True])
def test_the_best_of_n_against_all_draws(n, tied):
    _, probabilities = texts()
    rewards = normal(7, seed=5)
    rewards = rewards.round() if tied else rewards
    assert (len(rewards.unique()) < 7) == tied
    found = best_of_n(probabilities, rewards, n)
    expected = every_draw(probabilities, rewards.tolist(), n)
    assert float((found - expected).abs().max()) <= 1e-12
    kl = float(pg.kl_divergence(found.log(), probabilities.log()))
    assert kl == pytest.approx(float((expected * (expected / probabilities).log()).sum()), abs=1e-12)
    assert kl < best_of_n_kl(n) - 0.01 if n > 1 else abs(kl) <= 1e-12 and best_of_n_kl(1) == 0


def test_the_kl_of_the_best_of_n_reaches_its_bound_where_draws_hardly_tie():
    gaps = {}
    for count in (100, 10_000):
        base = torch.full((count,), 1 / count, dtype=torch.float64)
        best = best_of_n(base, normal(count, seed=0), 4)
        gaps[count] = best_of_n_kl(4) - float(pg.kl_divergence(best.log(), base.log()))
    assert 0 < gaps[10_000] < 1e-5 < gaps[100] < 1e-3
    equal = best_of_n(base, torch.ones(count, dtype=torch.float64), 4)
    assert float((equal - base).abs().max()) <= 1e-15  # nothing to choose: no distance at all


def test_what_never_happens_is_never_the_best():
    best = best_of_n(torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.0, 1.0, 2.0]), 3)
    assert best.tolist() == [0.125, 0.875, 0.0]


def test_the_best_of_nothing_is_one_line():
    half = torch.tensor([0.5, 0.5])
    with pytest.raises(ValueError, match="^n=0: expected at least 1$"):
        best_of_n(half, half, 0)
    with pytest.raises(
        ValueError, match=r"^probabilities have shape \(2,\) and sum to 1\.0000: expected \(3,\) and 1$"
    ):
        best_of_n(half, torch.zeros(3), 2)
    with pytest.raises(
        ValueError, match=r"^probabilities have shape \(2,\) and sum to 2\.0000: expected \(2,\) and 1$"
    ):
        best_of_n(2 * torch.tensor([0.5, 0.5]), half, 2)
    with pytest.raises(ValueError, match=r"^rewards\[1\] is NaN: expected numbers that can be compared$"):
        best_of_n(half, torch.tensor([0.0, float("nan")]), 2)
