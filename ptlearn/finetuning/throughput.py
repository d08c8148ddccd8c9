"""What a training step computes, and how fast a device does it: FLOPs, tokens per second, MFU.

    MFU = tokens per second * flops per token / matrix rate

the share of the device's matrix rate that a run turns into learning (Chowdhery et al. 2022, appendix B). What is
computed twice, padding and the work between the matrix products count for nothing. The matrix rate is measured, since
a data sheet's is reached by no program.
Deliberately not here: memory (memory.py). Order: flops_per_token, matrix_rate, StepClock; compile_layers.
"""

import time
from collections.abc import Iterable, Iterator
from statistics import median

import torch
from torch import nn

from ptlearn.finetuning.wrappers import causal_lm
from ptlearn.rollout import check_counts


def flops_per_token(model: nn.Module, length: int) -> int:
    """Floating-point operations of one training step, forward and backward, per token of a row of `length` tokens.

        2 m forward + 2 m for the input's gradient + 2 m for the weight's own, if it is trained

    for every matrix of m numbers; with all trained that is 6 N. Attention adds 6 * layers * width * length: three times
    two products, over half of the row on average. An embedding is looked up and not multiplied, unless it is the
    output layer too.

    Args:   model, as it is trained (a method applied); it may stand on the meta device.
    Raises: ValueError if length is below 1.
    Source: Kaplan et al. 2020, section 2.1; Chowdhery et al. 2022, appendix B.
    >>> from ptlearn.lm.models import load_lm
    >>> flops_per_token(load_lm("pocket-s"), 1)
    3043200
    """
    check_counts(length=length)
    body = causal_lm(model)
    looked_up = {module.weight for module in body.modules() if isinstance(module, nn.Embedding)}
    looked_up.discard(body.get_output_embeddings().weight)
    matrices = [p for p in body.parameters() if p.dim() == 2 and p not in looked_up]
    config = body.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention = 6 * config.num_hidden_layers * config.num_attention_heads * head * length
    return sum((6 if p.requires_grad else 4) * p.numel() for p in matrices) + attention


def matrix_rate(device: str | torch.device, dtype: torch.dtype = torch.bfloat16, size: int | None = None) -> float:
    """Operations per second of a product of two square matrices, the median of several.

    Args: size of the matrices (default: 8192 on a GPU, 1024 on a CPU).
    """
    device = torch.device(device)
    size = size or (8192 if device.type == "cuda" else 1024)
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(12):
        begun = _now(device)
        left @ right
        seconds.append(_now(device) - begun)
    return 2 * size**3 / median(seconds[2:])


class StepClock:
    """Passes on the steps of a loop and takes the `seconds` of each: `fit_sft(progress=clock)`."""

    def __init__(self, device: str | torch.device = "cpu"):
        self.device, self.seconds = torch.device(device), []

    def __call__(self, steps: Iterable) -> Iterator:
        for step in steps:
            begun = _now(self.device)
            yield step
            self.seconds.append(_now(self.device) - begun)


def _now(device: torch.device) -> float:
    """The clock, when the device has done all it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def compile_layers(model: nn.Module) -> None:
    """Compile every layer of a model of `transformers` in place: one compilation serves all, as they are alike."""
    body = causal_lm(model)
    names = set(body._no_split_modules or ())
    for module in body.modules():
        if type(module).__name__ in names:
            module.compile()
