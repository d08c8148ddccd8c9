"""LoRA adapters as files, in the format of the `peft` library: each side loads what the other has saved; and a whole
model with its adapter merged in, as an ordinary folder.

    folder/adapter_model.safetensors   base_model.model.<layer>.lora_A.weight (r, in) and .lora_B.weight (out, r)
    folder/adapter_config.json         peft_type "LORA", r, lora_alpha, target_modules, ...

The name of an adapter is not in its files. Deliberately not here: the other methods, whose `trainable_state_dict` is
saved as it is; peft's variants of LoRA (DoRA, rank-stabilized scale, dropout while training).
"""

import copy
import json
import math
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ptlearn.finetuning.parameter_efficient import adapter_names, insert_lora
from ptlearn.finetuning.wrappers import (
    Adapter,
    Factors,
    LoRA,
    causal_lm,
    is_transposed,
    layer_shape,
    linear_layer,
    listed,
    lora_layers,
    matching_layers,
    precision,
)
from ptlearn.lm.models import LanguageModel, build_model, quiet

WEIGHTS_FILE, CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"
_PREFIX = "base_model.model."
_ENDS = (".lora_A.weight", ".lora_B.weight")
_PEFT_DEFAULT = 8  # r and lora_alpha of a configuration that says nothing
_SILENT = {  # keys of a configuration that change no result, whatever they hold
    *("peft_type", "peft_version", "task_type", "auto_mapping", "base_model_name_or_path", "revision"),
    *("inference_mode", "r", "lora_alpha", "lora_dropout", "fan_in_fan_out", "megatron_core", "qalora_group_size"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),  # the tensors say which layers
}
_OFF = (None, False, {}, [], "none")  # what every other key must hold
_STARTS = (*_OFF, True, "gaussian", "orthogonal")  # of init_lora_weights: others change the base as well


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
    folder = Path(folder).expanduser()
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
            plain LoRA, and for an adapter of another base (naming the layer and both shapes, or the whole weight that
            peft puts beside an adapter of embedding or head).
    """
    config, tensors = _read(Path(folder).expanduser())
    rank, alpha = _plain_lora(config, folder)
    _drop_base_weights(model, folder, tensors)
    layers = dict.fromkeys(key.removeprefix(_PREFIX).removesuffix(_ENDS[0]).removesuffix(_ENDS[1]) for key in tensors)
    wanted = {_PREFIX + layer + end for layer in layers for end in _ENDS}
    if odd := sorted(wanted ^ set(tensors)):
        raise ValueError(f"{folder}: {odd[0]!r} is one half of a pair: expected {listed(_ENDS)} of each layer")
    factors = {}
    for layer in layers:
        A, B = (tensors[_PREFIX + layer + end] for end in _ENDS)
        weight = _checked_weight(model, folder, layer, A, B)
        if len(A) != rank:
            raise ValueError(f"adapter in {str(folder)!r} has r={rank!r}: expected {len(A)}, the rank of {layer!r}")
        factors[layer] = tuple(nn.Parameter(tensor.to(weight.device, precision(weight))) for tensor in (A, B))
    return insert_lora(model, factors, alpha=alpha, name=name)


def export_merged(lm: LanguageModel, folder: str | os.PathLike) -> Path:
    """Write a model with its active LoRA adapter merged in as an ordinary folder, which `transformers` alone loads.

    The model itself stays as it is, merged or not. Where LoRA has changed a head that is tied to the embedding, the
    configuration that is written unties them. The folder is there whole or not at all.

    Raises: ValueError for a folder that is not empty, and for a model with `adapters`, which no weight can hold.
    """
    bare, folder = causal_lm(lm), require_empty(folder)
    for name, module in bare.named_modules():
        if isinstance(module, Adapter):
            raise ValueError(f"model has Adapter at {name!r}, which cannot be merged: expected LoRA alone, or neither")
    config, state, head = copy.deepcopy(bare.config), _base_weights(bare), bare.get_output_embeddings()
    for name, layer in lora_layers(bare):
        if layer.active is not None and not layer.merged:
            state[name + ".weight"] = layer.merged_weight()
    if isinstance(head, LoRA) and head.active is not None:
        config.tie_word_embeddings = False
    with torch.device("meta"):
        plain = build_model(config, dtype=bare.dtype)
    plain.load_state_dict(state, assign=True)
    plain.generation_config = bare.generation_config
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent) as temporary, quiet():
        plain.save_pretrained(Path(temporary, "model"))
        lm.tokenizer.save_pretrained(Path(temporary, "model"))
        os.replace(Path(temporary, "model"), folder)
    return folder


def require_empty(folder: str | os.PathLike) -> Path:
    """The path of a folder that is new or empty. Raises: ValueError for another, before a run that would end there."""
    folder = Path(folder).expanduser()
    if folder.is_file() or folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"folder {str(folder)!r} holds something: expected a new or an empty one")
    return folder


def _base_weights(model: nn.Module) -> dict[str, Tensor]:
    """The model's tensors without those of adapters, under the names that they have without LoRA."""
    state = causal_lm(model).state_dict()
    return {name.replace(".base.", "."): tensor for name, tensor in state.items() if ".adapters." not in name}


