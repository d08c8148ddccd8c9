"""Texts that begin alike are read once: a batch of them as trees of tokens, each laid out in one row.

    the sun is      the  sun  is  hot  rises           a token sees what leads to it from the root,
    the sun is hot    0    1   2    3      2           and its position is how deep it lies
    the sun rises

Here: `Forest` and `forest`. Deliberately not here: the model that reads the trees (models), and examples that share a
row without having anything in common (chat.as_packed_rollout).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from os.path import commonprefix

import torch
from torch import Tensor

from ptlearn.rollout import pad_and_stack

_GAIN = 0.8  # share of the work below which trees are read: laying them out costs something, too


@dataclass(frozen=True)
class Forest:
    """m trees of at most L tokens, each in the order of a walk: a token, then its branches one after the other.

    For each of the n masked steps, row by row of what the trees were made of, `tree` and `place` say where it lies.
    """

    tokens: Tensor  # (m, L) int
    positions: Tensor  # (m, L) int   tokens between the root and this one
    ends: Tensor  # (m, L) int   where the branches of this token are over; 0 for padding
    tree: Tensor  # (n,) int
    place: Tensor  # (n,) int

    def visible(self) -> Tensor:
        """Which token (last) each one sees, (m, L, L) bool: itself, and those whose branches it is on."""
        steps = torch.arange(self.tokens.shape[1], device=self.tokens.device)
        itself = steps[:, None] == steps  # padding, too, or it would see nothing
        return itself | (steps[:, None] >= steps) & (steps[:, None] < self.ends[:, None])


def forest(observations: Tensor, mask: Tensor, width: int) -> Forest | None:
    """The rows (B, T) as trees, for a model of this width; None where that is hardly less work than reading the rows.

    What stands behind the last masked step of a row is left out. A token costs 24 width² operations a layer outside of
    attention, and in it 4 width for every token of its row, so that trees must not grow without end.

    >>> tokens, taken = torch.tensor([[5, 6, 7, 1], [5, 6, 7, 2]]), torch.tensor([[False, False, True, True]] * 2)
    >>> trees = forest(tokens, taken, width=8)
    >>> trees.tokens, trees.place
    (tensor([[5, 6, 7, 1, 2]]), tensor([2, 3, 2, 4]))
    """
    acted = [[step for step, chosen in enumerate(row) if chosen] for row in mask.tolist()]
    texts = [row[: steps[-1] + 1] if steps else [] for row, steps in zip(observations.tolist(), acted)]
    order = sorted(range(len(texts)), key=texts.__getitem__)  # so that equal beginnings are neighbours
    shared = [0, *(len(commonprefix([texts[a], texts[b]])) for a, b in itertools.pairwise(order))]
    sizes = [len(texts[row]) for row in order]
    allowed, longest = _GAIN * _work(*observations.shape, width), max(sizes, default=0)
    if not longest or (sum(sizes) - sum(shared)) * 6 * width >= allowed:
        return None
    doublings = range((len(texts) - 1).bit_length() + 1)
    cuts = [_cut(sizes, shared, longest << doubling) for doubling in doublings]
    works = [_work(len(cut), max(size for _, size in cut), width) for cut in cuts]
    if min(works) >= allowed:
        return None
    firsts = [first for first, _ in cuts[works.index(min(works))]]
    trees, where = [], {}
    for number, members in enumerate(order[a:b] for a, b in itertools.pairwise([*firsts, len(order)])):
        *tree, paths = _tree([texts[row] for row in members])
        trees.append(tree)
        where |= {row: (number, path) for row, path in zip(members, paths)}
    found = [(where[row][0], where[row][1][step]) for row, steps in enumerate(acted) for step in steps]
    laid_out = (pad_and_stack(part)[0] for part in zip(*trees))
    return Forest(*(part.to(mask.device) for part in (*laid_out, *torch.tensor(found).T)))


def _work(rows: int, length: int, width: int) -> int:
    """Of reading so many rows, in units of 4 width operations a layer."""
    return rows * length * (6 * width + length)


def _cut(sizes: Sequence[int], shared: Sequence[int], most: int) -> list[tuple[int, int]]:
    """Neighbouring texts in trees of at most so many tokens: for each tree its first text, and how large it becomes."""
    trees = []
    for text, (size, common) in enumerate(zip(sizes, shared)):
        if trees and trees[-1][1] + size - common <= most:
            trees[-1] = trees[-1][0], trees[-1][1] + size - common
        else:
            trees.append((text, size))
    return trees


def _tree(texts: Sequence[list[int]]) -> tuple[list[int], list[int], list[int], list[list[int]]]:
    """Tokens, positions and ends of the tree of some texts in order, and the places of each one's tokens in it."""
    tokens, positions, ends, paths = [], [], [], [[]]
    for before, text in itertools.pairwise([[], *texts, []]):
        common = len(commonprefix([before, text]))
        for place in paths[-1][common:]:
            ends[place] = len(tokens)
        paths.append(paths[-1][:common] + list(range(len(tokens), len(tokens) + len(text) - common)))
        tokens += text[common:]
        positions += range(common, len(text))
        ends += [0] * (len(text) - common)
    return tokens, positions, ends, paths[1:-1]
