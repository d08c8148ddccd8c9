"""Policies and critics: a table or a small network for worlds with finitely many states; a critic of texts.

All share one signature: `policy(observations (B, T) int) -> logits (B, T, A)`, `critic(observations) -> (B, T)` values.
A language model's forward pass has it too, so the same estimator and the same update train both.
Deliberately not here: sampling from them (collection, text) and improving them (training).
"""

import torch
from torch import Tensor, nn


class TabularPolicy(nn.Module):
    """One logit per state and action, all 0 at the start: the uniform policy.

    >>> TabularPolicy(5, 2)(torch.tensor([[0, 4, 4]])).shape
    torch.Size([1, 3, 2])
    """

    def __init__(self, states: int, actions: int):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(states, actions))

    def forward(self, observations: Tensor) -> Tensor:
        return self.logits[observations]


class TabularCritic(nn.Module):
    """One value per state, `initial` everywhere at the start.

    >>> TabularCritic(5, initial=1.0)(torch.tensor([[0, 4]])).tolist()
    [[1.0, 1.0]]
    """

    def __init__(self, states: int, *, initial: float = 0.0):
        super().__init__()
        self.values = nn.Parameter(torch.full((states,), float(initial)))

    def forward(self, observations: Tensor) -> Tensor:
        return self.values[observations]


class FeaturePolicy(nn.Module):
    """A network with one hidden layer on features of the state, so that states can share what they learn.

    Args:   features (S, F) float, one row per state (such as the row and column of a cell); actions; hidden, units.
    Raises: ValueError if features is not two-dimensional.
    >>> FeaturePolicy(torch.rand(5, 3), 2)(torch.tensor([[0, 4, 4]])).shape
    torch.Size([1, 3, 2])
    """

    def __init__(self, features: Tensor, actions: int, *, hidden: int = 32):
        super().__init__()
        self.network = _network(features, actions, hidden)
        self.register_buffer("features", features)
        nn.init.zeros_(self.network[-1].weight)  # every action equally likely at the start

    def forward(self, observations: Tensor) -> Tensor:
        return self.network(self.features[observations])


class FeatureCritic(nn.Module):
    """Like `FeaturePolicy`, with one value per state.

    >>> FeatureCritic(torch.rand(5, 3))(torch.tensor([[0, 4, 4]])).shape
    torch.Size([1, 3])
    """

    def __init__(self, features: Tensor, *, hidden: int = 32):
        super().__init__()
        self.network = _network(features, 1, hidden)
        self.register_buffer("features", features)

    def forward(self, observations: Tensor) -> Tensor:
        return self.network(self.features[observations])[..., 0]


class TextCritic(nn.Module):
    """A value for each prefix of a text, linear in the last hidden state of a language model; 0 at the start.

    Only the linear head is the critic's own. The trunk is the policy's, as it is at the time, and no regression of the
    critic changes it.

    >>> from ptlearn.lm.models import toy_lm
    >>> TextCritic(toy_lm(["end", "a", "b"]))(torch.tensor([[0, 1, 2]])).tolist()
    [[0.0, 0.0, 0.0]]
    """

    def __init__(self, lm):
        super().__init__()
        self._lm = [lm]  # in a list, so that its parameters are not the critic's
        self.head = scalar_head(lm)

    def forward(self, observations: Tensor) -> Tensor:
        with torch.no_grad():
            states = hidden_states(self._lm[0], observations)
        return self.head(states)[..., 0]


def hidden_states(lm, tokens: Tensor) -> Tensor:
    """What a language model holds at each token after its last layer, from which logits are made: (B, T, width)."""
    return lm.model.base_model(input_ids=tokens, use_cache=False).last_hidden_state


def scalar_head(lm) -> nn.Linear:
    """One number from a hidden state of the model, 0 at the start."""
    head = nn.Linear(lm.model.config.hidden_size, 1).to(lm.device, lm.model.dtype)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def _network(features: Tensor, outputs: int, hidden: int) -> nn.Sequential:
    if features.dim() != 2 or not features.is_floating_point():
        raise ValueError(f"features is {features.dtype} of shape {tuple(features.shape)}: expected float (S, F)")
    network = nn.Sequential(nn.Linear(features.shape[1], hidden), nn.Tanh(), nn.Linear(hidden, outputs))
    nn.init.zeros_(network[-1].bias)
    return network.to(features.dtype)
