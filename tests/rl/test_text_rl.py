"""A language model in the loop of the grid: the same update, nothing computed twice, and the same numbers after a kill.

Exact where a toy model lets all texts be listed; the pocket LM learns to add in the last test.
"""

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy_tasks import WORDS, counted, toy_task

from ptlearn import policy_gradient as pg
from ptlearn.checkpoints import read_state
from ptlearn.finetuning.parameter_efficient import lora, switch_adapter, trainable_state_dict
from ptlearn.lm.models import load_lm, toy_lm
from ptlearn.optimization import update
from ptlearn.rl.enumeration import enumerate_texts, text_objective, text_values
from ptlearn.rl.policies import TabularPolicy, TextCritic
from ptlearn.rl.tasks import Problem
from ptlearn.rl.text_collection import attempt, collect_text, pay, sampled_scores, text_collector
from ptlearn.rl.training import fit_critic, train_policy
from ptlearn.rollout import action_logprobs

TASK = toy_task()
COLLECT = {"prompts": 3, "group": 6}


def rloo(rollout, values, bootstrap, logprobs):
    """Lesson 09's leave-one-out weight, within groups."""
    returns = pg.episode_returns(rollout.rewards, rollout.mask)
    groups = pg.prompt_groups(rollout.observations, rollout.mask)
    return (returns - pg.leave_one_out(returns, groups=groups))[:, None] * rollout.mask


def total(rollout, values, bootstrap, logprobs):
    return pg.total_return(rollout.rewards, rollout.mask)


def weights_of(module):
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def train(lm, weigh=rloo, task=TASK, updates=3, lr=0.01, collect=None, **options):
    return train_policy(lm, text_collector(task, **(collect or COLLECT)), weigh, updates=updates, lr=lr, **options)


# ---------------------------------------------------------------- the update


def whole_gradient(lm, rollout, weights):
    """Every row, every position, all logits: nothing left out."""
    logprobs = action_logprobs(lambda observations: lm(observations), rollout)
    loss = pg.policy_gradient_loss(logprobs, weights, rollout.mask)
    return torch.autograd.grad(loss, list(lm.parameters()))


def repeated():
    """Completions of which many are equal and some have weight 0, in float64."""
    rollout = attempt(TASK, toy_lm(WORDS), [p for p in TASK.train for _ in range(8)], seed=1)
    rollout = replace(rollout, rewards=rollout.rewards.double(), logprobs=rollout.logprobs.double())
    weights = rloo(rollout, None, None, None)
    weights[::5] = 0
    return rollout, weights


@pytest.mark.parametrize("micro_batch", [None, 1, 3, 1000])
def test_an_update_is_the_gradient_of_the_whole_batch_however_it_is_cut(micro_batch):
    rollout, weights = repeated()
    lm = toy_lm(WORDS)
    expected, before = whole_gradient(lm, rollout, weights), weights_of(lm)
    norm = update(lm, torch.optim.SGD(lm.parameters(), lr=1.0), rollout, weights, micro_batch=micro_batch)
    flat = torch.cat([gradient.flatten() for gradient in expected])
    assert float((before - weights_of(lm) - flat).abs().max()) <= 1e-12 < 1e-2 < float(flat.abs().max())
    assert norm == pytest.approx(float(flat.norm()), rel=1e-12)


def test_the_model_reads_no_more_than_each_row_that_counts_once():
    rollout, weights = repeated()
    lm, shapes = toy_lm(WORDS), []
    lm.model.register_forward_pre_hook(
        lambda m, a, options: shapes.append(options["input_ids"].shape), with_kwargs=True
    )
    update(lm, torch.optim.SGD(lm.parameters(), lr=0.0), rollout, weights)
    counting = weights.abs().sum(1) > 0
    rows = torch.cat([rollout.observations, rollout.actions, rollout.mask], 1)[counting]
    kinds = {tuple(row) for row in rows.tolist()}
    assert len(shapes) == 1 and len(kinds) < int(counting.sum())
    assert shapes[0].numel() <= len(kinds) * rollout.mask.shape[1]
    shapes.clear()
    update(lm, torch.optim.SGD(lm.parameters(), lr=0.0), rollout, torch.zeros_like(weights))
    assert shapes == [(1, 1)]


