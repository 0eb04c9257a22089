"""The content of a database file with its write-ahead log, read without SQLite and changing nothing.

For files that SQLite may not or cannot open in place: on media without write access, and damaged ones.
Format: sqlite.org/fileformat2.html, sections 1.3 (header) and 4 (log).

    log = header 32 bytes │ frame │ frame │ …       all numbers big-endian
    frame = page number, pages of the file if this commits else 0, salt 1, salt 2, checksum 1, 2 │ page
"""

import contextlib
import os
import struct
from pathlib import Path
from typing import Final

HEADER_BYTES: Final = 100
PAGE_BYTES: Final = 4096  # what SQLite takes for a new file

_MAGIC: Final = b"SQLite format 3\0"
_WAL_MAGIC: Final = 0x377F0682  # checksums over little-endian words; + 1: over big-endian ones
_WAL_HEADER: Final = struct.Struct(">8I")
_FRAME_HEADER: Final = struct.Struct(">6I")
_MASK: Final = 0xFFFFFFFF
_READ_BYTES: Final = 1 << 20


def read_image(path: Path) -> bytearray:
    """The database as the last transaction left it, with a header that SQLite takes, to be deserialized.

    Parts that the disk does not give are zeros. Empty if there is nothing; OSError if nothing can be read.
    """
    image = _read(path)
    with contextlib.suppress(FileNotFoundError):
        _apply_log(image, _read(path.with_name(f"{path.name}-wal")))
    _mend_header(image)
    return image


def page_bytes(image: bytes | bytearray) -> int:
    """The size of a page, as the header says it; `PAGE_BYTES` where that cannot be."""
    size = int.from_bytes(image[16:18], "big")
    size = 65536 if size == 1 else size
    is_power = size >= 512 and size & (size - 1) == 0
    return size if is_power and image and len(image) % size == 0 else PAGE_BYTES


def _read(path: Path) -> bytearray:
    with path.open("rb") as file:
        num_bytes = os.fstat(file.fileno()).st_size
        content = bytearray(num_bytes)
        unit = _READ_BYTES
        pos = 0
        while pos < num_bytes:
            try:
                part = os.pread(file.fileno(), unit, pos)
            except OSError:
                if unit == _READ_BYTES:
                    unit = 512
                    continue
                part = bytes(min(unit, num_bytes - pos))
            if not part:
                break
            content[pos : pos + len(part)] = part
            pos += len(part)
            if pos % _READ_BYTES == 0:
                unit = _READ_BYTES
    return content


def _apply_log(image: bytearray, log: bytearray) -> None:
    """Put the pages of all committed transactions in their places."""
    if len(log) < _WAL_HEADER.size:
        return
    magic, _version, size, _sequence, *salts, sum_0, sum_1 = _WAL_HEADER.unpack_from(log)
    if magic not in (_WAL_MAGIC, _WAL_MAGIC + 1) or not 512 <= size <= 65536:
        return
    order = ">" if magic & 1 else "<"
    sums = _checksum(order, log[: _WAL_HEADER.size - 8], (0, 0))
    if sums != (sum_0, sum_1):
        return
    pages: dict[int, int] = {}  # number → position in the log
    open_pages: dict[int, int] = {}  # of the transaction whose end has not come yet
    num_pages = 0
    frame_bytes = _FRAME_HEADER.size + size
    for pos in range(_WAL_HEADER.size, len(log) - frame_bytes + 1, frame_bytes):
        number, num_after, *frame_salts, sum_0, sum_1 = _FRAME_HEADER.unpack_from(log, pos)
        body = pos + _FRAME_HEADER.size
        sums = _checksum(order, log[pos : pos + 8], sums)
        sums = _checksum(order, log[body : body + size], sums)
        if frame_salts != salts or sums != (sum_0, sum_1) or not number:
            break
        open_pages[number] = body
        if num_after:
            pages |= open_pages
            open_pages.clear()
            num_pages = num_after
    if not num_pages:
        return
    if len(image) < num_pages * size:
        image.extend(bytes(num_pages * size - len(image)))
    del image[num_pages * size :]
    for number, body in pages.items():
        if number <= num_pages:
            image[(number - 1) * size : number * size] = log[body : body + size]


def _checksum(order: str, content: bytearray, sums: tuple[int, int]) -> tuple[int, int]:
    """The log's running checksum after these bytes, a multiple of 8."""
    first, second = sums
    words = struct.unpack(f"{order}{len(content) // 4}I", content)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & _MASK
        second = (second + odd + first) & _MASK
    return first, second


def _mend_header(image: bytearray) -> None:
    """Set what is the same in every file of chats, and the size; a log is not looked for any more."""
    if len(image) < HEADER_BYTES:
        return
    size = page_bytes(image)
    del image[len(image) // size * size :]  # a page that was cut would pass for a whole one
    if not image:
        return
    image[:16] = _MAGIC
    image[16:18] = (1 if size == 65536 else size).to_bytes(2, "big")
    image[18:24] = bytes((1, 1, 0, 64, 32, 32))  # no log, nothing reserved, the fixed fractions
    image[28:32] = (len(image) // size).to_bytes(4, "big")
    image[44:48] = (4).to_bytes(4, "big")  # schema format
    image[52:56] = bytes(4)  # no auto-vacuum
    image[56:60] = (1).to_bytes(4, "big")  # UTF-8
    image[64:68] = bytes(4)
    image[92:96] = image[24:28]  # the size above is valid
