"""The record and the scorer, against probabilities worked out by hand or by a naive loop."""

import dataclasses
import math

import pytest
import torch

from ptlearn.policy_gradient import policy_gradient_loss
from ptlearn.rollout import (
    Rollout,
    action_logprobs,
    behavior_tolerance,
    check_behavior,
    check_logprobs,
    condense,
    distinct_rows,
    pad_and_stack,
    sampling_logprobs,
    take_rows,
)

STATES, ACTIONS = 5, 4
GENERATOR = torch.Generator().manual_seed(0)
TABLE = torch.randn(STATES, ACTIONS, generator=GENERATOR)


def table_policy(observations):
    return TABLE[observations]


def rollout(**changes):
    """Three rows of four steps with hand-made log-probabilities of the table policy."""
    generator = torch.Generator().manual_seed(1)
    observations = torch.randint(STATES, (3, 4), generator=generator)
    actions = torch.randint(ACTIONS, (3, 4), generator=generator)
    probabilities = TABLE.exp() / TABLE.exp().sum(-1, keepdim=True)
    fields = {
        "observations": observations,
        "actions": actions,
        "rewards": torch.zeros(3, 4),
        "logprobs": probabilities[observations, actions].log(),
        "mask": torch.tensor([[0, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]]).bool(),
        "terminated": torch.tensor([True, False, True]),
    }
    return Rollout(**(fields | changes))


WRONG = {
    "observations": (torch.zeros(3, 4), "observations has dtype torch.float32: expected int"),
    "actions": (torch.zeros(3, 5).long(), r"actions has shape \(3, 5\): expected \(3, 4\)"),
    "rewards": (torch.zeros(3, 4).long(), "rewards has dtype torch.int64: expected float"),
    "logprobs": (torch.zeros(3), r"logprobs has shape \(3,\): expected \(3, 4\)"),
    "mask": (torch.ones(3, 4), "mask has dtype torch.float32: expected bool"),
    "terminated": (torch.zeros(3, 4).bool(), r"terminated has shape \(3, 4\): expected \(3,\)"),
}


@pytest.mark.parametrize("field", WRONG)
def test_a_wrong_field_is_named(field):
    value, message = WRONG[field]
    with pytest.raises(ValueError, match=message) as error:
        rollout(**{field: value})
    assert "\n" not in str(error.value)


