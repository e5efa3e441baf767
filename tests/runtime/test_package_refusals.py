"""A package that breaks a rule is refused by name."""

import json
import os
import shutil

import numpy as np
import pytest
from package_edits import (
    rewrite_config,
    rewrite_header,
    split_tensor_file,
    to_shards,
    write_index,
)

from spiketrain.runtime.errors import PackageError
from spiketrain.runtime.families import egru
from spiketrain.runtime.family import Family
from spiketrain.runtime.model import load_model
from spiketrain.runtime.package import read_package, write_package

FILES = ["config.json", "generation_config.json", "model.safetensors"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c.update(model_type="gpt"),
            "model_type must be one of egru, spikegpt, spikingbrain, got 'gpt'",
        ),
        (lambda c: c.update(model_type="os.path"), "model_type must be one of"),
        (lambda c: c.update(model_type=["egru"]), "model_type must be one of"),
        (lambda c: c.pop("spiketrain"), "spiketrain must be an object"),
        (lambda c: c["spiketrain"].update(format_version=2), "format_version must be 1, got 2"),
        (lambda c: c["spiketrain"].update(format_version=True), "format_version must be 1"),
        (lambda c: c["spiketrain"].pop("format_version"), "format_version must be 1, got None"),
        (lambda c: c["spiketrain"].update(colour="red"), "spiketrain.colour is unknown"),
        (lambda c: c["spiketrain"].pop("events"), "spiketrain.events is missing"),
        (lambda c: c["spiketrain"].update(events="float32"), "events must be 'fixed16' with int8"),
        (lambda c: c["spiketrain"].update(fidelity="good"), "fidelity must be one of"),
        (lambda c: c["spiketrain"].update(fidelity=[]), "fidelity must be one of"),
        (lambda c: c["spiketrain"].update(fingerprint="sha256:0"), "64 hex digits"),
        (lambda c: c["spiketrain"].update(provenance="me"), "provenance must be an object"),
        (lambda c: c["spiketrain"]["weights"].update(head="float32"), "the same format"),
        (lambda c: c["spiketrain"].update(weights={}), "the same format"),
        (lambda c: c["spiketrain"]["weights"].update(head=["int8"]), "name a format for each"),
        (lambda c: c.update(temperature=1), "temperature is unknown"),
        (lambda c: c.update(vocab_size=10), "config says"),
        (lambda c: c.update(vocab_size=10**30), "vocab_size must be"),
        (lambda c: c.update(vocab_size="9"), "vocab_size must be"),
        (lambda c: c.update(zoneout=0.25), "fingerprint must match"),
        (lambda c: c["spiketrain"].update(fidelity="exact"), "fingerprint must match"),
    ],
)
def test_a_config_that_breaks_a_rule_is_refused(package, change, message):
    rewrite_config(package, change)
    with pytest.raises(PackageError, match=message) as caught:
        read_package(package)
    assert str(package) in str(caught.value)


def test_a_model_is_not_loaded_from_a_package_of_another_content(package):
    """Weights are packed while the content is hashed: neither ends without the other."""
    path = package / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(PackageError, match="fingerprint must match"):
        load_model(package)


def test_the_error_of_a_content_comes_before_what_it_leads_to(package, monkeypatch):
    family = Family(egru.Spec, lambda *_: 1 / 0)
    monkeypatch.setattr(egru, "FAMILY", family)
    with pytest.raises(ZeroDivisionError):
        load_model(package)
    rewrite_config(package, lambda config: config.update(zoneout=0.25))
    with pytest.raises(PackageError, match="fingerprint must match"):
        load_model(package)


