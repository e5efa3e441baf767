"""A sequence <-> bytes: state, last logits, seed, latest tokens, and a SHA-256.

Stored and exported bytes are the same, little endian. The state is in the runtime's own format,
which names the model and is checked to the last value. A blob is checked before any part is used.
"""

import hashlib
import struct

import numpy as np

from spiketrain.runtime.errors import StateError
from spiketrain.serving.engine.starting_point import MAX_RECENT_IDS, Start
from spiketrain.serving.errors import EngineFailure
from spiketrain.serving.model import Model
from spiketrain.serving.sessions.errors import BlobDamaged, BlobForeign

MAGIC = b"SPKSESS\0"
FORMAT_VERSION = 1

# magic, format version, fingerprint, seed, bytes of the state, of logits, of token ids
_HEADER = struct.Struct("<8sI71sQQQQ")
_CHECKSUM_BYTES = 32


_STATE_HEADER_BYTES = 4096  # more than the runtime puts around a state


def max_blob_bytes(model: Model) -> int:
    """What no blob of a model has more bytes than."""
    content = model.state_nbytes + 4 * (model.vocab_size + MAX_RECENT_IDS)
    return int(_HEADER.size + _STATE_HEADER_BYTES + content + _CHECKSUM_BYTES)


def check_end(end: Start) -> None:
    """EngineFailure where a model left numbers that `from_blob` would refuse.

    A model of extreme weights may, within the bounds of float32: what is kept can be gone on with.
    """
    try:
        end.state.check()
    except StateError as error:
        raise EngineFailure(f"the model left what cannot be kept: {error}") from None
    if end.logits is not None and not np.isfinite(end.logits.max()):
        raise EngineFailure("the model left logits of which the greatest is not finite")


def to_blob(start: Start, seed: int, fingerprint: str) -> bytes:
    """The stored form of where a sequence of a model was left."""
    state = start.state.to_bytes()
    logits = b"" if start.logits is None else start.logits.astype("<f4", copy=False).tobytes()
    recent = np.asarray(start.recent_ids, "<u4").tobytes()
    name = fingerprint.encode("ascii")
    header = _HEADER.pack(MAGIC, FORMAT_VERSION, name, seed, len(state), len(logits), len(recent))
    body = b"".join((header, state, logits, recent))
    return body + hashlib.sha256(body).digest()


def from_blob(blob: bytes, model: Model) -> tuple[Start, int]:
    """A sequence of `model`, and its seed. Raises BlobDamaged or BlobForeign."""
    if len(blob) < _HEADER.size + _CHECKSUM_BYTES or not blob.startswith(MAGIC):
        raise BlobDamaged(f"data must be an exported session, got {len(blob)} other bytes")
    _, version, name, seed, *sizes = _HEADER.unpack_from(blob)
    body = memoryview(blob)[:-_CHECKSUM_BYTES]
    if hashlib.sha256(body).digest() != blob[-_CHECKSUM_BYTES:]:
        raise BlobDamaged("data must have the checksum of its content: it is damaged or cut short")
    if version != FORMAT_VERSION:
        raise BlobForeign(f"data must have format version {FORMAT_VERSION}, got {version}")
    fingerprint = name.rstrip(b"\0").decode("ascii", errors="replace")
    if fingerprint != model.fingerprint:
        raise BlobForeign(f"data must be of the model {model.fingerprint}, got {fingerprint}")
    if _HEADER.size + sum(sizes) != len(body):
        raise BlobDamaged(f"data must hold what its header says, {sum(sizes)} bytes")
    return _checked(body[_HEADER.size :], sizes, model), seed


def _checked(body: memoryview, sizes: list[int], model: Model) -> Start:
    state_bytes, logits_bytes, _ = sizes
    try:
        state = model.state_from_bytes(bytes(body[:state_bytes]))
    except StateError as error:
        raise BlobDamaged(f"data must hold a state of this model: {error}") from None
    logits = np.frombuffer(body[state_bytes : state_bytes + logits_bytes], "<f4")
    recent = np.frombuffer(body[state_bytes + logits_bytes :], "<u4")
    if logits.size not in (0, model.vocab_size) or bool(logits.size) != bool(state.position):
        raise BlobDamaged(f"data must hold {model.vocab_size} logits, or none before any token")
    if logits.size and not np.isfinite(logits.max()):
        raise BlobDamaged("data must hold logits of which the greatest is finite")
    if recent.size > min(MAX_RECENT_IDS, state.position) or (recent >= model.vocab_size).any():
        raise BlobDamaged(f"data must hold at most {MAX_RECENT_IDS} of the model's token ids")
    return Start(
        state,
        logits.astype(np.float32) if logits.size else None,
        tuple(recent.tolist()),
    )
