"""Block files: what was written comes back, and nothing else ever does."""

import os
import secrets
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samovar.kv import block_file
from samovar.kv.block_file import (
    LAYOUT,
    MAX_HEADER_BYTES,
    SECRET_BYTES,
    BadBlock,
    BlockHeader,
    check_block,
    load_secret,
    read_block,
    write_block,
)
from samovar.kv.tokens import pack, unpack

SECRET: Final = bytes(range(SECRET_BYTES))
PAYLOAD: Final = bytes(i * 7 % 256 for i in range(300))
PREFIX_BYTES: Final = 44
UNTOUCHED: Final = 0xAA


def header_of(
    payload: bytes = PAYLOAD, *, key: bytes = b"k" * 16, fingerprint: str = "model é"
) -> BlockHeader:
    return BlockHeader(fingerprint, key, b"p" * 16, 128, pack(range(5)), len(payload))


HEADER: Final = header_of()


def write(file: Path, header: BlockHeader = HEADER, payload: bytes = PAYLOAD, secret: bytes = SECRET) -> None:
    write_block(file, file.with_suffix(".tmp"), secret, header, memoryview(payload))


def read(file: Path, header: BlockHeader = HEADER, secret: bytes = SECRET) -> bytes:
    memory = bytearray([UNTOUCHED]) * header.size
    read_block(file, secret, header, memoryview(memory))
    return bytes(memory)


def refused(file: Path, header: BlockHeader = HEADER, secret: bytes = SECRET) -> bool:
    """Whether both ways of reading refuse the file as a bad block."""
    with pytest.raises(BadBlock):
        read(file, header, secret)
    with pytest.raises(BadBlock):
        check_block(file, secret)
    return True


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A block as it was written."""
    written = tmp_path / "a.kv"
    write(written)
    return written


# ---- what is good


def test_what_was_written_is_read(file: Path) -> None:
    assert read(file) == PAYLOAD
    assert check_block(file, SECRET) == HEADER
    assert file.stat().st_size == HEADER.file_bytes()
    assert unpack(HEADER.tokens) == (0, 1, 2, 3, 4)


def test_a_block_is_private_and_leaves_no_other_file(file: Path) -> None:
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(file.parent.iterdir()) == [file]


@given(
    fingerprint=st.text(max_size=40),
    start=st.integers(0, 2**40),
    tokens=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=40),
    payload=st.binary(max_size=3000),
)
def test_any_block_round_trips(fingerprint: str, start: int, tokens: list[int], payload: bytes) -> None:
    header = BlockHeader(fingerprint, b"k", b"p", start, pack(tokens), len(payload))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "a.kv")
        write(file, header, payload)
        assert read(file, header) == payload
        assert check_block(file, SECRET) == header
        assert unpack(header.tokens) == tuple(tokens)


def test_a_payload_longer_than_what_is_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_file, "_CHUNK_BYTES", 64)
    file = tmp_path / "a.kv"
    write(file)
    assert read(file) == PAYLOAD
    assert check_block(file, SECRET) == HEADER
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    assert refused(file)


def test_short_writes_are_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:7]))
    file = tmp_path / "a.kv"
    write(file)
    assert read(file) == PAYLOAD


def test_a_block_replaces_whatever_is_in_its_place(file: Path) -> None:
    other = bytes(reversed(PAYLOAD))
    write(file, HEADER, other)
    assert read(file) == other


# ---- what is bad


def test_a_flipped_bit_in_any_byte_is_noticed(file: Path) -> None:
    good = file.read_bytes()
    for pos in range(len(good)):
        for bit in (0, 7):
            damaged = bytearray(good)
            damaged[pos] ^= 1 << bit
            file.write_bytes(damaged)
            assert refused(file), pos
    file.write_bytes(good)
    assert read(file) == PAYLOAD


def test_any_shorter_file_is_noticed(file: Path) -> None:
    good = file.read_bytes()
    for length in range(len(good)):
        file.write_bytes(good[:length])
        assert refused(file), length


@pytest.mark.parametrize("more", [b"\0", b"x" * 5000])
def test_a_longer_file_is_noticed(file: Path, more: bytes) -> None:
    file.write_bytes(file.read_bytes() + more)
    assert refused(file)


@given(data=st.binary(max_size=400))
def test_any_other_bytes_are_no_block(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "a.kv")
        file.write_bytes(data)
        assert refused(file)


@given(encoded=st.binary(max_size=200), length=st.integers(0, 2**32 - 1) | st.none())
def test_any_header_without_the_right_tag_is_bad(encoded: bytes, length: int | None) -> None:
    """The header is decoded before the tag is known to be right: whatever it holds must not break that."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "a.kv")
        file.write_bytes(raw(encoded, length=length) + PAYLOAD)
        assert refused(file)


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param(b"\x96\xa1\xff" + msgspec.msgpack.encode(HEADER)[3:], id="text that is no UTF-8"),
        pytest.param(b"\x97" + msgspec.msgpack.encode(HEADER)[1:] + b"\x91" * 500_000, id="nested"),
        pytest.param(msgspec.msgpack.encode(("f", b"k", b"p", 0, b"", -1)), id="negative size"),
        pytest.param(msgspec.msgpack.encode(("f", b"k", b"p", 0, b"", 2**64 - 1)), id="endless size"),
        pytest.param(msgspec.msgpack.encode({"size": 1}), id="a map"),
        pytest.param(b"\0" * (MAX_HEADER_BYTES + 1), id="long"),
        pytest.param(b"", id="none"),
    ],
)
def test_headers_made_to_break_the_reader_are_bad(tmp_path: Path, encoded: bytes) -> None:
    file = tmp_path / "a.kv"
    file.write_bytes(raw(encoded) + PAYLOAD)
    assert refused(file)


