"""Load a language model by name: a shipped pocket LM, a folder in the Hugging Face layout, or a hub id.

Here: `load_lm`, what the shipped models say about themselves, and untrained models of a configuration. Deliberately
not here: sampling and scoring (text.py) and how the pocket LMs were made (pocket/pretrain.py). Weights are safetensors
only, and code that comes with weights is never run. `transformers` is imported when a model is loaded, not before.
"""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from ptlearn.lm.checksums import SUMS, damaged_files
from ptlearn.lm.decoding import has_llama_layout
from ptlearn.lm.padding_free import can_leave_out_padding, masked_logits
from ptlearn.lm.real_model import REAL_MODELS, real_folder
from ptlearn.lm.shared_prefixes import Forest, forest

WEIGHTS = Path(__file__).parents[1] / "pocket" / "weights"
END_TOKEN = "<|endoftext|>"  # between documents, in many vocabularies; the pocket LMs' begin, end and padding token
_SIZES = ("s", "m", "l")
_SLOW = 64  # width from which on a model takes longer to read a token than Python to find out whether it has to
# buffers that older files hold though they follow from the configuration: causal masks, rotary frequencies
_BUFFERS = re.compile(r"((attn|attention)\.(bias|masked_bias|causal_mask)|inv_freq|position_ids)$")


