"""What an answer takes and returns, written once as a signature, and held with words.

    "reinforce_loss(logprobs: float[B T], weights: float[B T], mask: bool[B T]) -> float[] with gradient of logprobs"

A type with brackets is a tensor: its kind of number and its axes, letters that stand for the same size wherever they
occur (`T+1` and numbers are allowed, `...` is any axes); `bool[T T] or list` also takes rows of such numbers;
`float32[B]` is handed over in single precision, a `float` in double. Without
brackets: number (of Python, or a tensor with one entry), int, bool, str, list, dict, function, any. A result may also
be a pair `(number, float[S])` or a dict `{loss: number, count: int}`; a list is `list`, or with its items
`list of str`.
"""

import copy
import dataclasses
import functools
import re
from dataclasses import dataclass
from typing import Any

KINDS = ("float", "int", "bool")
MOST_ITEMS = 2000  # of a list that are looked at


@dataclass(frozen=True)
class Type:
    """One type of a signature: `kind`, and for a tensor its `axes`, for a pair, a dict or a list its `parts`."""

    kind: str
    axes: tuple[str, ...] | None = None
    parts: tuple[tuple[str, "Type"], ...] = ()
    or_list: bool = False
    single: bool = False


@dataclass(frozen=True)
class Signature:
    """A parsed signature; `gradient` names the arguments whose gradient must flow, `detached` forbids it for them."""

    name: str
    takes: tuple[tuple[str, Type], ...]
    returns: Type
    gradient: tuple[str, ...] = ()
    detached: tuple[str, ...] = ()


@dataclass
class Call:
    """One call of an answer: its arguments by name, as they were before it, and what came back."""

    arguments: dict[str, Any]
    options: tuple[str, ...]
    result: Any


# ---------------------------------------------------------------- reading a signature


@functools.cache
def parse(text: str) -> Signature:
    """A signature as data.

    >>> parse("total(rewards: float[B T], gamma: number) -> float[B]").returns
    Type(kind='float', axes=('B',), parts=(), or_list=False, single=False)
    """
    found = re.fullmatch(r"(\w+)\((.*)\) -> (.*?)( with gradient of ([\w, ]+)| without gradient of ([\w, ]+))?", text)
    if not found:
        raise ValueError(f"signature: expected 'name(argument: type, …) -> type', not {text!r}")
    name, takes, returns, _, gradient, detached = found.groups()
    arguments = tuple((part.split(":", 1)[0].strip(), a_type(part.split(":", 1)[1])) for part in split(takes))
    names = [tuple(split(some or "")) for some in (gradient, detached)]
    return Signature(name, arguments, a_type(returns), *names)


def a_type(text: str) -> Type:
    """One type of a signature."""
    text = text.strip()
    if text.endswith("] or list"):
        return dataclasses.replace(a_type(text.removesuffix(" or list")), or_list=True)
    if text[:1] == "(":
        return Type("pair", parts=tuple((str(place), a_type(part)) for place, part in enumerate(split(text[1:-1]))))
    if text[:1] == "{":
        parts = [part.split(":", 1) for part in split(text[1:-1])]
        return Type("dict", parts=tuple((name.strip(), a_type(kind)) for name, kind in parts))
    if text.startswith("list of "):
        return Type("list", parts=(("", a_type(text.removeprefix("list of "))),))
    if text.endswith("]"):
        kind, axes = text[:-1].split("[")
        return Type(kind.removesuffix("32"), tuple(axes.split()), single=kind == "float32")
    if not re.fullmatch(r"number|int|float|bool|str|list|dict|function|any", text):
        raise ValueError(f"signature: no type {text!r}")
    return Type(text)


