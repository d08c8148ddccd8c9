"""The universal table: what comes out when the right answer is changed in one of the usual ways.

`results` has changes of what is returned, `inputs` changes of what is taken. Each is a pair of words, which complete
"this is the right result …", and a function. All work on float64 tensors or on plain values.
"""

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch

FACTORS = {
    1 / math.log(2): "in bits: divided by ln 2",
    math.log(2): "times ln 2, as if it had been in bits",
    1 / math.log(10): "with logarithms to base 10",
    100.0: "times 100, as a percentage",
    0.01: "divided by 100, as if it had been a percentage",
    1.96: "times 1.96",
    1e-3: "divided by 1,000",
    1e-6: "divided by 10^6",
    1e-9: "divided by 10^9",
    1 / 1024: "divided by 1,024",
    1 / 1024**2: "divided by 1,024^2",
    1 / 1024**3: "divided by 1,024^3",
    8.0: "times 8, bits for bytes",
    1 / 8: "divided by 8, bytes for bits",
    2.0: "twice as large",
    0.5: "half as large",
}
AXES = {
    "B": "rows", "T": "steps", "V": "the vocabulary", "S": "states", "A": "actions", "N": "items", "C": "classes",
    "P": "parameters", "K": "estimates", "D": "the width", "r": "the rank",
}  # fmt: skip
Change = tuple[str, Callable]


def axis_name(axes: tuple[str, ...] | None, place: int, count: int) -> str:
    """An axis in words: by its letter in the signature where that is known."""
    if axes and len(axes) == count and "..." not in axes:
        return AXES.get(axes[place], axes[place])
    return "the last axis" if place == count - 1 else "the first axis" if place == 0 else f"axis {place}"


# ---------------------------------------------------------------- what is returned


def results(value: torch.Tensor, axes: tuple[str, ...] | None = None) -> Iterator[Change]:
    """Changes of a result that keep or lose axes."""
    yield from entrywise()
    names = [axis_name(axes, place, value.ndim) for place in range(value.ndim)]
    for place, name in enumerate(names):
        if value.shape[place] > 1:
            yield from along(place, name)
    for place, name in enumerate(names):
        yield from reduced(place, name)
    if value.ndim > 1 or value.numel() > 1:
        yield from overall()
    if value.ndim == 2:
        yield "with rows and columns exchanged", lambda x: x.T
    yield "with an axis of size 1 in front", lambda x: x.unsqueeze(0)
    yield "with an axis of size 1 behind", lambda x: x.unsqueeze(-1)
    yield "flattened", lambda x: x.flatten()


def entrywise() -> Iterator[Change]:
    """Changes of each number on its own."""
    yield "with its sign dropped", torch.abs
    yield "as a logarithm", torch.log
    yield "under an exponential", torch.exp
    yield "under an exponential, its sign turned", lambda x: torch.exp(-x)
    yield "as a logarithm, its sign turned", lambda x: -torch.log(x)
    yield "turned upside down, 1 / x", torch.reciprocal
    yield "squared", torch.square
    yield "under a square root", torch.sqrt
    yield "subtracted from 1", lambda x: 1 - x
    yield "with 1 added", lambda x: x + 1
    yield "with 1 subtracted", lambda x: x - 1
    yield "cut off below 0", lambda x: x.clamp(min=0)
    yield "cut off above 0", lambda x: x.clamp(max=0)
    yield "cut off to between 0 and 1", lambda x: x.clamp(0, 1)
    yield "cut off above 1", lambda x: x.clamp(max=1)
    yield "under a sigmoid", torch.sigmoid
    for digits in (4, 3, 2, 1):
        yield f"rounded to {digits} digits", lambda x, digits=digits: x.round(decimals=digits)
    yield "rounded to whole numbers", torch.round
    yield "rounded down to whole numbers", torch.floor
    yield "as 0 or 1, by its sign", lambda x: (x > 0).double()
    yield "by its sign alone", torch.sign
    yield "rounded to bfloat16", lambda x: x.to(torch.bfloat16).double()


