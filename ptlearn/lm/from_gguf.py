"""A GGUF file, as llama.cpp reads it, turned into an ordinary folder: bfloat16 weights, tokenizer, chat template.

The format stores weights in blocks of a few bits; the package `gguf` (extra `real`) reads and unpacks them. What is
left to do is a matter of names, of the order of rows in the query and key matrices, and of the tokenizer.
Deliberately not here: architectures other than Llama's, and where the file comes from (real_model.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_IN_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_CONTROL = 3  # the type of tokens that are no text


def convert_gguf(file: Path, folder: Path, *, progress: Callable[[list], Iterable] = iter) -> None:
    """Write the model of a GGUF file into a folder that `load_lm` and transformers read.

    Args:   file, of the Llama architecture with a byte-level BPE tokenizer of SmolLM's kind; folder, made if need be;
            progress, wraps the tensors.
    Raises: ValueError for a file that is cut off or no GGUF, of another architecture, tokenizer or quantisation;
            ModuleNotFoundError without the package `gguf`.
    """
    reader = _open(file)
    facts = _facts(reader, file)
    folder.mkdir(parents=True, exist_ok=True)
    _save_weights(reader, facts, file, folder, progress)
    _save_config(reader, facts, folder)
    _save_tokenizer(facts, folder)


def _open(file: Path):
    import gguf

    try:
        return gguf.GGUFReader(file)
    except (ValueError, IndexError, KeyError, UnicodeDecodeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{file} is cut off or no GGUF file ({reason})") from error


def _facts(reader, file: Path) -> dict:
    """What the file says about its model, by name; refused where it would be converted wrongly."""
    facts = {name: field.contents() for name, field in reader.fields.items()}
    expected = {"general.architecture": "llama", "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm"}
    for name, wanted in expected.items():
        if (given := facts.get(name)) != wanted:
            raise ValueError(f"{file} has {name} = {given!r}: expected {wanted!r}, all that can be converted")
    if (scaling := facts.get("llama.rope.scaling.type", "none")) != "none":
        raise ValueError(f"{file} has llama.rope.scaling.type = {scaling!r}: expected none")
    return facts


def _save_weights(reader, facts: dict, file: Path, folder: Path, progress) -> None:
    from safetensors.torch import save_file

    heads = {"attn_q": facts["llama.attention.head_count"], "attn_k": facts["llama.attention.head_count_kv"]}
    tensors = {}
    for packed in progress(list(reader.tensors)):
        part = packed.name.split(".")[-2]
        weight = _unpack(packed, file)
        weight = _rows_in_halves(weight, heads[part]) if part in heads else weight
        tensors[_name(packed.name, file)] = weight.to(torch.bfloat16).contiguous()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def _name(name: str, file: Path) -> str:
    found = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
    if found and found[2] in _IN_LAYER:
        return f"model.layers.{found[1]}.{_IN_LAYER[found[2]]}.weight"
    if name not in _NAMES:
        raise ValueError(f"{file} has a tensor {name!r}: expected those of a Llama without biases")
    return _NAMES[name]


def _unpack(packed, file: Path) -> Tensor:
    """The numbers of a tensor in float32; its own shape is written the other way round."""
    import gguf

    try:
        numbers = gguf.dequantize(packed.data, packed.tensor_type)
    except NotImplementedError as error:
        raise ValueError(f"{file} has {packed.name!r} quantised as {packed.tensor_type.name}: expected a type that the "
                         "package gguf unpacks, such as Q4_1 or Q8_0") from error  # fmt: skip
    return torch.from_numpy(numbers.copy()).view(*map(int, reversed(packed.shape)))


def _rows_in_halves(weight: Tensor, heads: int) -> Tensor:
    """Rows of a query or key matrix in transformers' order: llama.cpp turns neighbouring rows of a head by one angle,
    transformers the first half against the second.

    >>> _rows_in_halves(torch.arange(4.0)[:, None], 1)[:, 0]
    tensor([0., 2., 1., 3.])
    """
    return weight.view(heads, -1, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def _save_config(reader, facts: dict, folder: Path) -> None:
    from transformers import GenerationConfig, LlamaConfig

    def number(name: str, default=None):
        return facts.get(f"llama.{name}", default)

    tokens = {f"{role}_token_id": facts.get(f"tokenizer.ggml.{name}_token_id") for role, name in _ROLES.items()}
    config = LlamaConfig(
        vocab_size=len(facts["tokenizer.ggml.tokens"]), hidden_size=number("embedding_length"),
        intermediate_size=number("feed_forward_length"), num_hidden_layers=number("block_count"),
        num_attention_heads=number("attention.head_count"), num_key_value_heads=number("attention.head_count_kv"),
        head_dim=number("attention.key_length", number("embedding_length") // number("attention.head_count")),
        max_position_embeddings=number("context_length"), rms_norm_eps=number("attention.layer_norm_rms_epsilon"),
        rope_theta=number("rope.freq_base", 10_000.0), tie_word_embeddings="output.weight" not in _tensors(reader),
        architectures=["LlamaForCausalLM"], dtype="bfloat16", **tokens,
    )  # fmt: skip
    config.save_pretrained(folder)
    GenerationConfig(**tokens).save_pretrained(folder)


_ROLES = {"bos": "bos", "eos": "eos", "pad": "padding"}


def _tensors(reader) -> set[str]:
    return {tensor.name for tensor in reader.tensors}


def _save_tokenizer(facts: dict, folder: Path) -> None:
    """SmolLM's kind of byte-level BPE: every digit is a token of its own."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words, kinds = facts["tokenizer.ggml.tokens"], facts["tokenizer.ggml.token_type"]
    merges = [tuple(pair.split(" ")) for pair in facts["tokenizer.ggml.merges"]]
    made = tokenizers.Tokenizer(models.BPE({word: id for id, word in enumerate(words)}, merges))
    digits, raw = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.pre_tokenizer, made.decoder = pre_tokenizers.Sequence([digits, raw]), decoders.ByteLevel()
    made.add_special_tokens([word for word, kind in zip(words, kinds, strict=True) if kind == _CONTROL])
    given = {role: facts.get(f"tokenizer.ggml.{name}_token_id") for role, name in _ROLES.items()}
    roles = {f"{role}_token": words[id] for role, id in given.items() if id is not None}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, **roles)
    tokenizer.chat_template = facts.get("tokenizer.chat_template")
    tokenizer.save_pretrained(folder)

