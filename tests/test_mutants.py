"""The tests under test: typical wrong implementations, each of which must turn a named test red.

A mutant is one edit of a module's source. The edited copy takes the module's place in the test file, and the test that
should notice is called as a plain function. An unedited copy must leave the same test green.
"""

import importlib
import inspect
import types
from typing import NamedTuple

import pytest


class Mutant(NamedTuple):
    mistake: str
    module: str  # of ptlearn
    old: str  # occurs exactly once in the source
    new: str
    test: str  # the function, in tests/test_<module>.py, that must fail
    arguments: tuple = ()


EXACT, RATIOS, BASELINES = (
    "test_unbiased_weights_give_the_exact_gradient",
    "test_unbiased_ratios_give_the_exact_gradient",
    "test_leave_one_out_gives_the_exact_gradient",
)
AVERAGED = "test_advantage_averages_the_n_step_advantages"
GARBAGE = "test_what_stands_off_the_mask_never_counts"
CLIPPED = "test_clipped_weights_have_the_gradient_of_the_clipped_objective"
TRUNCATED = "test_truncation_bootstraps_and_termination_does_not"
NAN = float("nan")


def of(module, *rows):
    return [Mutant(mistake, module, old, new, test, tuple(arguments)) for mistake, old, new, test, *arguments in rows]


# fmt: off
LOSS = of(
    "policy_gradient",
    ("the sign: descends where it should climb",
     "return -(torch.where(mask, weights, 0)", "return (torch.where(mask, weights, 0)", EXACT, "total return", 1.0),
    ("mask polarity",
     "return -(torch.where(mask, weights, 0)", "mask = ~mask\n    return -(torch.where(mask, weights, 0)",
     "test_loss_is_a_sum_over_steps_divided_by_episodes"),
    ("weights with a gradient are let through",
     "if weights.requires_grad:", "if False:", "test_bad_input_is_named", "weights with gradient"),
    ("divides by tokens, not episodes",
     "len(logprobs) if normalizer is None", "mask.sum() if normalizer is None",
     "test_loss_is_a_sum_over_steps_divided_by_episodes"),
    ("the normalizer is forgotten: parts of a batch count more",
     "normalizer = len(logprobs) if normalizer is None else normalizer", "normalizer = len(logprobs)",
     "test_splitting_a_batch_leaves_the_gradient_as_it_is"),
    ("padding multiplied away: 0 * NaN",
     "(torch.where(mask, weights, 0) * torch.where(mask, logprobs, 0))", "(weights * logprobs * mask)", GARBAGE,
     "policy_gradient_loss", NAN),
    ("padding cut off only after the product: NaN in the gradient",
     "(torch.where(mask, weights, 0) * torch.where(mask, logprobs, 0))", "torch.where(mask, weights * logprobs, 0)",
     "test_garbage_off_the_mask_does_not_reach_the_gradient", NAN),
)

RETURNS = of(
    "policy_gradient",
    ("discounts one step late", "(mask.cumsum(1) - 1)", "mask.cumsum(1)", EXACT, "reward to go", 0.9),
    ("discounts in single precision",
     "torch.tensor(gamma, dtype=torch.float64)", "torch.tensor(gamma)", EXACT, "total return", 0.9),
    ("discounts count holes as steps",
     "(mask.cumsum(1) - 1)", "(torch.ones_like(mask).cumsum(1) - 1)", "test_returns_against_plain_sums", 0.7),
    ("returns are not discounted",
     "* discounts(mask, gamma=gamma).to(rewards.dtype)", "* mask", EXACT, "total return", 0.9),
    ("reward-to-go starts one step late",
     "return advantage(rewards, torch.zeros_like(rewards), mask",
     "return advantage(rewards.roll(-1, 1), torch.zeros_like(rewards), mask", EXACT, "reward to go", 1.0),
    ("reward-to-go sums from the start",
     "for t in reversed(range(rewards.shape[1])):", "for t in range(rewards.shape[1]):", EXACT, "reward to go", 1.0),
)

