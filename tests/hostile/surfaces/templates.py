"""Chat templates, rendered in the process with limits that the server has for them."""

import json
from contextlib import contextmanager
from pathlib import Path

from mutation import changed_text, json_bytes
from surfaces import template_program

from spiketrain.serving.isolation.confined_process import Refused
from spiketrain.serving.isolation.confinement import Confinement, Died
from spiketrain.serving.request.chat_template import RENDERING
from spiketrain.serving.request.template_sandbox import TemplateSandbox

TARGET, BATCH, NEEDS = 1_000_000, 200, ("jinja2", "structlog")
TEMPLATES = Path(__file__).parents[2] / "data" / "chat_templates"
WORDS = (
    "{{ ", " }}", "{% for m in messages %}", "{% endfor %}", "{% if loop %}", "|string", "|list",
    ".__class__", "[0]", "*9999", "range(10**9)", "{% set ns.x = [ns.x, ns.x] %}", "|join",
    "{% break %}", "messages", "raise_exception('x')", "1e999|int", ".replace('a', 'b')", "self",
    "|tojson",
)  # fmt: skip


def prepare(folder):
    return [path.read_text() for path in sorted(TEMPLATES.glob("*.jinja"))]


def make(chance, seeds):
    text = changed_text(chance, chance.choice(seeds), WORDS)
    return json_bytes([text, chance.choice(("", "hello", "é{{ 7*7 }}", "a" * 500))])


class NoTemplateError(Exception):
    """What the server would refuse when it starts."""


@contextmanager
def open_calls(seeds):
    confinement = Confinement(template_program, lambda: b"", RENDERING)

    def call(data):
        source = json.loads(data)[0]
        try:
            TemplateSandbox().from_string(source)
        except Exception as error:  # as ChatTemplate takes all of them
            raise NoTemplateError from error
        confinement.ask(data).decode()

    try:
        yield call
    finally:
        confinement.close()


def allowed():
    return (NoTemplateError, Refused, Died)