def test_a_batch_without_differences_still_moves_an_optimizer_with_momentum():
    """As it would if every row were computed: a gradient of 0, not none."""
    rollout, weights = repeated()
    moved = []
    for policy_of in (lambda lm: lm, lambda lm: torch.nn.Sequential(lm)):  # the second hides logits_at
        lm = toy_lm(WORDS)
        optimizer = torch.optim.Adam(lm.parameters(), lr=0.01)
        for each in (weights, torch.zeros_like(weights)):
            update(policy_of(lm), optimizer, rollout, each)
        moved.append(weights_of(lm))
    assert float((moved[0] - moved[1]).abs().max()) <= 1e-10
    assert float((moved[0] - weights_of(toy_lm(WORDS))).abs().max()) > 0.015


def test_weights_with_a_gradient_are_refused_for_text_too():
    rollout, weights = repeated()
    lm = toy_lm(WORDS)
    with pytest.raises(ValueError, match="^weights require grad"):
        update(lm, torch.optim.SGD(lm.parameters(), lr=1.0), rollout, weights.requires_grad_())


# ---------------------------------------------------------------- the loop


def test_one_weight_function_trains_a_table_and_a_language_model():
    """Lesson 08's loop, unchanged but for the policy; the exact J of the language model rises."""
    table = TabularPolicy(2, 2)
    from test_training import BANDIT, probabilities, sampled

    train_policy(table, sampled(BANDIT), total, updates=60, lr=0.2)
    assert probabilities(BANDIT, table)[0, 1] > 0.95
    lm, task = toy_lm(WORDS), toy_task(train=(Problem("a b", counted("c")),))
    rollout, _ = enumerate_texts(lm, ["a b"], max_new_tokens=4)
    texts = [lm.tokenizer.decode(row[kept]) for row, kept in zip(rollout.actions, rollout.mask, strict=True)]
    rollout = pay(rollout, [counted("c")(text) for text in texts])
    before = float(text_objective(lm, rollout).detach())

    def sample(policy, generator):
        return collect_text(task, policy, prompts=1, group=32, generator=generator)

    train_policy(lm, sample, total, updates=60, lr=0.02)
    assert before < 0.3 and float(text_objective(lm, rollout).detach()) > 0.9


def test_micro_batches_do_not_change_a_run():
    runs = []
    for micro_batch in (None, 4):
        lm = toy_lm(WORDS)
        runs.append((train(lm, micro_batch=micro_batch, reference=toy_lm(WORDS, seed=1), beta=0.1), weights_of(lm)))
    assert float((runs[0][1] - runs[1][1]).abs().max()) <= 1e-9
    assert runs[0][0].kl == pytest.approx(runs[1][0].kl, rel=1e-9)
    assert runs[0][0].entropy == pytest.approx(runs[1][0].entropy, rel=1e-6)


def test_history_of_a_text_run():
    lm, seen = toy_lm(WORDS), []

    def collect(policy, generator):
        rollout, last = collect_text(TASK, policy, **COLLECT, generator=generator)
        with torch.no_grad():
            logprobs = policy(rollout.observations).log_softmax(-1)
        choices = -(logprobs.exp() * logprobs).sum(-1)[rollout.mask]
        seen.append((float(rollout.rewards.sum(1).mean()), float(choices.mean()), int(rollout.mask.sum())))
        return rollout, last

    history = train_policy(lm, collect, rloo, updates=3, lr=0.01)
    returns, entropies, steps = zip(*seen, strict=True)
    assert history.returns == pytest.approx(returns) and history.entropy == pytest.approx(entropies, rel=1e-6)
    assert history.episodes == [18, 36, 54] and history.steps[-1] == sum(steps)
    assert history.kl == history.held_out == [] and history.effective_sample_size == pytest.approx([1.0] * 3)


