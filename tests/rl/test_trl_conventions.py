"""The numbers of the course beside TRL's own on random inputs: equal, once each difference of convention is named.

Advantages and losses are methods of TRL's trainers; they are called here without a trainer around them, on what they
read from one. TRL is an extra, `pip install -c constraints.txt -e '.[bench]'`; without it nothing here runs. It has no
GAE any more, since its PPO trainer is gone: ours is held against returns and TD in test_policy_gradient.

Differences of convention, ours first:
    log-probabilities  0 where the mask is False | of every position, masked by the loss
    GRPO's advantage   std + eps of 1e-6, exactly 0 for equal rewards | std + 1e-4
    RLOO's advantage   the same
    clipped loss       divided by the number of episodes, or a normalizer | by loss_type: mean of the means of rows
                       (grpo), of tokens (bnpo, dapo), rows times the longest allowed (dr_grpo); RLOO clips the ratio of
                       the whole row
    KL to a reference  k1 of each token inside the rewards | GRPO: k3 in the loss; RLOO: k1 of the row in its reward
    DPO                weights of the one loss | the loss itself, of the same gradient
    reward model       the same loss; a bias in the head, whose gradient is 0 | no bias
"""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from ptlearn import policy_gradient as pg
from ptlearn.rl.preferences import dpo_weights, implicit_rewards, preference_loss
from ptlearn.rollout import Rollout, action_logprobs

trl = pytest.importorskip("trl", reason="TRL is not installed: pip install -c constraints.txt -e '.[bench]'")

LENGTHS = torch.tensor([5, 2, 4, 1, 5, 3])
MASK = torch.arange(5) < LENGTHS[:, None]


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def same(found, expected, atol=1e-12):
    return float((found - expected).detach().abs().max()) <= atol


class Alone:
    """What a trainer asks of its accelerator, where there is one process."""

    device, process_index, num_processes, sync_gradients = torch.device("cpu"), 0, 1, True

    def gather(self, tensor):
        return tensor

    gather_for_metrics = gather

    def reduce(self, tensor, reduction):
        return tensor


def trainer(**settings):
    """The attributes that the methods read, all variants switched off."""
    model = torch.nn.Module()
    model.is_gradient_checkpointing = False
    off = dict.fromkeys(
        ("aux_loss_enabled", "use_vllm", "mask_truncated_completions", "tools", "environments",
         "reward_clip_range", "normalize_advantages", "_entropy_bonus_enabled", "use_adaptive_entropy", "use_weighting",
         "_is_vlm", "log_multimodal", "precompute_ref_logps"), False,
    )  # fmt: skip
    empty = dict.fromkeys(("environment_factories", "ld_alpha", "off_policy_mask_threshold", "pad_to_multiple_of"))
    read = {
        "accelerator": Alone(), "_metrics": defaultdict(lambda: defaultdict(list)), "_tp_size": 1,
        "_total_train_tokens": 0,
        "_logs": defaultdict(list, rewards=defaultdict(list), extra=defaultdict(list)), "_pending_extra_logs": {},
        "_pending_metrics": {}, "current_gradient_accumulation_steps": 1, "beta": 0.0, "top_entropy_quantile": 1.0,
        "epsilon_low": 0.2, "epsilon_high": 0.2, "importance_sampling_level": "token", "eos_token_ids": [0],
        "max_completion_length": 7, "_tokenizer": SimpleNamespace(pad_token_id=0), "num_iterations": 1,
        "reward_weights": torch.ones(1, dtype=torch.float64), "reward_func_names": ["reward"], "reward_funcs": [None],
        "model": model,
        "args": SimpleNamespace(
            delta=None, gradient_checkpointing_kwargs=None, per_device_train_batch_size=6, steps_per_generation=1,
            gradient_accumulation_steps=1, gradient_checkpointing=False, use_bias_correction_kl=False,
        ),
    }  # fmt: skip
    return SimpleNamespace(**off, **empty, **read | settings)


# ---------------------------------------------------------------- log-probabilities


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities(temperature):
    from trl.trainer.utils import selective_log_softmax

    logits, actions = normal(6, 5, 11, seed=0), torch.randint(11, (6, 5), generator=torch.Generator().manual_seed(1))
    zeros, ended = torch.zeros(6, 5), torch.ones(6, dtype=torch.bool)
    found = action_logprobs(
        lambda _: logits, Rollout(actions, actions, zeros, zeros, MASK, ended), temperature=temperature
    )
    theirs = selective_log_softmax(logits, actions, temperature=temperature)
    assert same(found, theirs * MASK) and not same(found, theirs, 0.1)
    assert same(found, selective_log_softmax(logits, actions, temperature=temperature, row_mask=MASK))


