"""A signature holds what an answer takes and returns, with words."""

import dataclasses
import functools

import pytest
import torch

from ptlearn.course.contract import Call, Type, parse, violation, watched

WEIGHTS = "weights(rewards: float[B T], mask: bool[B T], gamma: number) -> float[B T]"
B, T = 2, 3


def told(answer, signature, *arguments, **options):
    """What the contract says of an answer's call, the right one returning whatever it likes."""
    signature, notes, calls = parse(signature), [], []
    watched(answer, signature, notes, calls)(*arguments, **options)
    return violation(signature, notes[0], calls[0])


def weights(change):
    """The verdict on a function of (rewards, mask)."""
    mask = torch.ones(B, T, dtype=torch.bool)
    return told(lambda rewards, mask, gamma: change(rewards, mask), WEIGHTS, torch.rand(B, T), mask, gamma=0.5)


def test_a_signature_is_read():
    signature = parse("f(x: float[B T+1], n: int, words: list of str) -> (number, {loss: float[], ids: int[...]})")
    assert [name for name, _ in signature.takes] == ["x", "n", "words"]
    assert signature.takes[0][1] == Type("float", ("B", "T+1"))
    assert signature.takes[2][1] == Type("list", parts=(("", Type("str")),))
    assert signature.returns.kind == "pair" and signature.returns.parts[1][1].parts[1] == ("ids", Type("int", ("...",)))
    assert parse("f(x: float[B], y: float[B]) -> float[] with gradient of x, y").gradient == ("x", "y")
    assert parse("f(x: float[B]) -> float[B] without gradient of x").detached == ("x",)


@pytest.mark.parametrize("text", ["f(x)", "f(x: tensor[B]) -> wrong", "f(x: float[B])", "f(x: float[B]) => number"])
def test_a_signature_that_cannot_be_read_is_an_error_of_the_course(text):
    with pytest.raises((ValueError, IndexError), match="signature|list index"):
        parse(text)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rewards, mask: rewards * mask, None),
        (lambda rewards, mask: (rewards * mask).double(), None),
        (lambda rewards, mask: rewards.tolist(), "is a list, expected a tensor of floats of shape (B, T) = (2, 3)"),
        (lambda rewards, mask: rewards.numpy(), "is an array, expected a tensor"),
        (lambda rewards, mask: mask, "a tensor of bools, expected a tensor of floats"),
        (lambda rewards, mask: rewards.long(), "a tensor of ints, expected a tensor of floats"),
        (lambda rewards, mask: rewards.sum(1), "has shape (2,), expected a tensor of floats of shape (B, T) = (2, 3)"),
        (lambda rewards, mask: rewards[None], "has shape (1, 2, 3)"),
        (lambda rewards, mask: (rewards, mask), "is a tuple, expected a tensor"),
        (lambda rewards, mask: None, "is None: is a return missing?"),
        (lambda rewards, mask: rewards.mul_(mask), None),  # multiplied by 1: nothing has changed
        (lambda rewards, mask: rewards.mul_(2), "rewards was changed in place"),
        (lambda rewards, mask: mask.logical_not_() * rewards, "mask was changed in place"),
        (lambda rewards, mask: rewards.resize_(1, 1) * torch.ones(B, T), "rewards was changed in place"),
    ],
)
def test_a_tensor_is_held_to_its_kind_and_shape_and_arguments_to_what_they_were(change, words):
    found = weights(change)
    assert found is None if words is None else words in found


@pytest.mark.parametrize(
    ("kind", "value", "fits"),
    [
        ("number", 1.5, True), ("number", 2, True), ("number", torch.tensor(1.0), True), ("number", True, False),
        ("number", torch.ones(1), False), ("number", "1", False), ("number", [1.0], False),
        ("int", 3, True), ("int", 3.0, False), ("int", torch.tensor(3), True),
        ("bool", True, True), ("bool", 1, False), ("bool", torch.tensor(True), True),
        ("str", "a", True), ("str", ["a"], False), ("list", (1, 2), True), ("list", "ab", False),
        ("list of number", [1, 2.0], True), ("list of number", [1, "2"], False), ("list of str", [], True),
        ("(number, str)", (1, "a"), True), ("(number, str)", [1, "a"], True), ("(number, str)", (1,), False),
        ("{loss: number}", {"loss": 1.0}, True), ("{loss: number}", {"los": 1.0}, False),
        ("{loss: number}", {"loss": 1.0, "more": 2}, False), ("any", None, True), ("float[]", 1.0, False),
        ("float[]", torch.tensor(1.0), True), ("int[2]", torch.arange(2), True), ("int[2]", torch.arange(3), False),
        ("float[...]", torch.rand(2, 2), True),
    ],
)  # fmt: skip
def test_every_kind_of_result(kind, value, fits):
    found = told(lambda x: value, f"f(x: number) -> {kind}", 1)
    assert (found is None) == fits


def test_lists_and_dicts_that_are_changed_are_named():
    signature = "f(items: list, table: dict) -> int"
    assert told(lambda items, table: len(items), signature, [3, 1], {"a": [1]}) is None
    assert told(lambda items, table: items.sort() or 1, signature, [3, 1], {}).startswith("items was changed")
    assert told(lambda items, table: table["a"].pop(), signature, [3], {"a": [1]}).startswith("table was changed")
    assert told(lambda items, table: items.clear() or 1, signature, [3], {}).startswith("items was changed")


@dataclasses.dataclass(frozen=True)
class World:
    walls: list

    @functools.cached_property
    def free(self):
        return 16 - len(self.walls)


def test_what_an_object_works_out_and_keeps_is_no_change_of_it():
    signature, world = "f(world: any) -> any", World([3, 5])
    assert told(lambda world: world.free, signature, world) is None and "free" in vars(world)
    assert told(lambda world: world.free, signature, world) is None  # nor where it was kept before
    assert told(lambda world: world.walls.pop(), signature, world).startswith("world was changed")


def test_a_gradient_is_collected_as_numbers():
    signature, notes, logprobs = parse("f(x: float[T], y: float[T]) -> float[] with gradient of x"), [], torch.rand(4)
    call = Call({"x": logprobs, "y": logprobs}, (), None)
    watched(lambda x, y: 3 * x.sum() + y.sum(), signature, notes)(logprobs, logprobs)
    assert notes[0]["gradient"] == {"x": [3.0] * 4} and violation(signature, notes[0], call) is None
    watched(lambda x, y: 3 * x.detach().sum() + y.sum(), signature, notes)(logprobs, logprobs)
    assert "no gradient reaches x" in violation(signature, notes[1], call)
    watched(lambda x, y: float(x.sum()), signature, notes)(logprobs, logprobs)
    assert "only a tensor carries a gradient of x" in violation(signature, notes[2], call)
    assert not logprobs.requires_grad


def test_weights_that_carry_a_gradient_are_refused():
    signature = "f(x: float[T]) -> float[T] without gradient of x"
    assert "detach" in told(lambda x: 2 * x, signature, torch.rand(3))
    assert told(lambda x: 2 * x.detach(), signature, torch.rand(3)) is None


def test_sizes_come_from_the_arguments():
    signature = "f(x: float[B T], k: int) -> float[T-1 k]"
    assert told(lambda x, k: torch.rand(4, 3), signature, torch.rand(2, 5), 3) is None
    assert "(T-1, k) = (4, 3)" in told(lambda x, k: torch.rand(5, 3), signature, torch.rand(2, 5), 3)
