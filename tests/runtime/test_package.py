import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.errors import PackageError
from runtime.package import compute_fingerprint, read_package, write_package
from runtime.tensor_file import map_tensors

SIZES = {"hidden_sizes": (5, 4), "embedding_size": 4}
FILES = ["config.json", "generation_config.json", "model.safetensors"]


def make(path, **options):
    return tiny.tiny_egru_package(path, **{**SIZES, "vocab": 9, "with_tokenizer": False, **options})


@pytest.fixture
def package(tmp_path):
    return make(tmp_path / "package")


@pytest.fixture
def content():
    config = tiny.egru_config("int8", True, False, 9, (5, 4), 4)
    return config, tiny.egru_tensors(config)


def rewrite_config(package, change):
    config = json.loads((package / "config.json").read_text())
    change(config)
    (package / "config.json").write_text(json.dumps(config))


def split_tensor_file(package):
    raw = (package / "model.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + size]), raw[8 + size :]


def rewrite_header(package, change):
    header, data = split_tensor_file(package)
    changed = change(header)
    text = json.dumps(header if changed is None else changed)
    raw = (text + " " * (-(8 + len(text)) % 64)).encode()
    (package / "model.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + data)


def to_shards(package):
    """Split the tensor file in two and write the index."""
    tensors = {name: np.array(a) for name, a in read_package(package).tensors.items()}
    names = sorted(tensors)
    index = {}
    from runtime.tensor_file import write_tensors

    for number, part in enumerate((names[::2], names[1::2]), start=1):
        shard = f"model-{number:05d}-of-00002.safetensors"
        write_tensors(package / shard, {name: tensors[name] for name in part})
        index.update(dict.fromkeys(part, shard))
    (package / "model.safetensors").unlink()
    write_index(package, index)
    return index


def write_index(package, index):
    text = json.dumps({"metadata": {}, "weight_map": index})
    (package / "model.safetensors.index.json").write_text(text)


@pytest.mark.parametrize("weights", ["int8", "float32"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("projection", [True, False])
def test_a_package_reads_back_as_written(tmp_path, weights, tied, projection):
    config = tiny.egru_config(weights, tied, projection, 9, (5, 4), 4)
    tensors = tiny.egru_tensors(config)
    stated = write_package(tmp_path / "p", config, tensors, {"README.md": b"text"})
    package = read_package(tmp_path / "p")
    assert package.fingerprint == stated == compute_fingerprint(package.config, tensors)
    assert package.family == "egru"
    assert set(package.tensors) == set(tensors)
    for name, array in package.tensors.items():
        np.testing.assert_array_equal(array, tensors[name], strict=True)
    assert (tmp_path / "p" / "README.md").read_bytes() == b"text"


def test_tensors_are_aligned_read_only_views(package):
    for array in read_package(package).tensors.values():
        assert not array.flags.writeable
        assert not array.flags.owndata
        assert array.flags.aligned
        assert array.flags.c_contiguous


def test_the_safetensors_library_reads_our_file(package):
    library = pytest.importorskip("safetensors.numpy")
    theirs = library.load_file(package / "model.safetensors")
    ours = read_package(package).tensors
    assert set(theirs) == set(ours)
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], strict=True)


def test_we_read_the_safetensors_librarys_file(package):
    library = pytest.importorskip("safetensors.numpy")
    tensors = {name: np.array(array) for name, array in read_package(package).tensors.items()}
    library.save_file(tensors, package / "model.safetensors", {"format": "np"})
    assert set(read_package(package).tensors) == set(tensors)


def test_the_fingerprint_covers_results_but_not_provenance(content):
    config, tensors = content
    first = compute_fingerprint(config, tensors)
    config["spiketrain"]["provenance"]["source"] = "elsewhere"
    assert compute_fingerprint(config, tensors) == first
    assert compute_fingerprint({**config, "zoneout": 0.5}, tensors) != first
    changed = dict(tensors)
    changed["head.bias"] = np.nextafter(tensors["head.bias"], np.float32(np.inf))
    assert compute_fingerprint(config, changed) != first


def test_writing_twice_gives_the_same_bytes(tmp_path):
    first, second = make(tmp_path / "a"), make(tmp_path / "b")
    for file in sorted(first.iterdir()):
        assert file.read_bytes() == (second / file.name).read_bytes()


def test_an_existing_target_is_refused_without_force(package, content):
    before = (package / "config.json").read_bytes()
    with pytest.raises(PackageError, match=r"must not exist yet \(--force"):
        write_package(package, *content)
    assert (package / "config.json").read_bytes() == before


def test_force_replaces_the_whole_package(package, content):
    (package / "old.txt").write_text("left over")
    write_package(package, *content, force=True)
    assert sorted(os.listdir(package)) == ["config.json", "model.safetensors"]
    assert os.listdir(package.parent) == [package.name]


def test_force_replaces_nothing_but_a_package(tmp_path, package, content):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    (tmp_path / "link").symlink_to(package)
    (tmp_path / "file").write_text("")
    for name in ("home", "link", "file"):
        with pytest.raises(PackageError, match="must be a package to be replaced"):
            write_package(tmp_path / name, *content, force=True)
    assert (tmp_path / "home" / "letter.txt").exists()


def test_force_does_not_replace_a_checkpoint(tmp_path, content):
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text('{"model_type": "egru"}')
    with pytest.raises(PackageError, match="has no spiketrain object"):
        write_package(checkpoint, *content, force=True)
    assert [file.name for file in checkpoint.iterdir()] == ["config.json"]


def test_an_interrupt_between_the_renames_leaves_the_old_package(
    tmp_path, package, content, monkeypatch
):
    before = {path.name: path.read_bytes() for path in package.iterdir()}
    rename = os.rename

    def interrupted(source, target):
        if str(source).endswith(".tmp"):
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_package(package, *content, force=True)
    assert {path.name: path.read_bytes() for path in package.iterdir()} == before
    assert [path.name for path in package.parent.iterdir()] == [package.name]


@pytest.mark.parametrize("broken", ["fsync", "rename"])
@pytest.mark.parametrize("force", [False, True])
def test_a_failed_write_leaves_everything_as_it_was(tmp_path, content, monkeypatch, broken, force):
    if force:
        make(tmp_path / "p", seed=5)
    before = {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()}
    real, calls = getattr(os, broken), []

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) == (2 if force or broken == "fsync" else 1):
            raise OSError(28, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match="No space left"):
        write_package(tmp_path / "p", *content, force=force)
    assert {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()} == before
    assert os.listdir(tmp_path) == (["p"] if force else [])


def test_a_missing_file_to_copy_leaves_nothing(tmp_path, content):
    with pytest.raises(PackageError, match=r"absent\.model: must be readable"):
        write_package(tmp_path / "p", *content, {"tokenizer.model": tmp_path / "absent.model"})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a\0b", "config.json", "x" * 300])
def test_further_files_have_plain_names(tmp_path, content, name):
    with pytest.raises(PackageError):
        write_package(tmp_path / "p", *content, {name: b""})
    assert os.listdir(tmp_path) == []


def test_bad_tensors_are_refused_before_anything_is_written(tmp_path, content):
    config, tensors = content
    tensors["head.bias"] = tensors["head.bias"].astype(np.float64)
    with pytest.raises(PackageError, match=r"'head\.bias' is float64, config says float32"):
        write_package(tmp_path / "p", config, tensors)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("head.scale", 0.0, "finite and above 0, got 0.0"),
        ("head.scale", -1.0, "finite and above 0"),
        ("head.scale", np.inf, "finite and above 0"),
        ("layers.1.input.scale", np.nan, "finite and above 0"),
        ("layers.0.threshold", -1e-9, r"in \[0, 1\]"),
        ("layers.0.threshold", 1.01, r"in \[0, 1\]"),
        ("layers.0.threshold", np.nan, r"in \[0, 1\]"),
        ("layers.0.recurrent.bias", np.nan, "finite, got nan"),
        ("head.bias", -np.inf, "finite"),
        ("head.weight", -128, r"at \(1, 2\) must be in \[-127, 127\], got -128"),
    ],
)
def test_a_value_out_of_range_is_named(tmp_path, content, name, value, message):
    config, tensors = content
    tensors[name] = tensors[name].copy()
    tensors[name][(1, 2) if tensors[name].ndim == 2 else 1] = value
    with pytest.raises(PackageError, match=message) as caught:
        write_package(tmp_path / "p", config, tensors)
    assert repr(name) in str(caught.value)


