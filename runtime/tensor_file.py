"""Safetensors files as read-only arrays over mapped memory, and their writer.

The header is read with suspicion: size, names, data types, shapes and offsets are checked against
the size of the file before any array is made, and nothing is copied or allocated for tensor data.
A file that another process shortens while it is mapped is beyond this reader.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from spiketrain.runtime.errors import PackageError
from spiketrain.runtime.package_files import open_file, parse_json

MAX_HEADER_BYTES = 16 << 20
MAX_AXES = 8
_DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "BF16": np.dtype("<u2"),  # its bits
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_ALIGNMENT = 64


def map_tensors(root: Path, name: str) -> dict[str, NDArray[Any]]:
    """All tensors of the file `name` in the package `root`, as read-only views of the mapping."""
    where = str(root / name)
    with open_file(root, name) as stream:
        size = os.fstat(stream.fileno()).st_size
        header, start = _read_header(where, stream, size)
        mapping = mmap.mmap(stream.fileno(), size, access=mmap.ACCESS_READ)
    spans = {key: _check_entry(where, key, entry) for key, entry in header.items()}
    _check_layout(where, spans, size - start)
    return {
        key: _view(where, mapping, key, dtype, shape, start + begin)
        for key, (dtype, shape, begin, _) in spans.items()
    }


def _read_header(where: str, stream: BinaryIO, size: int) -> tuple[dict[str, Any], int]:
    """The header without its metadata, and where the tensor data start."""
    prefix = stream.read(8)
    if len(prefix) < 8:
        raise PackageError(f"{where}: must have at least 8 bytes, got {size}")
    length = int.from_bytes(prefix, "little")
    limit = min(MAX_HEADER_BYTES, size - 8)
    if not 2 <= length <= limit:
        raise PackageError(f"{where}: header size must be in [2, {limit}], got {length}")
    header = parse_json(f"{where}: header", stream.read(length))
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or any(not isinstance(v, str) for v in metadata.values()):
        raise PackageError(f"{where}: __metadata__ must map strings to strings")
    return header, 8 + length


_Span = tuple["np.dtype[Any]", tuple[int, ...], int, int]


def _check_entry(where: str, name: str, entry: Any) -> _Span:
    """(dtype, shape, begin, end) of one tensor, consistent in itself."""
    what = f"{where}: tensor {name!r}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise PackageError(f"{what} must have dtype, shape and data_offsets, got {entry!r:.200}")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in _DTYPES:
        raise PackageError(f"{what} dtype must be one of {sorted(_DTYPES)}, got {code!r:.200}")
    if not _is_counts(shape) or len(shape) > MAX_AXES:
        raise PackageError(f"{what} shape must be at most {MAX_AXES} counts, got {shape!r:.200}")
    if not _is_counts(offsets) or len(offsets) != 2:
        raise PackageError(f"{what} data_offsets must be two counts, got {offsets!r:.200}")
    dtype, (begin, end) = _DTYPES[code], offsets
    if end - begin != prod(shape) * dtype.itemsize:
        raise PackageError(
            f"{what} data_offsets must span {prod(shape) * dtype.itemsize} bytes, got {offsets}"
        )
    return dtype, tuple(shape), begin, end


def _is_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_layout(where: str, spans: Mapping[str, _Span], nbytes: int) -> None:
    """The tensors fill the data from first to last byte, without gap or overlap."""
    position = 0
    for name, (_, _, begin, end) in sorted(spans.items(), key=lambda item: item[1][2:]):
        if begin != position:
            raise PackageError(f"{where}: tensor {name!r} must begin at {position}, got {begin}")
        position = end
    if position != nbytes:
        raise PackageError(f"{where}: tensor data must have {position} bytes, got {nbytes}")


def _view(
    where: str, mapping: mmap.mmap, name: str, dtype: Any, shape: tuple[int, ...], offset: int
) -> NDArray[Any]:
    if offset % dtype.itemsize:
        raise PackageError(
            f"{where}: tensor {name!r} must be aligned to {dtype.itemsize} bytes, "
            f"begins at byte {offset}"
        )
    if not prod(shape):
        return np.empty(shape, dtype)
    return np.frombuffer(mapping, dtype, prod(shape), offset).reshape(shape)


def release(array: NDArray[Any]) -> None:
    """Give back the memory of a mapped file that a read-only array lies in.

    Its next reader gets it from the file again. An array that no file backs is left alone.
    """
    if array.flags.writeable:
        return
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    base = base.obj if isinstance(base, memoryview) else base
    if not isinstance(base, mmap.mmap) or not array.nbytes:
        return
    begin = array.ctypes.data - np.frombuffer(base, np.uint8).ctypes.data
    first = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE
    last = (begin + array.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if last > first and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED, first, last - first)


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Write one safetensors file, widest data type first so that every tensor is aligned.

    Raises PackageError if the system does not take it, as on a full disk; then no file is left.
    """
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, Any] = {}
    position = 0
    for name in order:
        array = tensors[name]
        end = position + array.nbytes
        header[name] = {
            "dtype": tensor_code(name, array),
            "shape": list(array.shape),
            "data_offsets": [position, end],
        }
        position = end
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-(8 + len(raw)) % _ALIGNMENT)
    try:
        with open(path, "xb") as stream:
            stream.write(len(raw).to_bytes(8, "little") + raw)
            for name in order:
                stream.write(tensor_bytes(tensors[name]))
                release(tensors[name])
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        if not isinstance(error, FileExistsError):
            path.unlink(missing_ok=True)
        size = 8 + len(raw) + position
        raise PackageError(
            f"{path}: must be writable, {size} bytes, got {error.strerror}"
        ) from None


def tensor_code(name: str, array: NDArray[Any]) -> str:
    """The safetensors name of the array's data type."""
    code = _CODES.get(array.dtype)
    if code is None:
        raise PackageError(
            f"tensor {name!r}: dtype must be one of {sorted(map(str, _CODES))}, got {array.dtype}"
        )
    return code


def tensor_bytes(array: NDArray[Any]) -> memoryview:
    """The array's bytes in row-major order, copied only where the array is not contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
