"""Events of completions <-> wire messages, both ways, for server and client."""

from collections.abc import Sequence
from typing import Any

import spiketrain.v1.generation_pb2 as pb
from spiketrain.runtime.logprobs import TokenLogprob
from spiketrain.serving.errors import ServingError
from spiketrain.serving.request.events import (
    Completed,
    Delta,
    Event,
    Finish,
    FinishReason,
    PromptInfo,
    RequestActivity,
    Timings,
    Usage,
)

_REASONS = {
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
    FinishReason.EOS_TOKEN: pb.FINISH_REASON_EOS_TOKEN,
    FinishReason.STOP_SEQUENCE: pb.FINISH_REASON_STOP_SEQUENCE,
    FinishReason.STOP_TOKEN: pb.FINISH_REASON_STOP_TOKEN,
    FinishReason.TIME_LIMIT: pb.FINISH_REASON_TIME_LIMIT,
    FinishReason.CONSTRAINT: pb.FINISH_REASON_CONSTRAINT,
}
_REASONS_BACK = {number: reason for reason, number in _REASONS.items()}


def to_reply(event: Event) -> Any:
    """Event -> GenerateStreamResponse."""
    if isinstance(event, Delta):
        return pb.GenerateStreamResponse(delta=to_delta(event))
    if isinstance(event, PromptInfo):
        return pb.GenerateStreamResponse(prompt=to_prompt_info(event))
    return pb.GenerateStreamResponse(finish=to_finish(event))


def to_delta(delta: Delta) -> Any:
    """Delta -> message."""
    return pb.Delta(
        text=delta.text,
        token_ids=delta.token_ids,
        logprobs=map(to_logprob, delta.logprobs),
        prompt_logprobs=map(to_logprob, delta.prompt_logprobs),
        index=delta.index,
    )


def to_logprob(found: TokenLogprob) -> Any:
    """TokenLogprob -> message."""
    top = [pb.AlternativeToken(token_id=token, logprob=value) for token, value in found.top]
    return pb.TokenLogprob(token_id=found.token, logprob=found.logprob, rank=found.rank, top=top)


def to_prompt_info(info: PromptInfo) -> Any:
    """PromptInfo -> message."""
    return pb.PromptInfo(
        prompt_tokens=info.prompt_tokens, seed=info.seed, reused_tokens=info.reused_tokens
    )


def to_finish(finish: Finish) -> Any:
    """Finish -> message."""
    usage, timings, activity = finish.usage, finish.timings, finish.activity
    return pb.Finish(
        reason=_REASONS[finish.reason],
        stop_sequence=finish.stop_sequence,
        usage=pb.Usage(prompt_tokens=usage.prompt_tokens, new_tokens=usage.new_tokens),
        timings=pb.Timings(
            queue_s=timings.queue_s, prefill_s=timings.prefill_s, decode_s=timings.decode_s
        ),
        activity=pb.Activity(
            tokens=activity.tokens,
            neurons=activity.neurons,
            events=activity.events,
            firing_rate=activity.firing_rate,
            weight_bytes_touched_per_token=activity.weight_bytes_touched_per_token,
            weight_bytes_dense_per_token=activity.weight_bytes_dense_per_token,
        ),
        session_etag=finish.session_etag,
        session_tokens=finish.session_tokens,
        index=finish.index,
    )


def to_response(completions: Sequence[Completed]) -> Any:
    """The completions of one request, by index -> GenerateResponse."""
    first, *further = completions
    return pb.GenerateResponse(
        text=first.text,
        token_ids=first.token_ids,
        prompt=to_prompt_info(first.prompt),
        finish=to_finish(first.finish),
        logprobs=map(to_logprob, first.logprobs),
        prompt_logprobs=map(to_logprob, first.prompt_logprobs),
        further=[
            pb.FurtherCompletion(
                text=other.text,
                token_ids=other.token_ids,
                finish=to_finish(other.finish),
                logprobs=map(to_logprob, other.logprobs),
            )
            for other in further
        ],
    )


def from_reply(message: Any) -> Event | None:
    """GenerateStreamResponse -> Event; None for a kind of event that this client does not know.

    Raises ServingError on a reason to finish that it does not know.
    """
    kind = message.WhichOneof("event")
    if kind == "delta":
        return from_delta(message.delta)
    if kind == "prompt":
        info = message.prompt
        return PromptInfo(info.prompt_tokens, info.seed, info.reused_tokens)
    if kind is None:
        return None
    finish = message.finish
    activity = finish.activity
    if finish.reason not in _REASONS_BACK:
        raise ServingError(
            f"finish.reason must be one of {sorted(_REASONS_BACK)}, got {finish.reason} "
            "from a newer server"
        )
    return Finish(
        reason=_REASONS_BACK[finish.reason],
        stop_sequence=finish.stop_sequence,
        usage=Usage(finish.usage.prompt_tokens, finish.usage.new_tokens),
        timings=Timings(finish.timings.queue_s, finish.timings.prefill_s, finish.timings.decode_s),
        activity=RequestActivity(
            tokens=activity.tokens,
            neurons=activity.neurons,
            events=activity.events,
            weight_bytes_touched_per_token=activity.weight_bytes_touched_per_token,
            weight_bytes_dense_per_token=activity.weight_bytes_dense_per_token,
        ),
        session_etag=finish.session_etag,
        session_tokens=finish.session_tokens,
        index=finish.index,
    )


def from_delta(message: Any) -> Delta:
    """Message -> Delta."""
    return Delta(
        text=message.text,
        token_ids=tuple(message.token_ids),
        logprobs=tuple(map(from_logprob, message.logprobs)),
        prompt_logprobs=tuple(map(from_logprob, message.prompt_logprobs)),
        index=message.index,
    )


def from_logprob(message: Any) -> TokenLogprob:
    """Message -> TokenLogprob."""
    top = tuple((other.token_id, other.logprob) for other in message.top)
    return TokenLogprob(message.token_id, message.logprob, message.rank, top)