@pytest.mark.parametrize("read", [read_package, load_model])
def test_a_value_out_of_range_is_refused_though_the_fingerprint_fits(
    tmp_path, content, monkeypatch, read
):
    config, tensors = content
    tensors["layers.0.threshold"] = np.full_like(tensors["layers.0.threshold"], 1.5)
    with monkeypatch.context() as unchecked:
        unchecked.setattr("spiketrain.runtime.package.check_values", lambda *_: None)
        write_package(tmp_path / "p", config, tensors)
    with pytest.raises(PackageError, match=r"'layers\.0\.threshold' at \(0,\) must be in \[0, 1\]"):
        read(tmp_path / "p")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be JSON"),
        ("[]", "must hold a JSON object, got list"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": 1, "a": 2}', "'a' twice"),
        ('{"a": NaN}', "number NaN"),
        ('{"a": 1e999}', "number 1e999"),
        ('{"a": ' + "9" * 5000 + "}", "must be JSON"),
        ('{"a": "' + "x" * 300_000 + '"}', "must have at most 262144 bytes"),
        (b'{"a": "\xff"}', "must be JSON"),
    ],
)
def test_a_config_that_is_not_strict_json_is_refused(package, text, message):
    (package / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(PackageError, match=message) as caught:
        read_package(package)
    assert "config.json" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.pop("head.bias"), "must begin at"),
        (
            lambda h: h["head.bias"].update(dtype="F64"),
            r"dtype must be one of \['BF16', 'F32', 'I16', 'I32', 'I8', 'U8'\]",
        ),
        (lambda h: h["head.bias"].update(dtype=["F32"]), "dtype must be one of"),
        (lambda h: h["head.bias"].update(shape=[3, 3]), r"is \(3, 3\), config says \(9,\)"),
        (lambda h: h["head.bias"].update(shape=[10**30]), "data_offsets must span"),
        (lambda h: h["head.bias"].update(shape=[-9]), "shape must be at most 8 counts"),
        (lambda h: h["head.bias"].update(shape=[9.0]), "shape must be"),
        (lambda h: h["head.bias"].update(shape=[True] * 3), "shape must be"),
        (lambda h: h["head.bias"].update(shape=[9, *[1] * 100]), "shape must be"),
        (lambda h: h["head.bias"].update(data_offsets=[0]), "data_offsets must be two counts"),
        (lambda h: h["head.bias"].update(data_offsets=[-4, 32]), "data_offsets must be"),
        (lambda h: h["head.bias"].update(data_offsets=[10**9, 10**9 + 36]), "must begin at"),
        (lambda h: h["head.bias"].update(data_offsets=[36, 0]), "data_offsets must span"),
        (lambda h: h["head.bias"].update(extra=1), "must have dtype, shape and data_offsets"),
        (lambda h: h.update(twin=h["head.bias"]), "must begin at"),
        (lambda h: h.update(text="x"), "must have dtype, shape and data_offsets"),
        (lambda h: h.update(__metadata__={"a": 1}), "__metadata__ must map"),
        (lambda h: [], "must hold a JSON object"),
    ],
)
def test_a_tensor_header_that_lies_is_refused(package, change, message):
    rewrite_header(package, lambda header: [] if change(header) == [] else None)
    with pytest.raises(PackageError, match=message) as caught:
        read_package(package)
    assert "model.safetensors" in str(caught.value)


def test_a_tensor_file_with_more_or_less_than_its_tensors_is_refused(package):
    file = package / "model.safetensors"
    raw = file.read_bytes()
    for changed in (raw + b"\0", raw[:-1], raw[:7], b"", raw[:8], (2**63).to_bytes(8, "little")):
        file.write_bytes(changed)
        with pytest.raises(PackageError, match=r"model\.safetensors"):
            read_package(package)


def test_a_tensor_that_is_not_aligned_is_refused(package):
    header, data = split_tensor_file(package)
    raw = json.dumps(header).encode()
    raw += b" " * (1 + -(8 + len(raw)) % 4)
    file = package / "model.safetensors"
    file.write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    with pytest.raises(PackageError, match="must be aligned to 4 bytes"):
        read_package(package)