def split(text: str) -> list[str]:
    """The parts between the commas that stand outside all brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def call_with(signature: Signature, answer: Any, case: dict) -> Any:
    """Call an answer with the entries of a case that the signature names, lists as the tensors that it says."""
    return answer(*[as_type(kind, case[name]) for name, kind in signature.takes if name in case])


def as_type(kind: Type, value: Any) -> Any:
    """A plain value as what a signature says is taken."""
    if kind.axes is None:
        return value
    import torch

    precision = torch.float32 if kind.single else torch.float64
    return torch.tensor(value, dtype={"float": precision, "int": torch.int64, "bool": torch.bool}[kind.kind])


# ---------------------------------------------------------------- watching a call


def watched(answer: Any, signature: Signature | None, notes: list[dict], calls: list[Call] | None = None) -> Any:
    """The function itself, noting at each call what it returned, which arguments it changed and its gradient.

    Notes are plain data: {"returned": a description, "changed": [names], "gradient": {name: numbers}}. `calls` also
    keeps the values themselves, for the package's own answer.
    """

    @functools.wraps(answer)
    def noted(*values, **options):
        names = [name for name, _ in signature.takes] if signature else []
        names = [*names, *(f"argument {place + 1}" for place in range(len(names), len(values)))]
        given = dict(zip(names, values)) | options
        if signature:
            given |= {name: as_leaf(given[name]) for name in signature.gradient + signature.detached if name in given}
        before = {name: snapshot(value) for name, value in given.items()}
        passed = [given[name] for name in names[: len(values)]]
        result = answer(*passed, **{name: given[name] for name in options})
        changed = [name for name, value in given.items() if not unchanged(before[name], value)]
        note = {"returned": described(result), "changed": changed}
        if signature and signature.gradient:
            note["gradient"] = gradients(result, {name: given[name] for name in signature.gradient if name in given})
        notes.append(note)
        if calls is not None:
            calls.append(Call(before, tuple(options), result))
        return result

    return noted


def as_leaf(value: Any) -> Any:
    """A float tensor of the same numbers from which gradients are collected."""
    return value.detach().clone().requires_grad_() if hasattr(value, "detach") else value


def snapshot(value: Any) -> Any:
    """A copy to compare with later; what cannot be compared (a function, a model) is kept as it is."""
    if hasattr(value, "detach"):
        return value.detach().clone()
    if dataclasses.is_dataclass(value):
        return dataclasses.replace(value, **{name: snapshot(part) for name, part in fields(value).items()})
    return copy.deepcopy(value) if isinstance(value, list | dict | set | tuple) or hasattr(value, "dtype") else value


def unchanged(before: Any, after: Any) -> bool:
    """Whether two values hold the same; tensors entry by entry, not-a-number equal to itself."""
    if hasattr(before, "detach"):
        if before.shape != after.shape or before.dtype != after.dtype:
            return False
        same = before == after.detach()
        return bool((same | ((before != before) & (after != after))).all())
    if isinstance(before, list | tuple):
        return len(before) == len(after) and all(map(unchanged, before, after))
    if isinstance(before, dict):
        return list(before) == list(after) and all(unchanged(before[key], after[key]) for key in before)
    if dataclasses.is_dataclass(before):
        return unchanged(fields(before), fields(after))
    return hasattr(before, "dtype") or before is after or before == after


def fields(value: Any) -> dict[str, Any]:
    """What a dataclass was made of: not what it has since worked out and kept (a `cached_property`)."""
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def gradients(result: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """The gradient of a fixed mixture of the result's entries by each input: numbers, or None where there is none."""
    import torch

    tensors = [part for part in parts_of(result) if torch.is_tensor(part) and part.requires_grad]
    if not tensors:
        return dict.fromkeys(inputs)
    mixture = sum((part * weights_like(part)).sum() for part in tensors)
    found = torch.autograd.grad(mixture, list(inputs.values()), allow_unused=True, retain_graph=True)
    return {name: None if grad is None else grad.tolist() for name, grad in zip(inputs, found, strict=True)}


def weights_like(tensor):
    """Different weights for all entries, so that a gradient that sits at the wrong place shows."""
    import torch

    return torch.linspace(1.0, 2.0, max(tensor.numel(), 1), dtype=tensor.dtype)[: tensor.numel()].view(tensor.shape)


def parts_of(result: Any) -> list:
    """The result itself, or its parts."""
    return (
        list(result.values())
        if isinstance(result, dict)
        else list(result)
        if isinstance(result, list | tuple)
        else [result]
    )


# ---------------------------------------------------------------- what came back