class LanguageModel(nn.Module):
    """A causal language model and its tokenizer, callable as a policy: tokens (B, T) -> logits (B, T, V).

    Holds: model, the causal LM of `transformers`; tokenizer; name; context, the longest sequence it takes, in tokens;
    rows, how many tokens its embedding knows.
    called, what stands around the model in a gradient step, where several processes train it (`processes.spread`);
    bf16, whether it computes in bfloat16, but for the output layer: logits of bfloat16 are 0.06 apart where they are
    large. The weights stay as they are, so that small updates are not lost.
    Right-padded batches need no attention mask: no token sees what stands behind it.

    Raises: ValueError for a model whose configuration names no longest sequence (Bloom, Mamba), and for a tokenizer
            with more words than the model's embedding.
    """

    called: nn.Module | None = None
    bf16: bool = False

    def __init__(self, model: nn.Module, tokenizer, name: str):
        super().__init__()
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self._wanted = _Positions()
        self.rows = len(model.get_input_embeddings().weight)
        self.context: int | None = getattr(model.config, "max_position_embeddings", None)
        if not self.context:
            raise ValueError(f"{name!r} is a {type(model).__name__} without max_position_embeddings: expected a model "
                             "with a longest text")  # fmt: skip
        # control tokens may lie behind it (Gemma 3 has one for images), words may not
        words = {id + 1 for id, token in tokenizer.added_tokens_decoder.items() if not token.special}
        if (count := max(words | {tokenizer.vocab_size})) > self.rows:
            raise ValueError(f"the tokenizer of {name!r} has {count} tokens, the embedding {self.rows} rows: "
                             "expected as many, as after model.resize_token_embeddings")  # fmt: skip
        self.eval()

    def forward(self, observations: Tensor) -> Tensor:
        return self._logits(observations)

    def logits_at(self, observations: Tensor, mask: Tensor, **options) -> Tensor:
        """The logits (n, V) of the positions where the mask (B, T) is True, row by row.

        The rows of the vocabulary are the larger part of the work of a small model, and prompts and padding need none:
        the output layer is given the hidden states of these positions alone. A Llama layout on a CPU is read without
        padding, too (`padding_free`), and what rows have in common once where the model `shares_prompts`. Further
        options go to the model.
        """
        trees = None if options else self._trees(observations, mask)
        if trees is not None:
            asked = torch.zeros_like(trees.tokens, dtype=torch.bool)
            asked[trees.tree, trees.place] = True
            options = {"attention_mask": attention_bias(self, trees.visible()), "position_ids": trees.positions}
            numbers = asked.flatten().cumsum(0).view(asked.shape) - 1
            return self.logits_at(trees.tokens, asked, **options)[numbers[trees.tree, trees.place]]
        if self._leaves_padding_out(options) and bool(mask.any()):
            return masked_logits(self.model, observations, mask, **options)
        self._wanted.mask = mask
        try:
            return self._logits(observations, **options)
        finally:
            self._wanted.mask = None

    @property
    def shares_prompts(self) -> bool:
        """Whether rows of one prompt are read as a tree: a Llama layout, without dropout, which is a row's own."""
        config = self.model.config
        able = config._attn_implementation in ("sdpa", "eager") and has_llama_layout(self.model)  # with any mask
        return able and not self.training and config.hidden_size >= _SLOW

    def _leaves_padding_out(self, options: dict) -> bool:
        bias = options.get("attention_mask")
        known = options.keys() <= {"attention_mask", "position_ids"}
        known &= bias is None or (bias.dim() == 4 and bias.is_floating_point())
        return known and not self.bf16 and self.called is None and can_leave_out_padding(self.model)

    def _trees(self, observations: Tensor, mask: Tensor) -> Forest | None:
        """The rows as trees, where that is less work."""
        return forest(observations, mask, self.model.config.hidden_size) if self.shares_prompts else None

    def _logits(self, observations: Tensor, **options) -> Tensor:
        self._wanted.stand_before(self.model)
        # DDP takes part where there are gradients to exchange: elsewhere processes may differ in what they compute
        model = self.called if self.called is not None and torch.is_grad_enabled() else self.model
        if not self.bf16:
            return model(input_ids=observations, use_cache=False, **options).logits
        self._wanted.exact = True
        try:
            with torch.autocast(self.device.type, torch.bfloat16):
                return model(input_ids=observations, use_cache=False, **options).logits
        finally:
            self._wanted.exact = False

    @property
    def device(self) -> torch.device:
        return self.model.device

    @cached_property
    def end_tokens(self) -> tuple[int, ...]:
        """Ids of all tokens that end a text, in ascending order; assign others where a model needs them.

        Those that the generation configuration, the configuration and the tokenizer name, and <|endoftext|>.
        """
        configured = (self.model.generation_config.eos_token_id, self.model.config.eos_token_id)
        named = [*configured, self.tokenizer.eos_token_id, self.control_tokens.get(END_TOKEN)]
        ids = {token for ids in named for token in (ids if isinstance(ids, (list, tuple)) else [ids])}
        return tuple(sorted(token for token in ids - {None} if token < len(self.tokenizer)))

    @property
    def control_tokens(self) -> dict[str, int]:
        """{how it is written: id} of every token that is no text, whether or not the tokenizer has a role for it."""
        return {token.content: id for id, token in self.tokenizer.added_tokens_decoder.items() if token.special}

    @cached_property
    def document_start(self) -> int | None:
        """Id of the token that stood before every document of pretraining; assign another where a model needs it.

        It is what the tokenizer itself puts before a text (Llama); else its bos_token (GPT-2, the pocket LMs), or
        <|endoftext|> where the bos_token is one that the chat template writes (SmolLM2); None without either (Qwen).
        """
        begun, bare = (self.tokenizer("a", add_special_tokens=special)["input_ids"][:1] for special in (True, False))
        if begun != bare:
            return begun[0]
        start = self.tokenizer.bos_token_id
        in_template = start is not None and self.tokenizer.bos_token in str(self.tokenizer.chat_template)
        return self.control_tokens.get(END_TOKEN, start) if in_template else start

    @cached_property
    def window(self) -> int | None:
        """How many tokens all layers look back on, where some look back on fewer than the context: the narrowest
        sliding window, or 0 beside a layer that keeps a running state. None where all see everything."""
        from transformers import DynamicCache

        config = self.model.config
        layers = [layer for layer in DynamicCache(config=config).layers if type(layer).__name__ != "DynamicLayer"]
        widths = [getattr(layer, "sliding_window", 0) for layer in layers]
        if "local" in getattr(config, "attention_layers", ()):
            widths.append(config.window_size)  # GPT-Neo, whose cache is whole
        return min(widths, default=None)


def attention_bias(lm: LanguageModel, visible: Tensor) -> Tensor:
    """What a model adds to its attention's scores, (B, 1, T, T): 0 where visible (B, T, T) is True, else its least."""
    kind = visible.device.type
    # in the precision of the scores: under autocast every layer would keep a converted copy of its own
    autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    dtype = autocast or (torch.bfloat16 if lm.bf16 else lm.model.dtype)
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill(
        ~visible, torch.finfo(dtype).min
    )[:, None]  # fmt: skip


