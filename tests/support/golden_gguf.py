"""The GGUF files of tests/data/gguf, unpacked."""

import functools
import json
import lzma
import tarfile
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent.parent / "data" / "gguf"
NAMES = (
    "llama_gqa_tied",
    "llama_rope_freqs",
    "llama_spm_linear",
    "qwen2_bias",
    "qwen3_qk_norm",
)


@functools.cache
def golden_bytes(name: str) -> bytes:
    """The bytes of a file that is read."""
    return lzma.decompress((FOLDER / f"{name}.gguf.xz").read_bytes())


@functools.cache
def broken_files() -> dict[str, bytes]:
    """Name -> bytes of each file that is refused, and of "good"."""
    with tarfile.open(FOLDER / "broken.tar.xz") as archive:
        members = [member for member in archive if member.name.endswith(".gguf")]
        return {Path(m.name).stem: archive.extractfile(m).read() for m in members}


def golden_file(folder: Path, name: str) -> Path:
    """The file `name` under `folder`, of those that are read or of those that are refused."""
    data = golden_bytes(name) if name in NAMES else broken_files()[name]
    path = folder / f"{name}.gguf"
    path.write_bytes(data)
    return path


def golden_arrays(name: str) -> dict[str, np.ndarray]:
    """Expected arrays of a file."""
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return dict(arrays)


def golden_json(name: str, kind: str) -> dict:
    """Expected "config" or "tokens" of a file."""
    return json.loads((FOLDER / f"{name}.{kind}.json").read_text("utf-8"))
