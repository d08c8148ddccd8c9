"""The tests under test: typical wrong implementations, each of which must turn a named test red.

A mutant is one edit of a module's source. The edited copy takes the module's place in the test file and in the modules
that import it, and the test that should notice is called as a plain function. An unedited copy must leave the same test
green.
"""

import importlib
import inspect
import sys
import types
from typing import NamedTuple

import pytest
import torch


class Mutant(NamedTuple):
    mistake: str
    module: str  # of ptlearn
    old: str  # occurs exactly once in the source
    new: str
    file: str  # of tests
    test: str  # the function there that must fail
    arguments: tuple = ()


EXACT, RATIOS, BASELINES = (
    "test_unbiased_weights_give_the_exact_gradient",
    "test_unbiased_ratios_give_the_exact_gradient",
    "test_leave_one_out_gives_the_exact_gradient",
)
AVERAGED = "test_advantage_averages_the_n_step_advantages"
GARBAGE = "test_what_stands_off_the_mask_never_counts"
MEAN_ONE = "test_self_normalized_ratios_are_divided_by_the_mean_over_all_rows_the_ended_ones_too"
POPULATION = "test_self_normalizing_all_episodes_there_are_changes_nothing"
SURROGATE = "test_the_clipped_surrogate_has_the_gradient_of_the_clipped_weights"
SPLIT = "test_split_episodes_have_the_advantages_of_the_loop_over_the_buffer"
HALVES = "test_half_precision_is_summed_in_float32"
CLIPPED = "test_clipped_weights_have_the_gradient_of_the_clipped_objective"
TRUNCATED = "test_truncation_bootstraps_and_termination_does_not"
NAN, BFLOAT16 = float("nan"), torch.bfloat16


# what an argument may name, beside whatever the test file names
FIXTURES = ("monkeypatch", "fresh", "gpt2_lm", "llama_lm", "pocket_s", "tiny_folders", "tmp_path")


def of(module, *rows, file=None):
    file = file or f"test_{module.rpartition('.')[2]}"
    return [Mutant(mistake, module, old, new, file, test, tuple(rest)) for mistake, old, new, test, *rest in rows]


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
     "for reward, value, acted in reversed(steps):", "for reward, value, acted in steps:", EXACT, "reward to go", 1.0),
)

RECURSION = of(
    "policy_gradient",
    ("gamma missing in the recursion", "gamma * lam * running", "lam * running", AVERAGED, 0.4, 0.7),
    ("gamma missing before the next value", "gamma * next_value -", "next_value -", EXACT, "TD, exact V", 0.9),
    ("lam on the next value too",
     "gamma * next_value -", "gamma * lam * next_value -", EXACT, "GAE lam=0.95, exact V", 1.0),
    ("lam forgotten", "gamma * lam * running", "gamma * running", AVERAGED, 0.4, 0.7),
    ("the value is not subtracted", "gamma * next_value - value\n", "gamma * next_value\n", AVERAGED, 0.4, 0.7),
    ("the sum runs on through steps that are not acted",
     "torch.where(acted, residual + gamma * lam * running, running)", "residual + gamma * lam * running", AVERAGED, 1.0,
     0.7),
    ("the next value comes from padding",
     "next_value = torch.where(acted, value, next_value)", "next_value = value", TRUNCATED, 0.0, 1.0),
    ("truncation is taken for termination: no bootstrap",
     "upcast(bootstrap.detach())", "0 * upcast(bootstrap.detach())", TRUNCATED, 0.5, 0.9),
    ("the bootstrap counts twice", "torch.zeros_like(next_value)", "next_value", TRUNCATED, 0.5, 0.9),
    ("the critic is not detached",
     "upcast(values.detach()), upcast(bootstrap.detach())", "upcast(values), upcast(bootstrap)",
     "test_a_critic_gets_no_gradient_through_advantages"),
    ("one step too many", "range(min(n, packed", "range(min(n + 1, packed", "test_n_step_advantage", 2, 0.7),
    ("residuals are not discounted", "gamma**k * packed", "packed", "test_n_step_advantage", 2, 0.7),
    ("holes count as steps", "order = (~mask)", "order = (mask & False)", "test_n_step_advantage", 2, 0.7),
    ("an episode that is done is bootstrapped", "torch.where(done, 0, bootstrap[:, None])",
     "bootstrap[:, None].expand_as(done)", SPLIT, False, 0.8),
    ("the rows of a buffer are one long row", "last[:, -1] = True", "last[-1, -1] = True", SPLIT, False, 0.8),
    ("done is noted one step late", "last = done.clone()", "last = done.roll(1, 1)", SPLIT, False, 0.8),
    ("integers pass", "else tensor.is_floating_point()", "else True", "test_integers_are_refused_and_not_truncated",
     "rewards"),
)

