"""Tiny language models with random weights, in the Hugging Face layout, one folder per architecture."""

import importlib.util

import pytest
import torch

KINDS = ("llama", "qwen2", "qwen3", "gpt2")
WINDOWED = ("mistral", "qwen2-window", "gemma2", "gemma3", "gpt-neo")  # some or all layers look back WINDOW tokens only
CONTEXT = 64
WINDOW = 8
TEXTS = [
    "The capital of Kenya is Nairobi.\n",
    "The film was great fun. Verdict: great\n",
    "A dull film. Verdict: awful\n",
    "un café = a coffee\n",
    "3 + 4 = 7\n",
]


def module_of(path):
    """A Python file that belongs to no package, as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tiny_tokenizer(*controls, **names):
    """A byte-level BPE of 300 tokens; <|endoftext|> is token 0 and begins, ends and pads, unless `names` say otherwise.

    More control tokens have the ids 1, 2, ...
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    end = "<|endoftext|>"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    options = {"vocab_size": 300, "special_tokens": [end, *controls], "show_progress": False}
    trainer = trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **options)
    tokenizer.train_from_iterator(TEXTS * 20, trainer)
    names = {"bos_token": end, "eos_token": end, "pad_token": end} | names
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def tiny_model(kind):
    """A model of two layers and width 32, its weights large enough for predictions far from uniform."""
    import transformers

    common = {"vocab_size": 300, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "initializer_range": 0.3}
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "max_position_embeddings": CONTEXT}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    torch.manual_seed(0)
    if kind == "llama":
        biases = {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**common, **sizes, **heads, **biases))
    elif kind == "qwen2":
        rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 1000.0}}
        model = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**common, **sizes, **heads, **rope))
    elif kind == "qwen3":
        model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**common, **sizes, **heads, head_dim=16))
    elif kind == "mistral":
        model = transformers.MistralForCausalLM(
            transformers.MistralConfig(**common, **sizes, **heads, sliding_window=WINDOW)
        )
    elif kind == "qwen2-window":
        window = {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}
        model = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**common, **sizes, **heads, **window))
    elif kind in ("gemma2", "gemma3"):
        family = {"gemma2": "Gemma2", "gemma3": "Gemma3"}[kind]
        config = getattr(transformers, family + ("TextConfig" if kind == "gemma3" else "Config"))
        layers = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": WINDOW, "head_dim": 8}
        model = getattr(transformers, family + "ForCausalLM")(config(**common, **sizes, **heads, **layers))
    elif kind == "gpt-neo":
        small = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "max_position_embeddings": CONTEXT}
        types = {"attention_types": [[["global", "local"], 1]], "window_size": WINDOW}
        model = transformers.GPTNeoForCausalLM(transformers.GPTNeoConfig(**common, **small, **types))
    elif kind == "gpt-neox":
        model = transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**common, **sizes, num_attention_heads=4))
    else:
        small = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT}
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**common, **small))
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "norm" in name:
            torch.nn.init.normal_(parameter, 1.0 if name.endswith("norm.weight") else 0.0, 0.2)
    return model.eval()


def pytest_collection_modifyitems(items):
    """All tests of an exercise follow one another: the course keeps the cases of some exercises, not of all."""

    def exercise(item):
        return item.callspec.params.get("number") if hasattr(item, "callspec") else None

    ours = [item for item in items if item.path.name == "test_exercises.py"]
    places = {number: place for place, number in enumerate(dict.fromkeys(map(exercise, ours)))}
    ours = iter(sorted(ours, key=lambda item: places[exercise(item)]))
    items[:] = [next(ours) if item.path.name == "test_exercises.py" else item for item in items]


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory):
    """{kind: folder} with config.json, model.safetensors and a tokenizer, for each of KINDS."""
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in KINDS}
    tokenizer = tiny_tokenizer()
    for kind, folder in folders.items():
        tiny_model(kind).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folders


@pytest.fixture(scope="session", params=KINDS)
def tiny_lm(request, tiny_folders):
    """Every architecture in turn."""
    from ptlearn.lm.models import load_lm

    return load_lm(tiny_folders[request.param])


@pytest.fixture(scope="session", params=WINDOWED)
def windowed_lm(request):
    """Every kind of sliding window in turn; a text of more than WINDOW tokens is seen in part."""
    from ptlearn.lm.models import LanguageModel

    return LanguageModel(tiny_model(request.param), tiny_tokenizer(), request.param)


@pytest.fixture(scope="session")
def llama_lm(tiny_folders):
    from ptlearn.lm.models import load_lm

    return load_lm(tiny_folders["llama"])


@pytest.fixture(scope="session")
def gpt2_lm(tiny_folders):
    from ptlearn.lm.models import load_lm

    return load_lm(tiny_folders["gpt2"])


@pytest.fixture(scope="session")
def pocket_s():
    from ptlearn.lm.models import load_lm

    return load_lm("pocket-s")


@pytest.fixture
def fresh(tiny_folders):
    """fresh(kind, dtype) loads a model that a test may change."""
    from ptlearn.lm.models import load_lm

    return lambda kind, dtype=torch.float32: load_lm(tiny_folders[kind], dtype=dtype)


@pytest.fixture(scope="module")
def one_thread():
    """For small tensors, where a second thread only waits; and sums over two threads round differently from one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