def test_missing_unknown_and_misshapen_tensors_are_named(tmp_path, content):
    config, tensors = content
    bias = tensors.pop("head.bias")
    with pytest.raises(PackageError, match=r"'head\.bias' is missing"):
        write_package(tmp_path / "p", config, tensors)
    with pytest.raises(PackageError, match=r"'extra' is unknown"):
        write_package(tmp_path / "p", config, {**tensors, "head.bias": bias, "extra": bias})
    with pytest.raises(PackageError, match=r"is \(8,\), config says \(9,\)"):
        write_package(tmp_path / "p", config, {**tensors, "head.bias": bias[1:]})


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


def content_of(package):
    """Everything that a loaded package says, but for its provenance."""
    config = json.loads(json.dumps(package.config))
    del config["spiketrain"]["provenance"]
    tensors = {name: array.tobytes() for name, array in package.tensors.items()}
    return config, tensors, package.generation_config


@pytest.fixture(scope="module", params=["one file", "shards"])
def damaged(request, tmp_path_factory):
    """A package to damage: its directory, its files' bytes, what it says."""
    package = make(tmp_path_factory.mktemp("damaged") / "package")
    if request.param == "shards":
        to_shards(package)
    files = {file: file.read_bytes() for file in sorted(package.iterdir())}
    return package, files, content_of(read_package(package))