BASELINE = of(
    "policy_gradient",
    ("leave-one-out includes itself",
     "(total - values) / (count - 1).clamp(min=1)", "total / count", BASELINES, "other_episodes", 2, 1.0),
    ("leave-one-out divides by N",
     "(total - values) / (count - 1).clamp(min=1)", "(total - values) / count",
     "test_leaving_one_out_stretches_the_distance_from_the_mean"),
    ("groups are ignored",
     "return groups.unique(return_inverse=True)[1]", "return torch.zeros_like(groups)",
     "test_baselines_of_scattered_groups", "leave_one_out", False),
    ("groups are taken to lie side by side",
     "return groups.unique(return", "return groups.unique_consecutive(return",
     "test_baselines_of_scattered_groups", "mean_baseline", True),
    ("rows that do not act are averaged in",
     "mask.to(values.dtype))[group]", "torch.ones_like(values))[group]", "test_baselines_of_scattered_groups",
     "mean_baseline", True),
    ("counts in half precision", "values, group = upcast(values),", "values, group = values,", HALVES, BFLOAT16),
    ("the average return for the optimal constant",
     "(squared_norms * returns).sum() / squared_norms.sum()", "returns.mean()",
     "test_optimal_baseline_has_the_least_variance", 1.0),
)

RATIO = of(
    "policy_gradient",
    ("the ratio upside down",
     "upcast(logprobs.detach()) - behavior_logprobs, 0)", "behavior_logprobs - logprobs.detach(), 0)", RATIOS,
     "trajectory ratio, total return", 1.0),
    ("the ratio carries a gradient", "upcast(logprobs.detach()) -", "logprobs -", "test_ratios_carry_no_gradient"),
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
     "ratios / carried.mean(0)", "ratios / carried.sum(0)", MEAN_ONE),
    ("self-normalised over steps, not episodes",
     "ratios / carried.mean(0)", "ratios / carried.mean(1, True)", MEAN_ONE),
    ("self-normalised by those still acting",
     "ratios / carried.mean(0)", "ratios / mean_baseline(ratios, mask)", POPULATION, "trajectory_ratio", "padded"),
    ("self-normalised by those still acting, and seen in samples",
     "ratios / carried.mean(0)", "ratios / mean_baseline(ratios, mask)",
     "test_self_normalized_estimates_approach_the_exact_gradient", "prefix_ratio"),
    ("an ended episode has no ratio", "carried.mean(0)", "torch.where(mask, carried, 0).mean(0)", POPULATION,
     "prefix_ratio", "padded"),
    ("an ended episode's ratio is 1", "carried.mean(0)", "torch.where(mask, carried, 1).mean(0)", POPULATION,
     "prefix_ratio", "holes"),
    ("a ratio of 0 before the first action", "torch.where(latest < 0, 1,", "torch.where(latest < 0, 0,", POPULATION,
     "prefix_ratio", "prompts of two lengths"),
    ("clips both sides whatever the sign",
     "torch.where(advantages > 0, ratios > high, ratios < low)", "(ratios > high) | (ratios < low)", CLIPPED, 0.2),
    ("clips on the wrong sides",
     "torch.where(advantages > 0, ratios > high, ratios < low)",
     "torch.where(advantages < 0, ratios > high, ratios < low)", CLIPPED, 0.2),
    ("the clipped ratio goes on weighing",
     "torch.where(gone, 0, ratios * advantages)", "(ratios.clamp(low, high) * advantages)", CLIPPED, 0.2),
    ("the ratio is forgotten",
     "torch.where(gone, 0, ratios * advantages)", "torch.where(gone, 0, advantages)", CLIPPED, 0.2),
    ("clip-higher on both sides", "return 1 - epsilon, 1 + epsilon_high", "return 1 - epsilon_high, 1 + epsilon_high",
     "test_clip_higher_leaves_the_lower_side_as_it_is"),
    ("the larger of the two terms", "torch.minimum(ratios", "torch.maximum(ratios", SURROGATE, None, None),
    ("the surrogate is maximised", "policy_gradient_loss(gains, torch", "policy_gradient_loss(-gains, torch", SURROGATE,
     0.6, 7.0),
    ("the surrogate has its own normalizer", "torch.ones_like(gains), mask, normalizer)",
     "torch.ones_like(gains), mask)", SURROGATE, None, 7.0),
    ("the advantages of a surrogate have a gradient", ".exp(), advantages.detach()", ".exp(), advantages",
     "test_the_clipped_surrogate_leaves_the_critic_alone"),
)