class _Positions:
    """What stands before the output layer and lets the positions of `mask` (B, T) through; all where it is None.

    Where `exact`, the layer computes in the precision of its weights, whatever autocast says. It stays there, because
    torch.compile does not notice a hook that comes and goes.
    """

    def __init__(self):
        self.mask: Tensor | None = None
        self.exact = False
        self._layer = self._without = None
        self._hooks: list = []

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        states = inputs[0] if self.mask is None else inputs[0][self.mask]
        if self.exact:
            self._without = torch.autocast(states.device.type, enabled=False)
            self._without.__enter__()
            states = states.to(layer.weight.dtype)
        return states, *inputs[1:]

    def after(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | None) -> None:
        """Autocast again; called whether or not the layer raised."""
        if self._without is not None:
            self._without.__exit__(None, None, None)
            self._without = None

    def stand_before(self, model: nn.Module) -> None:
        layer = getattr(model, "get_output_embeddings", lambda: None)()
        if layer is not self._layer:
            for hook in self._hooks:
                hook.remove()
            self._layer, self._hooks = layer, [layer.register_forward_pre_hook(self)]
            self._hooks.append(layer.register_forward_hook(self.after, always_call=True))


def load_lm(
    name: str | os.PathLike = "pocket-m", *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> LanguageModel:
    """Load a language model by name, in evaluation mode.

    Args:    name, a pocket LM ("pocket-s", "pocket-m", "pocket-l"), "smollm2-135m" (an instruct model at 4 bits that
             `ptlearn get` fetches), a local folder with config.json, *.safetensors and a tokenizer, or a hub id
             ("Qwen/Qwen2.5-0.5B"); dtype of the weights in memory; device.
    Returns: LanguageModel. It keeps its dropout off until you call `.train()`.
    Raises:  ValueError for an unknown name and for weights that are damaged or do not fit their configuration;
             FileNotFoundError for missing files and for a hub that cannot be reached.
    """
    name = os.fspath(name)
    if name in pocket_models():
        lm = _load_folder(WEIGHTS / name, dtype, _pocket_tokenizer())
    elif name in REAL_MODELS:
        lm = _load_folder(real_folder(name), dtype, None)
    elif Path(name).expanduser().is_dir():
        lm = _load_folder(Path(name).expanduser(), dtype, None)
    elif name.count("/") == 1 and name[0] not in "./~":
        lm = _load_from_hub(name, dtype)
    elif "/" in name or "\\" in name:
        raise FileNotFoundError(f"no folder {name!r}: expected one with config.json, *.safetensors and a tokenizer")
    else:
        raise ValueError(f"unknown model {name!r}: expected {_what_exists()}, a local folder, or a hub id owner/name")
    lm.name = name
    return lm.to(device)


def build_model(config, *, dtype: torch.dtype = torch.float32) -> nn.Module:
    """An untrained model of a `transformers` configuration; inside `torch.device("meta")` shapes without numbers.

    Its class is the one the configuration names in `architectures`, else the causal LM of its kind.
    """
    import transformers

    named = getattr(transformers, config.architectures[0], None) if config.architectures else None
    with quiet():
        if named is not None:
            return named._from_config(config, dtype=dtype)
        return transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)


def toy_lm(words: Sequence[str], *, width: int = 8, layers: int = 1, seed: int = 0) -> LanguageModel:
    """An untrained model of the Llama layout over a handful of words, in float64: small enough to list all its texts.

    Args:   words, one token each; the first one ends a text, and begins it. They must not contain white space.
    >>> toy_lm(["end", "a", "b"])(torch.tensor([[0, 1, 2, 1]])).shape
    torch.Size([1, 4, 3])
    """
    import tokenizers
    from transformers import LlamaConfig, PreTrainedTokenizerFast

    vocabulary = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}))
    vocabulary.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    specials = dict.fromkeys(("bos_token", "eos_token", "pad_token"), words[0])
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=2, max_position_embeddings=64, bos_token_id=0, eos_token_id=0, pad_token_id=None,
        initializer_range=0.5, attention_bias=True, mlp_bias=True,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(config, dtype=torch.float64)
    for name in [name for name, _ in model.named_modules()]:
        if name.endswith("norm"):  # the library's own goes through float32
            model.set_submodule(name, nn.RMSNorm(width, config.rms_norm_eps, dtype=torch.float64))
    return LanguageModel(model, PreTrainedTokenizerFast(tokenizer_object=vocabulary, **specials), "toy")


def pocket_models() -> list[str]:
    """Names of the language models that are shipped with this installation, smallest first."""
    return [f"pocket-{size}" for size in _SIZES if (WEIGHTS / f"pocket-{size}" / "config.json").is_file()]


