"""What a hostile chat template may not do."""

import pytest

from spiketrain.runtime.errors import RequestError
from spiketrain.serving.errors import ConfigError
from spiketrain.serving.request.chat import Chat, Message
from spiketrain.serving.request.chat_template import ChatTemplate
from spiketrain.serving.request.template_sandbox import MAX_TEXT


def render(source, content="hi", **fields):
    template = ChatTemplate(source, {"bos_token": "<s>"}, "test")
    return template.render(Chat((Message("user", content),), **fields))


def test_a_template_sees_messages_tokens_and_whether_to_go_on():
    source = (
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}|{{ m['content'] | trim }}]{% endfor %}"
        "{% if add_generation_prompt %}[assistant|{% endif %}"
    )
    assert render(source, " hi ") == "<s>[user|hi][assistant|"
    assert render(source, add_generation_prompt=False) == "<s>[user|hi]"


def test_what_templates_of_chat_models_use_works():
    source = """
    {%- set ns = namespace(found=false) -%}
    {%- for m in messages -%}
        {%- if loop.first and not tools -%}{%- set ns.found = true -%}{%- endif -%}
        {{- '<|im_start|>' + m.role + '\\n' + m.content.strip() ~ '<|im_end|>' -}}
        {%- if not loop.last -%}{%- continue -%}{%- endif -%}
    {%- endfor -%}
    {{- {'a': [1, 'é']} | tojson -}}{{- ns.found -}}{{- messages[-1].content[:1] -}}
    {{- messages | selectattr('role', 'equalto', 'user') | list | length -}}
    {%- macro twice(x) -%}{{ x }}{{ x }}{%- endmacro -%}{{- twice('y') -}}
    {{- 'a-b'.split('-')[1].upper() -}}
    """
    assert render(source) == '<|im_start|>user\nhi<|im_end|>{"a": [1, "é"]}Trueh1yyB'


def test_a_template_can_refuse_messages():
    with pytest.raises(RequestError, match="roles must alternate") as caught:
        render("{{ raise_exception('roles must alternate') }}")
    assert caught.value.field == "messages"


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__class__ }}",
        "{{ messages[0].items.__globals__ }}",
        "{{ raise_exception.__globals__ }}",
        "{{ self.__init__.__globals__ }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='x') }}",
        "{{ '%s' % messages }}",
        "{{ '{0.__class__}'.format(messages) }}",
        "{{ 'a'.ljust(10) }}",
        "{{ '{:99}'.format(1) }}",
        "{% include '/etc/passwd' %}",
        "{{ messages | attr('__class__') }}",
        "{{ cycler }}{{ lipsum() }}",
    ],
)
def test_a_template_does_not_get_out(source):
    try:
        shown = render(source)
    except (RequestError, ConfigError):
        return
    assert shown == ""  # what may not be read is undefined


GROW = "{% set ns = namespace(x='aaaaaaaaaa') %}{% for i in range(100) %}"


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(1000000000) %}{% endfor %}",
        "{% for i in range(999) %}{% for j in range(999) %}{% endfor %}{% endfor %}",
        "{% for i in [1, 2, 3, 4, 5, 6, 7, 8] %}" * 7 + "{% endfor %}" * 7,
        GROW + "{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        GROW + "{% set ns.x = ns.x + ns.x %}{% endfor %}",
        GROW + "{% set ns.x = ns.x.replace('a', 'aaaaaaaa') %}{% endfor %}",
        GROW + "{% set ns.x = ns.x | replace('a', 'aaaaaaaa') %}{% endfor %}",
        GROW + "{% set ns.x = [ns.x, ns.x] | join(ns.x) %}{% endfor %}",
        "{{ 'a' * 1000000000 }}",
        "{{ [0] * 1000000000 }}",
        "{{ 10 ** 10 ** 10 }}",
        "{% macro f(n) %}{{ f(n - 1) }}{{ f(n - 1) }}{% endmacro %}{{ f(900) }}",
        "{% macro f(n) %}{{ f(n - 1) ~ f(n - 1) if n else 0 }}{% endmacro %}{{ f(40) }}",
        "{% for i in range(3) recursive %}{{ loop(range(3)) }}{% endfor %}",
        "{% for i in range(90000) %}{{ messages[0].content }}{% endfor %}",
        "{% for i in range(90000) %}{% set x = messages[0].content | upper %}{% endfor %}",
        "{% for i in range(90000) %}{% set x = messages[0].content.upper() %}{% endfor %}",
    ],
)
def test_a_template_is_bounded_in_work_and_memory(source):
    with pytest.raises(RequestError, match="suit the chat template"):
        render(source, "x" * 100_000)


def test_the_next_rendering_starts_afresh():
    template = ChatTemplate("{% for i in range(60000) %}{% endfor %}done", {}, "test")
    for _ in range(3):
        assert template.render(Chat((Message("user", "hi"),))) == "done"


def test_a_prompt_has_a_bounded_length():
    with pytest.raises(RequestError, match="characters"):
        render("{{ messages[0].content }}{{ messages[0].content }}", "x" * (MAX_TEXT // 2 + 1))


@pytest.mark.parametrize("source", ["{% for %}", "{{ x | nofilter }}", "{{" + "(" * 5000])
def test_what_does_not_compile_is_refused_naming_the_file(source):
    with pytest.raises(ConfigError, match="test: must be a Jinja template"):
        ChatTemplate(source, {}, "test")