def test_shards_read_like_one_file(package):
    whole = {name: np.array(array) for name, array in read_package(package).tensors.items()}
    to_shards(package)
    parts = read_package(package).tensors
    assert set(parts) == set(whole)
    for name, array in parts.items():
        np.testing.assert_array_equal(array, whole[name], strict=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i: i.update({"head.bias": "../model.safetensors"}), "must be a plain file name"),
        (lambda i: i.update({"head.bias": "/etc/passwd"}), "must be a plain file name"),
        (lambda i: i.update({"head.bias": ".."}), "must be a plain file name"),
        (lambda i: i.update({"head.bias": 3}), "must be a plain file name"),
        (lambda i: i.update({"head.bias": "absent.safetensors"}), "must be readable"),
        (lambda i: i.pop("head.bias"), "has, unlike the index, tensor 'head.bias'"),
        (lambda i: i.update(extra=i["head.bias"]), "lacks tensor 'extra'"),
        (lambda i: i.clear(), "weight_map must be an object"),
    ],
)
def test_an_index_that_lies_is_refused(package, change, message):
    index = to_shards(package)
    change(index)
    write_index(package, index)
    with pytest.raises(PackageError, match=message):
        read_package(package)


def test_one_file_beside_an_index_is_refused(package):
    shutil.copy(package / "model.safetensors", package.parent / "kept")
    to_shards(package)
    shutil.copy(package.parent / "kept", package / "model.safetensors")
    with pytest.raises(PackageError, match="got both"):
        read_package(package)


@pytest.mark.parametrize("name", FILES)
def test_a_link_out_of_the_package_is_refused(package, name):
    shutil.move(package / name, package.parent / name)
    (package / name).symlink_to(package.parent / name)
    with pytest.raises(PackageError, match="must stay inside the package"):
        read_package(package)


def test_a_link_inside_the_package_is_followed(package):
    (package / "config.json").rename(package / "settings.json")
    (package / "config.json").symlink_to("settings.json")
    assert read_package(package).family == "egru"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["pipe", "directory", "loop"])
def test_what_is_not_a_file_is_refused_without_blocking(package, name, kind):
    (package / name).unlink()
    if kind == "pipe":
        os.mkfifo(package / name)
    elif kind == "directory":
        (package / name).mkdir()
    else:
        (package / name).symlink_to(name)
    with pytest.raises(PackageError, match=name):
        read_package(package)


@pytest.mark.parametrize("path", ["absent", "package/config.json", "a\0b"])
def test_what_is_not_a_directory_is_refused(package, path):
    with pytest.raises(PackageError, match="must be a package directory"):
        read_package(package.parent / path)


def test_a_missing_config_is_named(tmp_path):
    with pytest.raises(PackageError, match=r"config\.json: must be readable, got No such file"):
        read_package(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -1}, "temperature must be a finite number of at least 0"),
        ({"temperature": 10**400}, "temperature must be"),
        ({"temperature": "hot"}, "temperature must be"),
        ({"top_p": 0}, r"top_p must be a number in \(0, 1\]"),
        ({"top_p": 10**400}, "top_p must be"),
        ({"top_k": 1.5}, "top_k must be"),
        ({"top_k": 2**31}, "top_k must be"),
        ({"max_new_tokens": 2**31}, "max_new_tokens must be"),
        ({"max_new_tokens": 0}, "max_new_tokens must be"),
        ({"eos_token_id": 9}, r"eos_token_id must be a token id in \[0, 9\)"),
        ({"eos_token_id": [1, True]}, "eos_token_id must be"),
        ({"beams": 4}, "beams is unknown"),
    ],
)
def test_generation_defaults_are_checked_when_read_and_when_written(
    package, content, values, message
):
    raw = json.dumps(values)
    (package / "generation_config.json").write_text(raw)
    with pytest.raises(PackageError, match=message):
        read_package(package)
    target = package.parent / "other"
    with pytest.raises(PackageError, match=message):
        write_package(target, *content, {"generation_config.json": raw.encode()})
    assert not target.exists()


def test_end_of_text_ids_are_a_tuple(package):
    for value, expected in ((3, (3,)), ([3, 4], (3, 4)), ([], ())):
        (package / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
        assert read_package(package).eos_token_ids == expected


def test_two_tokenizers_are_refused(package):
    (package / "tokenizer.json").write_text("{}")
    assert read_package(package).tokenizer_file.name == "tokenizer.json"
    (package / "tokenizer.model").write_text("")
    with pytest.raises(PackageError, match="must have one tokenizer"):
        read_package(package)
