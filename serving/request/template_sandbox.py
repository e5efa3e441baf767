"""A Jinja environment for untrusted templates: no access outside, bounded work and memory.

jinja2's immutable sandbox keeps a template from Python's insides and from changing its arguments.
What it does not bound is bounded here: iterations over all loops, the length of every text that an
operator, a filter or a method makes, the characters they read, and the filters and methods there
are.
"""

import functools
import json
from collections.abc import Callable, Iterable
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_STEPS = 100_000  # iterations, calls, and blocks of characters read
MAX_TEXT = 1 << 20  # characters
_BLOCK = 256  # characters that count as a step
# fmt: off
FILTERS = (
    "abs", "batch", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first",
    "float", "groupby", "indent", "int", "items", "join", "last", "length", "list", "lower", "map",
    "max", "min", "reject", "rejectattr", "replace", "reverse", "round", "safe", "select",
    "selectattr", "slice", "sort", "string", "sum", "title", "trim", "truncate", "unique", "upper",
    "wordcount",
)
_TO_TEXT = frozenset((  # of whatever value
    "capitalize", "e", "escape", "indent", "lower", "replace", "string", "title", "tojson", "trim",
    "truncate", "upper", "wordcount",
))
METHODS = frozenset((
    "capitalize", "casefold", "count", "endswith", "find", "get", "index", "isalnum", "isalpha",
    "isascii", "isdecimal", "isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper",
    "items", "join", "keys", "lower", "lstrip", "partition", "removeprefix", "removesuffix",
    "replace", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "split", "splitlines",
    "startswith", "strip", "swapcase", "title", "upper", "values",
))
# fmt: on


