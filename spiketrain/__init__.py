"""Facade of the command line's parts. Importing it imports none of them."""

from pathlib import Path

__all__ = ["bundled_model"]


def bundled_model() -> Path:
    """Return the directory of the package that comes with the installation."""
    return Path(__file__).parent / "models" / "stories-egru"
