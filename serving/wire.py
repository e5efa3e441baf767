"""Wire messages <-> plain data, both ways, so that server and client share one translation."""

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

import spiketrain.v1.generation_pb2 as pb
from runtime.errors import RequestError
from runtime.logprobs import TokenLogprob
from serving.constraint import KINDS
from serving.errors import ServingError
from serving.events import (
    Delta,
    Event,
    Finish,
    FinishReason,
    PromptInfo,
    RequestActivity,
    Timings,
    Usage,
)
from serving.request import Request, SessionTurn, check_utf8

# Fields that bear the same name on both sides. Of optional ones, absence is None.
_OPTIONAL = (
    "max_new_tokens",
    "temperature",
    "top_k",
    "top_p",
    "seed",
    "min_p",
    "typical_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "penalty_window",
    "time_limit_s",
    "top_logprobs",
    "prefix_cache",
    *KINDS,
)
_PLAIN = ("min_new_tokens", "ignore_eos", "logprobs", "cache_salt")
_LISTS = ("allowed_token_ids", "stop_token_ids")
_REASONS = {
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
    FinishReason.EOS_TOKEN: pb.FINISH_REASON_EOS_TOKEN,
    FinishReason.STOP_SEQUENCE: pb.FINISH_REASON_STOP_SEQUENCE,
    FinishReason.STOP_TOKEN: pb.FINISH_REASON_STOP_TOKEN,
    FinishReason.TIME_LIMIT: pb.FINISH_REASON_TIME_LIMIT,
    FinishReason.CONSTRAINT: pb.FINISH_REASON_CONSTRAINT,
}
_REASONS_BACK = {number: reason for reason, number in _REASONS.items()}


def strictly(parse: Callable[[bytes], Message]) -> Callable[[bytes], Message | RequestError]:
    """A parser that gives back a RequestError, to be raised later, for bytes it cannot read."""

    def parse_or_error(data: bytes) -> Message | RequestError:
        try:
            message = parse(data)
            _refuse_unknown(message)
        except DecodeError:
            rule = "be a well-formed message whose text is valid UTF-8"
            return RequestError("request", rule, f"{len(data)} bytes")
        except RequestError as error:
            return error
        return message

    return parse_or_error


def _refuse_unknown(message: Message) -> None:
    for unknown in UnknownFieldSet(message):  # type: ignore[attr-defined]
        rule = f"hold fields of {message.DESCRIPTOR.full_name} that this server knows"
        raise RequestError("request", rule, f"field number {unknown.field_number}")
    for _, value in message.ListFields():
        if isinstance(value, Message):
            _refuse_unknown(value)


def checked(message: Any) -> Any:
    """The message itself. Raises what `strictly` found instead of one."""
    if isinstance(message, RequestError):
        raise message
    return message


def to_request(message: Any, timeout_s: float | None) -> Request:
    """GenerateRequest -> Request. Raises RequestError without a prompt, but on a session."""
    kind = message.WhichOneof("prompt")
    turn = None
    if message.HasField("session"):
        turn = SessionTurn(message.session.id, message.session.etag, message.session.keep_cancelled)
    elif kind is None:
        raise RequestError("prompt", "be given as text or as token_ids", None)
    given = {name: getattr(message, name) for name in _OPTIONAL if message.HasField(name)}
    given |= {name: getattr(message, name) for name in _PLAIN}
    given |= {name: tuple(getattr(message, name)) for name in _LISTS}
    return Request(
        prompt=_prompt(message, kind),
        session=turn,
        stop_sequences=tuple(message.stop_sequences),
        logit_bias=dict(message.logit_bias),
        timeout_s=timeout_s,
        **given,
    )


def _prompt(message: Any, kind: str | None) -> str | tuple[int, ...] | None:
    if kind is None:
        return None
    text: str = message.text
    return text if kind == "text" else tuple(message.token_ids.ids)


def from_request(request: Request) -> Any:
    """Request -> GenerateRequest. Raises RequestError for values that no message can hold."""
    message = pb.GenerateRequest()
    for name in (*_OPTIONAL, *_PLAIN):
        value = getattr(request, name)
        if value is not None:
            _store(message, name, value)
    for name in _LISTS:
        _extend(name, getattr(message, name), getattr(request, name))
    _extend("logit_bias", message.logit_bias, request.logit_bias)
    for stop in request.stop_sequences:
        check_utf8("stop_sequences", stop)
    message.stop_sequences.extend(request.stop_sequences)
    if request.session is not None:
        turn = request.session
        check_utf8("session.id", turn.id)
        message.session.CopyFrom(
            pb.SessionTurn(id=turn.id, etag=turn.etag, keep_cancelled=turn.keep_cancelled)
        )
    if request.prompt is None:
        return message
    if isinstance(request.prompt, str):
        check_utf8("prompt", request.prompt)
        message.text = request.prompt
        return message
    message.token_ids.SetInParent()  # so that no ids are still a prompt
    _extend("prompt", message.token_ids.ids, request.prompt)
    return message