def test_several_updates_per_rollout_begin_at_ratio_one():
    lm, ratios = toy_lm(WORDS), []

    def clipped(rollout, values, bootstrap, logprobs):
        ratios.append(pg.step_ratio(logprobs, rollout.logprobs, rollout.mask)[rollout.mask])
        return pg.clipped_weights(pg.step_ratio(logprobs, rollout.logprobs, rollout.mask), rloo(rollout, *[None] * 3))

    history = train(lm, clipped, updates=2, epochs=3, lr=0.03)
    for update_number in range(2):
        first, second, third = ratios[3 * update_number : 3 * update_number + 3]
        # the sampler writes float32
        assert float((first - 1).abs().max()) <= 1e-6
        assert 1e-3 < float((second - 1).abs().max()) < float((third - 1).abs().max())
    assert all(0 < share < 1 for share in history.effective_sample_size)


@pytest.mark.parametrize("micro_batch", [None, 5])
def test_weigh_is_given_what_the_policy_says_now_and_not_what_the_sampler_said(micro_batch):
    """Sampled at temperature 1/2: the ratio of learner to sampler is the weight that corrects it."""
    lm, seen = toy_lm(WORDS), []

    def ratio(rollout, values, bootstrap, logprobs):
        seen.append((logprobs, action_logprobs(lm, rollout).detach(), rollout))
        return pg.step_ratio(logprobs, rollout.logprobs, rollout.mask) * rollout.rewards.sum(1, keepdim=True)

    options = {"atol": math.inf, "micro_batch": micro_batch}
    history = train(lm, ratio, updates=1, collect={**COLLECT, "temperature": 0.5}, **options)
    (given, expected, rollout), = seen
    assert float((given - expected)[rollout.mask].abs().max()) <= 1e-6
    assert float((given - rollout.logprobs)[rollout.mask].abs().max()) > 0.1
    ratios = torch.where(rollout.mask, expected - rollout.logprobs, 0).sum(1).exp()
    assert history.effective_sample_size == pytest.approx([float(ratios.sum() ** 2 / (ratios**2).sum()) / len(ratios)])


NORMALIZERS = {
    "sequence mean": (lambda r: len(r.mask) * r.mask.sum(1, True), lambda m: m / m.sum(1, True) / len(m)),
    "token mean": (lambda r: r.mask.sum(), lambda m: m / m.sum()),
    "constant": (lambda r: 7.0, lambda m: m / 7),
    "episodes": (None, lambda m: m / len(m)),
}


@pytest.mark.parametrize("micro_batch", [None, 3])
@pytest.mark.parametrize("name", NORMALIZERS)
def test_the_normalizer_says_what_a_token_counts(name, micro_batch):
    normalizer, share = NORMALIZERS[name]
    rollout, weights = repeated()
    lm = toy_lm(WORDS)
    loss = -(torch.where(rollout.mask, weights * action_logprobs(lm, rollout), 0) * share(rollout.mask.double())).sum()
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(lm.parameters()))])
    history = train_policy(
        lm, lambda *_: (rollout, None), lambda *_: weights, updates=1, lr=0.0, normalizer=normalizer,
        micro_batch=micro_batch,
    )  # fmt: skip
    found = torch.cat([parameter.grad.flatten() for parameter in lm.parameters()])
    assert float((found - expected).abs().max()) <= 1e-12 < 1e-3 < float(expected.abs().max())
    assert history.gradient_norm == pytest.approx([float(expected.norm())], rel=1e-9)


def test_a_sampler_that_disagrees_with_the_learner_is_refused():
    for options in ({"temperature": 0.7}, {"top_k": 2}):
        with pytest.raises(ValueError, match="^update 0: logprobs are off by up to .*suspect the shift, padding"):
            train(toy_lm(WORDS), collect={**COLLECT, **options})
    assert len(train(toy_lm(WORDS), collect={**COLLECT, "temperature": 0.999}, atol=0.1).returns) == 3


def test_a_verifier_that_fails_stops_training_with_the_update():
    calls = []

    def fails_late(text):
        calls.append(text)
        return 1 / (30 - len(calls))

    with pytest.raises(
        ValueError, match=r"^update 1: the verifier of task 'count' raised ZeroDivisionError.*prompt 'a'"
    ):
        train(toy_lm(WORDS), task=toy_task(train=(Problem("a", fails_late),)), collect={"prompts": 1, "group": 20})


