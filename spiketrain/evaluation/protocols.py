"""Protocols: which stretches of a text a model reads, from which state, and which tokens it scores.

A protocol turns documents, as lists of token ids, into spans: pure data, no model. Every token is
scored at most once, in the order of the text.

carry: one state over the whole text and across documents; nothing is reset, so memory is constant
and no token sees a shortened past. The native protocol of recurrent models.
egru-published: as carry, but every `ctx` tokens (published: 70) all cells start again from zero
while outputs are carried, which is what the code of the EGRU papers does between chunks.
rolling: each document by itself after the prefix token, as lm-evaluation-harness scores
perplexity; with `ctx`, in its windows of so many tokens, each from the zero state after the token
before it (the last one reaches back to be full).
stride: windows of `ctx` tokens over the whole text, each `stride` after the last, from the zero
state; a window scores the tokens that none before it has. The convention of the Hugging Face
documentation, but with the exact number of scored tokens, which its example misses by one a window.
half-window: disjoint windows of `ctx` tokens from the zero state, of which the second half is
scored: tokens ctx // 2 + 1 to ctx - 1. The convention of llama.cpp, which puts the prefix token in
place of each window's first one, and leaves out what is left at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from spiketrain.evaluation.stream import Stream
from spiketrain.runtime.dial import NO_DIAL
from spiketrain.runtime.errors import DataError

CARRY_TOKENS = 512  # in one span: how often progress is kept

PROTOCOLS = {
    "carry": "state carried over the whole text and across documents, every token scored",
    "egru-published": "as carry, but all cells zeroed every {ctx} tokens, outputs carried",
    "rolling": "each document alone, from the zero state",
    "stride": "windows of {ctx} tokens, {stride} apart, from the zero state; each scored once",
    "half-window": "disjoint windows of {ctx} tokens, from the zero state; second halves scored",
}
DEFAULT_CTX = {"egru-published": 70, "stride": 1024, "half-window": 512}
DEFAULT_STRIDE = 512


@dataclass(frozen=True, slots=True)
class Span:
    """One reading: after `context`, every token of `targets` is scored.

    start: "zero" (a new state), "carried" (the state that the span before left, which has read all
    but the last token before the targets) or "cells" (the same with cells set to zero).
    place: of the first target in the text. context has at least one token.
    """

    start: str
    context: list[int]
    targets: list[int]
    place: int


@dataclass(frozen=True, slots=True)
class Settings:
    """A protocol with all that it depends on; see `settle`."""

    protocol: str
    ctx: int | None = None
    stride: int | None = None
    warmup: int = 0
    prefix: int | None = None

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"protocol must be one of {tuple(PROTOCOLS)}, got {self.protocol!r}")
        if self.protocol == "carry" and self.ctx is not None:
            raise ValueError(f"ctx has no meaning in protocol carry, got {self.ctx}")
        if self.protocol in DEFAULT_CTX and self.ctx is None:
            raise ValueError(f"ctx must be given in protocol {self.protocol}, got none")
        if self.ctx is not None and self.ctx < (
            least := 4 if self.protocol == "half-window" else 2
        ):
            raise ValueError(f"ctx must be at least {least} in {self.protocol}, got {self.ctx}")
        if (self.stride is not None) != (self.protocol == "stride"):
            raise ValueError(f"stride goes with protocol stride, got {self.stride}")
        if self.stride is not None and not 1 <= self.stride <= (self.ctx or 0):
            raise ValueError(f"stride must be in [1, ctx = {self.ctx}], got {self.stride}")
        if self.warmup < 0 or (self.warmup and self.protocol in ("stride", "half-window")):
            raise ValueError(
                f"warmup must be 0 in {self.protocol}, or at least 0, got {self.warmup}"
            )

    @property
    def carries(self) -> bool:
        """Whether a span needs the state that the one before it left."""
        return self.protocol in ("carry", "egru-published")

    @property
    def by_document(self) -> bool:
        """Whether documents are read one by one, without what separates them."""
        return self.protocol == "rolling"

    def describe(self, *dials: float) -> str:
        """The protocol in one line, with the dials of the models where any is not 1."""
        text = f"{self.protocol}: {PROTOCOLS[self.protocol]}".format(
            ctx=self.ctx, stride=self.stride
        )
        if self.by_document and self.ctx:
            text += f", in windows of {self.ctx} tokens"
        prefix = "no prefix token" if self.prefix is None else f"prefix token {self.prefix}"
        warmup = f", first {self.warmup} tokens read but not scored" if self.warmup else ""
        turned = any(dial != NO_DIAL for dial in dials)
        dial = f", dial {' against '.join(f'{dial:g}' for dial in dials)}" if turned else ""
        return f"{text}; {prefix}{warmup}{dial}"


def settle(
    protocol: str,
    ctx: int | None = None,
    stride: int | None = None,
    warmup: int = 0,
    prefix: int | None = None,
) -> Settings:
    """Settings with the protocol's defaults where nothing is given; ValueError names the field."""
    if ctx is None:
        ctx = DEFAULT_CTX.get(protocol)
    if protocol == "stride" and stride is None and ctx is not None:
        stride = min(DEFAULT_STRIDE, max(1, ctx // 2))
    return Settings(protocol, ctx, stride, warmup, prefix)


def spans(texts: Iterable[list[int]], settings: Settings) -> Iterator[Span]:
    """What the protocol reads of the texts, in order. Texts are drawn as they are needed."""
    if settings.by_document:
        return _rolling(texts, settings)
    stream = Stream(texts, settings.prefix)
    if settings.protocol == "stride":
        return _stride(stream, settings)
    if settings.protocol == "half-window":
        return _half_window(stream, settings)
    return _carry(stream, settings)


def cut(group: list[Span], room: int | None) -> list[Span]:
    """The spans of a group up to `room` targets."""
    if room is None:
        return group
    spans = []
    for span in group:
        if room > 0:
            spans.append(Span(span.start, span.context, span.targets[:room], span.place))
        room -= len(span.targets)
    return spans


def check_batch(batch: int, settings: Settings) -> None:
    """DataError unless so many spans may be read side by side."""
    if batch > 1 and settings.carries:
        raise DataError(f"batch must be 1 in protocol {settings.protocol}, got {batch}")


def _carry(stream: Stream, settings: Settings) -> Iterator[Span]:
    size = settings.ctx or CARRY_TOKENS
    start = "zero"
    read = stream.begin  # the place of the first token that the state has not read
    scored = read + 1 + settings.warmup  # the place of the next target
    while (end := min(read + size + 1, stream.reach(read + size + 1))) > read + 1:
        # a chunk of inputs [read, end - 1) with targets one further; warm-up targets are context
        first = min(max(scored, read + 1), end)
        yield Span(start, stream.tokens(read, first), stream.tokens(first, end), first)
        start = "cells" if settings.protocol == "egru-published" else "carried"
        read = end - 1
        stream.drop(read)


def _rolling(texts: Iterable[list[int]], settings: Settings) -> Iterator[Span]:
    offset = 0
    for ids in texts:
        yield from _windows(ids, offset, settings)
        offset += len(ids)


def _windows(ids: list[int], offset: int, settings: Settings) -> Iterator[Span]:
    """Windows of one document, whose first token has place `offset`."""
    prefix = [] if settings.prefix is None else [settings.prefix]
    text = prefix + ids
    lead = len(prefix)
    size = settings.ctx or max(1, len(text) - 1)
    done = 1  # tokens of `text` that are scored, or come first
    while done < len(text):
        end = min(done + size, len(text))
        begin = max(0, end - size - 1) if done > 1 else 0
        first = max(done, 1 + settings.warmup)
        if first < end:
            yield Span("zero", text[begin:first], text[first:end], offset + first - lead)
        done = end


def _stride(stream: Stream, settings: Settings) -> Iterator[Span]:
    size, stride = settings.ctx or 0, settings.stride or 0
    begin = scored = stream.begin
    while (end := min(begin + size, stream.reach(begin + size + 1))) > scored:
        first = max(scored, begin + 1)
        if first < end:
            yield Span("zero", stream.tokens(begin, first), stream.tokens(first, end), first)
        scored = end
        if stream.reach(end + 1) == end:
            return
        begin += stride
        stream.drop(begin)


def _half_window(stream: Stream, settings: Settings) -> Iterator[Span]:
    size = settings.ctx or 0
    begin, half = stream.begin, size // 2 + 1
    while stream.reach(begin + size) >= begin + size:
        context = stream.tokens(begin, begin + half)
        if settings.prefix is not None:
            context[0] = settings.prefix
        targets = stream.tokens(begin + half, begin + size)
        yield Span("zero", context, targets, begin + half)
        begin += size
        stream.drop(begin)
