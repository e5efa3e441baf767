"""The events that a reader of a completion receives: PromptInfo, then Deltas, then Finish."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from spiketrain.runtime.logprobs import TokenLogprob


class FinishReason(Enum):
    """Why a completion ended."""

    LENGTH = "length"
    EOS_TOKEN = "eos_token"
    STOP_SEQUENCE = "stop_sequence"
    STOP_TOKEN = "stop_token"
    TIME_LIMIT = "time_limit"
    CONSTRAINT = "constraint"


@dataclass(frozen=True, slots=True)
class PromptInfo:
    """What was made of the request: prompt length in tokens, seed in use, tokens not read again."""

    prompt_tokens: int
    seed: int
    reused_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """Text since the last delta, and the tokens sampled since then (see generation.proto).

    logprobs: one for each of token_ids where the request asked for them, else empty.
    prompt_logprobs: likewise, of the prompt's tokens but the first of a text; with the first delta.
    index: of the completion, from 0 to the request's n - 1.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    index: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of the prompt, tokens sampled."""

    prompt_tokens: int
    new_tokens: int


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds in the queue, from slot to first token, from first token to last."""

    queue_s: float
    prefill_s: float
    decode_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestActivity:
    """What the network did for one request, prompt included.

    Tokens read, units evaluated, units that fired; and for each token decoded after the first,
    weight bytes as read and as a dense pass would read them.
    """

    tokens: int
    neurons: int
    events: int
    weight_bytes_touched_per_token: float
    weight_bytes_dense_per_token: float

    @property
    def firing_rate(self) -> float:
        """Events per neuron, from 0 to 1."""
        return self.events / self.neurons if self.neurons else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """How a completion ended; stop_sequence is empty unless one ended it.

    session_etag, session_tokens: where the request's session is now, if it has one.
    index: of the completion, as in Delta.
    """

    reason: FinishReason
    stop_sequence: str
    usage: Usage
    timings: Timings
    activity: RequestActivity
    session_etag: str = ""
    session_tokens: int = 0
    index: int = 0


Event = PromptInfo | Delta | Finish


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A whole completion: what its events say, joined."""

    prompt: PromptInfo
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]
    prompt_logprobs: tuple[TokenLogprob, ...]
    finish: Finish


def join(events: Iterable[Event]) -> list[Completed]:
    """The completions, by index, that the events of a whole stream make."""
    deltas: dict[int, list[Delta]] = {}
    finishes: dict[int, Finish] = {}
    prompt = None
    for event in events:
        if isinstance(event, Delta):
            deltas.setdefault(event.index, []).append(event)
        elif isinstance(event, PromptInfo):
            prompt = event
        else:
            finishes[event.index] = event
    assert prompt is not None
    return [_joined(prompt, deltas.get(index, []), finishes[index]) for index in sorted(finishes)]


def _joined(prompt: PromptInfo, deltas: Sequence[Delta], finish: Finish) -> Completed:
    return Completed(
        prompt=prompt,
        text="".join(delta.text for delta in deltas),
        token_ids=tuple(token for delta in deltas for token in delta.token_ids),
        logprobs=tuple(logprob for delta in deltas for logprob in delta.logprobs),
        prompt_logprobs=tuple(logprob for delta in deltas for logprob in delta.prompt_logprobs),
        finish=finish,
    )