def along(axis: int, name: str) -> Iterator[Change]:
    """Changes along an axis that keep it."""
    yield f"one place late along {name}", lambda x: shifted(x, axis, 1)
    yield f"one place early along {name}", lambda x: shifted(x, axis, -1)
    yield f"turned by one place along {name}", lambda x: x.roll(1, axis)
    yield f"turned back by one place along {name}", lambda x: x.roll(-1, axis)
    yield f"in reverse order along {name}", lambda x: x.flip(axis)
    yield f"summed up from the start along {name}", lambda x: x.cumsum(axis)
    yield f"summed up from the end along {name}", lambda x: x.flip(axis).cumsum(axis).flip(axis)
    yield f"as differences of neighbours along {name}", lambda x: x - shifted(x, axis, 1)
    yield f"under a softmax over {name}", lambda x: x.softmax(axis)
    yield f"under a log-softmax over {name}", lambda x: x.log_softmax(axis)
    yield f"divided by its sum over {name}", lambda x: x / x.sum(axis, keepdim=True)
    yield f"divided by its largest over {name}", lambda x: x / x.amax(axis, keepdim=True)
    yield f"less its mean over {name}", lambda x: x - x.mean(axis, keepdim=True)
    for correction, words in ((1, "N - 1"), (0, "N")):
        yield (
            f"centred, and divided by its standard deviation over {name} (with {words})",
            lambda x, c=correction: (x - x.mean(axis, keepdim=True)) / x.std(axis, correction=c, keepdim=True),
        )
        yield (
            f"divided by its standard deviation over {name} (with {words})",
            lambda x, c=correction: x / x.std(axis, correction=c, keepdim=True),
        )
    yield f"sorted along {name}", lambda x: x.sort(axis).values
    yield f"sorted downwards along {name}", lambda x: x.sort(axis, descending=True).values
    for words, find in (("first", 0), ("last", -1)):
        yield (
            f"with the {words} of {name} used for all",
            lambda x, i=find: x.select(axis, i).unsqueeze(axis).expand_as(x),
        )
    yield f"with the mean over {name} used for all", lambda x: x.mean(axis, keepdim=True).expand_as(x)
    yield f"with the sum over {name} used for all", lambda x: x.sum(axis, keepdim=True).expand_as(x)
    yield f"with the largest over {name} used for all", lambda x: x.amax(axis, keepdim=True).expand_as(x)
    yield f"with 0 in the first place along {name}", lambda x: zeroed(x, axis, 0)
    yield f"with 0 in the last place along {name}", lambda x: zeroed(x, axis, -1)
    yield f"without the first of {name}", lambda x: x.narrow(axis, 1, x.shape[axis] - 1)
    yield f"without the last of {name}", lambda x: x.narrow(axis, 0, x.shape[axis] - 1)


def reduced(axis: int, name: str) -> Iterator[Change]:
    """Changes that lose an axis."""
    yield f"summed over {name}", lambda x: x.sum(axis)
    yield f"averaged over {name}", lambda x: x.mean(axis)
    yield f"summed over {name}, the axis kept with size 1", lambda x: x.sum(axis, keepdim=True)
    yield f"averaged over {name}, the axis kept with size 1", lambda x: x.mean(axis, keepdim=True)
    yield f"reduced to the largest over {name}", lambda x: x.amax(axis)
    yield f"reduced to the smallest over {name}", lambda x: x.amin(axis)
    yield f"reduced to the first of {name}", lambda x: x.select(axis, 0)
    yield f"reduced to the last of {name}", lambda x: x.select(axis, -1)
    yield f"reduced to the place of the largest over {name}", lambda x: x.argmax(axis).double()