DIAGNOSTIC = of(
    "policy_gradient",
    ("effective sample size as a share",
     "ratios.sum() ** 2 / (ratios**2).sum()", "ratios.mean() ** 2 / (ratios**2).mean()",
     "test_effective_sample_size_lies_between_one_and_all"),
    ("effective sample size upside down",
     "ratios.sum() ** 2 / (ratios**2).sum()", "(ratios**2).sum() / ratios.sum() ** 2 * len(ratios)",
     "test_effective_sample_size_lies_between_one_and_all"),
    ("entropy in half precision", "upcast(logits).log_softmax", "logits.log_softmax", HALVES, BFLOAT16),
    ("KL in half precision", "upcast(each).log_softmax", "each.log_softmax", HALVES, BFLOAT16),
    ("ratios in half precision", "upcast(logprobs.detach()) -", "logprobs.detach() -", HALVES, BFLOAT16),
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
    "grid.mdp",
    ("gamma missing in the values",
     "dtype=torch.float64) - mdp.gamma * inner, rewards", "dtype=torch.float64) - inner, rewards",
     "test_linear_solve_equals_bellman_iteration", 0.9),
    ("gamma on the reward too",
     "return mdp.expected_rewards + mdp", "return mdp.gamma * mdp.expected_rewards + mdp",
     "test_action_values_average_to_the_state_values", 0.9),
    ("transitions transposed", '"sa,sat->st"', '"sa,sat->ts"', "test_linear_solve_equals_bellman_iteration", 1.0),
    ("visits flow backwards",
     "torch.eye(len(inner), dtype=torch.float64) - inner).T, start)",
     "torch.eye(len(inner), dtype=torch.float64) - inner), start)", "test_occupancy_obeys_the_flow_of_visits", 1.0),
    ("values in the wrong order of time",
     "torch.stack(values[::-1])", "torch.stack(values)", "test_horizon_values_count_the_steps_left"),
    ("rewards not weighted by where one lands",
     "(pi * mdp.expected_rewards)", "(pi * mdp.R.mean(-1))", "test_occupancy_times_reward_is_the_objective", 0.9, None),
    ("the time limit is forgotten",
     "probabilities(mdp, policy), horizon), parameters", "probabilities(mdp, policy)), parameters",
     "test_exact_gradient_equals_the_policy_gradient_theorem", 0.9, 3),
    ("the worst action",
     "action_values(mdp, values).max(1)", "action_values(mdp, values).min(1)",
     "test_value_iteration_and_brute_force_agree", 0.9, 0),
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
    ("one tolerance for every precision", "[1e-3, *(128 *", "[1e-3, *(0 *",
     "test_the_tolerance_follows_the_precision_of_the_policy"),
    ("padding found by its value",
     "(torch.arange(length) < lengths[:, None]).to(padded.device)", "padded != value",
     "test_padding_comes_from_lengths"),
    ("the nucleus leaves out the action that crosses it",
     "ordered.cumsum(-1) - ordered >= top_p", "ordered.cumsum(-1) >= top_p",
     "test_sampling_distribution_equals_a_naive_one", 1.0, None, 0.6),
    ("multiplied by the temperature",
     "upcast(logits) / temperature", "upcast(logits) * temperature", "test_sampling_distribution_equals_a_naive_one",
     2.5, None, None),
)

