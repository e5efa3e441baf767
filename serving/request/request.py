"""Request: the fields of a client's request, as plain data. `preparation.py` checks them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from spiketrain.runtime.errors import RequestError
from spiketrain.serving.request.chat import Chat
from spiketrain.serving.request.constraint import KINDS

MAX_NEW_TOKENS = 256  # where neither the request nor the model says


@dataclass(frozen=True, slots=True)
class SessionTurn:
    """Which session to continue, at which etag ('' for any), and whether to keep what is cut."""

    id: str
    etag: str = ""
    keep_cancelled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A prompt (text or token ids) and what to do with it; None leaves a choice to the model.

    prompt: None on a session alone. Messages are made into text before a request is prepared.
    """

    prompt: str | Sequence[int] | Chat | None = field(kw_only=False)
    max_new_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    stop_sequences: Sequence[str] = ()
    timeout_s: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    penalty_window: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    allowed_token_ids: Sequence[int] = ()
    min_new_tokens: int = 0
    ignore_eos: bool = False
    stop_token_ids: Sequence[int] = ()
    time_limit_s: float | None = None
    logprobs: bool = False
    top_logprobs: int | None = None
    prompt_logprobs: bool = False
    n: int = 1
    dial: float | None = None
    json_schema: str | None = None
    regex: str | None = None
    grammar: str | None = None
    session: SessionTurn | None = None
    prefix_cache: bool | None = None
    cache_salt: str = ""

    @property
    def constraint(self) -> tuple[str, str] | None:
        """Field and source of the constraint, if there is one. RequestError if there are two."""
        given = [(name, getattr(self, name)) for name in KINDS]
        given = [(name, source) for name, source in given if source is not None]
        if len(given) > 1:
            raise RequestError(given[1][0], f"be left out beside {given[0][0]}", given[1][1][:40])
        return given[0] if given else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """Sampling where a request is silent."""

    max_new_tokens: int = MAX_NEW_TOKENS
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0

    @classmethod
    def from_generation_config(cls, config: dict[str, object]) -> "Defaults":
        """Take the fields we know from a package's generation_config.json."""
        known = {name: config[name] for name in cls.__slots__ if config.get(name) is not None}
        return cls(**known)  # type: ignore[arg-type]


def check_utf8(field: str, text: str) -> None:
    """Refuse text with lone surrogates, which is how undecodable bytes come along."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        rule = f"be valid UTF-8 (character {error.start} is not)"
        raise RequestError(field, rule, text[error.start]) from None
