"""Tokenization: text, tokens and messages of the served model's tokenizer. Imports no gRPC."""

from collections.abc import Sequence

from spiketrain.runtime.errors import RequestError
from spiketrain.serving.errors import NoChatTemplate, NoTokenizer
from spiketrain.serving.model import Tokenizer
from spiketrain.serving.request.chat import Chat
from spiketrain.serving.request.chat_template import ChatTemplate
from spiketrain.serving.request.confined_tokenizer import is_confined
from spiketrain.serving.request.preparation import check_text
from spiketrain.serving.request.request import check_utf8
from spiketrain.serving.request.token_rules import check_ids

MAX_DETOKENIZED = 1 << 18  # tokens: a text of some megabytes


class Tokenization:
    """One tokenizer and chat template, either of which may be missing. Any thread.

    vocab_size: the model's. max_prompt_tokens: a text much longer than those is not encoded
    (`preparation.check_text`).
    """

    def __init__(
        self,
        tokenizer: Tokenizer | None,
        vocab_size: int,
        template: ChatTemplate | None,
        max_prompt_tokens: int = 0,
    ) -> None:
        self._tokenizer = tokenizer
        self._max_prompt_tokens = max_prompt_tokens
        self._vocab_size = vocab_size
        self._template = template

    @property
    def has_chat(self) -> bool:
        """Whether messages can be a prompt."""
        return self._tokenizer is not None and self._template is not None

    @property
    def waits(self) -> bool:
        """Whether `tokenize` waits for another process."""
        return is_confined(self._tokenizer)

    def tokenize(self, text: str) -> tuple[list[int], list[bytes]]:
        """Token ids and the bytes of each. Raises NoTokenizer, TokenizerError."""
        tokenizer = self._known()
        check_text("text", text, self._max_prompt_tokens)
        ids = tokenizer.encode(text)
        return ids, [tokenizer.piece_bytes(token) for token in ids]

    def detokenize(self, token_ids: Sequence[int], continues: bool) -> str:
        """The text of tokens. Raises NoTokenizer, RequestError."""
        tokenizer = self._known()
        if len(token_ids) > MAX_DETOKENIZED:
            raise RequestError("token_ids", f"be at most {MAX_DETOKENIZED}", len(token_ids))
        check_ids("token_ids", token_ids, self._vocab_size)
        return tokenizer.decode(token_ids, continues)

    def render(self, chat: Chat) -> str:
        """The prompt of messages. Raises NoTokenizer, NoChatTemplate, RequestError."""
        self._known()
        if self._template is None:
            raise NoChatTemplate
        for message in chat.messages:
            check_utf8("messages", message.content)
        text = self._template.render(chat)
        if not text:
            raise RequestError("messages", "make a prompt of at least one character", text)
        return text

    def warm(self) -> None:
        """Start what messages need, so that the first of them need not wait."""
        if self._template is not None:
            self._template.warm()

    def close(self) -> None:
        """End it."""
        if self._template is not None:
            self._template.close()

    def _known(self) -> Tokenizer:
        if self._tokenizer is None:
            raise NoTokenizer
        return self._tokenizer
