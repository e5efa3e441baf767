"""Model and Tokenizer: what serving asks of a model, whoever computes it.

`spiketrain.runtime.load_model` gives one. States, counters and errors are the runtime's.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from spiketrain.runtime.activity import Activity
from spiketrain.runtime.state import State


class Tokenizer(Protocol):
    """Text to token ids and back. A token is a run of bytes. Any thread."""

    @property
    def vocab_size(self) -> int:
        """Tokens in the vocabulary, at most the model's."""

    @property
    def strips_blank(self) -> bool:
        """Whether a text loses the blank that its first token begins with."""

    def encode(self, text: str, /) -> list[int]:
        """Token ids of a text. Raises TokenizerError."""

    def decode(self, ids: Iterable[int], /, continues: bool = False) -> str:
        """The text of tokens. continues: whether a leading blank belongs to the text."""

    def piece_bytes(self, token: int, /) -> bytes:
        """The bytes that a token adds to a text; b"" for special tokens. Raises TokenizerError."""


class ModelLimits(Protocol):
    """The part of a model that requests are checked against."""

    @property
    def vocab_size(self) -> int:
        """V: token ids are in [0, V)."""

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Tokens that end a text, the preferred one first; () for none."""

    @property
    def dial(self) -> float:
        """The dial of new states where a request names none, in [1, max_dial]."""

    @property
    def max_dial(self) -> float:
        """The greatest dial of a sequence; 1 for a model without one."""


class Model(ModelLimits, Protocol):
    """A model ready to run. Calls from several threads wait for one another.

    The results for a sequence depend on its state and its tokens alone, not on its batch.
    """

    @property
    def config(self) -> Mapping[str, Any]:
        """The package's config.json; `model_type` names the family."""

    @property
    def generation_config(self) -> dict[str, Any]:
        """The package's generation_config.json: sampling where a request is silent."""

    @property
    def fingerprint(self) -> str:
        """The package's identity, "sha256:" and 64 hexadecimal digits. ASCII, 71 characters."""

    @property
    def state_nbytes(self) -> int:
        """Bytes of one state."""

    @property
    def tokenizer(self) -> Tokenizer | None:
        """None where the package has none: then prompts are token ids."""

    def new_state(self, dial: float | None = None) -> State:
        """The state before the first token. dial: None for the model's. Raises RequestError."""

    def set_dial(self, state: State, dial: float, /) -> None:
        """Have a state read further tokens at another dial. Raises RequestError."""

    def state_from_bytes(self, blob: bytes, /) -> State:
        """The state that `State.to_bytes` stored. Raises StateError."""

    def forward(
        self,
        state: State,
        token_ids: Sequence[int],
        /,
        last_only: bool = False,
        cancelled: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.float32]:
        """Logits (T, V) float32 after each of T tokens, or (V,) after the last; advances `state`.

        cancelled: (1,) uint8; once another thread makes it non-zero the call raises CallCancelled.
        """

    def step(self, states: Sequence[State], token_ids: Sequence[int], /) -> NDArray[np.float32]:
        """Logits (B, V) float32 after one more token for each of B states; advances `states`."""

    def activity(self) -> Activity:
        """Counters since the model was loaded."""