def test_groups_of_one_are_refused():
    with pytest.raises(ValueError, match="^update 0: groups are 3 of one row each: expected rows that share one"):
        train(toy_lm(WORDS), collect={"prompts": 3, "group": 1})


def test_errors_name_the_last_checkpoint_and_counts_are_checked(tmp_path):
    path, factors = tmp_path / "run", iter([1.0, torch.nan])

    def weigh(rollout, *others):
        return total(rollout, *others) * next(factors)

    with pytest.raises(ValueError, match=f"^update 1: the gradient's norm is nan.*; the last checkpoint is {path}$"):
        train(toy_lm(WORDS), weigh, checkpoint=path, checkpoint_every=1)
    for name in ("updates", "epochs", "micro_batch", "evaluate_every", "checkpoint_every"):
        with pytest.raises(ValueError, match=f"^{name}=0: expected at least 1$"):
            train(toy_lm(WORDS), **{name: 0})
    with pytest.raises(ValueError, match="^seed=1.5: expected a whole number$"):
        train(toy_lm(WORDS), seed=1.5)


# ---------------------------------------------------------------- held-out problems


def test_held_out_scores_are_taken_before_during_and_after():
    lm, asked = toy_lm(WORDS), []

    def evaluate(policy):
        asked.append(policy)
        return sampled_scores(TASK, policy, samples=3).mean()

    history = train(lm, updates=5, evaluate=evaluate, evaluate_every=2)
    assert history.held_out_update == [0, 2, 4, 5] and asked == [lm] * 4
    assert history.held_out[0] == float(sampled_scores(TASK, toy_lm(WORDS), samples=3).mean())
    assert history.held_out[-1] == float(sampled_scores(TASK, lm, samples=3).mean())
    assert train(toy_lm(WORDS), updates=5).returns == history.returns  # evaluating changes nothing


def test_a_run_that_is_evaluated_from_its_middle_on_says_from_where(tmp_path):
    train(toy_lm(WORDS), updates=3, checkpoint=tmp_path / "run")
    options = {"evaluate": lambda policy: 0.5, "evaluate_every": 2, "checkpoint": tmp_path / "run"}
    assert train(toy_lm(WORDS), updates=5, **options).held_out_update == [3, 4, 5]


# ---------------------------------------------------------------- what is recorded


def test_the_history_counts_lengths_clipped_steps_and_how_far_the_sampler_is_off():
    collected, given = [], []

    def collect(policy, generator):
        rollout, last = collect_text(TASK, policy, **COLLECT, generator=generator)
        signs = 1 - 2 * (torch.arange(rollout.mask.shape[1]) % 2)
        rows = torch.arange(len(rollout.mask))[:, None] % 2
        collected.append(rollout)  # another sampler: a quarter of a nat off in every second row, up and down
        return replace(rollout, logprobs=rollout.logprobs + 0.25 * signs * rows), last

    def weigh(rollout, *_):
        weights = torch.ones_like(rollout.rewards)
        weights[0] = 0  # never counted
        if given:
            weights[3] = 0  # counted once
        given.append(weights)
        return weights

    history = train_policy(toy_lm(WORDS), collect, weigh, updates=1, epochs=2, lr=0.01, atol=0.3)
    lengths = collected[0].mask.sum(1).double()
    assert history.length == pytest.approx([float(lengths.mean())])
    assert history.clip_fraction == pytest.approx([float(lengths[3] / lengths[1:].sum())])
    assert history.sampler_gap == pytest.approx([0.25 * float(lengths[1::2].sum() / lengths.sum())], abs=1e-6)


def test_layers_are_recomputed_in_the_update_and_nothing_changes():
    """Gradient checkpointing, which layers do in training mode alone, though dropout stays off."""
    passes, found = [], []
    for recompute in (False, True):
        lm = toy_lm(WORDS)
        layer = lm.model.model.layers[0]
        if recompute:
            lm.model.activation_checkpointing_enable()
        passes.append([])
        layer.self_attn.register_forward_pre_hook(lambda *_: passes[-1].append(torch.is_grad_enabled()))
        found.append((train(lm, updates=2), weights_of(lm)))
        assert not any(module.training for module in lm.modules())
    assert found[0][0] == found[1][0] and torch.equal(found[0][1], found[1][1])
    assert sum(passes[0]) == 2 and sum(passes[1]) == 4


