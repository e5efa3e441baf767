"""A runtime model for lm-evaluation-harness (arXiv 2405.14782): its LM, over states.

A context is read once: requests are sorted, so that neighbours share their beginnings, and the
state at the end of what two of them share is kept. Continuations and generations run in batches.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model

from spiketrain import runtime
from spiketrain.evaluation.protocols import settle, spans
from spiketrain.evaluation.reading import nats_of
from spiketrain.runtime.errors import DataError
from spiketrain.runtime.sampling import SamplingParams, sample
from spiketrain.runtime.scoring import token_nats

MAX_GEN_TOKENS = 256


@register_model("spiketrain")
class SpiketrainLM(TemplateLM):
    """The package at `pretrained`; batch_size sequences take turns in one call of the model."""

    def __init__(
        self,
        pretrained: str,
        batch_size: int | str = 8,
        threads: int = 1,
        seed: int = 0,
        dial: float | str = 1.0,
        **ignored: Any,
    ) -> None:
        super().__init__()
        unknown = set(ignored) - {"device", "max_batch_size"}  # which the harness always names
        if unknown:
            raise DataError(f"model_args must be known, got {sorted(unknown)}")
        self.model = runtime.load_model(pretrained, threads=int(threads), dial=float(dial))
        if self.model.tokenizer is None:
            raise DataError(f"{pretrained}: must have a tokenizer for the harness, has none")
        if not self.model.eos_token_ids:
            raise DataError(f"{pretrained}: must name an eos_token_id for the harness, names none")
        self.batch_size = 8 if batch_size == "auto" else int(batch_size)
        self.seed = seed

    @property
    def eot_token_id(self) -> int:
        """The end-of-text id, which also stands before a text."""
        return int(self.model.eos_token_ids[0])

    @property
    def tokenizer_name(self) -> str:
        """What the harness caches requests under."""
        return str(self.model.tokenizer.hash)

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **unused: Any
    ) -> list[int]:
        """Ids of the text, without special tokens."""
        ids: list[int] = self.model.tokenizer.encode(string)
        return ids

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **unused: Any
    ) -> list[tuple[float, bool]]:
        order = sorted(range(len(requests)), key=lambda place: requests[place][1])
        contexts = [requests[place][1] for place in order]
        states = zip(order, self._states([context[:-1] for context in contexts]), strict=True)
        results: list[tuple[float, bool]] = [(0.0, True)] * len(requests)
        while group := list(islice(states, self.batch_size)):
            pairs = [requests[place][1:] for place, _ in group]
            scored = self._continuations([state for _, state in group], pairs)
            for (place, _), result in zip(group, scored, strict=True):
                results[place] = result
                key = requests[place][0]
                self.cache_hook.add_partial("loglikelihood", key, result)
        return results

    def _states(self, texts: Sequence[list[int]]) -> Iterable[Any]:
        """The state after each of sorted texts; what neighbours share is read once."""
        kept: list[tuple[int, Any]] = [(0, self.model.new_state())]  # states along the last text
        for number, ids in enumerate(texts):
            before = texts[number - 1] if number else []
            after = texts[number + 1] if number + 1 < len(texts) else []
            while kept[-1][0] > _shared(before, ids):
                kept.pop()
            done, state = kept[-1]
            state = state.copy()
            branch = _shared(ids, after)
            if branch > done:
                self._read(state, ids[done:branch])
                kept.append((branch, state.copy()))
                done = branch
            self._read(state, ids[done:])
            yield state

    def _read(self, state: Any, ids: list[int]) -> None:
        if ids:
            self.model.forward(state, np.asarray(ids, np.int64), last_only=True)

    def _continuations(
        self, states: list[Any], pairs: Sequence[tuple[list[int], list[int]]]
    ) -> list[tuple[float, bool]]:
        """Log likelihood of each continuation, and whether it is the likeliest token by token."""
        inputs = [[context[-1], *rest[:-1]] if rest else [] for context, rest in pairs]
        nats, greedy = [0.0] * len(pairs), [True] * len(pairs)
        for at in range(max(map(len, inputs), default=0)):
            live = [i for i, ids in enumerate(inputs) if at < len(ids)]
            logits = self.model.step([states[i] for i in live], [inputs[i][at] for i in live])
            targets = np.asarray([pairs[i][1][at] for i in live], np.int64)
            for row, value in enumerate(token_nats(logits, targets).tolist()):
                nats[live[row]] += value
                greedy[live[row]] &= int(logits[row].argmax()) == int(targets[row])
        return [(-value, bool(same)) for value, same in zip(nats, greedy, strict=True)]

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Log likelihood of whole texts after the end-of-text id."""
        results = []
        for request in requests:
            (text,) = request.args
            settings = settle("rolling", prefix=self.eot_token_id)
            state = self.model.new_state()
            parts = [
                nats_of(self.model, state, s) for s in spans([self.tok_encode(text)], settings)
            ]
            value = -math.fsum(float(nats) for part in parts for nats in part)
            results.append(value)
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), value)
        return results

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Continuations of contexts, cut before the first of the texts in `until`."""
        texts: list[list[int]] = [
            self.tok_encode(request.args[0]) or [self.eot_token_id] for request in requests
        ]
        order = sorted(range(len(requests)), key=lambda place: texts[place])
        states = zip(order, self._states([texts[place][:-1] for place in order]), strict=True)
        results = [""] * len(requests)
        while group := list(islice(states, self.batch_size)):
            for place, text in self._generate(group, texts, requests):
                results[place] = text
                self.cache_hook.add_partial("generate_until", requests[place].args, text)
        return results

    def _generate(
        self, group: list[tuple[int, Any]], texts: list[list[int]], requests: list[Any]
    ) -> list[tuple[int, str]]:
        jobs = [
            _Job(place, state, texts[place], *_parameters(requests[place].args[1], self.seed))
            for place, state in group
        ]
        live = [job for job in jobs if job.left]
        while live:
            logits = self.model.step([job.state for job in live], [job.last for job in live])
            for job, row in zip(live, logits, strict=True):
                job.take(sample(row, job.params, job.state.position), self.model)
            live = [job for job in live if job.left]
        return [(job.place, job.text) for job in jobs]


class _Job:
    """One generation: its state has read all of its tokens but the last."""

    def __init__(
        self,
        place: int,
        state: Any,
        ids: list[int],
        params: SamplingParams,
        until: list[str],
        most: int,
    ) -> None:
        self.place, self.state, self.last, self.params = place, state, ids[-1], params
        self.left, self.text = most, ""
        self._until = until
        self._new: list[int] = []

    def take(self, token: int, model: Any) -> None:
        """Add a token; ends at an end of text or at one of the texts to stop before."""
        if token in model.eos_token_ids:
            self.left = 0
            return
        self._new.append(token)
        self.last = token
        self.left -= 1
        self.text = model.tokenizer.decode(self._new, continues=True)
        ends = [at for at in map(self.text.find, self._until) if at >= 0]
        if ends:
            self.text, self.left = self.text[: min(ends)], 0


def _parameters(arguments: dict[str, Any], seed: int) -> tuple[SamplingParams, list[str], int]:
    """How to sample, the texts to stop before, and the most tokens, from a task's settings."""
    until = arguments.get("until") or []
    most = int(arguments.get("max_gen_toks", arguments.get("max_new_tokens", MAX_GEN_TOKENS)))
    drawn = arguments.get("do_sample", arguments.get("temperature", 0) != 0)
    params = SamplingParams(
        temperature=float(arguments.get("temperature", 1.0)) if drawn else 0.0,
        top_k=int(arguments.get("top_k", 0)),
        top_p=float(arguments.get("top_p", 1.0)),
        seed=seed,
    )
    return params, [until] if isinstance(until, str) else [text for text in until if text], most


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two texts begin with alike."""
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return place
    return min(len(one), len(other))