def overall() -> Iterator[Change]:
    """Changes over all entries at once."""
    yield "summed over everything", torch.sum
    yield "averaged over everything", torch.mean
    yield "reduced to the largest of all", torch.amax
    yield "less the mean of everything", lambda x: x - x.mean()
    yield "divided by the sum of everything", lambda x: x / x.sum()
    yield "under a softmax over everything", lambda x: x.flatten().softmax(0).view_as(x)
    yield "centred and divided by the standard deviation of everything", lambda x: (x - x.mean()) / x.std()
    yield (
        "centred and divided by the standard deviation (with N) of everything",
        (lambda x: (x - x.mean()) / x.std(correction=0)),
    )
    yield "with the mean of everything used for all", lambda x: x.mean().expand_as(x)
    yield "with the sum of everything used for all", lambda x: x.sum().expand_as(x)


def unreduced(ndim: int) -> Iterator[Change]:
    """What is still to be done to a student's result, to make it the right one."""
    yield "with an axis of size 1 too many", torch.squeeze
    for axis in range(ndim):
        where = "the last axis" if axis == ndim - 1 else f"axis {axis}"
        yield f"with {where} too many, of size 1", lambda x, axis=axis: x.squeeze(axis)
        yield f"before it is summed over {where}", lambda x, axis=axis: x.sum(axis)
        yield f"before it is averaged over {where}", lambda x, axis=axis: x.mean(axis)
        yield f"before the largest over {where} is taken", lambda x, axis=axis: x.amax(axis)
        yield f"of which the last along {where} is asked for", lambda x, axis=axis: x.select(axis, -1)
        yield f"of which the first along {where} is asked for", lambda x, axis=axis: x.select(axis, 0)
        yield f"of which the largest's place along {where} is asked for", lambda x, axis=axis: x.argmax(axis).double()
    yield "before it is summed over everything", torch.sum
    yield "before it is averaged over everything", torch.mean
    yield "before the largest of all is taken", torch.amax
    yield "with the wrong number of axes", lambda x: x.flatten()


def shifted(value: torch.Tensor, axis: int, places: int) -> torch.Tensor:
    """Everything moved along an axis, 0 where nothing comes from."""
    moved = value.roll(places, axis)
    return zeroed(moved, axis, 0 if places > 0 else -1)


def zeroed(value: torch.Tensor, axis: int, place: int) -> torch.Tensor:
    """A copy with 0 at one place of an axis."""
    value = value.clone()
    value.select(axis, place).zero_()
    return value


def texts() -> Iterator[Change]:
    """Changes of a string."""
    yield "without white space at its ends", str.strip
    yield "without white space at its beginning", str.lstrip
    yield "without white space at its end", str.rstrip
    yield "in small letters", str.lower
    yield "in capitals", str.upper
    yield "with a space behind", lambda x: x + " "
    yield "with a space in front", lambda x: " " + x
    yield "with a line break behind", lambda x: x + "\n"
    yield "with single spaces", lambda x: " ".join(x.split())
    yield "without its spaces", lambda x: x.replace(" ", "")
    yield "without its last character", lambda x: x[:-1]
    yield "without its first character", lambda x: x[1:]
    yield "in its first line alone", lambda x: x.partition("\n")[0]
    yield "in its last line alone", lambda x: x.rpartition("\n")[2]
    yield "with its lines in reverse order", lambda x: "\n".join(x.split("\n")[::-1])
    yield "backwards", lambda x: x[::-1]
    yield "as a list of its words", str.split
    yield "as a list", lambda x: [x]


