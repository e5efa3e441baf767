"""A completion as one JSON object, with the names of the wire."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spiketrain.runtime.logprobs import TokenLogprob
    from spiketrain.serving.request.events import Completed


def to_json(completed: "Completed") -> str:
    """The object on one line; logprobs and prompt_logprobs only where there are any."""
    finish = completed.finish
    activity = {**asdict(finish.activity), "firing_rate": finish.activity.firing_rate}
    found = {
        "index": finish.index,
        "text": completed.text,
        "token_ids": completed.token_ids,
        "reason": finish.reason.value,
        "stop_sequence": finish.stop_sequence,
        "seed": completed.prompt.seed,
        "reused_tokens": completed.prompt.reused_tokens,
        "usage": asdict(finish.usage),
        "timings": asdict(finish.timings),
        "activity": activity,
    }
    for name in ("logprobs", "prompt_logprobs"):
        if logprobs := getattr(completed, name):
            found[name] = [_logprob(logprob) for logprob in logprobs]
    return json.dumps(found, ensure_ascii=False)


def _logprob(found: "TokenLogprob") -> dict[str, Any]:
    top = [{"token_id": token, "logprob": logprob} for token, logprob in found.top]
    return {
        "token_id": found.token,
        "logprob": found.logprob,
        "rank": found.rank,
        **({"top": top} if top else {}),
    }
