"""Looking into a model: where its heads look, which tokens a piece of the prompt is, and heads switched off.

Deliberately not here: how attention is computed (`transformers` does) and what is measured with it (the lessons).
"""

import re
from collections.abc import Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ptlearn.lm.text import encode, evaluation

# the matrix that mixes the heads' outputs, in the layouts of Llama, GPT-2, OPT and GPT-NeoX
_OUTPUT = re.compile(r"(self_attn\.(o_proj|out_proj|dense)|attn\.c_proj|attention\.dense)$")


def output_projections(lm) -> list[nn.Module]:
    """The layer that mixes the heads' outputs, one per layer of the model: it reads head after head, side by side.

    Raises: ValueError for a model in which they are not found.
    """
    found = [module for name, module in lm.model.named_modules() if _OUTPUT.search(name)]
    layers = lm.model.config.num_hidden_layers
    if len(found) != layers:
        raise ValueError(f"lm: {len(found)} output projections found in {lm.name}, expected one for each of {layers}")
    return found


def attention_weights(lm, text: str) -> Tensor:
    """How much each position looks at each earlier one, in one reading of the text.

    Returns: (layers, heads, T, T) float32, every row sums to 1; row q is where the token at q looks. T counts the
             tokens of `encode`, a document start included where the model has one.
    Raises:  ValueError if the text is no string or does not fit the context.
    """
    [ids] = encode(lm, [text])
    if len(ids) > lm.context:
        raise ValueError(f"text: {len(ids)} tokens given, expected at most the context of {lm.context}")
    before = lm.model.config._attn_implementation
    lm.model.set_attn_implementation("eager")  # the fused kernels never hold the weights
    try:
        with evaluation(lm), torch.inference_mode():
            read = lm.model(torch.tensor([ids], device=lm.device), output_attentions=True)
    finally:
        lm.model.set_attn_implementation(before)
    return torch.stack([layer[0] for layer in read.attentions]).float().cpu()


def token_spans(lm, pieces: Sequence[str]) -> list[tuple[int, int]]:
    """Which tokens of the joint text each piece became: the first one, and the one behind the last.

    Raises: ValueError where a token reaches across the end of a piece.
    >>> from ptlearn.lm.models import load_lm
    >>> token_spans(load_lm("pocket-s"), ["the cat", " sees", " it"])
    [(1, 3), (3, 5), (5, 6)]
    """
    texts = ["".join(pieces[:count]) for count in range(len(pieces) + 1)]
    tokens = encode(lm, texts[1:])
    starts = [len(tokens[0]) - len(encode(lm, texts[1:2], bos=False)[0]), *map(len, tokens)]
    for piece, short in zip(pieces, tokens):
        if tokens[-1][: len(short)] != short:
            raise ValueError(f"pieces: a token reaches across the end of {piece!r}, expected pieces of whole tokens")
    return list(zip(starts, starts[1:]))


def silence(lm, heads: Sequence[tuple[int, int]]) -> list:
    """Set the outputs of some heads to zero from now on, until each of the returned handles has been removed.

    Args:    heads, pairs (layer, head), both from 0.
    Returns: a handle per head; `handle.remove()` brings the head back. No weight is changed.
    Raises:  ValueError for a head that the model does not have.
    """
    projections, count = output_projections(lm), lm.model.config.num_attention_heads
    for layer, head in heads:
        if not (0 <= layer < len(projections) and 0 <= head < count):
            raise ValueError(f"heads: ({layer}, {head}) given, expected a layer below {len(projections)} and a head "
                             f"below {count}")  # fmt: skip
    return [projections[layer].register_forward_pre_hook(_Cut(head, count)) for layer, head in heads]


class _Cut:
    """A hook that sets one head's part of what goes into the projection to zero."""

    def __init__(self, head: int, count: int):
        self.head, self.count = head, count

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        mixed, *rest = inputs
        size = mixed.shape[-1] // self.count
        mixed = mixed.clone()  # the caller's own tensor stays as it is
        mixed[..., self.head * size : (self.head + 1) * size] = 0
        return mixed, *rest


@contextmanager
def silenced(lm, heads: Sequence[tuple[int, int]], silence=silence):
    """The heads are off inside a `with`, and back behind it, whatever happens; `silence` may be one's own."""
    handles = silence(lm, heads)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