def lists() -> Iterator[Change]:
    """Changes of a list of anything."""
    yield "in reverse order", lambda x: x[::-1]
    yield "without its first", lambda x: x[1:]
    yield "without its last", lambda x: x[:-1]
    yield "sorted", sorted
    yield "sorted downwards", lambda x: sorted(x, reverse=True)
    yield "without repetitions", lambda x: list(dict.fromkeys(x))
    yield "without repetitions, sorted", lambda x: sorted(set(x))
    yield "reduced to its first", lambda x: x[0]
    yield "reduced to its last", lambda x: x[-1]
    yield "as its length", len
    yield "shifted by one place", lambda x: x[-1:] + x[:-1]
    yield "shifted back by one place", lambda x: x[1:] + x[:1]
    yield "twice", lambda x: x + x
    yield "as pairs of number and item", lambda x: [[place, item] for place, item in enumerate(x)]
    yield "in one string", lambda x: "".join(x)
    yield "in one string, with spaces", lambda x: " ".join(x)
    yield "as a list in a list", lambda x: [x]
    for words, change in texts():
        yield f"each {words}", lambda x, change=change: [change(item) for item in x]


# ---------------------------------------------------------------- what is taken


def inputs(arguments: dict[str, Any], axes: dict[str, tuple[str, ...] | None]) -> Iterator[tuple[str, str, Callable]]:
    """Changes of a call's arguments: words, which one is changed, and a function from arguments to arguments."""
    for name, value in arguments.items():
        for words, change in changes_of(name, value, axes.get(name)):
            yield words, name, lambda given, name=name, change=change: given | {name: change(given[name])}
    for one, other in itertools.combinations(arguments, 2):
        if alike(arguments[one], arguments[other]):
            for words, change in mixed_up(one, other):
                yield words, one, change
    for words, change in together(arguments, axes):
        yield words, "", change


def mixed_up(one: str, other: str) -> Iterator[Change]:
    """Two arguments that are taken for each other."""
    yield f"with {one} and {other} exchanged", lambda given: given | {one: given[other], other: given[one]}
    yield f"with {one} in the place of {other}", lambda given: given | {other: given[one]}
    yield f"with {other} in the place of {one}", lambda given: given | {one: given[other]}


TOGETHER = {
    "in reverse order": lambda x, axis: x.flip(axis),
    "without the first": lambda x, axis: x.narrow(axis, 1, x.shape[axis] - 1),
    "without the last": lambda x, axis: x.narrow(axis, 0, x.shape[axis] - 1),
    "for the first alone": lambda x, axis: x.narrow(axis, 0, 1),
    "for the last alone": lambda x, axis: x.narrow(axis, x.shape[axis] - 1, 1),
}


def together(arguments: dict[str, Any], axes: dict[str, tuple[str, ...] | None]) -> Iterator[tuple[str, Callable]]:
    """Changes of all arguments that share an axis, or of all lists."""
    letters = dict.fromkeys(letter for names in axes.values() for letter in names or () if letter.isidentifier())
    for letter in letters:
        places = {name: names.index(letter) for name, names in axes.items() if names and letter in names}
        for words, change in TOGETHER.items() if len(places) > 1 else ():
            yield (
                f"along {AXES.get(letter, letter)}, {words}",
                lambda given, places=places, change=change: (
                    given | {name: change(given[name], place) for name, place in places.items()}
                ),
            )
    names = [name for name, value in arguments.items() if isinstance(value, list | tuple)]
    for words, change in itertools.islice(lists(), 3) if len(names) > 1 else ():
        yield (
            f"for {' and '.join(names)} {words}",
            lambda given, change=change: given | {name: change(given[name]) for name in names},
        )


def alike(one: Any, other: Any) -> bool:
    """Whether one could be taken for the other."""
    if torch.is_tensor(one) and torch.is_tensor(other):
        return one.dtype == other.dtype and one.shape == other.shape
    return type(one) is type(other) and not torch.is_tensor(one) and not callable(one)


