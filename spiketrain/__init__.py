"""Facade of the command line's parts. Importing it imports none of them."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spiketrain.serving.client.async_client import AsyncClient
    from spiketrain.serving.client.channel import Access
    from spiketrain.serving.client.client import Client
    from spiketrain.serving.client.retry import Retry, ServerError
    from spiketrain.serving.request.chat import Chat, Message
    from spiketrain.serving.request.request import Request, SessionTurn

    __version__: str

# Names of the Python client -> where they are, imported when they are asked for.
_LATE = {
    "Access": "spiketrain.serving.client.channel",
    "AsyncClient": "spiketrain.serving.client.async_client",
    "Chat": "spiketrain.serving.request.chat",
    "Client": "spiketrain.serving.client.client",
    "Message": "spiketrain.serving.request.chat",
    "Request": "spiketrain.serving.request.request",
    "Retry": "spiketrain.serving.client.retry",
    "ServerError": "spiketrain.serving.client.retry",
    "SessionTurn": "spiketrain.serving.request.request",
}


def _use_installed_copy(path: list[str]) -> None:
    """Look for every part in the installed copy where `path` is a folder of unbuilt sources.

    In the root of a checkout Python meets the sources first. The installed copy alone has the
    compiled modules of its version. Raises ImportError where nothing is installed.
    """
    sources = Path(__file__).parent
    built = (sources / "v1" / "generation_pb2.py").is_file()  # the build makes the stubs
    if built or [Path(entry) for entry in path] != [sources]:
        return
    for entry in sys.path:
        installed = Path(entry or ".").resolve() / "spiketrain"
        if installed != sources.resolve() and (installed / "runtime" / "kernels").is_dir():
            path[:] = [str(installed)]
            return
    raise ImportError(f"{sources} holds sources alone: install them with `pip install .`")


_use_installed_copy(__path__)

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
    "__version__",
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
    """Import a name of the client, or read the version of the installation."""
    if name == "__version__":
        from importlib.metadata import version

        return version("spiketrain")
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LATE[name]), name)


def __dir__() -> list[str]:
    """Return the names that are for users, and what every module has."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
