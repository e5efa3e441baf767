"""Files that llama.cpp wrote, read as llama.cpp reads them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from golden_gguf import NAMES, golden_arrays, golden_file, golden_json
from tokenizers import Tokenizer

from spiketrain.lm.sources.gguf import open_gguf
from spiketrain.runtime.tokenizer import load_tokenizer

FILES = pytest.mark.parametrize("name", NAMES)
COMPLETE = os.environ.get("SPIKETRAIN_GOLDEN_GGUF")
OPEN_WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
from spiketrain.lm.sources.gguf import open_gguf
source = open_gguf(sys.argv[1])
source.check_values()
assert dict(source.tensors()) and source.tokenizer_files() and source.summary()
"""


def bits(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, np.float32).view(np.uint32)


@FILES
def test_the_config_is_that_of_the_same_network(tmp_path, name):
    assert open_gguf(golden_file(tmp_path, name)).config == golden_json(name, "config")


@FILES
def test_rows_have_the_bits_and_the_order_of_hugging_face(tmp_path, name):
    source = open_gguf(golden_file(tmp_path, name))
    expected = {k[4:]: v for k, v in golden_arrays(name).items() if k.startswith("hf__")}
    assert len(expected) == 3
    for tensor, rows in expected.items():
        assert np.array_equal(bits(source.read(tensor)[: len(rows)]), bits(rows)), tensor


@FILES
def test_rows_read_in_parts_are_the_rows_read_at_once(tmp_path, name):
    source = open_gguf(golden_file(tmp_path, name))
    for tensor in ("model.layers.0.self_attn.q_proj.weight", "model.norm.weight"):
        whole = source.read(tensor)
        count = len(whole)
        for start, stop in ((0, 1), (3, 20), (17, count), (5, 5), (count - 1, None)):
            part = source.read(tensor, start, stop)
            assert np.array_equal(bits(part), bits(whole[start:stop])), (tensor, start, stop)


@FILES
def test_codes_and_scales_give_the_bits_of_the_values(tmp_path, name):
    source = open_gguf(golden_file(tmp_path, name))
    for tensor, kind in source.formats.items():
        codes = source.exact(tensor)
        assert (codes is None) == (kind in ("F32", "F16", "BF16"))
        if codes is not None:
            assert np.array_equal(bits(codes.values()), bits(source.read(tensor))), tensor


@FILES
def test_token_ids_are_those_of_llama_cpp(tmp_path, name):
    files = open_gguf(golden_file(tmp_path, name)).tokenizer_files()
    tokenizer = Tokenizer.from_str(files["tokenizer.json"])
    for pair in golden_json(name, "tokens")["pairs"]:
        tokenizer.encode_special_tokens = False
        assert tokenizer.encode(pair["text"]).ids == pair["special"], pair["text"]
        tokenizer.encode_special_tokens = True
        plain = tokenizer.encode(pair["text"], add_special_tokens=False)
        assert plain.ids == pair["plain"], pair["text"]


@FILES
def test_transformers_reads_the_same_ids(tmp_path, name):
    transformers = pytest.importorskip("transformers")
    for file, text in open_gguf(golden_file(tmp_path, name)).tokenizer_files().items():
        (tmp_path / file).write_text(text, "utf-8")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    expected = golden_json(name, "tokens")
    for pair in expected["pairs"]:
        assert tokenizer(pair["text"])["input_ids"] == pair["special"], pair["text"]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (expected["bos"], expected["eos"])


@FILES
def test_the_runtime_decodes_what_it_encodes(tmp_path, name):
    (tmp_path / "package").mkdir()
    for file, text in open_gguf(golden_file(tmp_path, name)).tokenizer_files().items():
        (tmp_path / "package" / file).write_text(text, "utf-8")
    tokenizer = load_tokenizer(tmp_path / "package")
    for text in ("The old fox said: hello", "naïve café 日本語", "  two  blanks\n"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


@FILES
def test_a_file_is_read_without_torch(tmp_path, name):
    path = golden_file(tmp_path, name)
    command = [sys.executable, "-c", OPEN_WITHOUT_TORCH, str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@FILES
def test_the_network_of_the_file_has_the_logits_of_llama_cpp(tmp_path, name):
    torch = pytest.importorskip("torch")
    from spiketrain.lm.conversion.transformer import from_transformer
    from spiketrain.lm.shards import Held

    arrays = golden_arrays(name)
    if "logits" in arrays:
        path = golden_file(tmp_path, name)
    elif COMPLETE:
        path = Path(COMPLETE) / f"{name}.gguf"
        with np.load(path.with_suffix(".npz")) as complete:
            arrays = dict(complete)
    else:
        pytest.skip("needs the complete file: set SPIKETRAIN_GOLDEN_GGUF to its folder")
    source = open_gguf(path)
    tensors = Held({key: torch.from_numpy(values) for key, values in source.tensors()})
    model = from_transformer(tensors, source.config)
    with torch.no_grad():
        tokens = torch.from_numpy(arrays["tokens"].astype(np.int64))[None]
        logits = model(input_ids=tokens).logits[0].numpy()
    assert np.abs(logits - arrays["logits"]).max() < 1e-4