def pocket_folder(name: str) -> Path:
    if name not in pocket_models():
        raise ValueError(f"unknown pocket model {name!r}: expected {_what_exists()}")
    return WEIGHTS / name


def _what_exists() -> str:
    return f"one of {', '.join(pocket_models())}" if pocket_models() else "a pocket model (none is installed)"


def _pocket_tokenizer():
    from transformers import PreTrainedTokenizerFast

    vocabulary, template = WEIGHTS / "tokenizer.json", WEIGHTS / "chat_template.jinja"
    for file in (vocabulary, template):
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing: install ptlearn again")
    specials = {"bos_token": END_TOKEN, "eos_token": END_TOKEN, "pad_token": END_TOKEN}
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(vocabulary), **specials)
    tokenizer.chat_template = template.read_text(encoding="utf-8")
    return tokenizer


def _load_folder(folder: Path, dtype: torch.dtype, tokenizer) -> LanguageModel:
    missing = [pattern for pattern in ("config.json", "*.safetensors") if not any(folder.glob(pattern))]
    if tokenizer is None and not any(folder.glob("tokenizer*.json")):
        missing.append("tokenizer.json")
    if missing:
        raise FileNotFoundError(f"folder {str(folder)!r} has no {' and no '.join(missing)}")
    # transformers would put the adapter into the model without a word
    if (folder / "adapter_config.json").is_file():
        raise ValueError(f"folder {str(folder)!r} holds a model and an adapter: expected one of them, move "
                         "adapter_config.json and adapter_model.safetensors elsewhere")  # fmt: skip
    _verify_checksums(folder)
    _verify_safetensors(folder)
    try:
        with quiet():
            return _load(str(folder), dtype, tokenizer, local_files_only=True)
    except OSError as error:
        raise ValueError(f"cannot load {str(folder)!r}: {_first_line(error)}") from error


def _load(source: str, dtype: torch.dtype, tokenizer, **options) -> LanguageModel:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options["trust_remote_code"] = False
    try:
        read = {"dtype": dtype, "use_safetensors": True, "output_loading_info": True}
        read["adapter_kwargs"] = {"local_files_only": options["local_files_only"]}  # else it asks the hub for adapters
        model, report = AutoModelForCausalLM.from_pretrained(source, **read, **options)
        tokenizer = AutoTokenizer.from_pretrained(source, **options) if tokenizer is None else tokenizer
    except (RuntimeError, ValueError, KeyError) as error:
        raise ValueError(f"cannot load {source!r}: {_first_line(error)}") from error
    # transformers would go on, with random numbers in place of the first, without the second
    if absent := sorted(report["missing_keys"]):
        raise ValueError(f"weights of {source!r} lack {len(absent)} tensors of the model, such as {absent[0]!r}")
    if extra := sorted(key for key in report["unexpected_keys"] if not _BUFFERS.search(key)):
        raise ValueError(f"weights of {source!r} hold {len(extra)} tensors that the model lacks, such as {extra[0]!r}")
    return LanguageModel(model, tokenizer, source)


def _load_from_hub(name: str, dtype: torch.dtype) -> LanguageModel:
    reachable = _hub_is_reachable()
    try:
        return _load(name, dtype, None, local_files_only=not reachable)
    except OSError as error:
        if reachable:
            raise FileNotFoundError(f"cannot load {name!r} from the hub: {_first_line(error)}") from error
        raise FileNotFoundError(
            f"cannot load {name!r}: no network (or HF_HUB_OFFLINE is set) and no copy in the local cache; "
            f"these work offline: {', '.join(pocket_models()) or 'a local folder'}"
        ) from error


def _hub_is_reachable() -> bool:
    """One quick question instead of the client's own half minute of retries."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=5).close()
    except OSError as error:
        return isinstance(error, urllib.error.HTTPError)  # it answered
    return True


def _verify_checksums(folder: Path) -> None:
    """Compare every file named in SHA256SUMS, if there is one, with its checksum."""
    for path, problem in damaged_files(folder).items() if (folder / SUMS).is_file() else ():
        kind = ValueError if path.is_file() else FileNotFoundError
        raise kind(f"{path} {problem}: install it again")


def _verify_safetensors(folder: Path) -> None:
    """Open each weight file, which compares its length with its header: a truncated download is named here."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt"):
                pass
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged or truncated: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def quiet() -> Iterator[None]:
    """Without what `transformers` writes to stderr: a progress bar for an instant, and a table of our own errors."""
    from transformers.utils import logging

    bar, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