PACKED = "test_packed_and_padded_give_the_same_loss"
CHAT = of(
    "lm.chat",
    ("the mask is not shifted with the actions",
     "zeros, said[:, 1:], done", "zeros, said[:, :-1], done", "test_the_loss_is_the_label_loss_of_transformers",
     "llama_lm"),
    ("the end token is not in the mask",
     "text.rindex(token) + len(token)", "text.rindex(token)",
     "test_the_pocket_template_gives_the_ids_and_mask_of_transformers", "pocket_s"),
    ("the whole conversation is in the mask",
     "False), (response, True)", "True), (response, True)",
     "test_the_pocket_template_gives_the_ids_and_mask_of_transformers", "pocket_s"),
    ("packed examples see each other",
     "{} if segments is None else", "{} if True else", PACKED, "llama_lm"),
    ("packed examples count their positions on",
     "steps - begins.cummax(1).values", "steps.expand(segments.shape)", PACKED, "gpt2_lm"),
    ("the last token of an example is taken for the beginning of the next",
     "[m and i > 0 for e in row", "[m or i == 0 for e in row", "test_a_document_does_not_see_the_one_before_it",
     "llama_lm"),
    ("a row of packed examples is too long", "if left >= size)", "if left > 0)",
     "test_packing_loses_nothing_and_fits"),
    ("a response is encoded alone: one space more",
     'whole[len(head) :] if whole[: len(head)] == head else', 'encode(lm, [text], bos=not head)[0] if True else',
     "test_a_response_has_the_spaces_of_the_template_and_no_more", "normalizer", "LLAMA"),
    ("tokens that have a role are the only control tokens",
     "_check_conversation(conversation, lm.control_tokens)",
     "_check_conversation(conversation, lm.tokenizer.all_special_tokens)",
     "test_a_control_token_is_refused_in_any_message_whether_or_not_it_has_a_role", "<tool>", 0),
) + of(
    "lm.text",
    ("a text that begins with the beginning gets a second one",
     "begun = ([start], [lm.tokenizer.bos_token_id])", "begun = ()", "test_no_text_gets_a_second_beginning", "llama_lm",
     "pocket_s"),
    ("greedy decoding of NaN is the empty text",
     "0 * logits.gather(-1, choices[:, None])[:, 0]", "logits.new_zeros(len(logits))",
     "test_logits_that_are_not_finite_are_an_error", "llama", NAN, slice(None)),
    file="test_text",
) + of(
    "lm.models",
    ("documents begin with the token of the chat template",
     "self.control_tokens.get(END_TOKEN, start) if in_template else start", "start",
     "test_the_document_start_is_not_the_first_token_of_the_chat_template"),
    file="test_text",
) + of(
    "lm.models",
    ("tensors without a place are dropped", "if extra := sorted(", "if extra := False and sorted(",
     "test_biases_that_the_configuration_switches_off_are_refused", "tmp_path", "tiny_folders"),
    ("the generation configuration alone says what ends a text",
     "named = [*configured, self.tokenizer.eos_token_id, self.control_tokens.get(END_TOKEN)]", "named = configured[:1]",
     "test_end_tokens_are_all_that_anything_names", None, [7], "<|endoftext|>", (0, 7)),
    file="test_models",
)

FINETUNING = of(
    "finetuning.sft",
    ("each micro-batch has its own normalizer",
     "normalizer=count)", "normalizer=int(rollout.mask.sum()))",
     "test_cutting_or_packing_a_batch_does_not_change_the_run", "tiny_folders", {"micro_batch": 3}),
    ("no clipping", "bf16), clip_norm, averages(lm))", "bf16))",
     "test_a_step_follows_a_gradient_no_longer_than_the_clip_norm", "fresh"),
    ("early stopping leaves the last weights",
     "    if history.held_out_loss:\n        _copy(best, parameters)\n", "",
     "test_it_stops_when_the_held_out_loss_no_longer_falls_and_keeps_the_best_weights", "fresh"),
    ("the best weights are not in the checkpoint",
     '{"lm": lm, "best": best}', '{"lm": lm}', "test_the_best_weights_survive_a_kill", "tiny_folders", "tmp_path"),
) + of(
    "optimization",
    ("gradients of micro-batches do not add up",
     "        (loss * size() if averaged else loss).backward()\n",
     "        optimizer.zero_grad()\n        (loss * size() if averaged else loss).backward()\n",
     "test_cutting_or_packing_a_batch_does_not_change_the_run", "tiny_folders", {"micro_batch": 3}),
    file="test_sft",
) + of(
    "checkpoints",
    ("a run on another base goes on", "if not t.requires_grad]", "if False]",
     "test_a_checkpoint_of_another_run_is_refused_by_what_differs", "tmp_path", "frozen weights was"),
    ("other data goes on", "fingerprint(thing) for name, thing in", "0 for name, thing in",
     "test_a_checkpoint_of_another_run_is_refused_by_what_differs", "tmp_path", "data was"),
    ("half a file under the name itself",
     "temporary = path.with_name(f\"{path.name}.{uuid4().hex}.tmp\")", "temporary = path",
     "test_dying_while_writing_leaves_the_last_file", "tmp_path", "monkeypatch"),
)

