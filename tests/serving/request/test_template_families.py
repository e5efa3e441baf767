"""Chat templates of published families, rebuilt from their constructs, and the text each makes."""

import datetime
import json
from pathlib import Path

import pytest

from spiketrain.serving.request import template_rendering

FAMILIES = Path(__file__).parents[2] / "data" / "chat_templates"
NAMES = sorted(path.stem for path in FAMILIES.glob("*.jinja"))
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
NOW_S = datetime.datetime(2031, 2, 3, 4, 5, 6).timestamp()
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " Hello  there. "},
    {"role": "assistant", "content": "<think>\nA greeting.\n</think>\n\nHi! "},
    {"role": "user", "content": "What is 2 + 2?\n\nQuick & “exact”."},
]
TOOLS = [*TALK[1:2], {"role": "tool", "content": "4"}, {"role": "tool", "content": "five"}]
TALKS = {"talk": (TALK, True), "silent": (TALK[1:3], False), "tools": (TOOLS, True)}


def rendered(source, messages, add_generation_prompt):
    render = template_rendering.load(template_rendering.setup_of(source, TOKENS))
    question = {
        "messages": messages,
        "add_generation_prompt": add_generation_prompt,
        "now_s": NOW_S,
    }
    return render(json.dumps(question).encode()).decode()


def expected(name):
    """By name of the talk; a family that has no such talk leaves it out."""
    return json.loads((FAMILIES / f"{name}.json").read_text())


def test_twenty_families_are_there():
    assert len(NAMES) >= 20


@pytest.mark.parametrize("name", NAMES)
def test_the_template_of_a_family_makes_its_text(name):
    source = (FAMILIES / f"{name}.jinja").read_text()
    texts = expected(name)
    assert "talk" in texts
    for talk, text in texts.items():
        assert rendered(source, *TALKS[talk]) == text, talk


@pytest.mark.parametrize("name", NAMES)
def test_it_is_the_text_that_transformers_makes(name, monkeypatch):
    utils = pytest.importorskip("transformers.utils.chat_template_utils")

    class Now(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromtimestamp(NOW_S)

    monkeypatch.setattr(utils, "datetime", Now)
    source = (FAMILIES / f"{name}.jinja").read_text()
    for talk, text in expected(name).items():
        messages, opened = TALKS[talk]
        (made,), _ = utils.render_jinja_template(
            [messages], chat_template=source, add_generation_prompt=opened, **TOKENS
        )
        assert made == text, talk