RECURSION = of(
    "policy_gradient",
    ("gamma missing in the recursion", "gamma * lam * running", "lam * running", AVERAGED, 0.4, 0.7),
    ("gamma missing before the next value", "gamma * next_value -", "next_value -", EXACT, "TD, exact V", 0.9),
    ("lam on the next value too",
     "gamma * next_value -", "gamma * lam * next_value -", EXACT, "GAE lam=0.95, exact V", 1.0),
    ("lam forgotten", "gamma * lam * running", "gamma * running", AVERAGED, 0.4, 0.7),
    ("the value is not subtracted", "gamma * next_value - values[:, t]", "gamma * next_value", AVERAGED, 0.4, 0.7),
    ("the sum runs on through steps that are not acted",
     "torch.where(acted, residual + gamma * lam * running, running)", "residual + gamma * lam * running", AVERAGED, 1.0,
     0.7),
    ("the next value comes from padding",
     "next_value = torch.where(acted, values[:, t], next_value)", "next_value = values[:, t]", TRUNCATED, 0.0, 1.0),
    ("truncation is taken for termination: no bootstrap",
     "bootstrap.detach(), torch", "0 * bootstrap.detach(), torch", TRUNCATED, 0.5, 0.9),
    ("the bootstrap counts twice", "torch.zeros_like(bootstrap)\n", "bootstrap.detach()\n", TRUNCATED, 0.5, 0.9),
    ("the critic is not detached",
     "values.detach(), bootstrap.detach()", "values, bootstrap", "test_a_critic_gets_no_gradient_through_advantages"),
    ("one step too many", "range(min(n, packed", "range(min(n + 1, packed", "test_n_step_advantage", 2, 0.7),
    ("residuals are not discounted", "gamma**k * packed", "packed", "test_n_step_advantage", 2, 0.7),
    ("holes count as steps", "order = (~mask)", "order = (mask & False)", "test_n_step_advantage", 2, 0.7),
)

BASELINE = of(
    "policy_gradient",
    ("leave-one-out includes itself",
     "(total - values) / (count - 1).clamp(min=1)", "total / count", BASELINES, "other_episodes", 2, 1.0),
    ("leave-one-out divides by N",
     "(total - values) / (count - 1).clamp(min=1)", "(total - values) / count",
     "test_leaving_one_out_stretches_the_distance_from_the_mean"),
    ("groups are ignored",
     "_, group, sizes = groups.unique(return_inverse=True, return_counts=True)",
     "group, sizes = torch.zeros_like(groups), ()",
     "test_baselines_of_scattered_groups", "leave_one_out", False),
    ("groups are taken to lie side by side",
     "_, group, sizes = groups.unique(return", "_, group, sizes = groups.unique_consecutive(return",
     "test_baselines_of_scattered_groups", "mean_baseline", True),
    ("rows that do not act are averaged in",
     "mask.to(values.dtype))[group]", "torch.ones_like(values))[group]", "test_baselines_of_scattered_groups",
     "mean_baseline", True),
    ("the average return for the optimal constant",
     "(squared_norms * returns).sum() / squared_norms.sum()", "returns.mean()",
     "test_optimal_baseline_has_the_least_variance", 1.0),
)