def changes_of(name: str, value: Any, axes: tuple[str, ...] | None) -> Iterator[Change]:
    """Changes of one argument, by what it is."""
    if torch.is_tensor(value):
        kind = bools if value.dtype == torch.bool else floats if value.is_floating_point() else ints
        yield from kind(name)
        yield from any_tensor(name, value, axes)
    elif isinstance(value, bool):
        yield f"with {name} turned round", lambda x: not x
        yield f"as if {name} were always True", lambda x: True
        yield f"as if {name} were always False", lambda x: False
    elif isinstance(value, int | float):
        yield from numbers(name, isinstance(value, int))
    elif isinstance(value, str):
        yield f"for an empty {name}", lambda x: ""
        yield from ((f"for {name} {words}", change) for words, change in texts())
    elif isinstance(value, list | tuple):
        if value and isinstance(value[0], int | float):
            yield f"as if all of {name} were 1", lambda x: [1] * len(x)
            yield f"as if all of {name} were equal", lambda x: [sum(x) / len(x)] * len(x)
        yield f"for an empty {name}", lambda x: []
        yield from ((f"for {name} {words}", change) for words, change in lists())
    elif dataclasses.is_dataclass(value):
        for field in (each.name for each in dataclasses.fields(value)):  # not what a cached_property has kept
            part = getattr(value, field)
            for words, change in changes_of(f"{name}.{field}", part, None):
                yield words, lambda x, f=field, change=change: dataclasses.replace(x, **{f: change(getattr(x, f))})


def bools(name: str) -> Iterator[Change]:
    """A mask."""
    yield f"as if {name} were True everywhere: it is not used", torch.ones_like
    yield f"with {name} turned round", torch.logical_not
    yield f"as if {name} were False everywhere", torch.zeros_like
    yield f"with {name} one place late", lambda x: shifted(x, -1, 1)
    yield f"with {name} one place early", lambda x: shifted(x, -1, -1)
    yield f"without the first True of each row of {name}", lambda x: x & (x.cumsum(-1) > 1)
    yield f"without the last True of each row of {name}", lambda x: x & (x.flip(-1).cumsum(-1).flip(-1) > 1)
    yield f"for the last True of each row of {name} alone", lambda x: x & (x.flip(-1).cumsum(-1).flip(-1) == 1)
    yield f"for the first True of each row of {name} alone", lambda x: x & (x.cumsum(-1) == 1)
    yield f"with one place more at the end of each row of {name}", lambda x: x | shifted(x, -1, 1)
    yield f"with one place more at the start of each row of {name}", lambda x: x | shifted(x, -1, -1)
    yield f"with {name} True up to its last True", lambda x: x.flip(-1).cumsum(-1).flip(-1) > 0


def floats(name: str) -> Iterator[Change]:
    """Real numbers."""
    yield f"as if {name} were 0: it is not used", torch.zeros_like
    yield f"as if {name} were 1: it is not used", torch.ones_like
    for words, change in entrywise():
        yield f"for {name} {words}", lambda x, change=change: change(x.double()).to(x.dtype)
    yield f"for {name} with its sign turned", torch.neg
    yield f"for {name} in bits (logarithm to base 2)", torch.log2
    yield f"for twice {name}", lambda x: 2 * x
    yield f"for half of {name}", lambda x: x / 2


def ints(name: str) -> Iterator[Change]:
    """Numbers of tokens, states, rows."""
    yield f"as if {name} were 0: it is not used", torch.zeros_like
    yield f"for {name} plus 1", lambda x: x + 1
    yield f"for {name} minus 1", lambda x: x - 1
    yield f"as if {name} were all different: it is not used", lambda x: torch.arange(x.numel()).view_as(x)


def any_tensor(name: str, value: torch.Tensor, axes: tuple[str, ...] | None) -> Iterator[Change]:
    """Changes of a tensor as a whole."""
    for place in range(value.ndim):
        if value.shape[place] > 1:
            changes = along(place, axis_name(axes, place, value.ndim))
            for words, change in changes:
                yield f"for {name} {words}", lambda x, change=change: change(x.double()).to(x.dtype)
    if value.ndim > 1 and value.shape[-1] == value.shape[-2]:
        yield f"for {name} with rows and columns exchanged", lambda x: x.transpose(-1, -2)
    if value.numel() > 1:
        for words, change in overall():
            if value.is_floating_point():
                yield f"for {name} {words}", lambda x, change=change: same_shape(change(x), x)


