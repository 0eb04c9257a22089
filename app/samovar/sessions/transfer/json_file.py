"""A JSON or JSONL file as records that are decoded one at a time: what is read is a view into the file.

A large file is mapped, so it takes address space and page cache, not memory. Nothing here changes the file.
"""

import contextlib
import mmap
import os
import re
from collections.abc import Iterator
from typing import Final, TypeVar

from samovar.core.errors import SamovarError
from samovar.sessions.transfer.foreign import Fields, Raw, decode
from samovar.sessions.transfer.notes import Notes

_MAP_FROM_BYTES: Final = 64 << 20
"""Smaller files are read: a mapped file that another program shortens meanwhile would end the process."""
_NOT_BLANK: Final = re.compile(rb"[^ \t\r\n]")
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_LOW: Final = re.compile(rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}")

_Kind = TypeVar("_Kind")


class JsonFile:
    """The text of one file. `done_bytes` says how far the records that were handed out reach."""

    def __init__(self, descriptor: int, notes: Notes) -> None:
        """`descriptor` is a regular file that stays open while this is read."""
        self._notes = notes
        self._mended = False
        self._mapped: list[mmap.mmap] = []
        self._descriptor = descriptor
        original: bytes | mmap.mmap
        if os.fstat(descriptor).st_size >= _MAP_FROM_BYTES:
            original = self._map(mmap.ACCESS_READ)
        else:
            with open(descriptor, "rb", closefd=False) as file:
                file.seek(0)
                original = file.read()
        self._original = original
        self._data: bytes | bytearray | mmap.mmap = original
        self.num_bytes = len(self._data)
        self.done_bytes = 0
        self._start = self._first_text()

    def close(self) -> None:
        """Let the file go; records that still exist keep their part of it."""
        for mapped in self._mapped:
            with contextlib.suppress(BufferError):
                mapped.close()

    @property
    def data(self) -> bytes | mmap.mmap:
        """The file as it is. A map of it can only be closed when no part of it is held any more."""
        return self._original

    def first_byte(self) -> bytes:
        """The first byte that is not blank, empty for a blank file."""
        return bytes(self._data[self._start : self._start + 1])

    def records(self) -> Iterator[Raw | memoryview]:
        """Each entry of a list, each line of JSONL, or the one value. SamovarError where it is not JSON."""
        line_end = self._data.find(b"\n", self._start)
        has_more = line_end >= 0 and _NOT_BLANK.search(self._data, line_end) is not None
        if has_more and self._is_value(self._start, line_end):
            yield from self._lines()
        elif self.first_byte() == b"[":
            items = self._decode(self._start, self.num_bytes, list[Raw])
            items.reverse()
            while items:  # an entry that was read is let go
                item = items.pop()
                self.done_bytes += len(memoryview(item))
                yield item
        else:
            self._decode(self._start, self.num_bytes, Raw)
            self.done_bytes = self.num_bytes
            yield self._view(self._start, self.num_bytes)
        self.done_bytes = self.num_bytes

    def _lines(self) -> Iterator[memoryview]:
        position = self._start
        while position < self.num_bytes:
            end = self._data.find(b"\n", position)
            end = self.num_bytes if end < 0 else end
            self.done_bytes = end
            if _NOT_BLANK.search(self._data, position, end):
                self._decode(position, end, Raw)
                yield self._view(position, end)
            position = end + 1

    def _is_value(self, start: int, end: int) -> bool:
        try:
            self._decode(start, end, Raw)
        except SamovarError:
            return False
        return True

    def _decode(self, start: int, end: int, kind: type[_Kind]) -> _Kind:
        try:
            return decode(self._view(start, end), kind)
        except SamovarError:
            if self._mended or not self._mend():
                raise
        return decode(self._view(start, end), kind)

    def _view(self, start: int, end: int) -> memoryview:
        return memoryview(self._data)[start:end]

    def _mend(self) -> bool:
        """Replace lone surrogates, which no decoder takes, by � in a private copy of their pages."""
        self._mended = True
        if _SURROGATE.search(self._data) is None:
            return False
        if isinstance(self._data, mmap.mmap):
            copy: bytearray | mmap.mmap = self._map(mmap.ACCESS_COPY)
        else:
            copy = bytearray(self._data)
        position = num_mended = 0
        while match := _SURROGATE.search(copy, position):
            start = match.start()
            position = start + 2
            if _num_backslashes_before(copy, start) % 2:
                continue  # an escaped backslash, and letters
            position = start + 6
            if copy[start + 3] in b"89abAB" and _LOW.match(copy, position):
                position += 6
            else:
                copy[start + 2 : start + 6] = b"fffd"
                num_mended += 1
        if not num_mended:
            return False
        for _ in range(num_mended):
            self._notes.add("half characters (lone surrogates) became �")
        self._data = copy
        return True

    def _map(self, access: int) -> mmap.mmap:
        mapped = mmap.mmap(self._descriptor, 0, access=access)
        self._mapped.append(mapped)
        return mapped

    def _byte_order_mark(self) -> int:
        return 3 if self._data[:3] == b"\xef\xbb\xbf" else 0

    def _first_text(self) -> int:
        match = _NOT_BLANK.search(self._data, self._byte_order_mark())
        return match.start() if match else self.num_bytes


def fields_of(record: Raw | memoryview) -> Fields | None:
    """The record's fields, None if it is no object."""
    view = memoryview(record)
    match = _NOT_BLANK.search(view)
    return decode(view, Fields) if match and match.group() == b"{" else None


def _num_backslashes_before(data: bytearray | mmap.mmap, position: int) -> int:
    start = position
    while start > 0 and data[start - 1] == 0x5C:
        start -= 1
    return position - start
