"""Request: what a client asks for. Prepared: the same with every default settled and checked.

Limits and rules are checked here, once; past this point a request is trusted.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from runtime.errors import RequestError
from runtime.sampling import SamplingParams
from serving.config import ServingConfig
from serving.errors import ConfigError, NoTokenizer

MAX_NEW_TOKENS = 256  # where neither the request nor the model says
SEED_BITS = 32  # of a seed chosen here: short enough to type again
MAX_SEED = 2**64 - 1
MAX_TIMEOUT_S = 1e9


class Encoder(Protocol):
    """The part of a tokenizer that reads prompts."""

    vocab_size: int

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt (text or token ids) and what to do with it; None leaves a choice to the model."""

    prompt: str | Sequence[int]
    max_new_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    stop_sequences: Sequence[str] = ()
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class Defaults:
    """Sampling where a request is silent."""

    max_new_tokens: int = MAX_NEW_TOKENS
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    @classmethod
    def from_generation_config(cls, config: dict[str, object]) -> "Defaults":
        """Take the fields we know from a package's generation_config.json."""
        known = {name: config[name] for name in cls.__slots__ if config.get(name) is not None}
        return cls(**known)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request ready to run: at least one prompt token, every value within its limits."""

    prompt_ids: tuple[int, ...]
    max_new_tokens: int
    sampling: SamplingParams
    stop_sequences: tuple[str, ...]
    timeout_s: float | None


def prepare(
    request: Request,
    defaults: Defaults,
    limits: ServingConfig,
    vocab_size: int,
    encoder: Encoder | None,
) -> Prepared:
    """Settle and check a request.

    Raises RequestError naming field, rule and value; NoTokenizer; TokenizerError.
    """
    most = limits.max_new_tokens
    max_new_tokens = _or(request.max_new_tokens, min(defaults.max_new_tokens, most))
    if not 1 <= max_new_tokens <= most:
        raise RequestError("max_new_tokens", f"be from 1 to {most}", max_new_tokens)
    seed = _or(request.seed, secrets.randbits(SEED_BITS))
    if not 0 <= seed <= MAX_SEED:
        raise RequestError("seed", "be from 0 to 2^64 - 1", seed)
    if request.timeout_s is not None and not 0.0 < request.timeout_s <= MAX_TIMEOUT_S:
        raise RequestError("timeout_s", "be positive and finite", request.timeout_s)
    sampling = SamplingParams(
        temperature=_or(request.temperature, defaults.temperature),
        top_k=_or(request.top_k, defaults.top_k),
        top_p=_or(request.top_p, defaults.top_p),
        seed=seed,
    )
    stops = _check_stops(request.stop_sequences, limits, encoder)
    prompt_ids = _prompt_ids(request.prompt, limits.max_prompt_tokens, vocab_size, encoder)
    return Prepared(prompt_ids, max_new_tokens, sampling, stops, request.timeout_s)


def check_tokenizer(encoder: Encoder | None, vocab_size: int) -> None:
    """Refuse the tokenizer of another, larger model. A vocabulary may be padded: less is fine."""
    if encoder is not None and encoder.vocab_size > vocab_size:
        rule = f"have at most the model's {vocab_size} tokens"
        raise ConfigError(f"tokenizer must {rule}, has {encoder.vocab_size}")


def _or(value, default):  # type: ignore[no-untyped-def]
    return default if value is None else value


def _prompt_ids(
    prompt: str | Sequence[int], longest: int, vocab_size: int, encoder: Encoder | None
) -> tuple[int, ...]:
    if isinstance(prompt, str):
        if encoder is None:
            raise NoTokenizer
        check_utf8("prompt", prompt)
        ids = tuple(encoder.encode(prompt))
    else:
        ids = tuple(prompt)
    if not ids:
        raise RequestError("prompt", "hold at least one token", prompt)
    if len(ids) > longest:
        raise RequestError("prompt", f"be at most {longest} tokens", len(ids))
    if not 0 <= min(ids) <= max(ids) < vocab_size:
        bad = next(token for token in ids if not 0 <= token < vocab_size)
        raise RequestError("prompt", f"hold token ids from 0 to {vocab_size - 1}", bad)
    return ids


def _check_stops(
    stops: Sequence[str], limits: ServingConfig, encoder: Encoder | None
) -> tuple[str, ...]:
    field = "stop_sequences"
    if stops and encoder is None:
        raise NoTokenizer
    if len(stops) > limits.max_stop_sequences:
        raise RequestError(field, f"be at most {limits.max_stop_sequences}", len(stops))
    for stop in stops:
        check_utf8(field, stop)
        if not 1 <= len(stop.encode()) <= limits.max_stop_sequence_bytes:
            rule = f"each be from 1 to {limits.max_stop_sequence_bytes} bytes"
            raise RequestError(field, rule, stop)
    return tuple(stops)


def check_utf8(field: str, text: str) -> None:
    """Refuse text with lone surrogates, which is how undecodable bytes come along."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        rule = f"be valid UTF-8 (character {error.start} is not)"
        raise RequestError(field, rule, text[error.start]) from None