RATIO = of(
    "policy_gradient",
    ("the ratio upside down",
     "logprobs.detach() - behavior_logprobs, 0)", "behavior_logprobs - logprobs.detach(), 0)", RATIOS,
     "trajectory ratio, total return", 1.0),
    ("the ratio carries a gradient", "logprobs.detach() -", "logprobs -", "test_ratios_carry_no_gradient"),
    ("the prefix leaves its own action out",
     "cumsum(1).exp()", "cumsum(1).roll(1, 1).index_fill(1, torch.tensor(0), 0).exp()", RATIOS,
     "prefix ratio, exact TD", 1.0),
    ("the ratio of what follows for the prefix",
     "mask).cumsum(1).exp()", "mask).flip(1).cumsum(1).flip(1).exp()", RATIOS, "prefix ratio, exact TD", 1.0),
    ("one step's ratio for the whole episode's",
     "mask).sum(1, keepdim=True).exp()", "mask).exp()", RATIOS, "trajectory ratio, reward to go", 1.0),
    ("the mean ratio for the product",
     "mask).sum(1, keepdim=True).exp()", "mask).mean(1, keepdim=True).exp()", RATIOS, "trajectory ratio, total return",
     1.0),
    ("self-normalised to sum 1",
     "mean = torch.where(mask, ratios, 0).sum(0) / mask.sum(0).clamp(min=1)",
     "mean = torch.where(mask, ratios, 0).sum(0)", "test_self_normalized_ratios_average_to_one_over_the_rows_that_act"),
    ("self-normalised over steps, not episodes",
     "mean = torch.where(mask, ratios, 0).sum(0) / mask.sum(0).clamp(min=1)",
     "mean = torch.where(mask, ratios, 0).sum(1, True) / mask.sum(1, True).clamp(min=1)",
     "test_self_normalized_ratios_average_to_one_over_the_rows_that_act"),
    ("clips both sides whatever the sign",
     "torch.where(advantages > 0, ratios > 1 + epsilon, ratios < 1 - epsilon)",
     "(ratios > 1 + epsilon) | (ratios < 1 - epsilon)", CLIPPED, 0.2),
    ("clips on the wrong sides",
     "torch.where(advantages > 0, ratios > 1 + epsilon, ratios < 1 - epsilon)",
     "torch.where(advantages < 0, ratios > 1 + epsilon, ratios < 1 - epsilon)", CLIPPED, 0.2),
    ("the clipped ratio goes on weighing",
     "torch.where(gone, 0, ratios * advantages)", "(ratios.clamp(1 - epsilon, 1 + epsilon) * advantages)", CLIPPED,
     0.2),
    ("the ratio is forgotten",
     "torch.where(gone, 0, ratios * advantages)", "torch.where(gone, 0, advantages)", CLIPPED, 0.2),
)

DIAGNOSTIC = of(
    "policy_gradient",
    ("effective sample size as a share",
     "ratios.sum() ** 2 / (ratios**2).sum()", "ratios.mean() ** 2 / (ratios**2).mean()",
     "test_effective_sample_size_lies_between_one_and_all"),
    ("effective sample size upside down",
     "ratios.sum() ** 2 / (ratios**2).sum()", "(ratios**2).sum() / ratios.sum() ** 2 * len(ratios)",
     "test_effective_sample_size_lies_between_one_and_all"),
    ("entropy averages over padding",
     "/ mask.sum().clamp(min=1)\n\n\n# ----", "/ mask.numel()\n\n\n# ----", "test_entropy_of_known_distributions"),
    ("impossible actions make the entropy NaN",
     "torch.where(logprobs.isinf(), 0, logprobs)", "logprobs", "test_entropy_of_known_distributions"),
    ("impossible actions make its gradient NaN",
     "logprobs.exp() * torch.where(logprobs.isinf(), 0, logprobs)",
     "torch.where(logprobs.isinf(), 0, logprobs.exp() * logprobs)",
     "test_entropy_has_a_gradient_beside_impossible_actions"),
)

WORLD = of(
    "mdp",
    ("gamma missing in the values",
     "dtype=torch.float64) - mdp.gamma * inner, rewards", "dtype=torch.float64) - inner, rewards",
     "test_linear_solve_equals_bellman_iteration", 0.9),
    ("gamma on the reward too",
     "(mdp.R + mdp.gamma * values)", "mdp.gamma * (mdp.R + values)", "test_action_values_average_to_the_state_values",
     0.9),
    ("transitions transposed", '"sa,sat->st"', '"sa,sat->ts"', "test_linear_solve_equals_bellman_iteration", 1.0),
    ("visits flow backwards",
     "torch.eye(len(inner), dtype=torch.float64) - inner).T, start)",
     "torch.eye(len(inner), dtype=torch.float64) - inner), start)", "test_occupancy_obeys_the_flow_of_visits", 1.0),
    ("values in the wrong order of time",
     "torch.stack(values[::-1])", "torch.stack(values)", "test_horizon_values_count_the_steps_left"),
    ("rewards not weighted by where one lands",
     "(mdp.P * mdp.R).sum(-1)", "mdp.R.mean(-1)", "test_occupancy_times_reward_is_the_objective", 0.9, None),
    ("the time limit is forgotten",
     "probabilities(mdp, policy), horizon), parameters", "probabilities(mdp, policy)), parameters",
     "test_exact_gradient_equals_the_policy_gradient_theorem", 0.9, 3),
    ("the best policy waits for ever",
     "return pi, values", "return better, values",
     "test_policy_iteration_returns_the_values_of_its_policy_when_waiting_is_free"),
    ("the worst action",
     "action_values(mdp, values).max(1)", "action_values(mdp, values).min(1)",
     "test_value_iteration_policy_iteration_and_brute_force_agree", 0.9, 0),
    ("a paid loop is taken for an end",
     "return (stays & (self.R.diagonal(dim1=0, dim2=2).T == 0)).all(1)", "return stays.all(1)",
     "test_terminal_states_loop_without_reward"),
    ("dynamics left out of a trajectory's probability",
     "step = (pi[:, :, None] * mdp.P)", "step = (pi[:, :, None] * (mdp.P > 0))",
     "test_enumeration_gives_the_exact_expectations", 0.9, 3),
    ("episodes that end early are lost",
     "return _as_rollout(mdp, pi, ended + paths)", "return _as_rollout(mdp, pi, paths)", "test_enumeration_of_a_coin"),
    ("truncated episodes are called terminated",
     "mask, mdp.terminal[final])", "mask, final >= 0)", "test_enumeration_of_a_coin"),
    ("only the next step counts as a way to the end",
     "for _ in range(len(going)):", "for _ in range(1):",
     "test_an_episode_that_never_ends_is_refused_without_discount_or_horizon"),
)

