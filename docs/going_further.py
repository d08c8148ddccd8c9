"""The tables of going_further.md: bytes and seconds of three published shapes, from their configurations alone.

    python docs/going_further.py

Nothing is measured here: rates are those of data sheets, and what is counted is named at each function.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from transformers import LlamaConfig, PretrainedConfig, Qwen2Config

from ptlearn.finetuning.memory import count_parameters
from ptlearn.finetuning.parameter_efficient import lora

GB = 10**9
# NVIDIA's data sheet of the H100 SXM: memory, its bandwidth, dense bf16; NVLink in one direction
MEMORY, BANDWIDTH, FLOPS = 80 * GB, 3350 * GB, 989e12
LINKS = {"NVLink 450 GB/s": 450 * GB, "InfiniBand 400 Gb/s": 50 * GB, "Ethernet 10 Gb/s": 1.25 * GB}
GPUS = (1, 8, 64)
MFU = 0.4  # assumed of scoring and updating
ROWS, LENGTH, NEW = 256, 2048, 1024  # sequences of an RL step, tokens of a row, sampled tokens of a sequence
USABLE = 0.9  # of a sampler's memory, for weights and cache


@dataclass(frozen=True)
class Shape:
    """A model by its configuration, and the GPUs that one copy of its sampler is split over."""

    name: str
    config: PretrainedConfig
    sampler_gpus: int = 1

    @cached_property
    def parameters(self) -> int:
        return count_parameters(self.config)[1]

    @cached_property
    def adapter(self) -> int:
        """Parameters of LoRA, r = 16, beside every linear layer of the blocks, which are alike: one is counted."""
        one = type(self.config)(**{**self.config.to_dict(), "num_hidden_layers": 1, "layer_types": None})
        return count_parameters(one, partial(lora, targets=".*_proj", rank=16))[0] * self.config.num_hidden_layers

    @property
    def embeddings(self) -> int:
        """Parameters of the embedding, and of the output layer where it is another one."""
        return self.config.vocab_size * self.config.hidden_size * (1 if self.config.tie_word_embeddings else 2)

    @property
    def layer(self) -> int:
        """Parameters of one block; one norm stands outside of them all."""
        return (self.parameters - self.embeddings - self.config.hidden_size) // self.config.num_hidden_layers

    @property
    def cache_per_token(self) -> int:
        """Bytes of keys and values in bf16."""
        head = self.config.hidden_size // self.config.num_attention_heads
        return 2 * 2 * self.config.num_hidden_layers * self.config.num_key_value_heads * head


SHAPES = (
    Shape(
        "Qwen2.5-1.5B",
        Qwen2Config(
            hidden_size=1536, num_hidden_layers=28, num_attention_heads=12, num_key_value_heads=2,
            intermediate_size=8960, vocab_size=151936, tie_word_embeddings=True,
        ),
    ),
    Shape(
        "Llama 3.1 8B",
        LlamaConfig(
            hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
            intermediate_size=14336, vocab_size=128256, tie_word_embeddings=False,
        ),
    ),
    Shape(
        "Llama 3.1 70B",
        LlamaConfig(
            hidden_size=8192, num_hidden_layers=80, num_attention_heads=64, num_key_value_heads=8,
            intermediate_size=28672, vocab_size=128256, tie_word_embeddings=False,
        ),
        sampler_gpus=8,
    ),
)  # fmt: skip


# ---------------------------------------------------------------- the arithmetic


def gathered_bytes(shape: Shape, gpus: int) -> int:
    """What FSDP2 holds whole in bf16 at its fullest: two blocks (one prefetched), embedding and output layer."""
    return 2 * (2 * shape.layer + shape.embeddings) if gpus > 1 else 0


def full_bytes(shape: Shape, gpus: int) -> float:
    """Bytes on each GPU of full SFT: fp32 weights, gradients and AdamW's two states (16), bf16 for the products (2)."""
    if gpus == 1:
        return 18 * shape.parameters
    return 16 * shape.parameters / gpus + gathered_bytes(shape, gpus)


def lora_bytes(shape: Shape, gpus: int) -> float:
    """Bytes on each GPU of LoRA: the base in bf16, 16 bytes for each parameter of the adapter."""
    return (2 * shape.parameters + 16 * shape.adapter) / gpus + gathered_bytes(shape, gpus)