def described(value: Any) -> dict:
    """A value's type as plain data.

    >>> described([1, 2.0])
    {'type': 'list', 'parts': [{'type': 'int'}, {'type': 'float'}]}
    """
    name = type(value).__name__
    if hasattr(value, "detach") and hasattr(value, "dtype"):
        kind = "bool" if "bool" in str(value.dtype) else "float" if value.is_floating_point() else "int"
        return {"type": "tensor", "kind": kind, "shape": list(value.shape), "grad": bool(value.requires_grad)}
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        kind = {"b": "bool", "i": "int", "u": "int"}.get(value.dtype.kind, "float")
        return {"type": "array" if getattr(value, "ndim", 0) else kind, "kind": kind, "shape": list(value.shape)}
    if isinstance(value, list | tuple):
        return {
            "type": "list" if isinstance(value, list) else "tuple",
            "parts": list(map(described, value[:MOST_ITEMS])),
        }
    if isinstance(value, dict):
        return {"type": "dict", "parts": {str(key): described(part) for key, part in list(value.items())[:MOST_ITEMS]}}
    return {"type": name if name != "NoneType" else "None"}


def violation(signature: Signature, note: dict, call: Call) -> str | None:
    """What an answer's call breaks of its contract, in words; nothing when it keeps it.

    Args: note, of the answer's call; call, the same call of the package's answer, which gives the sizes.
    """
    if note["changed"]:
        return f"{note['changed'][0]} was changed in place: whoever called goes on with it, so work on a copy"
    sizes = sizes_of(signature, call)
    found = mismatch(signature.returns, note["returned"], sizes)
    if found:
        numbers = signature.gradient and not any(part["type"] == "tensor" for part in described_parts(note["returned"]))
        return f"{found}; only a tensor carries a gradient of {signature.gradient[0]}" if numbers else found
    if signature.detached and any(part.get("grad") for part in described_parts(note["returned"])):
        return f"the result carries a gradient of {signature.detached[0]}: detach it, it is a number to weigh with"
    for name, grad in note.get("gradient", {}).items():
        if grad is None:
            reasons = "`.item()`, `.detach()`, `.data` or numbers of Python cut it off, or it is not used"
            return f"no gradient reaches {name}: {reasons}"
    return None


def described_parts(description: dict) -> list[dict]:
    """A description, and those of its parts."""
    parts = description.get("parts", [])
    inner = list(parts.values()) if isinstance(parts, dict) else parts
    return [description, *(one for part in inner for one in described_parts(part))]


def sizes_of(signature: Signature, call: Call) -> dict[str, int]:
    """The size of each axis that the arguments of a call show."""
    sizes = {}
    for name, kind in signature.takes:
        value = call.arguments.get(name)
        if kind.axes and "..." not in kind.axes and hasattr(value, "shape"):
            sizes |= {axis: size for axis, size in zip(kind.axes, value.shape) if axis.isidentifier()}
        elif kind.kind in ("int", "number") and isinstance(value, int):
            sizes.setdefault(name, value)
    return sizes


def wanted_shape(axes: tuple[str, ...], sizes: dict[str, int]) -> tuple | None:
    """The shape that axes have under these sizes; None where they do not say."""
    shape = []
    for axis in axes:
        name, sign, more = re.fullmatch(r"(\w+|\.\.\.)([+-]?)(\d*)", axis).groups()
        if name.isdigit():
            shape.append(int(name))
        elif name in sizes:
            shape.append(sizes[name] + int(f"{sign}{more or 0}"))
        else:
            return None
    return tuple(shape)


def mismatch(wanted: Type, found: dict, sizes: dict[str, int], what: str = "the result") -> str | None:
    """Where a description differs from a type first, in words."""
    kind = found["type"]
    if kind == "None" and wanted.kind != "any":
        return f"{what} is None: is a return missing?"
    if wanted.axes is not None:
        shape = wanted_shape(wanted.axes, sizes)
        words = f"a tensor of {wanted.kind}s" + ("" if shape is None else shape_in_words(wanted.axes, shape))
        if wanted.or_list:
            found = as_tensor(found)
            kind = found["type"]
        if kind != "tensor":
            return f"{what} is {a(kind)}, expected {words}"
        if found["kind"] != wanted.kind:
            return f"{what} is a tensor of {found['kind']}s, expected {words}"
        if shape is not None and tuple(found["shape"]) != shape:
            return f"{what} has shape {tuple(found['shape'])}, expected {words}"
        return None
    if wanted.kind in ("number", "int", "float", "bool"):
        return number_mismatch(wanted.kind, found, what)
    if wanted.kind in ("pair", "list", "dict"):
        return parts_mismatch(wanted, found, sizes, what)
    if wanted.kind == "str" and kind != "str":
        return f"{what} is {a(kind)}, expected a string"
    return None