RECORD = of(
    "rollout",
    ("scores off the mask",
     "return logprobs.where(rollout.mask,", "return logprobs.where(~rollout.mask,",
     "test_action_logprobs_are_zero_off_the_mask_and_right_on_it"),
    ("the score is not normalised",
     "- logits.logsumexp(-1)", "", "test_action_logprobs_are_zero_off_the_mask_and_right_on_it"),
    ("padding found by its value",
     "(torch.arange(length) < lengths[:, None]).to(padded.device)", "padded != value",
     "test_padding_comes_from_lengths"),
    ("the nucleus leaves out the action that crosses it",
     "ordered.cumsum(-1) - ordered >= top_p", "ordered.cumsum(-1) >= top_p",
     "test_sampling_distribution_equals_a_naive_one", 1.0, None, 0.6),
    ("multiplied by the temperature",
     "logits / temperature", "logits * temperature", "test_sampling_distribution_equals_a_naive_one", 2.5, None, None),
)
# fmt: on

MUTANTS = LOSS + RETURNS + RECURSION + BASELINE + RATIO + DIAGNOSTIC + WORLD + RECORD


def run_with_copy(monkeypatch, mutant, *, edited):
    """Call the named test with a copy of the module in place of the original, wherever the test file names it."""
    original = importlib.import_module(f"ptlearn.{mutant.module}")
    source = inspect.getsource(original)
    assert source.count(mutant.old) == 1, f"expected once in {mutant.module}.py: {mutant.old!r}"
    copy = types.ModuleType(original.__name__)
    exec(compile(source.replace(mutant.old, mutant.new) if edited else source, mutant.mistake, "exec"), vars(copy))
    tests = importlib.import_module(f"test_{mutant.module}")
    for name, value in list(vars(tests).items()):
        if value is original:
            monkeypatch.setattr(tests, name, copy)
        elif getattr(value, "__module__", None) == original.__name__:
            monkeypatch.setattr(tests, name, getattr(copy, value.__name__))
    # a weight function is named, so that its calls reach the copy through the test file
    arguments = [getattr(tests, a) if isinstance(a, str) and hasattr(tests, a) else a for a in mutant.arguments]
    getattr(tests, mutant.test)(*arguments)


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.mistake for mutant in MUTANTS])
def test_a_mutant_turns_its_test_red(monkeypatch, mutant):
    with pytest.raises((AssertionError, ValueError, pytest.fail.Exception)):
        run_with_copy(monkeypatch, mutant, edited=True)


GREEN = {(mutant.module, mutant.test, mutant.arguments): mutant for mutant in MUTANTS}


@pytest.mark.parametrize("mutant", GREEN.values(), ids=[f"{test}-{arguments}" for _, test, arguments in GREEN])
def test_an_unchanged_copy_leaves_it_green(monkeypatch, mutant):
    run_with_copy(monkeypatch, mutant, edited=False)
