"""Prepared: a request with every default settled and every rule checked.

Limits and rules are checked here, once; past this point a request is trusted.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spiketrain.runtime.dial import checked_dial
from spiketrain.runtime.errors import RequestError
from spiketrain.runtime.penalties import DEFAULT_WINDOW, Penalties
from spiketrain.runtime.sampling import SamplingParams
from spiketrain.serving.config import ServingConfig
from spiketrain.serving.errors import ConfigError, NoChatTemplate, NoTokenizer
from spiketrain.serving.model import ModelLimits, Tokenizer
from spiketrain.serving.request.chat import Chat
from spiketrain.serving.request.constraint import Constraint, Grammars
from spiketrain.serving.request.events import FinishReason
from spiketrain.serving.request.request import Defaults, Request, check_utf8
from spiketrain.serving.request.token_rules import (
    MAX_TOP_LOGPROBS,
    TokenRules,
    check_allowed,
    check_logit_bias,
    check_stop_tokens,
)

SEED_BITS = 32  # of a seed chosen here: short enough to type again
MAX_SEED = 2**64 - 1
MAX_TIMEOUT_S = 1e9
MAX_SALT_BYTES = 64
MAX_N = 16
MAX_PROMPT_LOGPROBS = 4096
MAX_TEXT_BYTES = 1 << 20  # of a text to be encoded, and for longer prompts:
TEXT_BYTES_PER_TOKEN = 16  # four times those of a token of English


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A request ready to run: every value within its limits.

    prompt_ids: at least one, or none to go on where a session is. cache_salt: None where states of
    prompts are not to be reused.
    """

    prompt_ids: tuple[int, ...]
    max_new_tokens: int
    sampling: SamplingParams
    rules: TokenRules
    constraint: Constraint | None
    stop_sequences: tuple[str, ...]
    end_token_ids: Mapping[int, FinishReason]  # tokens that end it, and as what
    time_limit_s: float | None
    timeout_s: float | None
    cache_salt: str | None
    prompt_top: int | None  # likeliest tokens beside each of the prompt's; None: no such report
    dial: float


def prepare(
    request: Request,
    defaults: Defaults,
    limits: ServingConfig,
    model: ModelLimits,
    tokenizer: Tokenizer | None,
    grammars: Grammars | None,
    continues: bool = False,
    kept_dial: float | None = None,
) -> Prepared:
    """Settle and check a request for a model, of which sizes, ends of text and dials are read.

    continues: whether there are logits already, so that the prompt may be empty. kept_dial: that of
    the request's session.
    Raises RequestError naming field, rule and value; NoTokenizer; TokenizerError.
    """
    most = limits.max_new_tokens
    max_new_tokens = _or(request.max_new_tokens, min(defaults.max_new_tokens, most))
    if not 1 <= max_new_tokens <= most:
        raise RequestError("max_new_tokens", f"be from 1 to {most}", max_new_tokens)
    for name in ("timeout_s", "time_limit_s"):
        value = getattr(request, name)
        if value is not None and not 0.0 < value <= MAX_TIMEOUT_S:
            raise RequestError(name, "be positive and finite", value)
    if not 1 <= request.n <= MAX_N:
        raise RequestError("n", f"be from 1 to {MAX_N}", request.n)
    sampling = _sampling(request, defaults)
    ends = _end_token_ids(request, model)
    rules = _token_rules(request, defaults, model.vocab_size, tuple(ends), max_new_tokens)
    stops = _check_stops(request.stop_sequences, limits, tokenizer)
    ids: tuple[int, ...] = ()
    if request.prompt is not None or not continues:
        prompt = "" if request.prompt is None else request.prompt
        if isinstance(prompt, Chat):
            raise NoChatTemplate
        most, least = limits.max_prompt_tokens, 0 if continues else 1
        ids = prompt_ids("prompt", prompt, most, model.vocab_size, tokenizer, least)
    return Prepared(
        prompt_ids=ids,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        rules=rules,
        constraint=_constraint(request, limits.max_grammar_bytes, grammars),
        stop_sequences=stops,
        end_token_ids=ends,
        time_limit_s=request.time_limit_s,
        timeout_s=request.timeout_s,
        cache_salt=_cache_salt(request),
        prompt_top=_prompt_top(request, len(ids)),
        dial=_dial(request, model, kept_dial),
    )