def same_shape(changed: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """A changed tensor, if it still has the shape of the old one."""
    if changed.shape != value.shape:
        raise ValueError("another shape")
    return changed


def numbers(name: str, whole: bool) -> Iterator[Change]:
    """One number of Python."""
    yield f"as if {name} were 1: it is not used", lambda x: type(x)(1)
    yield f"as if {name} were 0: it is not used", lambda x: type(x)(0)
    yield f"for {name} plus 1", lambda x: x + 1
    yield f"for {name} minus 1", lambda x: x - 1
    yield f"for twice {name}", lambda x: 2 * x
    yield f"for {name} squared", lambda x: x * x
    yield f"for {name} with its sign turned", lambda x: -x
    if not whole:
        yield f"for 1 - {name}", lambda x: 1 - x
        yield f"for 1 / {name}", lambda x: 1 / x
        yield f"for the root of {name}", math.sqrt
        yield f"for half of {name}", lambda x: x / 2


# ---------------------------------------------------------------- what is done on the way


class Swapped(torch.overrides.TorchFunctionMode):
    """While it is open, some operations on tensors are another one: always, or only when they are met the nth time."""

    def __init__(self, names: tuple[str, ...], other: Callable, turn: int | None = None):
        super().__init__()
        self.names, self.other, self.turn, self.met = names, other, turn, 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        """Call the other operation where one of the names is called."""
        if getattr(function, "__name__", "") in self.names:
            self.met += 1
            if self.turn in (None, self.met - 1):
                return self.other(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


class Counted(torch.overrides.TorchFunctionMode):
    """While it is open, operations on tensors are counted by name; one beyond `most` raises a RuntimeError."""

    def __init__(self, most: float = math.inf):
        super().__init__()
        self.most, self.calls, self.named = most, 0, Counter()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        """Count, then call."""
        self.calls += 1
        self.named[getattr(function, "__name__", "")] += 1
        if self.calls > self.most:
            raise RuntimeError(f"more than {self.most} operations")
        return function(*args, **(kwargs or {}))


def same_as_given(x, *_, **__):
    """The operation left out."""
    return x


def median(x, dim=None, keepdim=False, **_):
    """The middle one of the sorted numbers, or the mean of the two in the middle."""
    return x.quantile(0.5) if dim is None else x.quantile(0.5, dim=dim, keepdim=keepdim)


def lower_median(x, dim=None, keepdim=False, **_):
    """torch's own median: of two in the middle the lower one."""
    return x.median() if dim is None else x.median(dim, keepdim).values


def with_n(operation: str) -> Callable:
    """A spread that divides by N."""
    return lambda x, *args, **options: getattr(x, operation)(*args, **options | {"correction": 0})


def method(name: str) -> Callable:
    """A method of tensors by name, called with the same arguments."""
    return lambda x, *args, **options: getattr(x, name)(*args, **options)


SWAPS: dict[str, tuple[tuple[str, ...], Callable]] = {
    "with a median in the place of a mean": (("mean",), median),
    "with the lower median in the place of a mean": (("mean",), lower_median),
    "with a sum in the place of a mean": (("mean",), method("sum")),
    "with a mean in the place of a sum": (("sum",), method("mean")),
    "with a product in the place of a sum": (("sum",), method("prod")),
    "with a largest in the place of a sum": (("sum",), method("amax")),
    "with N in the place of N - 1 in a standard deviation": (("std",), with_n("std")),
    "with a variance in the place of a standard deviation": (("std",), method("var")),
    "with N in the place of N - 1 in a variance": (("var",), with_n("var")),
    "with a standard deviation in the place of a variance": (("var",), method("std")),
    "with softmax in the place of log_softmax": (("log_softmax",), method("softmax")),
    "with log_softmax in the place of softmax": (("softmax",), method("log_softmax")),
    "without a softmax": (("softmax", "log_softmax"), same_as_given),
    "with a softmax of a softmax": (("softmax",), lambda x, *a, **o: x.softmax(-1).softmax(-1)),
    "without an exponential": (("exp",), same_as_given),
    "without a logarithm": (("log",), same_as_given),
    "with logarithms to base 2": (("log",), torch.log2),
    "with logarithms to base 10": (("log",), torch.log10),
    "without a square root": (("sqrt",), same_as_given),
    "without a sigmoid": (("sigmoid", "logsigmoid"), same_as_given),
    "with a sigmoid of the negative": (("sigmoid", "logsigmoid"), lambda x: torch.sigmoid(-x)),
    "with tanh in the place of the activation": (("relu", "gelu", "sigmoid"), lambda x, **_: x.tanh()),
    "with a ReLU in the place of the activation": (("gelu", "sigmoid", "tanh"), lambda x, **_: x.relu()),
    "with a sigmoid in the place of the activation": (("gelu", "relu", "tanh"), lambda x, **_: x.sigmoid()),
    "with a GELU in the place of the activation": (
        ("relu", "sigmoid", "tanh"),
        lambda x, **_: torch.nn.functional.gelu(x),
    ),
    "without the activation": (("gelu", "relu", "tanh"), same_as_given),
    "without an absolute value": (("abs",), same_as_given),
    "without clipping": (("clamp", "clip"), same_as_given),
    "without the lower bound of the clipping": (("clamp", "clip"), lambda x, min=None, max=None: x.clamp(max=max)),
    "without the upper bound of the clipping": (("clamp", "clip"), lambda x, min=None, max=None: x.clamp(min=min)),
    "with the larger in the place of the smaller": (("minimum", "min", "amin"), method("maximum")),
    "with the smaller in the place of the larger": (("maximum", "max", "amax"), method("minimum")),
    "with the smallest in the place of the largest": (("amax", "max"), method("amin")),
    "without a sum over earlier ones": (("cumsum",), same_as_given),
    "with a sum in the place of a product over earlier ones": (("cumprod",), method("cumsum")),
    "without a product over earlier ones": (("cumprod",), same_as_given),
    "with >= in the place of >": (("gt", "__gt__"), torch.ge),
    "with > in the place of >=": (("ge", "__ge__"), torch.gt),
    "with <= in the place of <": (("lt", "__lt__"), torch.le),
    "with < in the place of <=": (("le", "__le__"), torch.lt),
    "with != in the place of ==": (("eq", "__eq__"), torch.ne),
    "with or in the place of and": (("__and__", "logical_and", "bitwise_and"), torch.logical_or),
    "with and in the place of or": (("__or__", "logical_or", "bitwise_or"), torch.logical_and),
    "with + in the place of -": (("sub", "__sub__"), torch.add),
    "with - in the place of +": (("add", "__add__"), torch.sub),
    "with + in the place of *": (("mul", "__mul__"), torch.add),
    "with * in the place of +": (("add", "__add__"), torch.mul),
    "with a difference turned round": (("sub", "__sub__"), lambda x, y, **_: y - x),
    "with * in the place of /": (("div", "__truediv__", "true_divide"), lambda x, y, **_: x * y),
    "with / in the place of *": (("mul", "__mul__"), torch.div),
    "with a ratio turned round": (("div", "__truediv__", "true_divide"), lambda x, y, **_: y / x),
    "with the places of a matrix product exchanged": (("matmul", "__matmul__"), lambda x, y: y @ x),
    "sorted the other way": (
        ("argsort",),
        lambda x, *args, **options: x.argsort(*args, **options | {"descending": True}),
    ),
}