def _extend(name: str, ids: Any, given: Any) -> None:
    try:
        (ids.update if isinstance(given, Mapping) else ids.extend)(given)
    except ValueError:
        raise RequestError(name, "hold token ids from 0", min(given)) from None


def _store(message: Any, name: str, value: Any) -> None:
    if isinstance(value, str):
        check_utf8(name, value)
    try:
        setattr(message, name, value)
    except ValueError:
        kind = "unsigned 64-bit" if name == "seed" else "unsigned 32-bit"
        raise RequestError(name, f"be an {kind} integer", value) from None


def to_reply(event: Event) -> Any:
    """Event -> GenerateStreamResponse."""
    if isinstance(event, Delta):
        return pb.GenerateStreamResponse(delta=to_delta(event))
    if isinstance(event, PromptInfo):
        return pb.GenerateStreamResponse(prompt=to_prompt_info(event))
    return pb.GenerateStreamResponse(finish=to_finish(event))


def to_delta(delta: Delta) -> Any:
    """Delta -> message."""
    return pb.Delta(
        text=delta.text,
        token_ids=delta.token_ids,
        logprobs=[
            pb.TokenLogprob(
                token_id=token.token,
                logprob=token.logprob,
                rank=token.rank,
                top=[pb.AlternativeToken(token_id=t, logprob=value) for t, value in token.top],
            )
            for token in delta.logprobs
        ],
    )


def to_prompt_info(info: PromptInfo) -> Any:
    """PromptInfo -> message."""
    return pb.PromptInfo(
        prompt_tokens=info.prompt_tokens, seed=info.seed, reused_tokens=info.reused_tokens
    )


def to_finish(finish: Finish) -> Any:
    """Finish -> message."""
    usage, timings, activity = finish.usage, finish.timings, finish.activity
    return pb.Finish(
        reason=_REASONS[finish.reason],
        stop_sequence=finish.stop_sequence,
        usage=pb.Usage(prompt_tokens=usage.prompt_tokens, new_tokens=usage.new_tokens),
        timings=pb.Timings(
            queue_s=timings.queue_s, prefill_s=timings.prefill_s, decode_s=timings.decode_s
        ),
        activity=pb.Activity(
            tokens=activity.tokens,
            neurons=activity.neurons,
            events=activity.events,
            firing_rate=activity.firing_rate,
            weight_bytes_touched_per_token=activity.weight_bytes_touched_per_token,
            weight_bytes_dense_per_token=activity.weight_bytes_dense_per_token,
        ),
        session_etag=finish.session_etag,
        session_tokens=finish.session_tokens,
    )


def from_reply(message: Any) -> Event | None:
    """GenerateStreamResponse -> Event; None for a kind of event that this client does not know.

    Raises ServingError on a reason to finish that it does not know.
    """
    kind = message.WhichOneof("event")
    if kind == "delta":
        return from_delta(message.delta)
    if kind == "prompt":
        info = message.prompt
        return PromptInfo(info.prompt_tokens, info.seed, info.reused_tokens)
    if kind is None:
        return None
    finish = message.finish
    activity = finish.activity
    if finish.reason not in _REASONS_BACK:
        raise ServingError(
            f"finish.reason must be one of {sorted(_REASONS_BACK)}, got {finish.reason} "
            "from a newer server"
        )
    return Finish(
        _REASONS_BACK[finish.reason],
        finish.stop_sequence,
        Usage(finish.usage.prompt_tokens, finish.usage.new_tokens),
        Timings(finish.timings.queue_s, finish.timings.prefill_s, finish.timings.decode_s),
        RequestActivity(
            activity.tokens,
            activity.neurons,
            activity.events,
            activity.weight_bytes_touched_per_token,
            activity.weight_bytes_dense_per_token,
        ),
        finish.session_etag,
        finish.session_tokens,
    )


def from_delta(message: Any) -> Delta:
    """Message -> Delta."""
    logprobs = tuple(
        TokenLogprob(
            token.token_id,
            token.logprob,
            token.rank,
            tuple((other.token_id, other.logprob) for other in token.top),
        )
        for token in message.logprobs
    )
    return Delta(message.text, tuple(message.token_ids), logprobs)
