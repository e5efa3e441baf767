"""Messages to requests, events to messages. No policy, no arrays, no `except` of its own."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc

import spiketrain.v1.generation_pb2 as generation_pb
import spiketrain.v1.generation_pb2_grpc as generation_grpc
import spiketrain.v1.models_pb2 as models_pb
import spiketrain.v1.models_pb2_grpc as models_grpc
from serving.engine import Engine
from serving.events import Delta, Event, Finish, PromptInfo
from serving.inflight import InFlight
from serving.status import errors_as_status
from serving.wire import checked, to_delta, to_finish, to_prompt_info, to_reply, to_request

if TYPE_CHECKING:
    from serving.metrics import Metrics

LEAST_TIMEOUT_S = 1e-6  # for a deadline that passed on the way
NO_TIMEOUT_S = 1e8  # gRPC says "about forever" for calls without a deadline


class GenerationServicer(generation_grpc.GenerationServicer):
    """Generation: prompts in, completions out."""

    def __init__(self, engine: Engine, inflight: InFlight, metrics: "Metrics | None") -> None:
        self._engine = engine
        self._inflight = inflight
        self._metrics = metrics

    async def GenerateStream(
        self, request: Any, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[Any]:
        """Events as they come."""
        async with errors_as_status(context):
            with self._inflight:
                wanted = to_request(checked(request), _timeout_s(context))
                async with self._engine.stream(wanted) as events:
                    async for event in events:
                        self._note(event)
                        yield to_reply(event)

    async def Generate(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """The same events, joined."""
        reply = generation_pb.GenerateResponse()
        texts: list[str] = []
        async with errors_as_status(context):
            with self._inflight:
                wanted = to_request(checked(request), _timeout_s(context))
                async with self._engine.stream(wanted) as events:
                    async for event in events:
                        self._note(event)
                        if isinstance(event, Delta):
                            texts.append(event.text)
                            reply.token_ids.extend(event.token_ids)
                            reply.logprobs.extend(to_delta(event).logprobs)
                        elif isinstance(event, PromptInfo):
                            reply.prompt.CopyFrom(to_prompt_info(event))
                        elif isinstance(event, Finish):
                            reply.finish.CopyFrom(to_finish(event))
        reply.text = "".join(texts)
        return reply

    def _note(self, event: Event) -> None:
        if self._metrics is not None and isinstance(event, Finish):
            self._metrics.finished(event)


class ModelsServicer(models_grpc.ModelsServicer):
    """Models: what is served and within which limits."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._reply = _describe(engine, name)

    async def GetModel(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Identity, sizes, limits and defaults."""
        async with errors_as_status(context):
            checked(request)
        return self._reply


def _timeout_s(context: grpc.aio.ServicerContext) -> float | None:
    left_s = context.time_remaining()
    if left_s is None or left_s > NO_TIMEOUT_S:
        return None
    return max(left_s, LEAST_TIMEOUT_S)


def _describe(engine: Engine, name: str) -> Any:
    model, limits, defaults = engine.model, engine.config, engine.defaults
    text = ["text"] if engine.tokenizer is not None else []
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
            max_batch_size=limits.max_batch_size,
            max_queue=limits.max_queue,
            max_stop_sequences=limits.max_stop_sequences,
            max_stop_sequence_bytes=limits.max_stop_sequence_bytes,
        ),
        defaults=models_pb.SamplingDefaults(
            max_new_tokens=min(defaults.max_new_tokens, limits.max_new_tokens),
            temperature=defaults.temperature,
            top_k=defaults.top_k,
            top_p=defaults.top_p,
        ),
        capabilities=[*text, "token_ids"],
    )