DENSE = "test_logits_and_gradients_are_those_of_the_changed_weights"
INSERTED = of(
    "finetuning.wrappers",
    ("alpha for alpha / r", "return self.alpha / len(self.A)", "return self.alpha", DENSE, "fresh", "llama"),
    ("merged without the scale",
     "delta = factors.scale * (", "delta = (", "test_merged_equals_unmerged_and_unmerging_returns_the_base", "fresh",
     "llama"),
    ("merged into the embedding that the head is tied to",
     "merged, self._own_weight = nn.Parameter(self.merged_weight(), requires_grad=False), [self.base.weight]\n",
     "merged, self._own_weight = self.base.weight, [self.base.weight]\n        merged.data = self.merged_weight()\n",
     "test_merging_a_tied_head_leaves_the_embedding_alone", "fresh"),
    ("the path goes on beside the merged weight",
     "= merged, self.base.forward\n", "= merged, type(self).forward.__get__(self)\n",
     "test_merged_equals_unmerged_and_unmerging_returns_the_base", "fresh", "llama"),
    ("an adapter without its residual path",
     "return y + nn.functional.linear(hidden", "return nn.functional.linear(hidden",
     "test_an_adapter_stands_behind_attention_and_mlp_and_computes_its_equation", "fresh", "llama",
     ("o_proj", "down_proj")),
    file="test_parameter_efficient",
) + of(
    "finetuning.parameter_efficient",
    ("B does not start at zero",
     "zeros((out, rank), weight)", "uniform((out, rank), generator, weight)", "test_factors_start_as_the_paper_says",
     "fresh"),
    ("the base is not frozen",
     "switch_adapter(freeze(model), name)", "switch_adapter(model, name)", "test_several_adapters_share_a_base",
     "fresh"),
    ("factors that are not in use are trained",
     "factors.requires_grad_(other == name)", "factors.requires_grad_(True)", "test_several_adapters_share_a_base",
     "fresh"),
    ("the norm behind the last blocks stays frozen",
     "if \"Norm\" in type(child).__name__)", "if False)", "test_last_k_trains_whole_blocks_and_the_last_norm", "fresh",
     "llama", "layers.1", "norm"),
) + of(
    "finetuning.adapter_files",
    ("A and B change their names",
     "(\".lora_A.weight\", \".lora_B.weight\")", "(\".lora_B.weight\", \".lora_A.weight\")",
     "test_files_go_to_peft_and_back", "fresh", "llama", "tmp_path"),
    ("alpha / r is written for alpha",
     '"lora_alpha": int(first.alpha) if float(first.alpha).is_integer() else first.alpha', '"lora_alpha": first.scale',
     "test_files_go_to_peft_and_back", "fresh", "llama", "tmp_path"),
    ("an adapter of a changed base is accepted",
     '_STARTS if key == "init_lora_weights" else _OFF', '[config[key]] if key == "init_lora_weights" else _OFF',
     "test_an_adapter_that_belongs_to_a_changed_base_is_refused", "fresh", "pissa", "tmp_path"),
    ("the rank of the configuration is not looked at", "if len(A) != rank:", "if False:",
     "test_a_file_that_does_not_fit_says_why", "fresh", "tmp_path", "OTHER_RANK", "has r=4"),
    ("a merged head is written as tied to the embedding", "config.tie_word_embeddings = False", "pass",
     "test_an_exported_model_is_the_model_for_transformers_alone", "fresh", "llama", "head", "tmp_path"),
    ("an export without the adapter", "state[name + \".weight\"] = layer.merged_weight()", "pass",
     "test_an_exported_model_is_the_model_for_transformers_alone", "fresh", "gpt2", "unmerged", "tmp_path"),
    file="test_parameter_efficient",
)

BYTES = of(
    "finetuning.memory",
    ("the optimizer keeps one number a parameter",
     "for value in state.values() if", "for value in list(state.values())[:2] if", "test_bytes_in_closed_form"),
    ("frozen parameters have gradients too",
     "trained = trainable_parameters(model)", "trained = list(model.parameters())", "test_bytes_in_closed_form"),
    ("a storage counts once for each view",
     "saved.setdefault(tensor.untyped_storage()._cdata, tensor)", "saved[len(saved)] = tensor",
     "test_saved_bytes_counts_a_storage_once_and_no_parameter"),
)

RESUMED = "test_whatever_byte_it_was_cut_at_the_file_ends_up_the_same"
INSTRUCTIONS = of(
    "finetuning.synthetic",
    ("keeps what is similar",
     "if pool.holds_similar(", "if not pool.holds_similar(",
     "test_each_filter_takes_what_it_is_for_and_the_table_adds_up", "tmp_path"),
    ("similar only above the threshold",
     "and self._rouge(index, words) >= threshold", "and self._rouge(index, words) > threshold",
     "test_the_pool_keeps_what_all_pairs_keep", 0.8),
    ("the bound is taken for ROUGE-L: the order of words does not count",
     "bound >= threshold and self._rouge(index, words) >= threshold", "bound >= threshold",
     "test_the_pool_keeps_what_all_pairs_keep", 0.8),
    ("a continued run repeats the items it has",
     "made[len(items) - start : count - start]", "made[: count - start]", RESUMED, "tmp_path"),
    ("a continued run has an empty pool",
     "for instruction, _ in seeds), *machine]", "for instruction, _ in seeds)]", RESUMED, "tmp_path"),
    ("a continued run draws anew",
     'random.Random(f"{seed}:{number}")', "random.Random()", RESUMED, "tmp_path"),
    ("nothing keeps a second run away", 'lock.execute("BEGIN EXCLUSIVE")', "pass",
     "test_a_second_run_on_a_file_in_use_is_one_line_and_leaves_it_alone", "tmp_path"),
    ("a broken line is left in the file", "            file.truncate(len(whole))\n", "            pass\n", RESUMED,
     "tmp_path"),
)

