"""Link the folders of the parts into `spiketrain/` where an archive has lost the links.

    python tools/link_parts.py

A source distribution holds no links to folders. Called by meson.build, which builds kernels through
the links. A link that is there stays; anything else of that name is an error.
"""

import sys
from pathlib import Path

PARTS = ("lm", "runtime", "serving", "training")


def link_parts(root: Path) -> None:
    """Make what is missing of the links `spiketrain/<part>` to `<part>` under `root`.

    Raises FileExistsError where something else has the name of a link.
    """
    for part in PARTS:
        link = root / "spiketrain" / part
        if link.is_symlink() and link.resolve() == (root / part).resolve():
            continue
        link.symlink_to(f"../{part}")


if __name__ == "__main__":
    try:
        link_parts(Path(__file__).resolve().parent.parent)
    except FileExistsError as error:
        sys.exit(
            f"{error.filename}: must be a link to the folder of the same name beside spiketrain/"
        )