@pytest.mark.parametrize("layout", [0, LAYOUT + 1, 0xFFFF])
def test_another_layout_is_refused_even_with_a_right_tag(tmp_path: Path, layout: int) -> None:
    file = tmp_path / "a.kv"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_file, "LAYOUT", layout)
        write(file)
        assert read(file) == PAYLOAD
    assert refused(file)


def test_another_secret_is_refused(file: Path) -> None:
    assert refused(file, secret=secrets.token_bytes(SECRET_BYTES))


@pytest.mark.parametrize(
    "other",
    [
        header_of(key=b"q" * 16),
        header_of(fingerprint="other model"),
        msgspec.structs.replace(HEADER, parent=b"q" * 16),
        msgspec.structs.replace(HEADER, start=0),
        msgspec.structs.replace(HEADER, tokens=pack([0, 1, 2, 3, 5])),
        msgspec.structs.replace(HEADER, size=HEADER.size - 1),
    ],
)
def test_a_good_file_of_another_block_is_refused(file: Path, other: BlockHeader) -> None:
    memory = bytearray(HEADER.size)
    with pytest.raises(BadBlock):
        read_block(file, SECRET, other, memoryview(memory))
    assert memory == bytes(HEADER.size), "nothing of it was handed out"


def test_swapped_files_are_refused(file: Path) -> None:
    second = file.with_name("b.kv")
    other = header_of(b"other payload", key=b"q" * 16)
    write(second, other, b"other payload")
    first = file.read_bytes()
    file.write_bytes(second.read_bytes())
    second.write_bytes(first)
    with pytest.raises(BadBlock):
        read(file)
    with pytest.raises(BadBlock):
        read(second, other)
    assert check_block(file, SECRET) == other, "a whole file says what it is"


def test_mixed_halves_are_refused(file: Path) -> None:
    """The header of one and the payload of another, of the same length."""
    second = file.with_name("b.kv")
    write(second, HEADER, bytes(reversed(PAYLOAD)))
    head = len(file.read_bytes()) - len(PAYLOAD)
    file.write_bytes(file.read_bytes()[:head] + second.read_bytes()[head:])
    assert refused(file)


def _link(file: Path) -> None:
    moved = file.rename(file.with_name("moved"))
    file.symlink_to(moved)


def _dangling_link(file: Path) -> None:
    file.unlink()
    file.symlink_to("nowhere")


def _endless_link(file: Path) -> None:
    file.unlink()
    file.symlink_to(file)


