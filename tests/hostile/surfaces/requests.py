"""Requests in process: each is prepared, and one that is in order is run by an engine."""

import asyncio
import json
from contextlib import closing, contextmanager

import tiny
from mutation import NUMBERS, REALS, TEXTS, json_bytes

from spiketrain.runtime import load_model
from spiketrain.runtime.errors import RequestError, TokenizerError
from spiketrain.serving.config import ServingConfig
from spiketrain.serving.engine.engine import Engine
from spiketrain.serving.errors import EngineFailure, NothingAllowed
from spiketrain.serving.request.request import Request

TARGET, BATCH, NEEDS = 10_000_000, 3000, ("structlog", "tokenizers")
WHOLES = (*range(5), *NUMBERS)
NUMBER = (None, 1.0, 0.5, *REALS)
FIELDS = {
    "prompt": ("a", "abc", [1, 2], [], [0], [256], [257], [-1], [2**40], *TEXTS),
    "max_new_tokens": (None, 1, 2, 3, 4, 5, 10**9, *NUMBERS),
    **dict.fromkeys(("temperature", "top_p", "min_p", "typical_p"), NUMBER),
    **dict.fromkeys(
        ("repetition_penalty", "frequency_penalty", "presence_penalty", "dial", "time_limit_s"),
        NUMBER,
    ),
    **dict.fromkeys(("top_k", "seed", "penalty_window", "top_logprobs"), (None, *WHOLES)),
    "stop_sequences": ([], ["a"], [""], ["a", "ab"], *([text] for text in TEXTS)),
    "allowed_token_ids": ([], [1], [1, 1], [256], [257], [-1], [2**63]),
    "stop_token_ids": ([], [1], [1, 1], [256], [257], [-1], [2**63]),
    **dict.fromkeys(("logprobs", "prompt_logprobs", "ignore_eos"), (True, False)),
    "n": (1, 1, 2, 3, 0, 16, 17, -1),
    "min_new_tokens": (0, 1, 2, *NUMBERS),
    "cache_salt": TEXTS,
    "prefix_cache": (None, True, False),
}
NAMES = sorted(FIELDS)
MAX_FIELDS = 6


def prepare(folder):
    return tiny.tiny_egru_package(folder / "requests", hidden_sizes=(5, 4), embedding_size=4)


def make(chance, seeds):
    names = chance.sample(NAMES, chance.randint(1, MAX_FIELDS))
    fields = {name: chance.choice(FIELDS[name]) for name in names}
    fields.setdefault("max_new_tokens", chance.randint(1, 3))
    if chance.random() < 0.2:
        fields["logit_bias"] = {chance.choice((0, 1, 256, 257, -1)): chance.choice(REALS)}
    return json_bytes({"prompt": "a", **fields})


@contextmanager
def open_calls(seeds):
    model = load_model(seeds)
    config = ServingConfig(flush_interval_s=0.0, max_batch_size=4, max_new_tokens=8)
    loop = asyncio.new_event_loop()
    with Engine(model, config) as engine, closing(loop):

        def call(data):
            fields = json.loads(data)
            if "logit_bias" in fields:
                bias = fields["logit_bias"].items()
                fields["logit_bias"] = {int(token): value for token, value in bias}
            loop.run_until_complete(_run(engine, Request(**fields)))

        yield call


async def _run(engine, request):
    async with engine.stream(request) as events:
        async for _ in events:
            pass


def allowed():
    return (RequestError, TokenizerError, NothingAllowed, EngineFailure)
