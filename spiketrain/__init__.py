"""Facade of the command line's parts. Importing it imports none of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serving.async_client import AsyncClient
    from serving.channel import Access
    from serving.chat import Chat, Message
    from serving.client import Client
    from serving.request import Request, SessionTurn
    from serving.retry import Retry, ServerError

# Names of the Python client -> where they are, imported when they are asked for.
_LATE = {
    "Access": "serving.channel",
    "AsyncClient": "serving.async_client",
    "Chat": "serving.chat",
    "Client": "serving.client",
    "Message": "serving.chat",
    "Request": "serving.request",
    "Retry": "serving.retry",
    "ServerError": "serving.retry",
    "SessionTurn": "serving.request",
}

BUNDLED_MODELS = ("stories-egru", "stories-spikingbrain")

__all__ = [
    "BUNDLED_MODELS",
    "Access",
    "AsyncClient",
    "Chat",
    "Client",
    "Message",
    "Request",
    "Retry",
    "ServerError",
    "SessionTurn",
    "bundled_model",
]


def bundled_model(name: str = "stories-egru") -> Path:
    """Return the directory of a package that comes with the installation.

    Raises ValueError unless `name` is one of BUNDLED_MODELS.
    """
    if name not in BUNDLED_MODELS:
        raise ValueError(f"name must be one of {BUNDLED_MODELS}, got {name!r}")
    return Path(__file__).parent / "models" / name


def __getattr__(name: str) -> Any:
    """Import a name of the client."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LATE[name]), name)