def test_wrong_kinds_of_fields_are_named():
    with pytest.raises(ValueError, match="mask is a list: expected a bool tensor"):
        rollout(mask=[[True]])
    with pytest.raises(ValueError, match="observations is a list: expected a int tensor"):
        rollout(observations=[[1]])
    with pytest.raises(ValueError, match="logprobs has dtype torch.complex64: expected float"):
        rollout(logprobs=torch.zeros(3, 4, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"observations has shape \(3,\): expected \(B, T\)"):
        rollout(observations=torch.zeros(3).long())


def test_a_rollout_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        rollout().rewards = torch.ones(3, 4)


def test_padding_comes_from_lengths():
    padded, mask = pad_and_stack([torch.tensor([7, 0]), torch.tensor([0]), [1, 2, 3]], value=0)
    assert padded.tolist() == [[7, 0, 0], [0, 0, 0], [1, 2, 3]]
    assert mask.tolist() == [[True, True, False], [True, False, False], [True, True, True]]
    padded, mask = pad_and_stack([[0.5], []], length=2, value=-1)
    assert padded.tolist() == [[0.5, -1.0], [-1.0, -1.0]] and mask.sum() == 1


def test_stacking_keeps_what_every_sequence_holds():
    assert pad_and_stack([[0, 1], [0.5]])[0].tolist() == [[0.0, 1.0], [0.5, 0.0]]
    assert pad_and_stack([torch.tensor([1, 2]), torch.tensor([0.7], dtype=torch.float64)])[0][1, 0] == 0.7
    assert pad_and_stack([[], [True]])[0].dtype == torch.bool
    assert pad_and_stack([[1.5], []], value=math.nan)[0].isnan()[1, 0]
    for sequences, value in (([[1, 2], [3]], 0.5), ([[True, True], [True]], -1)):
        with pytest.raises(ValueError, match=f"^value={value}: expected one that torch.* holds, as the sequences do$"):
            pad_and_stack(sequences, value=value)


def test_sequences_that_cannot_be_stacked_are_refused():
    with pytest.raises(ValueError, match="sequences is empty"):
        pad_and_stack([])
    with pytest.raises(ValueError, match=r"sequences\[1\] has 3 elements: expected at most length=2"):
        pad_and_stack([[1], [1, 2, 3]], length=2)
    with pytest.raises(ValueError, match=r"sequences\[0\] has shape \(1, 2\)"):
        pad_and_stack([[[1, 2]]])


def naive_truncation(logits, temperature, top_k, top_p):
    """One row of probabilities, in plain Python: sort, cut, cut again, renormalise."""
    weights = {index: math.exp(value / temperature) for index, value in enumerate(logits)}
    ranked = sorted(weights, key=weights.get, reverse=True)[: top_k or len(weights)]
    kept, mass, total = [], 0.0, sum(weights[index] for index in ranked)
    for index in ranked:
        if mass >= (top_p or 1.0) * total and kept:
            break
        kept.append(index)
        mass += weights[index]
    return [weights[index] / mass if index in kept else 0.0 for index in range(len(logits))]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize(("top_k", "top_p"), [(None, None), (1, None), (3, None), (99, None), (None, 0.6), (5, 0.8)])
def test_sampling_distribution_equals_a_naive_one(temperature, top_k, top_p):
    logits = torch.randn(20, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 2
    probabilities = sampling_logprobs(logits, temperature, top_k, top_p).exp()
    expected = torch.tensor([naive_truncation(row, temperature, top_k, top_p) for row in logits.tolist()])
    torch.testing.assert_close(probabilities, expected.double(), atol=1e-6, rtol=0)


def test_half_precision_is_scored_in_full():
    logits = torch.randn(6, 4000, generator=GENERATOR).bfloat16()
    logprobs = sampling_logprobs(logits)
    assert logprobs.dtype == torch.float32
    torch.testing.assert_close(logprobs.exp().sum(-1), torch.ones(6), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "bad",
    [{"temperature": 0}, {"temperature": -1}, {"temperature": math.nan}, {"top_k": 0}, {"top_p": 0}, {"top_p": 1.5}],
)
def test_bad_sampling_arguments_are_named(bad):
    ((name, value),) = bad.items()
    for call in (lambda: sampling_logprobs(TABLE, **bad), lambda: action_logprobs(table_policy, rollout(), **bad)):
        with pytest.raises(ValueError, match=f"{name}={value}: expected"):
            call()


def test_action_logprobs_are_zero_off_the_mask_and_right_on_it():
    record = rollout()
    scores = action_logprobs(table_policy, record)
    torch.testing.assert_close(scores, record.logprobs * record.mask)
    truncated = action_logprobs(table_policy, record, temperature=0.5, top_k=ACTIONS, top_p=1.0)
    torch.testing.assert_close(truncated, action_logprobs(table_policy, record, temperature=0.5))


def test_gradient_is_finite_where_truncation_rules_actions_out():
    table = TABLE.clone().requires_grad_()
    record = rollout()
    scores = action_logprobs(lambda observations: table[observations], record, top_k=2)
    assert scores.isinf().any()
    scores.where(scores.isfinite(), torch.zeros(())).sum().backward()
    assert table.grad.isfinite().all() and table.grad.abs().sum() > 0


def test_logits_for_too_few_actions_are_refused():
    zeros = torch.zeros(1, 2)
    rollout = Rollout(zeros.long(), torch.tensor([[0, 3]]), zeros, zeros, zeros == 0, torch.tensor([True]))
    with pytest.raises(ValueError, match="policy returned logits for 2 actions: the rollout has action 3"):
        action_logprobs(lambda observations: torch.zeros(*observations.shape, 2), rollout)


def test_logits_of_the_wrong_shape_are_refused():
    with pytest.raises(ValueError, match=r"policy returned shape \(3, 4\): expected \(3, 4, 'A'\)"):
        action_logprobs(lambda observations: observations.float(), rollout())


def test_check_behavior_accepts_the_policy_that_acted():
    assert check_behavior(table_policy, rollout()) < 1e-6


def shifted(record):
    return dataclasses.replace(record, actions=record.actions.roll(1, dims=1))


@pytest.mark.parametrize(
    ("policy", "change"),
    [
        (table_policy, shifted),
        (lambda observations: TABLE[observations] / 1.1, lambda record: record),
        (lambda observations: torch.dropout(TABLE[observations], 0.1, True), lambda record: record),
        (lambda observations: TABLE[observations] * math.nan, lambda record: record),
    ],
    ids=["shift", "temperature", "dropout", "nan"],
)
def test_check_behavior_refuses(policy, change):
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="logprobs are off by up to"):
        check_behavior(policy, change(rollout()))


def test_check_behavior_says_where():
    record = rollout()
    wrong = record.logprobs.clone()
    wrong[1, 1] -= 0.5
    wrong[2, 2] -= 9.0  # not a taken action
    with pytest.raises(ValueError, match="up to 0.5 nats, .* at row 1, step 1 recorded"):
        check_behavior(table_policy, dataclasses.replace(record, logprobs=wrong))


class Halved(torch.nn.Module):
    """The table policy with its logits off by half a nat, held in some precision."""

    def __init__(self, dtype):
        super().__init__()
        self.table = torch.nn.Parameter(TABLE.index_add(1, torch.tensor([0]), torch.full((STATES, 1), 0.5)).to(dtype))
        self.small = torch.nn.Parameter(torch.zeros(1))  # such as LoRA's factors, in float32
        self.count = torch.nn.Parameter(torch.zeros(1, dtype=torch.long), requires_grad=False)

    def forward(self, observations):
        return self.table[observations]


def test_the_tolerance_follows_the_precision_of_the_policy():
    """bfloat16 has 7 bits after the first, float16 has 10: with 128 = 2^7 roundings 1 nat, and 1/8."""
    tolerances = {torch.bfloat16: 1.0, torch.float16: 0.125, torch.float32: 1e-3, torch.float64: 1e-3}
    assert {dtype: behavior_tolerance(Halved(dtype)) for dtype in tolerances} == tolerances
    assert behavior_tolerance(table_policy) == behavior_tolerance(torch.nn.Module()) == 1e-3
    assert 0.1 < check_behavior(Halved(torch.bfloat16), rollout()) < 1
    for dtype, atol in ((torch.bfloat16, 0.1), (torch.float16, None), (torch.float32, None)):
        with pytest.raises(ValueError, match="expected at most atol=0.1|0.125|0.001.*an atol below its precision"):
            check_behavior(Halved(dtype), rollout(), atol=atol)
    with pytest.raises(ValueError, match="logprobs are off"):  # in bfloat16 too, a shift is seen
        check_behavior(Halved(torch.bfloat16), shifted(rollout()))
    recomputed = action_logprobs(Halved(torch.bfloat16), rollout())
    assert check_logprobs(recomputed, rollout(), 1.0) == check_behavior(Halved(torch.bfloat16), rollout())


# ---------------------------------------------------------------- fewer rows


def repetitive(rows=40, steps=6, seed=5):
    """A record with many equal rows and ragged ends, and a table of float64 as its policy."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randint(0, 2, (rows, 3), generator=generator)
    lengths = 1 + kinds.sum(1) % 3
    mask = (torch.arange(steps) >= 1) & (torch.arange(steps) <= lengths[:, None])
    observations = torch.zeros(rows, steps, dtype=torch.long)
    observations[:, 1:4] = kinds
    actions = torch.where(mask, observations.roll(-1, 1), 0)
    zeros = torch.zeros(rows, steps, dtype=torch.float64)
    weights = torch.randn(rows, steps, generator=generator, dtype=torch.float64)
    weights[::3] = 0
    return Rollout(observations, actions, zeros, zeros, mask, torch.ones(rows, dtype=torch.bool)), weights


class Remembering(torch.nn.Module):
    """Logits that depend on everything before, in float64."""

    def __init__(self, narrow):
        super().__init__()
        self.table = torch.nn.Parameter(torch.randn(64, 2, generator=torch.Generator().manual_seed(9)).double())
        if narrow:
            self.logits_at = lambda observations, mask: self.forward(observations)[mask]

    def forward(self, observations):
        powers = 2 ** torch.arange(observations.shape[1])
        return self.table[(observations * powers).cumsum(1)]


def loss_gradient(policy, record, weights):
    loss = policy_gradient_loss(action_logprobs(policy, record), weights, record.mask, normalizer=40)
    return torch.autograd.grad(loss, policy.table)[0]


def test_condensing_leaves_the_gradient_as_it_is():
    record, weights = repetitive()
    policy = Remembering(narrow=False)
    whole = loss_gradient(policy, record, weights)
    lean, summed = condense(record, weights)
    torch.testing.assert_close(loss_gradient(policy, lean, summed), whole, atol=1e-15, rtol=0)
    assert whole.abs().max() > 0.05
    assert len(summed) == len({tuple(row) for row in torch.cat([record.observations, record.mask], 1).tolist()})
    assert lean.mask.shape[1] == 4 and torch.equal(lean.mask, summed != 0)
    # an error in the weights is seen, of rows that are equal too
    wrong = summed.clone()
    wrong[0, -1] += 0.01
    wrong[0] += 0.01
    assert (loss_gradient(policy, lean, torch.where(lean.mask, wrong, 0)) - whole).abs().max() > 1e-6


def test_rows_and_steps_of_weight_zero_leave():
    record, weights = repetitive()
    lean, summed = condense(record, torch.where(record.observations[:, 1:2] == 1, weights, 0.0))
    assert (lean.observations[:, 1] == 1).all() and len(summed) < len(condense(record, weights)[1])
    cancelling = torch.zeros_like(weights)
    equal = (distinct_rows(record)[1] == 0).nonzero()[:2, 0]
    cancelling[equal[0]], cancelling[equal[1]] = 1.0, -1.0
    lean, summed = condense(record, cancelling)
    assert lean.mask.shape == (1, 1) and not lean.mask.any()  # one row stays: a gradient of 0, not none
    assert loss_gradient(Remembering(narrow=True), lean, summed).abs().max() == 0


def test_distinct_rows_differ_and_stand_for_all():
    record, _ = repetitive()
    rows, which = distinct_rows(record)
    for name in ("observations", "actions", "mask"):
        assert torch.equal(getattr(record, name)[rows][which], getattr(record, name))
    assert [int((which == kind).nonzero()[0, 0]) for kind in range(len(rows))] == rows.tolist()
    other = dataclasses.replace(record, mask=record.mask & (torch.arange(40) != 7)[:, None])
    assert len(distinct_rows(other)[0]) == len(rows) + 1


def test_taking_rows_cuts_what_is_behind_the_last_action():
    record, _ = repetitive()
    rows = torch.tensor([5, 2, 5])
    taken = take_rows(record, rows)
    length = int(record.mask[rows].sum(1).max()) + 1
    assert taken.mask.shape == (3, length) and torch.equal(taken.observations, record.observations[rows, :length])
    assert taken.terminated.shape == (3,)


def test_a_policy_may_answer_for_the_masked_steps_alone():
    record, _ = repetitive()
    wide, narrow = Remembering(narrow=False), Remembering(narrow=True)
    for options in ({}, {"temperature": 0.7}, {"top_k": 1}):
        one, other = (action_logprobs(policy, record, **options) for policy in (wide, narrow))
        assert torch.equal(one, other)
    recorded = dataclasses.replace(record, logprobs=action_logprobs(narrow, record).detach())
    assert check_behavior(narrow, recorded) == 0
    with pytest.raises(ValueError, match="logprobs are off"):
        check_behavior(narrow, recorded, temperature=0.7)
    beyond = dataclasses.replace(record, actions=record.actions + 2)
    with pytest.raises(ValueError, match="policy returned logits for 2 actions: the rollout has action"):
        action_logprobs(narrow, beyond)