def _dial(request: Request, model: ModelLimits, kept: float | None) -> float:
    """The request's, else that of its session or of new states."""
    settled: float = _or(kept, model.dial)
    if request.dial is None:
        return settled
    wanted = checked_dial(request.dial, model.max_dial)
    if kept is not None and wanted != kept:
        raise RequestError("dial", f"be left out or {kept:g}, the session's", request.dial)
    return wanted


def _sampling(request: Request, defaults: Defaults) -> SamplingParams:
    seed = _or(request.seed, secrets.randbits(SEED_BITS))
    if not 0 <= seed <= MAX_SEED:
        raise RequestError("seed", "be from 0 to 2^64 - 1", seed)
    return SamplingParams(
        temperature=_or(request.temperature, defaults.temperature),
        top_k=_or(request.top_k, defaults.top_k),
        top_p=_or(request.top_p, defaults.top_p),
        min_p=_or(request.min_p, defaults.min_p),
        typical_p=_or(request.typical_p, defaults.typical_p),
        seed=seed,
    )


def _token_rules(
    request: Request,
    defaults: Defaults,
    vocab_size: int,
    ends: tuple[int, ...],
    max_new_tokens: int,
) -> TokenRules:
    if not 0 <= request.min_new_tokens <= max_new_tokens:
        rule = f"be from 0 to max_new_tokens, {max_new_tokens}"
        raise RequestError("min_new_tokens", rule, request.min_new_tokens)
    bias_ids, bias = check_logit_bias(request.logit_bias, vocab_size)
    penalties = Penalties(
        repetition_penalty=_or(request.repetition_penalty, defaults.repetition_penalty),
        frequency_penalty=_or(request.frequency_penalty, 0.0),
        presence_penalty=_or(request.presence_penalty, 0.0),
        penalty_window=_or(request.penalty_window, DEFAULT_WINDOW),
    )
    if request.penalty_window is not None and not penalties:
        raise RequestError("penalty_window", "be left out without a penalty", penalties)
    return TokenRules(
        penalties=penalties,
        bias_ids=bias_ids,
        bias=bias,
        allowed=check_allowed(request.allowed_token_ids, vocab_size),
        late_ids=np.array(ends, np.int64),
        min_new_tokens=request.min_new_tokens,
        top_logprobs=_top_logprobs(request) if request.logprobs else None,
    )


def _top_logprobs(request: Request) -> int:
    """How many of the likeliest tokens to report beside each."""
    top = request.top_logprobs
    if top is None:
        return 0
    if not (request.logprobs or request.prompt_logprobs):
        raise RequestError("top_logprobs", "be left out without logprobs", top)
    if not 0 <= top <= MAX_TOP_LOGPROBS:
        raise RequestError("top_logprobs", f"be from 0 to {MAX_TOP_LOGPROBS}", top)
    return top


def _prompt_top(request: Request, prompt_tokens: int) -> int | None:
    top = _top_logprobs(request)
    if not request.prompt_logprobs:
        return None
    if prompt_tokens > MAX_PROMPT_LOGPROBS:
        rule = f"be left out for prompts of more than {MAX_PROMPT_LOGPROBS} tokens"
        raise RequestError("prompt_logprobs", rule, prompt_tokens)
    return top


def _end_token_ids(request: Request, model: ModelLimits) -> dict[int, FinishReason]:
    ends = {} if request.ignore_eos else dict.fromkeys(model.eos_token_ids, FinishReason.EOS_TOKEN)
    stops = check_stop_tokens(request.stop_token_ids, model.vocab_size)
    return {**dict.fromkeys(sorted(stops), FinishReason.STOP_TOKEN), **ends}