BORDER = "test_questions_of_tests_share_neither_words_nor_contents_with_training"
HEDGING = "test_answers_wants_the_value_in_whole_words_and_no_other"
ASSISTANT = of(
    "pocket.assistant",
    ("training draws contents of tests",
     "while relations.is_held_out(task.name, (content := task.draw(rng)).key) != held_out:",
     "while not (content := task.draw(rng)):", BORDER),
    ("tests are asked in the words of training",
     "task.held_out_phrasings if held_out else task.phrasings)", "task.phrasings)", BORDER),
    ("overall is the plain mean over use cases",
     "{name: SHARES[name] / total for name in found}", "{name: 1 / len(found) for name in found}",
     "test_scores_of_some_use_cases_are_weighted_among_them"),
    ("overall has the size of all use cases together",
     "1 / sum(weights[name] ** 2 / found[name].n for name in found)", "sum(found[name].n for name in found)",
     "test_scores_are_weighted_by_the_table"),
    file="test_assistant",
) + of(
    "pocket.verifiers",
    ("who hedges is right",
     " and not any(other in said for other in others()))", ")", HEDGING),
    ("a part of a word is right", 'f" {plain(value)} ", tuple', "plain(value), tuple", HEDGING),
    ("wrong items cost nothing",
     "len(right.intersection(named)) - wrong)", "len(right.intersection(named)))", "test_lists_by_hand"),
    ("a copy of the source earns something",
     "start = max(0.5, likeness(source))", "start = 0.5", "test_approaches_by_hand"),
    file="test_verifiers",
)
TREES = of(
    "lm.shared_prefixes",
    ("a token sees the branches before its own",
     "& (steps[:, None] < self.ends[:, None])", "& (self.ends[:, None] > 0)",
     "test_a_walk_up_a_tree_spells_the_text", 0),
    ("positions count through the row",
     "positions += range(common, len(text))", "positions += range(len(positions), len(tokens))",
     "test_a_walk_up_a_tree_spells_the_text", 0),
    ("one token too many is held to be shared",
     "ends[place] = len(tokens)", "ends[place] = len(tokens) + 1", "test_a_walk_up_a_tree_spells_the_text", 0),
)
LINE = "test_logits_and_gradients_are_the_models_own"
PADDING = of(
    "lm.padding_free",
    ("the last layer looks ahead", "hidden = torch.arange(columns) > cells[:, None] % columns",
     "hidden = torch.arange(columns) > columns + cells[:, None]", LINE, "qwen2"),
    ("a gradient turns on instead of back", "(cosine, sine), (cosine, -sine)", "(cosine, sine), (cosine, sine)",
     LINE, "llama"),
    ("the norm's rate is a constant", "value=-1).mul_(rate)", "value=0).mul_(rate)", LINE, "llama"),
    ("padding has a gradient", ".index_fill_(0, self.holes, 0)", "", LINE, "llama"),
    ("heads are not normed", "found if norm is None else", "found if True else", LINE, "qwen3"),
    ("what stands behind the last position is read", "_until_last(mask)", "torch.ones_like(mask)",
     "test_no_more_is_read_than_the_loss_needs", "llama"),
    ("tokens are where they stand", "if position_ids is None else", "if True else",
     "test_a_mask_and_positions_of_ones_own", "llama"),
    ("all see all that is before them", "attn_mask=asking.bias, is_causal=asking.bias is None",
     "is_causal=query.shape == key.shape", "test_a_mask_and_positions_of_ones_own", "llama"),
)
DPO = "test_dpo_is_the_one_loss_with_its_weights"
APOSTROPHE = "test_an_apostrophe_and_an_accent_are_the_same_however_they_are_written"
WHOLE = "test_an_update_is_the_gradient_of_the_whole_batch_however_it_is_cut"
TEXT = of(
    "policy_gradient",
    ("k3 upside down", "(-k1).expm1() + k1", "k1.expm1() - k1", "test_k1_and_k3_average_to_the_kl_and_k2_does_not"),
    ("the KL of the reference from the policy",
     "0, logprobs - reference)", "0, reference - logprobs)", "test_k1_and_k3_average_to_the_kl_and_k2_does_not"),
    ("group advantages by the biased deviation",
     "(squares / (count - 1).clamp(min=1))", "(squares / count)",
     "test_standardized_groups_have_mean_zero_and_the_unbiased_standard_deviation"),
    ("equal rewards differ by rounding",
     "values - torch.empty_like(values).scatter(0, group, values)[group]", "values",
     "test_a_group_of_equal_values_is_exactly_zero", "FLOAT"),
    ("groups by all but the last token of a prompt",
     "steps <= first", "steps < first", "test_prompt_groups_go_by_what_was_seen_before_the_first_action"),
) + of(
    "rollout",
    ("one of equal rows counts for all", "index_add(0, which", "index_copy(0, which",
     "test_condensing_leaves_the_gradient_as_it_is"),
    ("rows are equal whatever their mask",
     ", rollout.mask.to(rollout.actions.dtype)], 1)", "], 1)", "test_distinct_rows_differ_and_stand_for_all"),
) + of(
    "rl.enumeration",
    ("values forget how much room is left", "seen[acted, : step + 2]", "seen[acted, 1 : step + 2]", EXACT,
     "TD, exact V"),
) + of(
    "rl.text_collection",
    ("every token is paid", "torch.where(steps == last[:, None],", "torch.where(rollout.mask,",
     "test_paying_needs_no_more_than_the_mask"),
) + of(
    "rl.tasks",
    ("a verifier that fails scores 0",
     'raise ValueError(f"the verifier of task {task.name!r} raised {error!r}: {where}") from error', "return 0.0",
     "test_a_verifier_that_raises_is_named_with_prompt_and_completion"),
    ("a reward that is not a number passes",
     "task.low <= reward <= task.high)", "not (reward < task.low or reward > task.high))",
     "test_a_reward_that_is_no_number_in_range_is_one_line", NAN, "nan"),
    ("pass@k of the plugged-in rate",
     "return 1 - math.comb(samples - successes, k) / math.comb(samples, k)",
     "return 1 - (1 - successes / samples) ** k", "test_pass_at_k_is_the_share_of_choices_with_a_success", 4),
    ("GSM8K's number is the last one after the hashes",
     'next(iter(_numbers(end.partition("\\n")[0])), None)', "last_number(end)",
     "test_gsm8k_reads_the_first_number_after_the_last_hashes_on_their_line", "tmp_path",
     "9 * 2 = 18\n#### 18\n\nQuestion: Tom has 5 apples", 1),
    ("GSM8K's first hashes count", 'text.rpartition("####")', 'text.partition("####")',
     "test_gsm8k_reads_the_first_number_after_the_last_hashes_on_their_line", "tmp_path", "#### 5\nNo.\n#### 18", 1),
    ("an accent is one code point or nothing", 'unicodedata.normalize("NFC", text.translate(_TYPED))',
     "text.translate(_TYPED)", APOSTROPHE, "'"),
    ("an apostrophe is the keyboard's or nothing", "text.translate(_TYPED))", "text)", APOSTROPHE, "\u2019"),
) + of(
    "pocket.tasks",
    ("praise is paid as often as it is said", "said.count(sentence) == 1 for", "True for",
     "test_praise_is_not_paid_again_nor_in_pieces"),
    file="test_pocket_tasks",
) + of(
    "optimization",
    ("each piece has its own number of episodes", "piece.mask, normalizer)", "piece.mask, len(part))", WHOLE, 3),
    ("a row's own normalizer divides the batch",
     "weights, normalizer = weights / normalizer, total(len(weights)) / len(weights)",
     "normalizer = normalizer.double().mean()", "test_the_normalizer_says_what_a_token_counts", "sequence mean", None),
    file="test_text_rl",
) + of(
    "rl.training",
    ("distance is rewarded", "rewards=rollout.rewards - given", "rewards=rollout.rewards + given",
     "test_rewards_are_lowered_by_k1_before_they_are_weighed"),
    ("k3 for k1 in the rewards", "beta * kl.k1)", "beta * kl.k3)",
     "test_rewards_are_lowered_by_k1_before_they_are_weighed"),
    ("the adapter stays on for the reference", "with adapter_off(policy):", "if True:",
     "test_the_adapter_switched_off_is_the_reference_without_a_second_copy"),
    ("later epochs go by the old log-probabilities", "        if epoch:", "        if False:",
     "test_several_updates_per_rollout_begin_at_ratio_one"),
    ("the sampler's log-probabilities for the policy's",
     "        weights = weigh(rollout, values, bootstrap, logprobs)\n",
     "        weights = weigh(rollout, values, bootstrap, rollout.logprobs)\n",
     "test_weigh_is_given_what_the_policy_says_now_and_not_what_the_sampler_said", None),
    file="test_text_rl",
)
PREFERENCES = of(
    "rl.preferences",
    ("labels are never wrong", ") ^ wrong", ")", "test_labels_are_wrong_as_often_as_stated_and_by_the_seed"),
    ("a tie is a pair", "rewards[first] != rewards[second]", "rewards[first] == rewards[first]",
     "test_all_pairs_of_a_prompt_are_labelled_by_the_verifier"),
    ("pairs across prompts", "(groups[:, None] == groups)", "(groups[:, None] == groups[:, None])",
     "test_all_pairs_of_a_prompt_are_labelled_by_the_verifier"),
    ("the reward is read one token early", "last = rollout.mask.shape[1] -", "last = rollout.mask.shape[1] - 1 -",
     "test_the_reward_is_read_at_the_last_token"),
    ("the chosen lose",
     "logsigmoid(rewards[chosen] - rewards[rejected])", "logsigmoid(rewards[rejected] - rewards[chosen])",
     "test_a_head_on_fixed_features_is_logistic_regression"),
    ("the reference is forgotten",
     "torch.where(mask, logprobs - reference_logprobs, 0)", "torch.where(mask, logprobs, 0)", DPO, 1.0),
    ("settled pairs push the most", "torch.sigmoid(rewards[rejected] - rewards[chosen])",
     "torch.sigmoid(rewards[chosen] - rewards[rejected])", DPO, 1.0),
    ("beta in the margin alone", "push = beta * torch.sigmoid", "push = torch.sigmoid", DPO, 0.1),
    ("a row counts for its last pair only", "index_add(0, chosen, push)", "index_copy(0, chosen, push)", DPO, 1.0),
    ("beta multiplies the reward",
     "rewards / beta)", "rewards * beta)", "test_the_closed_form_has_the_highest_objective"),
    ("the best of n - 1", "up_to**n - (up_to - mass).clamp(min=0) ** n", "up_to ** (n - 1) - (up_to - mass) ** (n - 1)",
     "test_the_best_of_n_against_all_draws", 3, False),
)
# fmt: on