# ---------------------------------------------------------------- group advantages


def their_advantages(kind, rewards, group, **settings):
    """Of TRL's step between sampling and learning: the sampling and the reward function are ours."""
    count = len(rewards)
    generated = ([[1, 2]] * count, [[3, 4]] * count)
    extra = {
        trl.GRPOTrainer: (None, ["text"] * count, None, {}, None, None), trl.RLOOTrainer: (["text"] * count,)
    }  # fmt: skip
    seen = trainer(
        num_generations=group, multi_objective_aggregation="sum_then_normalize",
        _generate=lambda prompts: (*generated, *extra[kind]),
        _calculate_rewards=lambda *_: rewards[:, None],
        _get_per_token_logps_and_entropies=lambda *_, **__: (torch.zeros(count, 2), None, None), **settings,
    )  # fmt: skip
    return kind._generate_and_score_completions(seen, [{"prompt": "text"}] * count)["advantages"]


def test_group_advantages():
    # five rows in a group: TRL has Bessel's n / (n - 1) in float32, where 5 / 4 is exact
    rewards, groups = normal(30, seed=2), torch.arange(6).repeat_interleave(5)
    rewards[:5] = 0.3  # a group without differences
    dr_grpo = rewards - pg.mean_baseline(rewards, groups=groups)
    assert same(their_advantages(trl.GRPOTrainer, rewards, 5, scale_rewards="none"), dr_grpo)
    # TRL adds 1e-4 to the standard deviation, we add 1e-6
    std = rewards.view(6, 5).std(1).repeat_interleave(5)
    theirs = their_advantages(trl.GRPOTrainer, rewards, 5, scale_rewards="group")
    assert same(pg.standardized(rewards, groups, eps=1e-4), theirs)
    assert same(pg.standardized(rewards, groups), theirs * (std + 1e-4) / (std + 1e-6))
    assert not same(pg.standardized(rewards, groups), theirs, 1e-5)
    rloo = rewards - pg.leave_one_out(rewards, groups=groups)
    assert same(their_advantages(trl.RLOOTrainer, rewards, 5), rloo)
    assert same(rloo, dr_grpo * 5 / 4) and not same(rloo, dr_grpo, 0.1)


# ---------------------------------------------------------------- the clipped loss


def their_clipped_loss(kind, logprobs, old, advantages, **settings):
    inputs = {
        "prompt_ids": torch.zeros(6, 2, dtype=torch.long), "prompt_mask": torch.ones(6, 2, dtype=torch.long),
        "completion_ids": torch.zeros(6, 5, dtype=torch.long), "completion_mask": MASK.long(), "advantages": advantages,
        "old_per_token_logps": old, "old_logps": (old * MASK).sum(1),
        "ref_per_token_logps": settings.pop("reference", None),
        "num_items_in_batch": MASK.sum(),
    }  # fmt: skip
    scored = lambda *_, **__: (logprobs, torch.zeros_like(old), None)  # noqa: E731
    return kind._compute_loss(trainer(_get_per_token_logps_and_entropies=scored, **settings), None, inputs)


def gradient_of(loss, logprobs):
    return torch.autograd.grad(loss, logprobs)[0]


@pytest.fixture
def moved():
    """Log-probabilities after some updates, those of the sampler, and an advantage for each row."""
    old = -normal(6, 5, seed=3).abs()
    return (old + 0.3 * normal(6, 5, seed=4)).requires_grad_(), old, -normal(6, seed=5)


