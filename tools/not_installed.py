"""List what a Python folder holds that is not installed.

Extension sources, build files, caches, and links to sibling folders, which are installed by
themselves, stay out.

    python tools/not_installed.py FOLDER

One path a line, relative to FOLDER; a directory ends in "/". Called by meson.build.
"""

import os
import sys
from collections.abc import Iterator

BUILD_SUFFIXES = (".pyx", ".pxd", ".pxi", ".c", ".h", ".in", ".pyc", ".so")
BUILD_FILES = ("meson.build",)
CACHES = ("__pycache__", ".ruff_cache", ".mypy_cache")


def not_installed(folder: str) -> Iterator[str]:
    """Yield the paths under `folder` that an installed copy leaves out."""
    for root, directories, files in os.walk(folder):
        for name in sorted(directories):
            if name in CACHES or os.path.islink(os.path.join(root, name)):
                yield os.path.relpath(os.path.join(root, name), folder) + "/"
        directories[:] = sorted(
            name
            for name in directories
            if name not in CACHES and not os.path.islink(os.path.join(root, name))
        )
        for name in sorted(files):
            if name.endswith(BUILD_SUFFIXES) or name in BUILD_FILES:
                yield os.path.relpath(os.path.join(root, name), folder)


if __name__ == "__main__":
    for path in not_installed(sys.argv[1]):
        print(path)