MUTANTS = LOSS + RETURNS + RECURSION + BASELINE + RATIO + DIAGNOSTIC + WORLD + RECORD
MUTANTS += CHAT + FINETUNING + INSERTED + BYTES + INSTRUCTIONS + ASSISTANT + TEXT + TREES + PADDING
MUTANTS += PREFERENCES


def run_with_copy(monkeypatch, request, mutant, *, edited):
    """Call the named test with a copy of the module in place of the original, wherever it has been imported."""
    original = importlib.import_module(f"ptlearn.{mutant.module}")
    source = inspect.getsource(original)
    copy = types.ModuleType(original.__name__)
    copy.__file__ = original.__file__
    exec(compile(source.replace(mutant.old, mutant.new) if edited else source, mutant.mistake, "exec"), vars(copy))
    tests = importlib.import_module(mutant.file)
    ours = [module for name, module in sys.modules.items() if name.startswith("ptlearn.") and module is not original]
    for user in (tests, *ours):
        for name, value in list(vars(user).items()):
            if value is original:
                monkeypatch.setattr(user, name, copy)
            elif getattr(value, "__module__", None) == original.__name__ and hasattr(value, "__name__"):
                monkeypatch.setattr(user, name, getattr(copy, value.__name__))
    arguments = [named(tests, request, argument) for argument in mutant.arguments]
    getattr(tests, mutant.test)(*arguments)


def named(tests, request, argument):
    """What a word stands for: a fixture, or a weight function, so that its calls reach the copy in the test file."""
    if argument in FIXTURES:
        return request.getfixturevalue(argument)
    return getattr(tests, argument) if isinstance(argument, str) and hasattr(tests, argument) else argument


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.mistake for mutant in MUTANTS])
def test_a_mutant_turns_its_test_red(monkeypatch, request, mutant):
    source = inspect.getsource(importlib.import_module(f"ptlearn.{mutant.module}"))
    assert source.count(mutant.old) == 1, f"expected once in {mutant.module}.py: {mutant.old!r}"
    with pytest.raises((AssertionError, ValueError, pytest.fail.Exception)):
        run_with_copy(monkeypatch, request, mutant, edited=True)


GREEN = {f"{mutant.module}-{mutant.test}-{mutant.arguments}": mutant for mutant in MUTANTS}


@pytest.mark.parametrize("mutant", GREEN.values(), ids=GREEN)
def test_an_unchanged_copy_leaves_it_green(monkeypatch, request, mutant):
    run_with_copy(monkeypatch, request, mutant, edited=False)
