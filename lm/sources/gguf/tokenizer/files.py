"""A vocabulary -> tokenizer.json, tokenizer_config.json and generation_config.json."""

import json
from typing import Any

from spiketrain.lm.sources.gguf.error import Unquoted
from spiketrain.lm.sources.gguf.metadata import Metadata
from spiketrain.lm.sources.gguf.tokenizer.byte_level import byte_level_parts
from spiketrain.lm.sources.gguf.tokenizer.sentencepiece import sentencepiece_parts
from spiketrain.lm.sources.gguf.tokenizer.vocabulary import GPT2, TokenType, Vocabulary

_TEMPLATE = "tokenizer.chat_template"
_MAX_TEMPLATE_BYTES = 1 << 19
_SPECIAL = (TokenType.CONTROL, TokenType.UNKNOWN)
_ROLES = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}


def tokenizer_files(
    vocabulary: Vocabulary, templates: dict[str, str], max_length: int
) -> dict[str, str]:
    """File name -> text; templates: those of chats by name, max_length: tokens of a context."""
    files = {
        "tokenizer.json": _tokenizer(vocabulary),
        "tokenizer_config.json": _tokenizer_config(vocabulary, templates, max_length),
        "generation_config.json": _generation_config(vocabulary),
    }
    return {name: json.dumps(content, ensure_ascii=False) for name, content in files.items()}


def chat_templates(metadata: Metadata) -> dict[str, str]:
    """Chat templates by name, that of `tokenizer.chat_template` as "default".

    No template is compiled or rendered.  Raises GgufError.
    """
    templates = {}
    if _TEMPLATE in metadata:
        templates["default"] = metadata.text(_TEMPLATE, most=_MAX_TEMPLATE_BYTES)
    for key in metadata:
        name = key.removeprefix(f"{_TEMPLATE}.")
        if name == key:
            continue
        if not name or name in templates:
            raise metadata.error(key, "have a name of its own", Unquoted(repr(name)))
        templates[name] = metadata.text(key, most=_MAX_TEMPLATE_BYTES)
    size = sum(len(text.encode()) for text in templates.values())
    if size > _MAX_TEMPLATE_BYTES:
        rule = f"have at most {_MAX_TEMPLATE_BYTES} bytes with all named ones"
        raise metadata.error(_TEMPLATE, rule, size)
    return templates


def _tokenizer(vocabulary: Vocabulary) -> dict[str, Any]:
    parts = byte_level_parts if vocabulary.model == GPT2 else sentencepiece_parts
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(vocabulary),
        "post_processor": _post_processor(vocabulary),
        **parts(vocabulary),
    }


def _added_tokens(vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """Tokens that are matched whole: control and unknown tokens are special, the user's are not."""
    return [
        {
            "id": i,
            "content": vocabulary.tokens[i],
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind in _SPECIAL,
        }
        for i, kind in enumerate(vocabulary.types.tolist())
        if kind in (*_SPECIAL, TokenType.USER_DEFINED)
    ]


def _post_processor(vocabulary: Vocabulary) -> dict[str, Any] | None:
    """What is added to every text; None where that is nothing."""
    roles = ["bos"] * vocabulary.add_bos + ["eos"] * vocabulary.add_eos
    if not roles:
        return None
    texts = {role: vocabulary.tokens[vocabulary.special[role]] for role in roles}

    def sequence(name: str, kind: int) -> list[dict[str, Any]]:
        around = {role: [{"SpecialToken": {"id": texts[role], "type_id": kind}}] for role in roles}
        text = {"Sequence": {"id": name, "type_id": kind}}
        return [*around.get("bos", []), text, *around.get("eos", [])]

    special = {
        text: {"id": text, "ids": [vocabulary.special[role]], "tokens": [text]}
        for role, text in texts.items()
    }
    return {
        "type": "TemplateProcessing",
        "single": sequence("A", 0),
        "pair": sequence("A", 0) + sequence("B", 1),
        "special_tokens": special,
    }


def _tokenizer_config(
    vocabulary: Vocabulary, templates: dict[str, str], max_length: int
) -> dict[str, Any]:
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "clean_up_tokenization_spaces": False,
        "add_bos_token": vocabulary.add_bos,
        "add_eos_token": vocabulary.add_eos,
    }
    for role, name in _ROLES.items():
        if role in vocabulary.special:
            config[name] = vocabulary.tokens[vocabulary.special[role]]
    if list(templates) == ["default"]:
        config["chat_template"] = templates["default"]
    elif templates:
        named = [{"name": name, "template": text} for name, text in templates.items()]
        config["chat_template"] = named
    return config


def _generation_config(vocabulary: Vocabulary) -> dict[str, Any]:
    """Where a text begins and after which tokens it is over."""
    config: dict[str, Any] = {}
    for role, name in (("bos", "bos_token_id"), ("padding", "pad_token_id")):
        if role in vocabulary.special:
            config[name] = vocabulary.special[role]
    if vocabulary.ends:
        config["eos_token_id"] = vocabulary.ends
    return config
