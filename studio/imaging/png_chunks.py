"""Chunks of PNG files that are not the picture: texts and profiles that unpack to more than Pillow accepts."""

from __future__ import annotations

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_UNPACKED = 1_000_000  # bytes of a text or a profile, below Pillow's limit of 1 MiB
PACKED_CHUNKS = (b"iCCP", b"zTXt", b"iTXt")  # see the PNG specification, 11.3.3 and 11.3.4


def drop_large_chunks(data: bytes) -> bytes | None:
    """Return a PNG file without its profiles and texts that are damaged or unpack to more than MAX_UNPACKED bytes.

    Return None if it is no PNG file, or has no such chunk.
    """
    if not data.startswith(SIGNATURE):
        return None
    kept, position, dropped = [SIGNATURE], len(SIGNATURE), False
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length  # length, type, data, checksum
        if kind in PACKED_CHUNKS and not _is_small(kind, data[position + 8 : position + 8 + length]):
            dropped = True
        else:
            kept.append(data[position:end])
        position = end
    return b"".join(kept) if dropped else None


def _is_small(kind: bytes, chunk: bytes) -> bool:
    """Return whether a chunk unpacks to at most MAX_UNPACKED bytes."""
    _, _, fields = chunk.partition(b"\0")  # after the keyword
    if kind == b"iTXt":
        if not fields.startswith(b"\1"):  # not compressed
            return len(fields) <= MAX_UNPACKED
        packed = fields[2:].split(b"\0", 2)[-1]  # after flag, method, language and translated keyword
    else:
        packed = fields[1:]  # method
    unpacker = zlib.decompressobj()
    try:
        unpacked = unpacker.decompress(packed, MAX_UNPACKED + 1)
    except zlib.error:
        return False
    return len(unpacked) <= MAX_UNPACKED and unpacker.eof