@pytest.mark.parametrize("epsilon_high", [0.2, 0.4])
@pytest.mark.parametrize(
    ("loss_type", "normalizer"),  # what the rows, of these lengths, are divided by
    [("grpo", 6 * LENGTHS[:, None]), ("bnpo", LENGTHS.sum()), ("dapo", LENGTHS.sum()), ("dr_grpo", 6 * 7)],
)
def test_clipped_loss(moved, loss_type, normalizer, epsilon_high):
    logprobs, old, advantages = moved
    ratios = pg.step_ratio(logprobs, old, MASK)
    spread = advantages[:, None].expand_as(ratios)
    clip = {"epsilon": 0.2, "epsilon_high": epsilon_high}
    weights = pg.clipped_weights(ratios, spread, **clip)
    assert bool(((weights == 0) & MASK).any()) and bool(((weights != 0) & MASK).any())
    assert same(weights, pg.clipped_weights(ratios, spread)) == (epsilon_high == 0.2)
    ours = gradient_of(pg.policy_gradient_loss(logprobs, weights / normalizer, MASK, normalizer=1), logprobs)
    settings = {"epsilon_high": epsilon_high, "loss_type": loss_type}
    theirs = their_clipped_loss(trl.GRPOTrainer, logprobs, old, advantages, **settings)
    value = pg.clipped_surrogate(logprobs, old, spread / normalizer, MASK, **clip, normalizer=1)
    assert same(value, theirs) and float(theirs.detach().abs()) > 1e-3
    assert same(ours, gradient_of(theirs, logprobs)) and float(ours.abs().max()) > 1e-3


def test_rloo_clips_the_ratio_of_the_row(moved):
    logprobs, old, advantages = moved
    weights = pg.clipped_weights(pg.trajectory_ratio(logprobs, old, MASK), advantages[:, None] * MASK, epsilon=0.2)
    ours = gradient_of(pg.policy_gradient_loss(logprobs, weights, MASK), logprobs)
    theirs = gradient_of(their_clipped_loss(trl.RLOOTrainer, logprobs, old, advantages), logprobs)
    assert same(ours, theirs) and float(ours.abs().max()) > 1e-3


def test_the_kl_that_grpo_adds_to_the_loss_is_k3(moved):
    logprobs, old, advantages = moved
    reference = -normal(6, 5, seed=6).abs()
    settings = {"loss_type": "bnpo", "reference": reference}
    with_kl, without = (their_clipped_loss(trl.GRPOTrainer, *moved, beta=beta, **settings) for beta in (0.3, 0.0))
    k3 = pg.kl_estimates(logprobs, reference, MASK).k3
    assert same(with_kl - without, 0.3 * k3.sum() / MASK.sum())


# ---------------------------------------------------------------- pairs


def test_dpo_loss():
    logprobs, reference = -normal(2, 6, 5, seed=7).abs()
    logprobs.requires_grad_()
    chosen, rejected = torch.arange(6).view(2, 3)  # TRL's batch: the chosen first, then the rejected

    def scored(tensor):
        blank = torch.zeros(6, 5, dtype=torch.float64)
        output = {"log_probs": tensor * MASK, "entropy": blank, "mean_logits": blank, "is_top1": blank.bool()}
        return lambda **_: SimpleNamespace(**output)

    loss = {"f_divergence_type": "reverse_kl", "loss_types": ["sigmoid"], "loss_weights": [1.0]}
    seen = trainer(beta=0.4, ref_model=scored(reference), **loss)
    inputs = {
        "input_ids": torch.zeros(6, 6, dtype=torch.long), "attention_mask": torch.ones(6, 6, dtype=torch.long),
        "completion_mask": torch.cat([torch.zeros(6, 1, dtype=torch.bool), MASK], 1).long(),
    }  # fmt: skip
    theirs = trl.DPOTrainer._compute_loss(seen, scored(logprobs), inputs, False)
    rewards = implicit_rewards(logprobs, reference, MASK, beta=0.4)
    assert same(preference_loss(rewards, chosen, rejected), theirs)
    weights = dpo_weights(logprobs, reference, MASK, chosen, rejected, beta=0.4)
    ours = gradient_of(pg.policy_gradient_loss(logprobs, weights, MASK, normalizer=3), logprobs)
    assert same(ours, gradient_of(theirs, logprobs)) and float(ours.abs().max()) > 1e-3


def test_reward_model_loss():
    rewards = normal(6, 1, seed=8).requires_grad_()
    seen = trainer(args=SimpleNamespace(center_rewards_coefficient=None))
    inputs = {"attention_mask": torch.ones(6, 2, dtype=torch.long)}
    theirs = trl.RewardTrainer.compute_loss(seen, lambda **_: SimpleNamespace(logits=rewards), inputs)
    chosen, rejected = torch.arange(6).view(2, 3)
    assert same(preference_loss(rewards[:, 0], chosen, rejected), theirs)