# ---------------------------------------------------------------- a reference


def test_rewards_are_lowered_by_k1_before_they_are_weighed():
    lm, reference, seen = toy_lm(WORDS), toy_lm(WORDS, seed=1), []

    def weigh(rollout, *others):
        seen.append(rollout)
        return total(rollout, *others)

    collected = []

    def collect(policy, generator):
        collected.append(collect_text(TASK, policy, **COLLECT, generator=generator))
        return collected[-1]

    history = train_policy(lm, collect, weigh, updates=1, reference=reference, beta=0.3, lr=0.01)
    rollout = collected[0][0]
    others = action_logprobs(reference, rollout).detach()
    expected = rollout.rewards - 0.3 * torch.where(rollout.mask, rollout.logprobs - others, 0)
    torch.testing.assert_close(seen[0].rewards, expected.float(), atol=1e-6, rtol=0)
    gap = others - rollout.logprobs
    k3 = torch.where(rollout.mask, gap.exp() - 1 - gap, 0).sum(1).mean()
    assert history.kl == pytest.approx([float(k3)], rel=1e-5) and history.kl[0] > 0.1
    assert history.returns == [float(rollout.rewards.sum(1).mean())]  # without the penalty


def lora_on_toy():
    return lora(toy_lm(WORDS), targets=("q_proj", "v_proj", "up_proj"), rank=2, alpha=8)


def test_the_adapter_switched_off_is_the_reference_without_a_second_copy():
    twice = []
    for own in (True, False):
        lm = lora_on_toy()
        reference = lm if own else toy_lm(WORDS)
        twice.append((train(lm, updates=4, lr=0.05, reference=reference, beta=0.1), weights_of(lm)))
    assert torch.equal(twice[0][1], twice[1][1]) and twice[0][0] == twice[1][0]
    kl = twice[0][0].kl
    assert abs(kl[0]) <= 1e-10 < 1e-3 < kl[-1]


def test_lora_is_trained_and_the_base_is_not():
    lm = lora_on_toy()
    base = {name: p.clone() for name, p in lm.named_parameters() if not p.requires_grad}
    start = {name: p.clone() for name, p in trainable_state_dict(lm).items()}
    train(lm, updates=3, reference=lm)
    after = dict(lm.named_parameters())
    assert base and all(torch.equal(base[name], after[name]) for name in base)
    assert {name for name in start if not torch.equal(start[name], after[name])} == set(start)
    assert set(trainable_state_dict(lm)) == set(start)  # and it still requires a gradient
    switch_adapter(lm, None)
    assert torch.equal(action_logprobs(lm, repeated()[0]), action_logprobs(toy_lm(WORDS), repeated()[0]))


def test_references_that_cannot_be_are_one_line():
    with pytest.raises(ValueError, match=r"^beta=0\.1: expected a number from 0 on, and a reference$"):
        train(toy_lm(WORDS), beta=0.1)
    with pytest.raises(ValueError, match=r"^beta=-1: expected a number from 0 on"):
        train(toy_lm(WORDS), beta=-1, reference=toy_lm(WORDS))
    for words in (WORDS[:5], (*WORDS[:5], "z")):
        message = (
            f"^reference 'toy' has a vocabulary of {len(words)} tokens, the policy another of 6: expected the same$"
        )
        with pytest.raises(ValueError, match=message):
            train(toy_lm(WORDS), reference=toy_lm(words))
    with pytest.raises(ValueError, match="^update 0: model has no LoRA layers"):
        lm = toy_lm(WORDS)
        train(lm, reference=lm)


# ---------------------------------------------------------------- a critic on the trunk


