"""What a hostile chat template may not do."""

import datetime
from contextlib import closing

import pytest

from spiketrain.runtime.errors import RequestError
from spiketrain.serving.errors import ConfigError
from spiketrain.serving.isolation.confined_process import Limits
from spiketrain.serving.request.chat import Chat, Message
from spiketrain.serving.request.chat_template import ChatTemplate
from spiketrain.serving.request.template_sandbox import MAX_TEXT


def render(source, content="hi", **fields):
    with closing(ChatTemplate(source, {"bos_token": "<s>"}, "test")) as template:
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


NEST = "{% set ns = namespace(x='a') %}{% for i in range(27) %}"
NEST += "{% set ns.x = [ns.x, ns.x] %}{% endfor %}"  # 27 lists, 134 million as a text
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
        NEST + "{{ ns.x | string }}",
        NEST + "{{ ns.x }}",
        NEST + "{{ ns.x | tojson }}",
        NEST + "{{ ns.x ~ 'a' }}",
        NEST + "{{ [ns.x] | join }}",
        NEST + "{{ ns.x | upper }}",
        NEST + "{{ ' '.join([ns.x]) }}",
        NEST + "{% set y %}{{ {'a': ns.x} }}{% endset %}",
        "{{ messages[0].content | indent(width=999999999) }}",
        "{{ strftime_now('%' ~ 999999999 ~ 'd') | length }}"
        "{% for i in range(99999) %}{% set x = strftime_now('%9999999d') %}{% endfor %}",
        "{{ 'x' | truncate(5, true, messages[0].content) | batch(999999999, 'x') | list }}",
    ],
)
def test_a_template_is_bounded_in_work_and_memory(source):
    with pytest.raises(RequestError, match="suit the chat template"):
        render(source, "x" * 100_000)


def test_the_next_rendering_starts_afresh():
    source = "{% for i in range(60000) %}{% endfor %}done"
    with closing(ChatTemplate(source, {}, "test")) as template:
        for _ in range(3):
            assert template.render(Chat((Message("user", "hi"),))) == "done"


def test_a_prompt_has_a_bounded_length():
    with pytest.raises(RequestError, match="characters"):
        render("{{ messages[0].content }}{{ messages[0].content }}", "x" * (MAX_TEXT // 2 + 1))


@pytest.mark.parametrize(
    "source",
    [
        "{% for %}",
        "{{ x | nofilter }}",
        "{{" + "(" * 5000,
        "{% break %}",  # what jinja2 writes for it is no Python
        "{% if x %}{% continue %}{% endif %}",
        "{% for i in x %}" * 30 + "{% endfor %}" * 30,
        "{{ " + "x + " * 5000 + "x }}",
        "{% set x.y.z = 1 %}",
        "{% block a %}{% endblock %}{% block a %}{% endblock %}",
        "{% generation %}",
    ],
)
def test_what_does_not_compile_is_refused_naming_the_file(source):
    with pytest.raises(ConfigError, match="test: must be a Jinja template"):
        ChatTemplate(source, {}, "test")


@pytest.mark.parametrize(
    "source",
    [
        "{{ 1e999 | int }}",
        "{{ none.x.y }}",
        "{{ messages[0].content + 1 }}",
        "{{ messages() }}",
        "{{ 1 // 0 }}",
        "{{ messages | map('nofilter') | list }}",
        "{{ messages[0].content.replace('a') }}",
        "{{ messages[0].content.split('') }}",
        "{{ namespace(1) }}",
        "{{ range('a') }}",
        "{% set a, b = messages[0].content, 1, 2 %}",
        "{{ {'a': messages}.items() | tojson }}",
        "{{ 1 | tojson(unheard=true) }}",
        "{{ [1, 'a'] | sort }}",
        "{{ '\\ud800' }}",
        "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
        "{% extends messages[0].content %}",
        "{{ caller() }}",
        "{% set x = namespace() %}{{ x.y.z }}",
        "{{ strftime_now(1) }}",
        "{{ raise_exception() }}",
    ],
)
def test_whatever_a_template_does_wrong_is_one_error(source):
    with pytest.raises(RequestError, match="suit the chat template") as caught:
        render(source)
    assert caught.value.field == "messages"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{% for m in messages %}{{ m.content.replace('h', 'b') }}{% endfor %}", "bi"),
        ("{% block a %}{{ messages[0].content.replace('h', 'b', 1) }}{% endblock %}", "bi"),
        ("{% for m in messages %}{{ ', '.join([m.role, 'x']) }}{% endfor %}", "user, x"),
        ("{% macro f(x) %}{{ x.replace('a', 'b') }}{% endmacro %}{{ f('a') }}", "b"),
        ("{% call(x) f() %}{{ x.replace('a', 'b') }}{% endcall %}", None),
        ("{{ tools is none }}{{ documents is none }}", "TrueTrue"),
        ("{{ {'b': 1, 'a': 2} | tojson(sort_keys=true) }}", '{"a": 2, "b": 1}'),
        ("{{ 'é' | tojson(ensure_ascii=true) }}", '"\\u00e9"'),
        ("{{ [1] | tojson(indent=2) }}", "[\n  1\n]"),
        ("{{ 'a\nb' | indent(2) }}", "a\n  b"),
        ("{{ {'b': 1, 'a': 2} | dictsort }}", "[('a', 2), ('b', 1)]"),
        ("{{ '1.5' | float + (-2) | abs + [3, 4] | max }}", "7.5"),
        ("{{ 'a b' | wordcount }}{{ [1, 2, 3] | batch(2) | list }}", "2[[1, 2], [3]]"),
        ("{{ '<' | e }}", "&lt;"),
        ("{{ 'a-b'.rsplit('-', 1)[1] }}{{ '1'.isdigit() }}", "bTrue"),
        ("a{% generation %}{{ messages[0].content }}{% endgeneration %}b", "ahib"),
        ("{% set x = 1 %}{% generation %}{% set x = 2 %}{% endgeneration %}{{ x }}", "1"),
    ],
)
def test_constructs_of_published_templates_work(source, text):
    if text is None:
        with pytest.raises(RequestError, match="'f' is undefined"):
            render(source)
    else:
        assert render(source) == text


def test_a_template_knows_todays_date():
    before = datetime.date.today()
    shown = render("{{ strftime_now('%Y-%m-%d') }}")
    assert before <= datetime.date.fromisoformat(shown) <= datetime.date.today()


def test_a_rendering_that_hangs_costs_its_call_alone(monkeypatch):
    limits = Limits(cpu_s=0.1, wall_s=60.0, memory_bytes=256 << 20)
    monkeypatch.setattr("spiketrain.serving.request.chat_template.RENDERING", limits)
    with closing(ChatTemplate("{{ messages[0].content }}", {}, "test")) as template:
        template.render(Chat((Message("user", "hi"),)))
        sorting = "{% set x = range(99999) | sort(reverse=true) | list %}"
        slow = "{% for i in range(100) %}" + sorting + "{% endfor %}"
        hanging = ChatTemplate(slow, {}, "test")
        with closing(hanging), pytest.raises(RequestError, match=r"it takes more than 0.1 s"):
            hanging.render(Chat((Message("user", "hi"),)))
        assert template.render(Chat((Message("user", "again"),))) == "again"