def refused_or_same(damaged, file, raw, allow_defaults):
    """Load with `file` changed: PackageError, or the very same content."""
    package, files, expected = damaged
    file.write_bytes(raw)
    try:
        found = content_of(read_package(package))
    except PackageError:
        return
    finally:
        file.write_bytes(files[file])
    assert found[:2] == expected[:2]
    assert allow_defaults or found == expected


relaxed = settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@relaxed
@given(data=st.data())
def test_no_flipped_bit_goes_unnoticed(damaged, data):
    file: Path = data.draw(st.sampled_from(sorted(damaged[1])))
    raw = bytearray(damaged[1][file])
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    # the generation defaults are outside the fingerprint: valid other numbers may load
    refused_or_same(damaged, file, bytes(raw), file.name == "generation_config.json")


@relaxed
@given(data=st.data())
def test_no_truncation_goes_unnoticed(damaged, data):
    file: Path = data.draw(st.sampled_from(sorted(damaged[1])))
    raw = damaged[1][file]
    refused_or_same(damaged, file, raw[: data.draw(st.integers(0, len(raw) - 1))], False)


@relaxed
@given(data=st.data())
def test_no_inserted_bytes_go_unnoticed(damaged, data):
    file: Path = data.draw(st.sampled_from(sorted(damaged[1])))
    raw, at = damaged[1][file], data.draw(st.integers(0, len(damaged[1][file])))
    extra = data.draw(st.binary(min_size=1, max_size=8))
    allow = file.name == "generation_config.json"
    refused_or_same(damaged, file, raw[:at] + extra + raw[at:], allow)


def test_every_flipped_data_byte_is_caught(package):
    file = package / "model.safetensors"
    raw = file.read_bytes()
    start = len(raw) - len(split_tensor_file(package)[1])
    for at in range(start, len(raw), 7):
        changed = bytearray(raw)
        changed[at] ^= 0x10
        file.write_bytes(changed)
        with pytest.raises(PackageError):
            read_package(package)


def test_a_view_outlives_its_package(package):
    array = map_tensors(package.resolve(), "model.safetensors")["head.bias"]
    shutil.rmtree(package)
    assert np.isfinite(array).all()
