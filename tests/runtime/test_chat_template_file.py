import json

import pytest

from spiketrain.runtime.chat_template_file import read_chat_template
from spiketrain.runtime.errors import PackageError


@pytest.fixture
def package(tmp_path):
    def write(**files):
        for name, content in files.items():
            (tmp_path / name.replace("__", ".")).write_text(content)
        return tmp_path

    return write


def test_the_template_stands_in_the_tokenizers_config_with_its_special_tokens(package):
    config = {"chat_template": "T", "bos_token": "<s>", "eos_token": {"content": "</s>"}}
    path = package(tokenizer_config__json=json.dumps(config))
    found = read_chat_template(path)
    assert (found.source, found.special_tokens) == ("T", {"bos_token": "<s>", "eos_token": "</s>"})


def test_of_several_templates_the_default_one_counts(package):
    named = [{"name": "tools", "template": "A"}, {"name": "default", "template": "B"}]
    path = package(tokenizer_config__json=json.dumps({"chat_template": named}))
    assert read_chat_template(path).source == "B"


def test_a_file_of_its_own_goes_before_the_config_and_a_given_one_before_both(package, tmp_path):
    path = package(
        tokenizer_config__json=json.dumps({"chat_template": "T", "bos_token": "<s>"}),
        chat_template__jinja="J",
        mine__jinja="M",
    )
    assert read_chat_template(path).source == "J"
    given = read_chat_template(path, tmp_path / "mine.jinja")
    assert (given.source, given.special_tokens) == ("M", {"bos_token": "<s>"})


def test_a_package_may_have_none(package):
    assert read_chat_template(package()) is None
    assert read_chat_template(package(tokenizer_config__json="{}")) is None


@pytest.mark.parametrize("content", ['{"chat_template": 3}', "[", '{"chat_template": "x"', "{} {}"])
def test_a_damaged_config_is_a_package_error(package, content):
    with pytest.raises(PackageError, match="tokenizer_config"):
        read_chat_template(package(tokenizer_config__json=content))


def test_a_template_that_is_not_utf8_is_a_package_error(package):
    path = package()
    (path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(PackageError, match=r"chat_template\.jinja: must be UTF-8"):
        read_chat_template(path)
