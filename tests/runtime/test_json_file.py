"""JSON of others is read up to a limit of size and of depth."""

import pytest

from spiketrain.runtime import json_file
from spiketrain.runtime.json_file import parse_json_text, read_json_file


def test_what_is_in_the_file_comes_out(tmp_path):
    (tmp_path / "a.json").write_text('{"a": [1, 2.5, null]}')
    assert read_json_file(tmp_path / "a.json") == {"a": [1, 2.5, None]}


@pytest.mark.parametrize("deep", ["[" * 200_000, '{"a":' * 200_000])
def test_what_is_nested_too_deeply_is_refused(tmp_path, deep):
    (tmp_path / "a.json").write_text(deep)
    with pytest.raises(ValueError, match="nested too deeply"):
        read_json_file(tmp_path / "a.json")
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json_text(deep)


def test_a_file_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(json_file, "MAX_JSON_BYTES", 10)
    (tmp_path / "a.json").write_text("[1,2,3,4,5]")
    with pytest.raises(ValueError, match="must have at most 10 bytes"):
        read_json_file(tmp_path / "a.json")


@pytest.mark.parametrize("content", [b"\xff", b"{", b""])
def test_what_is_no_json_is_refused(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"."):
        read_json_file(tmp_path / "a.json")
