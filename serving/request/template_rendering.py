"""A program for `confinement.py` that renders a package's chat template."""

import datetime
import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

import jinja2

from spiketrain.serving.isolation.confined_process import Refused
from spiketrain.serving.request.template_sandbox import MAX_TEXT, TemplateSandbox, TemplateTooLong

WARM = b'{"messages": [{"role": "user", "content": ""}], "add_generation_prompt": true, "now_s": 0}'


def setup_of(source: str, special_tokens: Mapping[str, str]) -> bytes:
    """What `load` takes: a template, and the special tokens that it may name."""
    return json.dumps({"source": source, "special_tokens": dict(special_tokens)}).encode()


def load(setup: bytes) -> Callable[[bytes], bytes]:
    """A renderer: a JSON object of messages and what else they need in, UTF-8 out."""
    given = json.loads(setup)
    sandbox = TemplateSandbox()
    template = sandbox.from_string(given["source"])

    def render(question: bytes) -> bytes:
        asked = json.loads(question)
        sandbox.rendering()
        try:
            return _text(template, asked, given["special_tokens"]).encode()
        except (jinja2.TemplateError, TemplateTooLong) as error:
            raise Refused(str(error)) from None
        except Exception as error:  # whatever a template does wrong
            raise Refused(f"{type(error).__name__}: {error}") from None

    return render


def _text(
    template: jinja2.Template, asked: Mapping[str, Any], special_tokens: Mapping[str, str]
) -> str:
    """The prompt. Raises TemplateTooLong, and whatever the template does."""
    pieces, length = [], 0
    for piece in template.generate(
        messages=asked["messages"],
        tools=None,
        documents=None,
        add_generation_prompt=asked["add_generation_prompt"],
        raise_exception=_refuse,
        strftime_now=functools.partial(_strftime, asked["now_s"]),
        **special_tokens,
    ):
        length += len(piece)
        if length > MAX_TEXT:
            raise TemplateTooLong(f"more than {MAX_TEXT} characters")
        pieces.append(piece)
    return "".join(pieces)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime(now_s: float, format: str) -> str:  # noqa: A002
    """The time of the request on the clock of this machine, as templates write today's date."""
    return datetime.datetime.fromtimestamp(now_s).strftime(format)
