"""LoRA adapters as files, in the format of the `peft` library: each side loads what the other has saved.

    folder/adapter_model.safetensors   base_model.model.<layer>.lora_A.weight (r, in) and .lora_B.weight (out, r)
    folder/adapter_config.json         peft_type "LORA", r, lora_alpha, target_modules, ...

The name of an adapter is not in its files. Deliberately not here: the other methods, whose `trainable_state_dict` is
saved as it is; peft's variants of LoRA (DoRA, rank-stabilized scale, dropout while training).
"""

import json
import os
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ptlearn.finetuning.parameter_efficient import adapter_names, insert_lora
from ptlearn.finetuning.wrappers import (
    Factors,
    causal_lm,
    is_transposed,
    layer_shape,
    linear_layer,
    listed,
    lora_layers,
    matching_layers,
    precision,
)
from ptlearn.lm.models import LanguageModel

WEIGHTS_FILE, CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"
_PREFIX = "base_model.model."
_ENDS = (".lora_A.weight", ".lora_B.weight")
_PEFT_ALPHA = 8  # of a configuration that says nothing
_VARIANTS = ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save", "bias", "lora_bias")


def save_adapter(model: nn.Module, folder: str | os.PathLike, *, name: str = "default") -> Path:
    """Write one LoRA adapter of a model, merged or not; returns the folder, which is made if it is not there.

    Raises: ValueError if the model has no adapter of this name.
    """
    factors = {layer: module.adapters[name] for layer, module in lora_layers(model) if name in module.adapters}
    if not factors:
        raise ValueError(f"name={name!r}: expected one of the model's adapters, {listed(adapter_names(model))}")
    tensors = {}
    for layer, pair in factors.items():
        for end, tensor in zip(_ENDS, (pair.A, pair.B), strict=True):
            tensors[_PREFIX + layer + end] = tensor.detach().cpu().contiguous()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / (WEIGHTS_FILE + ".tmp")
    save_file(tensors, temporary, {"format": "pt"})
    os.replace(temporary, folder / WEIGHTS_FILE)
    config = _config(model, factors)
    temporary.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(temporary, folder / CONFIG_FILE)
    return folder


def load_adapter(model: nn.Module, folder: str | os.PathLike, *, name: str = "default") -> nn.Module:
    """Insert a saved LoRA adapter under a name; it becomes the active one, as after `lora`. Returns the model.

    Raises: FileNotFoundError for a missing file; ValueError for files that are damaged or hold something other than
            plain LoRA, and for an adapter of another base (naming the layer and both shapes).
    """
    config, tensors = _read(Path(folder))
    alpha = _plain_lora_alpha(config, folder)
    layers = dict.fromkeys(key.removeprefix(_PREFIX).removesuffix(_ENDS[0]).removesuffix(_ENDS[1]) for key in tensors)
    wanted = {_PREFIX + layer + end for layer in layers for end in _ENDS}
    if odd := sorted(wanted ^ set(tensors)):
        raise ValueError(
            f"{folder}: {odd[0]!r} is one half of a pair: expected '{_PREFIX}<layer>' with {listed(_ENDS)}"
        )
    factors = {}
    for layer in layers:
        A, B = (tensors[_PREFIX + layer + end] for end in _ENDS)
        weight = _checked_weight(model, folder, layer, A, B)
        factors[layer] = tuple(nn.Parameter(tensor.to(weight.device, precision(weight))) for tensor in (A, B))
    return insert_lora(model, factors, alpha=alpha, name=name)


def _config(model: nn.Module, factors: dict[str, Factors]) -> dict:
    bare, first = causal_lm(model), next(iter(factors.values()))
    layers = {layer: bare.get_submodule(layer).base for layer in factors}
    ends = sorted({layer.rpartition(".")[2] for layer in factors})
    whole = set(matching_layers(model, ends)) == set(factors)
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if hasattr(bare, "lm_head") else None,
        "base_model_name_or_path": model.name if isinstance(model, LanguageModel) else bare.config.name_or_path or None,
        "r": len(first.A),
        "lora_alpha": int(first.alpha) if float(first.alpha).is_integer() else first.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": ends if whole else sorted(factors),
        "fan_in_fan_out": any(is_transposed(base) for base in layers.values()),
        "inference_mode": True,
        "init_lora_weights": True,
    }


def _read(folder: Path) -> tuple[dict, dict[str, Tensor]]:
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / file).is_file():
            raise FileNotFoundError(f"folder {str(folder)!r} has no {file}: expected a saved adapter")
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        return config, load_file(folder / WEIGHTS_FILE)
    except (json.JSONDecodeError, UnicodeDecodeError, SafetensorError) as error:
        raise ValueError(f"adapter in {str(folder)!r} is damaged: {error}") from error


def _plain_lora_alpha(config, folder) -> float:
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        raise ValueError(f"adapter in {str(folder)!r} has peft_type {kind!r}: expected 'LORA'")
    for key in _VARIANTS:
        if config.get(key) not in (None, False, {}, [], "none"):
            raise ValueError(f"adapter in {str(folder)!r} has {key}={config[key]!r}: expected plain LoRA without")
    return config.get("lora_alpha", _PEFT_ALPHA)


def _checked_weight(model: nn.Module, folder, layer: str, A: Tensor, B: Tensor) -> Tensor:
    """The weight that an adapter's layer belongs to; ValueError unless the model has it in this shape."""
    present = matching_layers(model, ".*")
    if layer not in present:
        raise ValueError(f"adapter in {str(folder)!r} is for another base: the model has no linear layer {layer!r}")
    given, expected = (B.shape[0], A.shape[1]), layer_shape(present[layer])
    if given != expected or len(A) != B.shape[1]:
        shapes = f"A {tuple(A.shape)}, B {tuple(B.shape)}"
        raise ValueError(
            f"adapter in {str(folder)!r} is for another base: {layer!r} has {shapes} for a weight {tuple(expected)}"
        )
    return linear_layer(present[layer]).weight
