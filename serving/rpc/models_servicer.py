"""The Models service: what is served and within which limits, as one message made at the start."""

from typing import Any

import grpc

import spiketrain.v1.models_pb2 as models_pb
import spiketrain.v1.models_pb2_grpc as models_grpc
from spiketrain.runtime.dial import NO_DIAL
from spiketrain.runtime.penalties import MAX_WINDOW
from spiketrain.serving.engine.engine import Engine
from spiketrain.serving.request.constraint import KINDS
from spiketrain.serving.request.preparation import MAX_N, MAX_PROMPT_LOGPROBS
from spiketrain.serving.request.token_rules import MAX_BIASES, MAX_STOP_TOKENS, MAX_TOP_LOGPROBS


class ModelsServicer(models_grpc.ModelsServicer):
    """Models: what is served and within which limits."""

    def __init__(self, engine: Engine, name: str, has_chat: bool) -> None:
        self._reply = _describe(engine, name, has_chat)

    async def GetModel(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Identity, sizes, limits and defaults."""
        return self._reply


def _describe(engine: Engine, name: str, has_chat: bool) -> Any:
    model, limits, defaults = engine.model, engine.config, engine.defaults
    needs_text = [*KINDS, "text"] if engine.tokenizer is not None else []
    chat = ["chat"] if has_chat else []
    dial = ["dial"] if model.max_dial > NO_DIAL else []
    return models_pb.Model(
        name=name,
        family=model.config["model_type"],
        fingerprint=model.fingerprint,
        vocab_size=model.vocab_size,
        state_nbytes=model.state_nbytes,
        eos_token_ids=model.eos_token_ids,
        limits=models_pb.Limits(
            max_prompt_tokens=limits.max_prompt_tokens,
            max_new_tokens=limits.max_new_tokens,
            max_batch_size=engine.max_sequences,
            max_queue=limits.max_queue,
            max_stop_sequences=limits.max_stop_sequences,
            max_stop_sequence_bytes=limits.max_stop_sequence_bytes,
            max_message_bytes=limits.max_message_bytes,
            max_grammar_bytes=limits.max_grammar_bytes,
            max_top_logprobs=MAX_TOP_LOGPROBS,
            max_stop_tokens=MAX_STOP_TOKENS,
            max_logit_biases=MAX_BIASES,
            max_penalty_window=MAX_WINDOW,
            max_n=MAX_N,
            max_prompt_logprobs=MAX_PROMPT_LOGPROBS,
            max_dial=model.max_dial,
            session_bytes=limits.session_bytes,
            session_ttl_s=limits.session_ttl_s,
        ),
        defaults=models_pb.SamplingDefaults(
            max_new_tokens=min(defaults.max_new_tokens, limits.max_new_tokens),
            temperature=defaults.temperature,
            top_k=defaults.top_k,
            top_p=defaults.top_p,
            min_p=defaults.min_p,
            typical_p=defaults.typical_p,
            repetition_penalty=defaults.repetition_penalty,
        ),
        capabilities=sorted(
            [
                *(*needs_text, *chat, *dial),
                *("logprobs", "prefix_cache", "scoring", "sessions", "token_ids"),
            ]
        ),
    )
