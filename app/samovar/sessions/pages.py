"""Rows read from the leaf pages of tables alone: what no damage above them, nor to the schema, can hide.

    leaf = 0x0d, …, number of cells (2 bytes at 3), … │ pointers from 8 on │ … cells
    cell = bytes of the record, rowid │ record, its end on a chain of overflow pages if it is long
    record = bytes of its header, a type for each column │ values

Format: sqlite.org/fileformat2.html, sections 1.5, 1.6 and 2.1. Pure functions; what makes no sense is left
out. Pages on the list of free ones are not read, since they hold what was deleted or written anew.
"""

import struct
from collections.abc import Iterator
from typing import Final

import msgspec

from samovar.sessions.image import HEADER_BYTES, page_bytes

Value = int | float | str | bytes | None

_TABLE_LEAF: Final = 0x0D
_MAX_COLUMNS: Final = 64
_INT_BYTES: Final = (0, 1, 2, 3, 4, 6, 8)


class LeafRow(msgspec.Struct, frozen=True):
    """A row. One that is not whole has lost its later columns, and the last one may be cut."""

    page: int
    rowid: int
    values: tuple[Value, ...]
    is_whole: bool


def leaf_rows(image: bytes | bytearray) -> Iterator[LeafRow]:
    """All rows of all tables that have rowids, in the order of the pages."""
    size = page_bytes(image)
    free = _free_pages(image, size)
    for number in range(1, len(image) // size + 1):
        if number in free:
            continue
        start = (number - 1) * size
        head = start + HEADER_BYTES if number == 1 else start
        if image[head] != _TABLE_LEAF:
            continue
        num_cells = int.from_bytes(image[head + 3 : head + 5], "big")
        for index in range(min(num_cells, size // 4)):
            pointer = head + 8 + 2 * index
            offset = int.from_bytes(image[pointer : pointer + 2], "big") % size  # as SQLite takes it
            row = _row(image, size, number, offset)
            if row is not None:
                yield row


def _row(image: bytes | bytearray, size: int, page: int, offset: int) -> LeafRow | None:
    start = (page - 1) * size
    if not 8 <= offset < size - 4:
        return None
    num_bytes, pos = _varint(image, start + offset)
    rowid, pos = _varint(image, pos)
    if num_bytes > len(image):
        return None
    record = _payload(image, size, start, pos, num_bytes)
    values, is_whole = _values(record)
    return LeafRow(
        page, rowid - (1 << 64) if rowid >> 63 else rowid, values, is_whole and len(record) == num_bytes
    )


def _payload(image: bytes | bytearray, size: int, start: int, pos: int, num_bytes: int) -> bytes:
    """A record put together from its page and its overflow pages, as far as they lead."""
    most = size - 35
    local = num_bytes
    if num_bytes > most:
        least = (size - 12) * 32 // 255 - 23
        local = least + (num_bytes - least) % (size - 4)
        local = local if local <= most else least
    parts = [bytes(image[pos : min(pos + local, start + size)])]
    missing = num_bytes - local
    following = int.from_bytes(image[pos + local : pos + local + 4], "big") if missing else 0
    while missing > 0:
        page = (following - 1) * size
        if following < 2 or page + size > len(image) or image[page] == _TABLE_LEAF:
            break
        part = bytes(image[page + 4 : page + min(size, missing + 4)])
        parts.append(part)
        missing -= len(part)
        following = int.from_bytes(image[page : page + 4], "big")
    return b"".join(parts)


def _values(record: bytes) -> tuple[tuple[Value, ...], bool]:
    """The columns up to the first that makes no sense, and whether that is all of them.

    A text that is cut is taken as far as it goes.
    """
    end, pos = _varint(record, 0)
    body = end
    values: list[Value] = []
    while pos < end <= len(record) and len(values) < _MAX_COLUMNS:
        kind, pos = _varint(record, pos)
        num_bytes = _num_bytes(kind)
        if num_bytes is None:
            return tuple(values), False
        content = record[body : body + num_bytes]
        if len(content) < num_bytes:
            if kind > 12 and kind % 2:
                values.append(_value(kind, content))
            return tuple(values), False
        values.append(_value(kind, content))
        body += num_bytes
    return tuple(values), pos == end and body == len(record)


def _num_bytes(kind: int) -> int | None:
    match kind:
        case 0 | 8 | 9:
            return 0
        case 1 | 2 | 3 | 4 | 5 | 6:
            return _INT_BYTES[kind]
        case 7:
            return 8
        case 10 | 11:
            return None
    return (kind - 12) // 2


def _value(kind: int, content: bytes) -> Value:
    match kind:
        case 0:
            return None
        case 7:
            return float(struct.unpack(">d", content)[0])
        case 8 | 9:
            return kind - 8
        case 1 | 2 | 3 | 4 | 5 | 6:
            return int.from_bytes(content, "big", signed=True)
    return content.decode("utf-8", "replace") if kind % 2 else content


def _varint(content: bytes | bytearray, pos: int) -> tuple[int, int]:
    """A number of 1 to 9 bytes, and the position behind it; 0 behind the end."""
    number = 0
    for index in range(9):
        byte = content[pos + index] if pos + index < len(content) else 0
        if index == 8:
            return number << 8 | byte, pos + 9
        number = number << 7 | byte & 0x7F
        if not byte & 0x80:
            return number, pos + index + 1
    raise AssertionError("unreachable")


def _free_pages(image: bytes | bytearray, size: int) -> frozenset[int]:
    """The pages that the header's list of free ones names."""
    free: set[int] = set()
    num_pages = len(image) // size
    trunk = int.from_bytes(image[32:36], "big")
    while 1 < trunk <= num_pages and trunk not in free:
        free.add(trunk)
        pos = (trunk - 1) * size
        following, num_leaves = struct.unpack_from(">2I", image, pos)
        if num_leaves > size // 4 - 2:
            break
        free.update(struct.unpack_from(f">{num_leaves}I", image, pos + 8))
        trunk = following
    return frozenset(free)
