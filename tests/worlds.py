"""Small random worlds that tests share."""

import itertools

import pytest
import torch

from ptlearn.grid import mdp


class Table(torch.nn.Module):
    """One row of logits for each state."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(logits)

    def forward(self, observations):
        return self.logits[observations]


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_world(*, states=4, actions=3, gamma=1.0, seed=0):
    """Every action moves to all states but one, the last of which is terminal; rewards depend on where one lands."""
    P = torch.rand(states, actions, states, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for state, action in itertools.product(range(states), range(actions)):
        P[state, action, (state + action) % (states - 1)] = 0  # never the terminal state: every policy ends
    R = normal(states, actions, states, seed=seed + 1) + 0.5
    P[-1], R[-1] = 0, 0
    P[-1, :, -1] = 1
    start = torch.ones(states)
    start[-2:] = 0
    return mdp.MDP(P / P.sum(-1, keepdim=True), R, start / start.sum(), gamma)


def refused(message, function, *arguments, **options):
    with pytest.raises(ValueError, match=message) as error:
        function(*arguments, **options)
    assert "\n" not in str(error.value)
