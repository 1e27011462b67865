"""Read JSON files and the headers of safetensors files. Needs no torch.

Anyone may have written these files: each is read up to a limit, and checked before it is used.
"""

from __future__ import annotations

import json
import os
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NoReturn, cast

MAX_JSON_BYTES = 8_000_000  # of a config, an index or a header; that of SDXL has 0.3 MB
MAX_JSON_VALUES = 300_000  # in one of them; the header of SDXL has 25,000
MAX_DIMENSIONS = 8
# dtype -> bits, https://github.com/huggingface/safetensors (README, format)
DTYPE_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}


class ModelError(RuntimeError):
    """A model that cannot be loaded. Its text is for the person who named it."""


class FileDefect(ValueError):
    """Something wrong with a file. Its text is the end of a sentence: "is cut short"."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor in a safetensors header. start, end: bytes from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Header:
    """The head of a safetensors file. length: in bytes, with the 8 bytes that hold its length."""

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    length: int

    @property
    def parameters(self) -> int:
        """The number of values in all tensors."""
        return sum(prod(tensor.shape) for tensor in self.tensors.values())


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raises OSError, and FileDefect (a ValueError) if it is none."""
    return parse_json(_read(path, MAX_JSON_BYTES + 1))


def read_text(path: Path) -> str:
    """Return the text of a file, at most 1 MB of it. Raises OSError and ValueError."""
    return _read(path, 1_000_000).decode("utf-8")


def read_header(path: Path) -> Header:
    """Read and check the header of a safetensors file. Raises ModelError with one sentence."""
    try:
        return _read_header(path)
    except (OSError, FileDefect) as problem:
        raise ModelError(f"The file {path.parent.name}/{path.name} {describe_defect(problem)}.") from problem


def read_floats(path: Path, header: Header, name: str) -> tuple[float, ...]:
    """Return the values of a small tensor of F32, F16 or BF16 numbers; none of another kind. Raises ModelError."""
    tensor = header.tensors[name]
    if tensor.dtype not in ("F32", "F16", "BF16") or tensor.end - tensor.start > 1_000_000:
        return ()
    try:
        data = _read(path, tensor.end - tensor.start, start=header.length + tensor.start)
    except (OSError, FileDefect) as problem:
        raise ModelError(f"The file {path.parent.name}/{path.name} {describe_defect(problem)}.") from problem
    if tensor.dtype == "BF16":  # the upper half of a float32
        data = b"".join(b"\0\0" + data[i : i + 2] for i in range(0, len(data), 2))
    return struct.unpack(f"<{prod(tensor.shape)}{'e' if tensor.dtype == 'F16' else 'f'}", data)


def describe_defect(problem: OSError | FileDefect) -> str:
    """Return the end of a sentence about a file."""
    if isinstance(problem, OSError):
        return f"cannot be read: {(problem.strerror or 'unknown reason').lower()}"
    return str(problem)


def _read(path: Path, length: int, start: int = 0) -> bytes:
    """Return at most `length` bytes of a regular file. Raises OSError and FileDefect."""
    # Opening a pipe for reading waits for a writer, unless O_NONBLOCK is set.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise FileDefect("is a pipe or a device, not a file")
        file.seek(start)
        return file.read(length)


def parse_json(data: bytes) -> dict[str, Any]:
    """Return the JSON object in `data`. Its limits keep the time and the memory that it takes small."""
    if len(data) > MAX_JSON_BYTES:
        raise FileDefect(f"holds more than {MAX_JSON_BYTES // 1_000_000} MB of JSON")
    if sum(map(data.count, (b"{", b"[", b","))) > MAX_JSON_VALUES:
        raise FileDefect(f"holds more than {MAX_JSON_VALUES:,} JSON values")
    try:
        value = json.loads(data, object_pairs_hook=_unique_pairs, parse_constant=_refuse_constant)
    except FileDefect:
        raise
    except RecursionError as problem:
        raise FileDefect("holds JSON that is nested too deeply") from problem
    except ValueError as problem:
        raise FileDefect("is cut short or is not JSON") from problem
    if not isinstance(value, dict):
        raise FileDefect("is not a JSON object")
    return cast("dict[str, Any]", value)


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise FileDefect("names an entry twice")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise FileDefect(f"holds {name}, which is not JSON")


def _read_header(path: Path) -> Header:
    """Read a safetensors header: 8 bytes of length (little endian), then that many bytes of JSON."""
    start = _read(path, 24)
    if start.startswith(b"version https://git-lfs"):
        raise FileDefect("is a Git LFS pointer, not the weights: fetch them with `git lfs pull`")
    length = int.from_bytes(start[:8], "little")
    size = path.stat().st_size
    if len(start) < 10 or start[8:9] != b"{" or length > size - 8:
        raise FileDefect("is cut short or is not safetensors")
    entries = parse_json(_read(path, min(length, MAX_JSON_BYTES + 1), start=8))
    metadata: Any = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in cast("Any", metadata).values()):
        raise FileDefect("has metadata that are not texts")
    tensors = {name: _tensor_info(name, entry) for name, entry in entries.items()}
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if tensor.start != end:
            raise FileDefect(f"has a gap or an overlap in its data at the tensor {quote_name(name)}")
        end = tensor.end
    expected = 8 + length + end
    if size < expected:
        raise FileDefect(f"is cut short: {size:,} of {expected:,} bytes are there")
    if size > expected:
        raise FileDefect(f"has {size - expected:,} bytes too many")
    return Header(tensors=tensors, metadata=cast("dict[str, str]", metadata), length=8 + length)


def _tensor_info(name: str, entry: Any) -> TensorInfo:
    """Check a tensor's entry. Its bytes must be as many as its shape and dtype say."""
    try:
        dtype, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        is_whole = len(entry) == 3 and len(shape) <= MAX_DIMENSIONS
        for number in (start, end, *(shape if is_whole else ())):
            is_whole = is_whole and type(number) is int and 0 <= number < 2**48
        if is_whole and prod(shape) * DTYPE_BITS[dtype] == (end - start) * 8:
            return TensorInfo(dtype, tuple(shape), start, end)
    except (KeyError, TypeError, ValueError):
        pass
    raise FileDefect(f"has a tensor {quote_name(name)} whose type, shape and length do not agree")


def quote_name(name: str) -> str:
    """Return a name from a file as it stands in a sentence."""
    text = name if name.isprintable() else ascii(name)[1:-1]
    return text if len(text) <= 100 else text[:99] + "…"


def format_count(number: int) -> str:
    """Return a number for people: "11.5 M"."""
    count = float(number)
    for unit in ("", " k", " M"):
        if count < 1000:
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g} G"
