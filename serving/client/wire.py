"""What clients alone put on the wire: contents that are text or token ids."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import spiketrain.v1.generation_pb2 as generation_pb
import spiketrain.v1.scoring_pb2 as scoring_pb
import spiketrain.v1.sessions_pb2 as sessions_pb
from spiketrain.runtime.errors import RequestError
from spiketrain.serving.request.request import check_utf8

PIECE_BYTES = 1 << 20


def to_score(
    context: str | Sequence[int],
    continuation: str | Sequence[int],
    per_token: bool,
    dial: float | None,
) -> Any:
    """A ScoreRequest. Raises RequestError for ids that are none."""
    message = scoring_pb.ScoreRequest(per_token=per_token, dial=dial)
    _put(message, "context", "context_text", "context_token_ids", context)
    _put(message, "continuation", "continuation_text", "continuation_token_ids", continuation)
    return message


def to_score_pieces(
    pieces: Iterable[str | Sequence[int]], per_token: bool, dial: float | None
) -> Iterator[Any]:
    """ScoreStreamRequests as pieces are read. Raises RequestError for ids that are none."""
    for content in pieces:
        message = scoring_pb.ScoreStreamRequest(per_token=per_token, dial=dial)
        _put(message, "content", "text", "token_ids", content)
        yield message
        dial = None  # in the first message alone


def to_append(session_id: str, content: str | Sequence[int], etag: str) -> Any:
    """An AppendRequest. Raises RequestError for ids that are none."""
    message = sessions_pb.AppendRequest(id=session_id, etag=etag)
    _put(message, "content", "text", "token_ids", content)
    return message


def to_import(blob: bytes, ttl_s: float | None) -> list[Any]:
    """ImportRequests that hold a blob in pieces, at least one."""
    pieces = [blob[at : at + PIECE_BYTES] for at in range(0, len(blob), PIECE_BYTES)] or [b""]
    first, *rest = (sessions_pb.ImportRequest(data=piece) for piece in pieces)
    if ttl_s is not None:
        first.ttl_s = ttl_s
    return [first, *rest]


def _put(message: Any, field: str, text: str, token_ids: str, content: str | Sequence[int]) -> None:
    """Set one of the fields `text` and `token_ids`, even to nothing."""
    if isinstance(content, str):
        check_utf8(field, content)
        setattr(message, text, content)
        return
    try:
        getattr(message, token_ids).CopyFrom(generation_pb.TokenIds(ids=content))
    except ValueError:
        raise RequestError(field, "hold token ids from 0", min(content)) from None
    getattr(message, token_ids).SetInParent()