def test_the_critic_approaches_the_exact_values_and_leaves_the_trunk_alone():
    lm = toy_lm(WORDS, width=16)
    rollout, probabilities = enumerate_texts(lm, ["a b"], max_new_tokens=3)
    texts = [lm.tokenizer.decode(row[kept]) for row, kept in zip(rollout.actions, rollout.mask, strict=True)]
    rollout = pay(rollout, [4 * counted("c")(text) for text in texts])
    values, before = text_values(rollout, probabilities), weights_of(lm)
    critic = TextCritic(lm)
    assert len(list(critic.parameters())) == 2 and critic.head.weight.dtype == torch.float64

    def error():
        squares = torch.where(rollout.mask, (critic(rollout.observations) - values) ** 2, 0).sum(1)
        return float((probabilities @ squares).detach())

    start, optimizer = error(), torch.optim.Adam(critic.parameters(), lr=0.05)
    for _ in range(200):
        fit_critic(critic, optimizer, rollout, values)
    assert error() < 0.05 * start
    assert torch.equal(weights_of(lm), before)


def test_a_learned_critic_in_the_loop():
    lm = toy_lm(WORDS)
    critic, seen = TextCritic(lm), []

    def weigh(rollout, values, bootstrap, logprobs):
        seen.append((values.abs().max(), bootstrap.abs().max()))
        return pg.advantage(rollout.rewards, values.to(rollout.rewards), rollout.mask, bootstrap)

    train(lm, weigh, updates=3, critic=critic, critic_lr=0.05)
    assert seen[0][0] == 0 < seen[1][0] and all(bootstrap == 0 for _, bootstrap in seen)


# ---------------------------------------------------------------- resuming

RUN = """
import sys, time
from pathlib import Path
sys.path[:0] = {tests!r}
from test_text_rl import resumable

resumable(Path({checkpoint!r}), pause=0.02)
"""


def resumable(checkpoint, pause=0.0):
    """A run with everything that has a state: Adam, a critic, an adapter, the generator, held-out scores."""
    lm = lora_on_toy()
    critic = TextCritic(lm)
    collect = text_collector(TASK, **COLLECT)

    def slowly(policy, generator):
        time.sleep(pause)
        return collect(policy, generator)

    def weigh(rollout, values, bootstrap, logprobs):
        advantages = pg.advantage(rollout.rewards, values.to(rollout.rewards), rollout.mask, bootstrap)
        return pg.clipped_weights(pg.step_ratio(logprobs, rollout.logprobs, rollout.mask), advantages)

    history = train_policy(
        lm, slowly, weigh, updates=40, lr=0.02, critic=critic, critic_lr=0.02, epochs=2, reference=lm, beta=0.05,
        seed=7, evaluate=lambda policy: sampled_scores(TASK, policy).mean(), evaluate_every=5,
        checkpoint=checkpoint, checkpoint_every=6,
    )  # fmt: skip
    return history, weights_of(lm), weights_of(critic)


def test_a_killed_process_resumes_to_the_same_numbers(tmp_path, one_thread):
    checkpoint = tmp_path / "run" / "rl.safetensors"
    code = RUN.format(tests=[str(folder) for folder in Path(__file__).parents[:2]], checkpoint=str(checkpoint))
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"})
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = len(read_state(checkpoint)["history"]["returns"])
    assert 6 <= done < 40 and done % 6 == 0
    resumed, whole = resumable(checkpoint), resumable(None)
    assert resumed[0] == whole[0] and len(whole[0].returns) == 40 and whole[0].held_out_update[-1] == 40
    assert torch.equal(resumed[1], whole[1]) and torch.equal(resumed[2], whole[2])


# ---------------------------------------------------------------- a pocket LM


def test_c40_a_pocket_lm_learns_to_add(one_thread):
    """From a short finetuning on, ten updates of eight sums: held-out pass@1 rises by far more than 20 points."""
    from ptlearn.finetuning.sft import fit_sft
    from ptlearn.lm.chat import render_all
    from ptlearn.pocket import assistant, tasks

    lm, task = load_lm("pocket-m"), tasks.arithmetic(held_out=100)
    requests = assistant.requests(300, use_cases=["other"])
    fit_sft(lm, render_all(lm, assistant.conversations(requests))[0], lr=1e-3)
    history = train_policy(
        lm, text_collector(task, prompts=8), rloo, updates=10, lr=1e-4, clip_norm=1.0,
        evaluate=lambda policy: sampled_scores(task, policy).mean(),
    )  # fmt: skip
    assert history.held_out[-1] >= history.held_out[0] + 0.2