class TemplateTooLong(Exception):  # noqa: N818
    """A template does more than it may."""


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """Compiles templates whose rendering is bounded; `rendering` starts the count anew."""

    intercepted_binops = frozenset(["+", "*", "**", "%", "//", "/", "-"])

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", Generation],
            finalize=self._measured,
        )
        own = {"tojson": _to_json, "join": self._join, "replace": self._replace}
        filters = {**{name: self.filters[name] for name in FILTERS}, **own}
        self.filters = {name: self._charged(name, filters[name]) for name in filters}
        self.filters |= {"counted": self._counted, "joined": self._joined}
        kept = {name: self.globals[name] for name in ("dict", "namespace")}
        self.globals = {"range": self._range, **kept}
        self._left = MAX_STEPS

    def rendering(self) -> None:
        """Allow MAX_STEPS from now on."""
        self._left = MAX_STEPS

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may read an attribute: of data, the methods of METHODS alone."""
        if isinstance(obj, str | list | tuple | dict | int | float):
            return attr in METHODS
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """Leave str.format to `is_safe_attribute`, which refuses it: it pads without bounds."""

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Call what a template calls; `str.replace` and `str.join` are ours."""
        context, function, *rest = args
        owner = getattr(function, "__self__", None)
        self._charge(owner, *rest)
        ours = _OURS.get(getattr(function, "__name__", "")) if isinstance(owner, str) else None
        if ours is None:
            return super().call(context, function, *rest, **kwargs)
        for name in _SCOPE:  # compiled code adds them inside loops and blocks
            kwargs.pop(name, None)
        return ours(self, owner, *rest, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Apply an operator to operands whose result has a bounded size."""
        if operator == "+" and isinstance(left, str | list | tuple):
            self._charge_length(len(left) + len(right))
        elif operator in ("*", "**", "%"):
            if not all(isinstance(value, int | float) for value in (left, right)):
                raise TemplateTooLong(f"{operator} is for numbers")
            if operator == "**" or max(abs(left), abs(right)) > MAX_TEXT:
                raise TemplateTooLong(f"{operator} gives too large a number")
        return super().call_binop(context, operator, left, right)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        return _Bounded().visit(super()._parse(source, name, filename))

    def _count(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            raise TemplateTooLong(f"more than {MAX_STEPS} steps")

    def _charge(self, *values: Any) -> None:
        """Count a step, and one for each block of what it reads."""
        sized = str | list | tuple | dict | range
        read = sum(len(value) for value in values if isinstance(value, sized))
        self._count(1 + read // _BLOCK)

    def _charge_length(self, length: int) -> None:
        """Count the making of a text or list; refuse one that is too long."""
        if length > MAX_TEXT:
            raise TemplateTooLong(f"a text of more than {MAX_TEXT} characters")
        self._count(1 + length // _BLOCK)

    def _measured(self, value: Any) -> Any:
        """The value, once what it holds is counted: as a text each part of it is written out."""
        parts = [value]
        while parts:
            part = parts.pop()
            if isinstance(part, list | tuple | dict):
                self._charge(part)
                parts += part
                parts += part.values() if isinstance(part, dict) else ()
            elif isinstance(part, str) and part is not value:
                self._count(len(part) // _BLOCK)
        return value

    def _charged(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)  # and what tells jinja2 of arguments to pass before the value
        def charged(*args: Any, **kwargs: Any) -> Any:
            self._charge(*args)
            if name in _TO_TEXT:
                self._measured(args[0])
            return function(*args, **kwargs)

        return charged

    # With the context as an argument, a filter is never applied while a template is compiled.

    @jinja2.pass_context
    def _counted(self, context: Any, values: Iterable[Any]) -> list[Any]:
        items = list(values)
        self._count(1 + len(items))
        return items

    @jinja2.pass_context
    def _joined(self, context: Any, parts: list[Any]) -> str:
        texts = [str(self._measured(part)) for part in parts]
        self._charge_length(sum(map(len, texts)))
        return "".join(texts)

    def _join(self, values: Iterable[Any], between: str = "") -> str:
        texts = [str(self._measured(value)) for value in values]
        self._charge_length(sum(map(len, texts)) + len(between) * len(texts))
        return between.join(texts)

    def _replace(self, text: str, old: str, new: str, count: int = -1) -> str:
        times = text.count(old) if count < 0 else min(count, text.count(old))
        self._charge_length(len(text) + times * max(len(new) - len(old), 0))
        return text.replace(old, new, count)

    def _range(self, *bounds: int) -> range:
        found = range(*bounds)
        if len(found) > MAX_STEPS:
            raise TemplateTooLong(f"a range of more than {MAX_STEPS}")
        return found  # counted when it is gone over


# Methods of texts that are bounded here; what compiled code passes to each call.
_OURS: dict[str, Callable[..., Any]] = {
    "replace": TemplateSandbox._replace,
    "join": lambda sandbox, between, values: sandbox._join(values, between),
}
_SCOPE = ("_loop_vars", "_block_vars")


class Generation(Extension):
    """The tag around what a model wrote: training looks at it, a prompt shows what is inside."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        """The inside, in a scope of its own."""
        line = next(parser.stream).lineno
        inside = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(inside, lineno=line)


class _Bounded(NodeTransformer):
    """Sends what loops go over through `counted`, and what `~` joins through `joined`."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        """Count a loop before it starts."""
        self.generic_visit(node)
        node.iter = _filter("counted", node.iter)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        """Measure a text before it is made."""
        self.generic_visit(node)
        return _filter("joined", nodes.List(node.nodes, lineno=node.lineno))


def _filter(name: str, node: nodes.Node) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _to_json(value: Any, indent: int | None = None, **options: Any) -> str:
    """JSON as templates of chat models expect it: readable, not escaped for HTML."""
    if indent is not None and not 0 <= indent <= 8:
        raise TemplateTooLong("indent must be from 0 to 8")
    known: dict[str, Any] = {"ensure_ascii": False, "separators": None, "sort_keys": False}
    for name in options.keys() - known.keys():
        raise TemplateTooLong(f"tojson has no option {name}")
    return json.dumps(value, indent=indent, **{**known, **options})
