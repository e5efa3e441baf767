"""InputProcessor: requests to jobs. Checks, encodes, looks for a kept beginning of the prompt."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from spiketrain.runtime.tokenizer import Detokenizer
from spiketrain.serving.config import ServingConfig
from spiketrain.serving.engine.completion import Completion, Fork
from spiketrain.serving.engine.job import Job, Origin
from spiketrain.serving.engine.prefix_cache import PrefixCache, worth_keeping
from spiketrain.serving.engine.starting_point import Start, Turn
from spiketrain.serving.engine.text import CompletionText
from spiketrain.serving.isolation.beside import beside
from spiketrain.serving.model import Model, Tokenizer
from spiketrain.serving.request.chat import Chat
from spiketrain.serving.request.confined_tokenizer import is_confined
from spiketrain.serving.request.constraint import Grammars
from spiketrain.serving.request.preparation import Prepared, check_tokenizer, prepare, prompt_ids
from spiketrain.serving.request.request import Defaults, Request

LONG_PROMPT = 4096  # characters or tokens; read outside the event loop, as are other long lists


class InputProcessor:
    """What requests are checked against: a model, its tokenizer, limits, kept states."""

    def __init__(self, model: Model, config: ServingConfig, tokenizer: Tokenizer | None) -> None:
        check_tokenizer(tokenizer, model.vocab_size)
        self.defaults = Defaults.from_generation_config(model.generation_config)
        self.prefixes = PrefixCache(config.prefix_cache_bytes, model.fingerprint)
        self._model = model
        self._config = config
        self._tokenizer = tokenizer
        self._grammars = None
        if tokenizer is not None:
            self._grammars = Grammars(tokenizer, model.vocab_size, model.eos_token_ids)

    def warm(self) -> None:
        """Start what constraints need, beside all else, so that the first of them need not wait."""
        if self._grammars is not None:
            self._grammars.warm()

    def close(self) -> None:
        """End what was started for constraints."""
        if self._grammars is not None:
            self._grammars.close()

    async def completion(self, request: Request, turn: Turn | None, arrived_s: float) -> Completion:
        """A completion for a reader on this event loop. Raises RequestError, NoTokenizer."""
        loop = asyncio.get_running_loop()
        waits = request.constraint is not None or is_confined(self._tokenizer)
        if waits or _length(request) > LONG_PROMPT:
            return await beside(waits, self.completion_now, request, turn, arrived_s, loop)
        return self.completion_now(request, turn, arrived_s, loop)

    def completion_now(
        self,
        request: Request,
        turn: Turn | None,
        arrived_s: float,
        loop: asyncio.AbstractEventLoop,
    ) -> Completion:
        """The same, whatever takes its time."""
        prepared = prepare(
            request,
            self.defaults,
            self._config,
            self._model,
            self._tokenizer,
            self._grammars,
            continues=turn is not None and turn.start.logits is not None,
            kept_dial=None if turn is None else turn.start.state.dial,
        )
        text = self._text(prepared)
        origin = self._origin(prepared) if turn is None else Origin(start=turn.start, turn=turn)
        return Completion(prepared, text, origin, arrived_s, loop, num_forks=request.n - 1)

    def sibling(self, first: Completion, index: int, fork: Fork) -> Completion:
        """Another completion of the same prompt, from where `first` has read it."""
        request = first.request
        sampling = replace(request.sampling, index=index)
        prepared = replace(request, sampling=sampling, constraint=fork.constraint, prompt_top=None)
        origin = Origin(start=fork.start, skipped=len(request.prompt_ids))
        return Completion(prepared, self._text(prepared), origin, first.arrived_s, first.loop)

    def _text(self, request: Prepared) -> CompletionText:
        detokenizer = None
        if self._tokenizer is not None:
            detokenizer = Detokenizer(self._tokenizer, continues=True)
        return CompletionText(detokenizer, request.stop_sequences)

    async def reading(
        self, content: str | Sequence[int], turn: Turn, timeout_s: float | None, arrived_s: float
    ) -> Job:
        """A job that has a turn read a text or tokens. Raises RequestError, NoTokenizer."""
        ids = await beside(
            is_confined(self._tokenizer),
            prompt_ids,
            "content",
            content,
            self._config.max_prompt_tokens,
            self._model.vocab_size,
            self._tokenizer,
        )
        origin = Origin(start=turn.start, turn=turn)
        return Job(ids, origin, arrived_s, asyncio.get_running_loop(), timeout_s)

    def _origin(self, request: Prepared) -> Origin:
        """Where a prompt begins whose first tokens may have been read before."""
        if request.cache_salt is None or request.prompt_top is not None:  # every token is read
            return Origin(dial=request.dial)
        keys = self.prefixes.keys(request.prompt_ids, request.cache_salt, request.dial)
        skipped, state = self.prefixes.find(keys)
        if state is not None:
            state.events = state.neurons = state.weight_bytes = 0  # another request's
        new = {length: key for length, key in worth_keeping(keys).items() if length > skipped}
        start = None if state is None else Start(state)
        return Origin(start=start, skipped=skipped, marks=new, dial=request.dial)


def _length(request: Request) -> int:
    """Characters, tokens and entries of all that a request lists."""
    prompt = request.prompt
    counts = map(len, (request.allowed_token_ids, request.logit_bias, request.stop_sequences))
    return sum(counts) + (0 if prompt is None or isinstance(prompt, Chat) else len(prompt))
