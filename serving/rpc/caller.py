"""Who makes the call that is being answered: a name, or '' where nobody has to say."""

from contextvars import ContextVar

_NAME: ContextVar[str] = ContextVar("caller", default="")


def set_caller(name: str) -> None:
    """Say who makes the call of this task."""
    _NAME.set(name)


def caller() -> str:
    """Who makes the call of this task."""
    return _NAME.get()
