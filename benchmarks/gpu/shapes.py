"""Models with random weights in the shapes that others publish, for measuring where no weights are at hand.

`shaped_lm("qwen2.5-0.5b", dtype=torch.bfloat16, device="cuda")` has the published number of layers, heads and words;
its tokenizer is the pocket LMs', whose words are the first few thousand of the vocabulary. A pocket model's name loads
that one.
"""

import torch

from ptlearn.lm.models import LanguageModel, build_model, load_lm, pocket_models

_QWEN = {"vocab_size": 151_936, "num_key_value_heads": 2, "tie_word_embeddings": True, "rms_norm_eps": 1e-6,
         "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}  # fmt: skip
SHAPES = {  # config.json of Qwen/Qwen2.5-0.5B and Qwen/Qwen2.5-1.5B
    "qwen2.5-0.5b": _QWEN | {"hidden_size": 896, "intermediate_size": 4_864, "num_hidden_layers": 24,
                             "num_attention_heads": 14, "max_position_embeddings": 32_768},
    "qwen2.5-1.5b": _QWEN | {"hidden_size": 1_536, "intermediate_size": 8_960, "num_hidden_layers": 28,
                             "num_attention_heads": 12, "max_position_embeddings": 131_072},
}  # fmt: skip


def configuration(name: str):
    """The `transformers` configuration of a published shape."""
    from transformers import Qwen2Config

    return Qwen2Config(**SHAPES[name], bos_token_id=0, eos_token_id=0)


def shaped_lm(name: str, *, dtype: torch.dtype, device: str, seed: int = 0) -> LanguageModel:
    """A pocket model by name, or random weights in a published shape, drawn on the device."""
    if name in pocket_models():
        return load_lm(name, dtype=dtype, device=device)
    if name not in SHAPES:
        raise ValueError(f"shape {name!r}: expected one of {', '.join([*SHAPES, *pocket_models()])}")
    torch.manual_seed(seed)
    with torch.device(device):
        model = build_model(configuration(name), dtype=dtype)
    return LanguageModel(model, load_lm("pocket-s").tokenizer, name)