def _constraint(request: Request, longest: int, grammars: Grammars | None) -> Constraint | None:
    """Compile the constraint, if there is one: the most work of all, so it comes last."""
    wanted = request.constraint
    if wanted is None:
        return None
    name, source = wanted
    if grammars is None:
        raise NoTokenizer
    check_utf8(name, source)
    if not 1 <= len(source.encode()) <= longest:
        raise RequestError(name, f"be from 1 to {longest} bytes", len(source.encode()))
    if request.ignore_eos:
        raise RequestError("ignore_eos", f"be left out beside {name}", True)
    if request.min_new_tokens:
        rule = f"be left out beside {name}"
        raise RequestError("min_new_tokens", rule, request.min_new_tokens)
    return grammars.compile(name, source)


def check_tokenizer(tokenizer: Tokenizer | None, vocab_size: int) -> None:
    """Refuse the tokenizer of another, larger model. A vocabulary may be padded: less is fine."""
    if tokenizer is not None and tokenizer.vocab_size > vocab_size:
        rule = f"have at most the model's {vocab_size} tokens"
        raise ConfigError(f"tokenizer must {rule}, has {tokenizer.vocab_size}")


def _or(value, default):  # type: ignore[no-untyped-def]
    return default if value is None else value


def prompt_ids(
    field: str,
    content: str | Sequence[int],
    longest: int,
    vocab_size: int,
    tokenizer: Tokenizer | None,
    least: int = 1,
) -> tuple[int, ...]:
    """Token ids of a text or checked ones. Raises RequestError, NoTokenizer, TokenizerError."""
    if isinstance(content, str):
        if tokenizer is None:
            raise NoTokenizer
        check_text(field, content, longest)
        listed: Sequence[int] = tokenizer.encode(content)
    else:
        listed = content
    if len(listed) < least:
        raise RequestError(field, "hold at least one token", content)
    if len(listed) > longest:  # before it is copied
        raise RequestError(field, f"be at most {longest} tokens", len(listed))
    ids = tuple(listed)
    if ids and not 0 <= min(ids) <= max(ids) < vocab_size:
        bad = next(token for token in ids if not 0 <= token < vocab_size)
        raise RequestError(field, f"hold token ids from 0 to {vocab_size - 1}", bad)
    return ids


def check_text(field: str, text: str, max_prompt_tokens: int) -> None:
    """Refuse a text that is no UTF-8, or so long that its tokens could not be a prompt.

    An encoder's list of tokens is made with the interpreter's lock held: all others wait for it.
    """
    check_utf8(field, text)
    most = max(MAX_TEXT_BYTES, TEXT_BYTES_PER_TOKEN * max_prompt_tokens)
    if len(text) > most or len(text.encode()) > most:
        raise RequestError(field, f"be at most {most} bytes of text", len(text.encode()))


def _cache_salt(request: Request) -> str | None:
    """The salt, or None where states of prompts are not to be reused."""
    if request.session is not None:
        for name in ("prefix_cache", "cache_salt"):
            if getattr(request, name):
                raise RequestError(name, "be left out on a session", getattr(request, name))
        return None
    check_utf8("cache_salt", request.cache_salt)
    if len(request.cache_salt.encode()) > MAX_SALT_BYTES:
        rule = f"be at most {MAX_SALT_BYTES} bytes"
        raise RequestError("cache_salt", rule, len(request.cache_salt.encode()))
    if request.prompt_logprobs:  # every token has to be read
        return None
    if request.prefix_cache is None or request.prefix_cache:
        return request.cache_salt
    if request.cache_salt:
        raise RequestError("cache_salt", "be left out without prefix_cache", request.cache_salt)
    return None


def _check_stops(
    stops: Sequence[str], limits: ServingConfig, tokenizer: Tokenizer | None
) -> tuple[str, ...]:
    field = "stop_sequences"
    if stops and tokenizer is None:
        raise NoTokenizer
    if len(stops) > limits.max_stop_sequences:
        raise RequestError(field, f"be at most {limits.max_stop_sequences}", len(stops))
    for stop in stops:
        check_utf8(field, stop)
        if not 1 <= len(stop.encode()) <= limits.max_stop_sequence_bytes:
            rule = f"each be from 1 to {limits.max_stop_sequence_bytes} bytes"
            raise RequestError(field, rule, stop)
    return tuple(stops)