def as_tensor(found: dict) -> dict:
    """The description of an array, or of a list of equally long lists of one kind of number, as that of a tensor.

    >>> as_tensor(described([[True, False]]))
    {'type': 'tensor', 'kind': 'bool', 'shape': [1, 2]}
    """
    if found["type"] in KINDS or found["type"] == "array":
        return {"type": "tensor", "kind": found.get("kind", found["type"]), "shape": found.get("shape", [])}
    parts = found.get("parts")
    rows = [as_tensor(part) for part in parts] if isinstance(parts, list) else []
    if not rows or rows[0]["type"] != "tensor" or any(row["shape"] != rows[0]["shape"] for row in rows):
        return found
    odd = next((row["kind"] for row in rows if row["kind"] != rows[0]["kind"]), rows[0]["kind"])
    return {"type": "tensor", "kind": odd, "shape": [len(rows), *rows[0]["shape"]]}


def number_mismatch(wanted: str, found: dict, what: str) -> str | None:
    """The same for one number, of Python or as a tensor or array with a single entry."""
    kind, single = found["type"], not found.get("shape")
    given = found.get("kind", kind)
    fitting = {"number": ("float", "int"), "float": ("float", "int"), "int": ("int",), "bool": ("bool",)}[wanted]
    if single and given in fitting:
        return None
    words = {"number": "a number", "float": "a number", "int": "a whole number", "bool": "True or False"}[wanted]
    given = f"has shape {tuple(found['shape'])}" if not single else f"is {a(given)}"
    return f"{what} {given}, expected {words}"


def parts_mismatch(wanted: Type, found: dict, sizes: dict[str, int], what: str) -> str | None:
    """The same for a pair, a list or a dict, part by part."""
    parts = found.get("parts")
    if wanted.kind == "dict":
        if not isinstance(parts, dict):
            return f"{what} is {a(found['type'])}, expected a dict" + (
                f" with the keys {', '.join(name for name, _ in wanted.parts)}" if wanted.parts else ""
            )
        missing = [name for name, _ in wanted.parts if name not in parts]
        if missing or (wanted.parts and len(parts) != len(wanted.parts)):
            return f"{what} has the keys {', '.join(parts)}, expected {', '.join(name for name, _ in wanted.parts)}"
        pairs = [(name, kind, parts[name]) for name, kind in wanted.parts]
    else:
        if found.get("shape") == [len(wanted.parts)] and wanted.kind == "pair":
            parts = [{"type": found["kind"]} for _ in wanted.parts]  # two numbers in one array
        if not isinstance(parts, list):
            return f"{what} is {a(found['type'])}, expected a {'tuple' if wanted.kind == 'pair' else 'list'}"
        if wanted.kind == "pair" and len(parts) != len(wanted.parts):
            return f"{what} has {len(parts)} parts, expected {len(wanted.parts)}"
        kinds = [kind for _, kind in wanted.parts] * (len(parts) if wanted.kind == "list" else 1)
        name = what.removeprefix("the ")
        pairs = [(f"{name}[{place}]", kind, part) for place, (kind, part) in enumerate(zip(kinds, parts))]
    differences = (mismatch(kind, part, sizes, where) for where, kind, part in pairs)
    return next((difference for difference in differences if difference), None)


def shape_in_words(axes: tuple[str, ...], shape: tuple) -> str:
    """The axes, and their sizes here.

    >>> shape_in_words(("B", "T"), (3, 4)), shape_in_words((), ())
    (' of shape (B, T) = (3, 4)', ' without axes, one number')
    """
    if not axes:
        return " without axes, one number"
    comma = "," if len(axes) == 1 else ""
    return f" of shape ({', '.join(axes)}{comma}) = {shape}"


def a(kind: str) -> str:
    """A type with its article.

    >>> a("int"), a("list")
    ('an int', 'a list')
    """
    return kind if kind == "None" else f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
