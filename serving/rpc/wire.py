"""Requests <-> wire messages, both ways, so that server and client share one translation."""

from collections.abc import Mapping, Sequence
from typing import Any

import spiketrain.v1.generation_pb2 as pb
from spiketrain.runtime.errors import RequestError
from spiketrain.serving.request.chat import Chat
from spiketrain.serving.request.constraint import KINDS
from spiketrain.serving.request.request import Request, SessionTurn, check_utf8
from spiketrain.serving.rpc.chat_wire import from_chat

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
    "n",
    "dial",
    *KINDS,
)
_PLAIN = ("min_new_tokens", "ignore_eos", "logprobs", "prompt_logprobs", "cache_salt")
_LISTS = ("allowed_token_ids", "stop_token_ids")
LONG_LIST = 4096  # numbers


def given(message: Any, name: str) -> Any:
    """A field that has presence, or None."""
    return getattr(message, name) if message.HasField(name) else None


def ids_of(field: Any) -> Sequence[int]:
    """Numbers of a message's list: a copy, or the list itself where it is long.

    Whoever checks how long a list may be copies it after that, beside the event loop.
    """
    return tuple(field) if len(field) <= LONG_LIST else field


def to_request(message: Any, timeout_s: float | None) -> Request:
    """GenerateRequest -> Request. Raises RequestError without a prompt, but on a session."""
    kind = message.WhichOneof("prompt")
    turn = None
    if message.HasField("session"):
        turn = SessionTurn(message.session.id, message.session.etag, message.session.keep_cancelled)
    elif kind is None:
        raise RequestError("prompt", "be given as text or as token_ids", None)
    fields = {name: given(message, name) for name in _OPTIONAL}
    fields = {name: value for name, value in fields.items() if value is not None}
    fields |= {name: getattr(message, name) for name in _PLAIN}
    fields |= {name: ids_of(getattr(message, name)) for name in _LISTS}
    return Request(
        prompt=_prompt(message, kind),
        session=turn,
        stop_sequences=tuple(message.stop_sequences),
        logit_bias=dict(message.logit_bias),
        timeout_s=timeout_s,
        **fields,
    )


def _prompt(message: Any, kind: str | None) -> str | Sequence[int] | None:
    if kind is None:
        return None
    text: str = message.text
    return text if kind == "text" else ids_of(message.token_ids.ids)


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
    if isinstance(request.prompt, Chat):
        message.chat.CopyFrom(from_chat(request.prompt))
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
