"""Words for where two plain values differ.

Everything here works on plain values (numbers, strings, lists and dicts of them), which `plain` makes of tensors.
"""

import json
import math
from typing import Any


class Alternatives(tuple):
    """Several results that one mistake may lead to, as the value of that mistake."""

    def __new__(cls, *values):
        return super().__new__(cls, values)


def first_difference(data: Any, expected: Any, tolerance: float, name: str = "result") -> str | None:
    """Where two plain values differ first, in words; nothing when they agree."""
    if isinstance(expected, list):
        if shape(data) != shape(expected):
            return f"{name} has shape {shape(data)}, expected {shape(expected)}"
        pairs = [(f"{name}[{index}]", *pair) for index, pair in enumerate(zip(data, expected, strict=True))]
    elif isinstance(expected, dict):
        if not isinstance(data, dict) or set(data) != set(expected):
            return f"{name} has {sorted(data) if isinstance(data, dict) else data!r}, expected {sorted(expected)}"
        pairs = [(key if name == "result" else f"{name}.{key}", data[key], expected[key]) for key in expected]
    else:
        return None if same(data, expected, tolerance) else f"{name} is {shown(data)}, expected {shown(expected)}"
    found = (first_difference(left, right, tolerance, place) for place, left, right in pairs)
    return next((difference for difference in found if difference), None)


def same(data: Any, expected: Any, tolerance: float) -> bool:
    """Equal, or for numbers close; not-a-number equals itself."""
    if isinstance(data, int | float) and isinstance(expected, int | float):
        close = math.isclose(data, expected, rel_tol=tolerance, abs_tol=tolerance)
        return close or (math.isnan(data) and math.isnan(expected))
    return data == expected


def shape(value: Any) -> tuple[int, ...]:
    """The shape of nested lists, along the first entries.

    >>> shape([[1, 2, 3], [4, 5, 6]])
    (2, 3)
    """
    if not isinstance(value, list):
        return ()
    return (len(value), *(shape(value[0]) if value else ()))


def shown(value: Any) -> str:
    """A value as a diagnosis shows it: numbers with six digits."""
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


def plain(value: Any) -> Any:
    """Numbers, strings, lists and dicts with the same content, fit for JSON.

    >>> plain({"shape": (2, 3), "kept": True})
    {'shape': [2, 3], 'kept': True}
    """
    return json.loads(json.dumps(value, default=as_list))


def as_list(value: Any) -> Any:
    """A tensor, array, generator or set as a list, for `json`."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"a result of type {type(value).__name__} where numbers, strings or lists are expected")
