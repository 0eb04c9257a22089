"""One block on disk: a file that carries its own identity and a keyed tag over all of it.

    magic 6 | layout 2 | header length 4 | tag 32 | header (msgpack) | payload

The payload is fed to C code that does not check it, so nothing is used before the tag has been found right.
The tag is a BLAKE3 keyed with a secret of this user: a file that somebody else wrote, or that was damaged,
truncated, swapped or renamed, is refused.
"""

import contextlib
import errno
import hmac
import io
import os
import secrets
import stat
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec
from blake3 import blake3

LAYOUT: Final = 1
SECRET_BYTES: Final = 32
MAX_HEADER_BYTES: Final = 1 << 20

_MAGIC: Final = b"SAMOKV"
_PREFIX: Final = struct.Struct(">6sHI32s")
_SIGNED_PREFIX: Final = struct.Struct(">HI")
_CHUNK_BYTES: Final = 4 << 20


class BadBlock(Exception):
    """A file that must not be used; the message says why in a few words."""


class BlockHeader(msgspec.Struct, frozen=True, array_like=True):
    """What a block is: `tokens` are little-endian int32, `size` the payload's bytes."""

    fingerprint: str
    key: bytes
    parent: bytes
    start: int
    tokens: bytes
    size: int

    def file_bytes(self) -> int:
        """Size of the whole file."""
        return _PREFIX.size + len(msgspec.msgpack.encode(self)) + self.size


_decoder: Final = msgspec.msgpack.Decoder(BlockHeader)


def load_secret(file: Path) -> bytes:
    """This user's secret, made if there is none: 32 bytes, mode 0600.

    A file of another size, a link or one that others may write to is replaced: what it signed is then lost,
    not trusted. Raises OSError.
    """
    with contextlib.suppress(FileNotFoundError):
        found = file.lstat()
        ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
        if ours and found.st_size == SECRET_BYTES and not found.st_mode & 0o077:
            return file.read_bytes()
        file.unlink()
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    try:
        _write_private(temporary, [secrets.token_bytes(SECRET_BYTES)])
        with contextlib.suppress(FileExistsError):
            os.link(temporary, file)  # of two that start at once, one wins
        return file.read_bytes()
    finally:
        temporary.unlink(missing_ok=True)


def write_block(
    file: Path,
    temporary: Path,
    secret: bytes,
    header: BlockHeader,
    payload: memoryview,
    *,
    sync: bool = True,
) -> None:
    """Write a block under `temporary`, sync it and move it to `file`. OSError leaves nothing behind."""
    encoded = msgspec.msgpack.encode(header)
    tag = _tag(secret, len(encoded))
    tag.update(encoded)
    tag.update(payload)
    prefix = _PREFIX.pack(_MAGIC, LAYOUT, len(encoded), tag.digest())
    try:
        _write_private(temporary, [prefix, encoded, payload], sync=sync)
        os.replace(temporary, file)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def read_block(file: Path, secret: bytes, expected: BlockHeader, memory: memoryview) -> None:
    """Read the payload of `expected` into `memory`, which is as long; BadBlock or OSError.

    After an error `memory` holds nothing that may be used.
    """
    with _open(file) as stream:
        header, tag, wanted = _read_head(stream, secret)
        if header != expected:
            raise BadBlock("it is another block than the index says")
        view = memory[: header.size]
        done = 0
        while done < header.size:
            count = stream.readinto(view[done : done + _CHUNK_BYTES])
            if not count:
                raise BadBlock("it is cut off")
            tag.update(view[done : done + count])
            done += count
        _check_end(stream, tag, wanted)


def check_block(file: Path, secret: bytes) -> BlockHeader:
    """Hash a whole file again and return what it is; BadBlock or OSError."""
    with _open(file) as stream:
        header, tag, wanted = _read_head(stream, secret)
        left = header.size
        while left:
            chunk = stream.read(min(left, _CHUNK_BYTES))
            if not chunk:
                raise BadBlock("it is cut off")
            tag.update(chunk)
            left -= len(chunk)
        _check_end(stream, tag, wanted)
        return header


def _open(file: Path) -> io.FileIO:
    """A regular file of ours, without following a link."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.ENOTDIR):
            raise BadBlock("a link or something else is in its place") from error
        if error.errno == errno.EACCES:
            raise BadBlock("it may not be read") from error
        raise
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        os.close(descriptor)
        raise BadBlock("it is no file of this user")
    return io.FileIO(descriptor)


def _read_head(stream: io.FileIO, secret: bytes) -> tuple[BlockHeader, blake3, bytes]:
    """Header, the running hash over what was read so far, and the tag that the file claims."""
    prefix = stream.read(_PREFIX.size)
    if prefix is None or len(prefix) < _PREFIX.size:
        raise BadBlock("it is cut off")
    magic, layout, length, wanted = _PREFIX.unpack(prefix)
    if magic != _MAGIC:
        raise BadBlock("it is no block")
    if layout != LAYOUT:
        raise BadBlock("it has the layout of another release")
    total = os.fstat(stream.fileno()).st_size
    if length > min(MAX_HEADER_BYTES, total):
        raise BadBlock("its header is damaged")
    encoded = stream.read(length)
    try:
        header = _decoder.decode(encoded or b"")
    except (ValueError, RecursionError) as error:  # no MessagePack, no UTF-8, or nested without end
        raise BadBlock("its header is damaged") from error
    if header.size < 0 or total != _PREFIX.size + length + header.size:
        raise BadBlock("its length is wrong")
    tag = _tag(secret, length)
    tag.update(encoded)
    return header, tag, wanted


def _check_end(stream: io.FileIO, tag: blake3, wanted: bytes) -> None:
    if stream.read(1):
        raise BadBlock("its length is wrong")
    if not hmac.compare_digest(tag.digest(), wanted):
        raise BadBlock("its tag is wrong: it is damaged, or somebody else wrote it")


def _tag(secret: bytes, header_bytes: int) -> blake3:
    return blake3(_SIGNED_PREFIX.pack(LAYOUT, header_bytes), key=secret)


def _write_private(file: Path, parts: Iterable[bytes | memoryview], *, sync: bool = True) -> None:
    """Write a new file that only this user may read."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(file, flags, 0o600)
    try:
        for part in parts:
            view = memoryview(part)
            while view:
                view = view[os.write(descriptor, view) :]
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