def _config(model: nn.Module, factors: dict[str, Factors]) -> dict:
    bare, first = causal_lm(model), next(iter(factors.values()))
    layers = {layer: bare.get_submodule(layer).base for layer in factors}
    ends = sorted({layer.rpartition(".")[2] for layer in factors})
    whole = set(matching_layers(model, ends)) == set(factors)
    return {
        "peft_type": "LORA", "task_type": "CAUSAL_LM" if hasattr(bare, "lm_head") else None,
        "base_model_name_or_path": model.name if isinstance(model, LanguageModel) else bare.config.name_or_path or None,
        "r": len(first.A), "bias": "none", "lora_dropout": 0.0, "inference_mode": True, "init_lora_weights": True,
        "lora_alpha": int(first.alpha) if float(first.alpha).is_integer() else first.alpha,
        "target_modules": ends if whole else sorted(factors),
        "fan_in_fan_out": any(is_transposed(base) for base in layers.values()),
    }  # fmt: skip


def _read(folder: Path) -> tuple[dict, dict[str, Tensor]]:
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / file).is_file():
            raise FileNotFoundError(f"folder {str(folder)!r} has no {file}: expected a saved adapter")
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        return config, load_file(folder / WEIGHTS_FILE)
    except (json.JSONDecodeError, UnicodeDecodeError, SafetensorError) as error:
        raise ValueError(f"adapter in {str(folder)!r} is damaged: {error}") from error


def _plain_lora(config, folder) -> tuple[int, float]:
    """Rank and alpha of a configuration of plain LoRA."""
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        raise ValueError(f"adapter in {str(folder)!r} has peft_type {kind!r}: expected 'LORA'")
    for key in sorted(set(config) - _SILENT):
        if config[key] not in (_STARTS if key == "init_lora_weights" else _OFF):
            raise ValueError(f"adapter in {str(folder)!r} has {key}={config[key]!r}: expected plain LoRA without")
    rank, alpha = (config.get(key, _PEFT_DEFAULT) for key in ("r", "lora_alpha"))
    if type(alpha) not in (int, float) or not 0 < alpha < math.inf:
        raise ValueError(f"adapter in {str(folder)!r} has lora_alpha={alpha!r}: expected a finite number above 0")
    return rank, alpha


def _drop_base_weights(model: nn.Module, folder, tensors: dict[str, Tensor]) -> None:
    """Take out the whole weights that peft saves beside an adapter of embedding or head, if they are the model's."""
    own = _base_weights(model)
    for key in [key for key in tensors if not key.endswith(_ENDS)]:
        name, given = key.removeprefix(_PREFIX).replace(".base_layer.", "."), tensors.pop(key)
        if name not in own or own[name].shape != given.shape or not torch.equal(own[name], given.to(own[name])):
            raise ValueError(f"adapter in {str(folder)!r} holds {name!r}, not as in this base: expected LoRA alone")


def _checked_weight(model: nn.Module, folder, layer: str, A: Tensor, B: Tensor) -> Tensor:
    """The weight that an adapter's layer belongs to; ValueError unless the model has it in this shape."""
    present = matching_layers(model, ".*")
    if layer not in present:
        raise ValueError(f"adapter in {str(folder)!r} is for another base: the model has no linear layer {layer!r}")
    given, expected = (B.shape[0], A.shape[1]), layer_shape(present[layer])
    if given != expected or len(A) != B.shape[1]:
        shapes = f"A {tuple(A.shape)}, B {tuple(B.shape)} for a weight {tuple(expected)}"
        raise ValueError(f"adapter in {str(folder)!r} is for another base: {layer!r} has {shapes}")
    return linear_layer(present[layer]).weight