def _fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _device(file: Path) -> None:
    file.unlink()
    file.symlink_to("/dev/zero")


@pytest.mark.parametrize("replace", [_link, _dangling_link, _endless_link, _fifo, _folder, _device])
def test_what_is_no_plain_file_is_refused(file: Path, replace: Callable[[Path], None]) -> None:
    replace(file)
    assert refused(file)


def test_a_socket_in_its_place_is_refused() -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        file = Path(folder, "a.kv")  # a socket's path must be short
        server.bind(str(file))
        assert refused(file)


def test_a_file_where_its_folder_should_be_is_refused(file: Path) -> None:
    assert refused(file / "b.kv")


@pytest.mark.parametrize("replace", [_fifo, _folder])
def test_refused_files_leave_no_open_descriptor(file: Path, replace: Callable[[Path], None]) -> None:
    replace(file)
    before = psutil.Process().num_fds()
    assert refused(file)
    assert psutil.Process().num_fds() == before


def test_a_missing_file_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.kv")


def test_memory_that_is_too_short_is_never_overrun(file: Path) -> None:
    memory = bytearray(HEADER.size - 1)
    with pytest.raises(BadBlock):
        read_block(file, SECRET, HEADER, memoryview(memory))


# ---- failing writes


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_failed_write_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    file = tmp_path / "a.kv"
    old = header_of(b"old")
    write(file, old, b"old")

    def fail(*_args: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(OSError, match="No space"):
            write(file)
    assert list(tmp_path.iterdir()) == [file]
    assert read(file, old) == b"old", "what was there is whole"


# ---- the secret


@pytest.fixture
def secret_file(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "kv.secret"
    assert [path.name for path in tmp_path.iterdir()] == ["kv.secret"], "nothing else is left"


def test_the_secret_is_made_once_and_private(secret_file: Path) -> None:
    first = load_secret(secret_file)
    assert len(first) == SECRET_BYTES
    assert len(set(first)) > 1
    assert stat.S_IMODE(secret_file.stat().st_mode) == 0o600
    assert load_secret(secret_file) == first


def test_secrets_differ(tmp_path: Path) -> None:
    assert load_secret(tmp_path / "a") != load_secret(tmp_path / "b")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o666])
def test_a_secret_open_to_others_is_replaced(secret_file: Path, mode: int) -> None:
    first = load_secret(secret_file)
    secret_file.chmod(mode)
    second = load_secret(secret_file)
    assert second != first
    assert stat.S_IMODE(secret_file.stat().st_mode) == 0o600


@pytest.mark.parametrize("size", [0, 1, SECRET_BYTES - 1, SECRET_BYTES + 1, 4096])
def test_a_secret_of_another_size_is_replaced(secret_file: Path, size: int) -> None:
    secret_file.write_bytes(b"x" * size)
    secret_file.chmod(0o600)
    assert load_secret(secret_file) != b"x" * SECRET_BYTES
    assert secret_file.stat().st_size == SECRET_BYTES


def test_a_linked_secret_is_replaced_and_what_it_named_stays(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"e" * SECRET_BYTES)
    elsewhere.chmod(0o600)
    file = tmp_path / "kv.secret"
    file.symlink_to(elsewhere)
    assert load_secret(file) != b"e" * SECRET_BYTES
    assert not file.is_symlink()
    assert elsewhere.read_bytes() == b"e" * SECRET_BYTES


def test_a_dangling_link_is_replaced(secret_file: Path) -> None:
    secret_file.symlink_to("nowhere")
    assert len(load_secret(secret_file)) == SECRET_BYTES
    assert not secret_file.is_symlink()


def test_a_fifo_in_the_secrets_place_is_replaced(secret_file: Path) -> None:
    os.mkfifo(secret_file)
    assert len(load_secret(secret_file)) == SECRET_BYTES


def raw(encoded: bytes, *, length: int | None = None) -> bytes:
    """Magic, layout, length, a tag of nobody, and a header."""
    claimed = len(encoded) if length is None else length
    start = b"SAMOKV" + LAYOUT.to_bytes(2, "big") + claimed.to_bytes(4, "big") + bytes(32)
    assert len(start) == PREFIX_BYTES
    return start + encoded