def activation_bytes(shape: Shape, tokens: int) -> int:
    """Bytes with gradient checkpointing: each block's input, one block recomputed, logits and their gradient.

    In bf16 a block keeps 8 vectors of the hidden size, keys and values, and 4 vectors of the MLP; logits are float32.
    """
    config = shape.config
    values = 2 * config.num_key_value_heads * config.hidden_size // config.num_attention_heads
    block = 8 * config.hidden_size + values + 4 * config.intermediate_size
    return tokens * (2 * (config.num_hidden_layers * config.hidden_size + block) + 2 * 4 * config.vocab_size)


def ddp_bytes(trained: int, gpus: int) -> float:
    """Bytes that each GPU sends a step: a ring's all-reduce of float32 gradients, 2 (G - 1) / G of them."""
    return 2 * (gpus - 1) / gpus * 4 * trained


def fsdp_bytes(parameters: int, gpus: int) -> float:
    """Bytes that each GPU sends a step: weights gathered twice in bf16, gradients scattered in float32."""
    return (gpus - 1) / gpus * (2 * 2 + 4) * parameters


def sequences_that_fit(shape: Shape) -> int:
    """Sequences of LENGTH tokens whose cache fits beside the bf16 weights of one sampler."""
    left = USABLE * MEMORY * shape.sampler_gpus - 2 * shape.parameters
    return int(left // (LENGTH * shape.cache_per_token))


def rl_seconds(shape: Shape) -> dict[str, float]:
    """Seconds of one RL step of ROWS sequences by the limits of one sampler's GPUs; prompts, attention's operations
    and communication are left out.

    Sampling reads the weights and half of the final cache, on average, for each token; scoring computes 2 operations
    per parameter and token, an update 6, and 2 more where it recomputes activations.
    """
    read = 2 * shape.parameters + ROWS * NEW / 2 * shape.cache_per_token
    operations = shape.parameters * ROWS * NEW / (MFU * FLOPS * shape.sampler_gpus)
    return {
        "sampling": NEW * read / (BANDWIDTH * shape.sampler_gpus),
        "scoring": 2 * operations,
        "update": 8 * operations,
    }


# ---------------------------------------------------------------- the tables


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown, the first column to the left, the others to the right."""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def gigabytes(count: float) -> str:
    return f"{count / GB:.1f}" if count < 100 * GB else f"{count / GB:,.0f}"


def seconds(count: float, rate: float) -> str:
    return f"{count / rate:.3g}"


def tables() -> list[str]:
    """All tables in the order of the document."""
    memory = ("GB on each of 1, 8, 64 GPUs", *(f"{counted}, {gpus}" for counted in ("full", "LoRA") for gpus in GPUS))
    moved = [("DDP, full", lambda s: ddp_bytes(s.parameters, 8)), ("DDP, LoRA", lambda s: ddp_bytes(s.adapter, 8))]
    moved += [("FSDP2, full", lambda s: fsdp_bytes(s.parameters, 8)), ("new weights", lambda s: 2 * s.parameters)]
    steps = [(shape.name, rl_seconds(shape)) for shape in SHAPES]
    return [
        table(
            ("shape", "parameters", "LoRA r = 16", "one block", "embedding and output"),
            [(s.name, *(f"{n:,}" for n in (s.parameters, s.adapter, s.layer, s.embeddings))) for s in SHAPES],
        ),
        table(
            memory,
            [
                (s.name, *(gigabytes(count(s, gpus)) for count in (full_bytes, lora_bytes) for gpus in GPUS))
                for s in SHAPES
            ],
        ),
        table(
            ("activations, GB", "2,048 tokens", "16,384 tokens"),
            [(s.name, *(gigabytes(activation_bytes(s, tokens)) for tokens in (2048, 16384))) for s in SHAPES],
        ),
        table(
            ("what moves, 8 GPUs", "GB", *(f"s, {link}" for link in LINKS)),
            [
                (f"{s.name}: {name}", gigabytes(count(s)), *(seconds(count(s), rate) for rate in LINKS.values()))
                for s in SHAPES
                for name, count in moved
            ],
        ),
        table(
            ("sampler", "GPUs", "cache, bytes per token", "sequences of 2,048 that fit"),
            [(s.name, str(s.sampler_gpus), f"{s.cache_per_token:,}", f"{sequences_that_fit(s):,}") for s in SHAPES],
        ),
        table(
            ("one RL step, s", "sampling", "scoring", "update", "sampling's share"),
            [
                (name, *(f"{part:.3g}" for part in parts.values()), f"{parts['sampling'] / sum(parts.values()):.0%}")
                for name, parts in steps
            ],
        ),
    ]


if __name__ == "__main__":
    print("\n\n".join(tables()))
