"""What goes wrong in any function, done to the right answer of every exercise: none of it may pass.

A mutant wraps the package's answer. One that changes nothing for an exercise (a sign of a string) is left out by
`Unfit`; one that rightly passes is named in `SURVIVORS`, with the reason.
"""

import copy

import pytest
import torch
from test_exercises import EXERCISES

from ptlearn.course.exercise import cases_of, judge, observe

SEED = 5  # other cases than those of the answers that are known to be wrong
SURVIVORS = {
    ("3.3", "a list for a tensor"): "the statement leaves it open, and the cells that follow take both",
    ("0.4", "one too many"): "logits that differ by a constant are the same distribution",
    ("0.4", "one too few"): "logits that differ by a constant are the same distribution",
}


class Unfit(Exception):
    """A mutant that does nothing to this answer."""


def first(values, kind):
    """The place of the first argument of a kind."""
    found = [place for place, value in enumerate(values) if isinstance(value, kind)]
    if not found:
        raise Unfit
    return found[0]


def deep(change):
    """A change of each number or tensor of a result, whatever holds them."""

    def apply(result):
        if isinstance(result, dict | list | tuple) and not result:
            raise Unfit
        if isinstance(result, dict):
            return {key: apply(value) for key, value in result.items()}
        if isinstance(result, list | tuple):
            return type(result)(map(apply, result))
        return change(result)

    return apply


def number(change):
    """A change of numbers alone: of real ones, or of whole ones."""

    def apply(x):
        if torch.is_tensor(x) and x.dtype == torch.bool or isinstance(x, bool):
            return ~x if torch.is_tensor(x) else not x
        if torch.is_tensor(x) or isinstance(x, int | float):
            return change(x)
        raise Unfit

    return deep(apply)


def tensor(change):
    """A change of tensors with axes."""

    def apply(x):
        if not torch.is_tensor(x) or x.ndim == 0:
            raise Unfit
        return change(x)

    return deep(apply)


def in_place(kind, change):
    """The right answer, given by a function that also changes one of its arguments."""

    def mutant(answer, *values, **options):
        place = first(values, kind)
        result = answer(*copy.deepcopy(values), **options)
        change(values[place])
        return result

    return mutant


def result(change):
    """Another result than the right one."""
    return lambda answer, *values, **options: change(answer(*values, **options))


def cut(x):
    if not torch.is_tensor(x) or not x.requires_grad:
        raise Unfit
    return x.detach()


def attached(answer, *values, **options):
    """Weights that are not detached from what they were made of."""
    place = first(values, torch.Tensor)
    result = answer(*values, **options)
    if not torch.is_tensor(result) or result.requires_grad or not values[place].requires_grad:
        raise Unfit
    return result + 0 * values[place].sum()


def as_float(x):
    if not torch.is_tensor(x) or x.is_floating_point():
        raise Unfit
    return x.float()


def as_list(x):
    if not torch.is_tensor(x) or x.ndim == 0:
        raise Unfit
    return x.tolist()


MUTANTS = {
    "a tensor changed in place": in_place(torch.Tensor, lambda x: x.data.mul_(0) if x.any() else x.data.add_(1)),
    "a list changed in place": in_place(list, lambda x: x.append(x[0] if x else 0)),
    "a list emptied": in_place(list, lambda x: x.clear() if x else x.append(0)),
    "a dict changed in place": in_place(dict, lambda x: x.update({"more": 1})),
    "one too many": result(number(lambda x: x + 1)),
    "one too few": result(number(lambda x: x - 1)),
    "the sign turned": result(number(lambda x: -x if bool(torch.as_tensor(x).any()) else x + 1)),
    "doubled": result(number(lambda x: 2 * x if bool(torch.as_tensor(x).any()) else x + 1)),
    "the axes exchanged": result(tensor(lambda x: x.transpose(-1, -2) if x.ndim > 1 else x[None])),
    "an axis too many": result(tensor(lambda x: x[None])),
    "summed over the first axis": result(tensor(lambda x: x.double().sum(0))),
    "averaged over the last axis": result(tensor(lambda x: x.double().mean(-1))),
    "a list for a tensor": result(deep(as_list)),
    "floats for whole numbers or truth values": result(deep(as_float)),
    "no gradient": result(cut),
    "a gradient where none should be": attached,
    "nothing returned": lambda answer, *values, **options: None,
    "the first argument returned": lambda answer, *values, **options: values[0],
    "a string returned": lambda answer, *values, **options: "42",
}


def mutated(answer, mutant):
    """The mutant of an answer, and whether it was ever fit."""
    fit = []

    def changed(*values, **options):
        given = []

        def kept(*values, **options):
            given.append(answer(*values, **options))
            return given[0]

        try:
            returned = mutant(kept, *values, **options)
        except Unfit:
            return given[0] if given else answer(*values, **options)
        fit.append(True)
        return returned

    return changed, fit


# a contest has no one right answer to be spoiled: whatever is an answer earns the points of its score
FUNCTIONS = [number for number, known in EXERCISES.items() if callable(known.reference) and not known.score]


@pytest.mark.parametrize("number", FUNCTIONS)
def test_no_generic_mutant_passes(number):
    known, passed = EXERCISES[number], []
    for name, mutant in MUTANTS.items():
        answer, fit = mutated(known.reference, mutant)
        if judge(known, answer, SEED).status == "PASS" and fit:
            passed.append(name)
    assert [name for name in passed if (number, name) not in SURVIVORS] == []


def test_every_mutant_is_fit_for_some_exercise_and_every_survivor_survives():
    for name, mutant in MUTANTS.items():
        fits = []
        for number in FUNCTIONS:
            answer, fit = mutated(EXERCISES[number].reference, mutant)
            for case in cases_of(EXERCISES[number], SEED):
                observe(EXERCISES[number], answer, case)
            fits += fit
            if fits:
                break
        assert fits, name
    for (number, name), reason in SURVIVORS.items():
        answer, fit = mutated(EXERCISES[number].reference, MUTANTS[name])
        assert reason and judge(EXERCISES[number], answer).status == "PASS" and fit
