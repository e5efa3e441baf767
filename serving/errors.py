"""Errors of serving, free of gRPC; `rpc/status.py` gives each error its status on the wire.

A bad request is a `RequestError` of the runtime, which names the field, the rule and the value.
"""

from spiketrain.runtime.errors import SpiketrainError


class ServingError(SpiketrainError):
    """Anything the engine refuses or cannot finish."""


class ConfigError(ServingError):
    """A setting of the server breaks its rule."""


class ListenError(ServingError):
    """The server cannot have its address."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"cannot listen on {address}: {reason}")


class QueueFull(ServingError):  # noqa: N818
    """Every slot and every place in the queue is taken."""

    def __init__(self, max_queue: int) -> None:
        super().__init__(f"the queue is full: {max_queue} requests are waiting for a slot")
        self.retry_after_s = 1.0


class TooManyStreams(QueueFull):
    """As many streams of scores are open as may hold a state."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.args = (f"{most} streams of scores are open, no more may be",)


class TooManyQuestions(QueueFull):
    """As many constraints, texts or messages wait for a limited process as may."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.args = (f"{most} requests wait for a process with limits, no more may",)


class ServerBusy(QueueFull):
    """More calls, or larger requests, are under way than may be."""

    def __init__(self, why: str) -> None:
        super().__init__(0)
        self.args = (f"the server is busy: {why}",)


class RequestLate(ServingError):  # noqa: N818
    """The client has not sent its request, or the next message of its stream, in time."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(f"no request has come within {timeout_s:g} s")


class ConfinementFailed(ServingError):  # noqa: N818
    """A process with limits cannot be started: no fault of the request."""


class Draining(ServingError):  # noqa: N818
    """The server is shutting down and takes no new requests."""

    def __init__(self) -> None:
        super().__init__("the server is shutting down")
        self.retry_after_s = 1.0


class DeadlineExceeded(ServingError):  # noqa: N818
    """The time the client gave was used up before the completion ended."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(f"not finished within the deadline of {timeout_s:.3f} s")


class Cancelled(ServingError):  # noqa: N818
    """The request was cancelled before its completion ended."""

    def __init__(self) -> None:
        super().__init__("the request was cancelled")


class NoTokenizer(ServingError):  # noqa: N818
    """Text was asked of a model that has no tokenizer."""

    def __init__(self) -> None:
        super().__init__(
            "prompt: text needs a tokenizer and this model has none; send token ids, "
            "or give one with --tokenizer"
        )


class NoChatTemplate(ServingError):  # noqa: N818
    """Messages were sent to a model that has no chat template."""

    def __init__(self) -> None:
        super().__init__(
            "chat: messages need a chat template and this model has none; send text, "
            "or give one with --chat-template"
        )


class Unauthenticated(ServingError):  # noqa: N818
    """The call bears no token that is known here, nor a certificate that will do."""

    def __init__(self) -> None:
        super().__init__(
            "authorization must be 'Bearer' and a token that this server knows, "
            "with the client's own certificate where it asks for one"
        )


class PermissionDenied(ServingError):  # noqa: N818
    """The caller is known, but may not use this service."""

    def __init__(self, caller: str, service: str) -> None:
        super().__init__(f"caller {caller} may not call the service {service}")


class NothingAllowed(ServingError):  # noqa: N818
    """What a request allows and what it bars leave no token to choose."""

    def __init__(self) -> None:
        super().__init__("allowed_token_ids, min_new_tokens and the constraint leave no token")


class ConstraintFailed(ServingError):  # noqa: N818
    """A constraint needs more work or memory for its next token than is granted."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the constraint cannot be followed: {reason}")


class EngineFailure(ServingError):  # noqa: N818
    """The model failed on a batch; the server goes on with other requests."""


class Internal(ServingError):  # noqa: N818
    """A call failed in a way that nobody foresaw."""

    def __init__(self) -> None:
        super().__init__("internal error, see the server's log")
