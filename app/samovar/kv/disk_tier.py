"""The DISK tier: one content-addressed file a block under a byte budget, an SQLite index beside them.

    kv/index.db      kv/blocks/ab/abcdef….kv      kv/bad/…      ../kv.secret

Synchronous, used by one thread at a time (the swap thread, or a maintenance process). Several processes may
have the folder open. Whatever is wrong with a file or a row makes a miss: it is counted, set aside or
deleted, and its tokens are processed again.
"""

import contextlib
import errno
import os
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import psutil

from samovar.core.errors import SamovarError
from samovar.core.snapshot import DiskModel, Totals
from samovar.kv.block import child_key
from samovar.kv.block_file import BadBlock, BlockHeader, check_block, load_secret, read_block, write_block
from samovar.kv.disk_index import (
    STORED,
    DamagedIndex,
    DiskIndex,
    ModelRow,
    NewerIndex,
    PastRow,
    Row,
    is_damage,
)
from samovar.kv.host_tier import page_bytes
from samovar.kv.index import common_prefix
from samovar.kv.tokens import pack, unpack

MAX_SET_ASIDE: Final = 16
MAX_ATTEMPTS: Final = 8
CLOCK_SLACK_S: Final = 3.0
RESERVE_SHARE: Final = 0.02
RESERVE_BYTES: Final = 64 * 1024 * 1024


class DiskError(Exception):
    """The tier cannot do its work now; the message is a sentence for the user.

    `damaged` says that the index is, so that the tier should be opened anew with `distrust`. `full` says
    that nothing can be written, while what is there can still be read.
    """

    def __init__(self, message: str, *, damaged: bool = False, full: bool = False) -> None:
        super().__init__(message)
        self.damaged = damaged
        self.full = full


@dataclass(frozen=True, slots=True)
class Model:
    """Whose blocks are read and written. `root` is the parent of every first block."""

    fingerprint: str
    root: bytes
    block_tokens: int
    partial: bool
    name: str
    path: str
    weights: str
    build: str


@dataclass(frozen=True, slots=True)
class Checked:
    """What `verify` found. `bad` files were set aside, `orphans` are gone."""

    files: int
    bytes: int
    bad: int
    orphans: int


class DiskTier:
    """One open folder. `limit(free, own)` gives the budget in bytes; raises DiskError where it says so."""

    def __init__(
        self,
        cache_dir: Path,
        limit: Callable[[int, int], int],
        model: Model | None = None,
        *,
        distrust: bool = False,
    ) -> None:
        """Open or make the folder; raises DiskError.

        An index that cannot be read, or that is not to be trusted, is set aside and all blocks are deleted.
        """
        self._folder = cache_dir / "kv"
        self._blocks = self._folder / "blocks"
        self._bad = self._folder / "bad"
        self._model = model
        self._limit = limit
        self._writer = _writer_id(os.getpid())
        self.quarantined = 0
        self.evictions = 0
        self._gone: list[bytes] = []
        try:
            for folder in (cache_dir, self._folder, self._blocks, self._bad):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make_private(self._folder)
            self._secret = load_secret(cache_dir / "kv.secret")
            try:
                self._open(distrust=distrust)
            except sqlite3.Error as error:
                if distrust or not self._is_damage(error):
                    raise
                self._open(distrust=True)
        except NewerIndex:
            raise DiskError(
                f"The disk cache in {self._folder} was written by a newer Samovar and is left alone. "
                "Update Samovar, or move that folder away."
            ) from None
        except (OSError, sqlite3.Error) as error:
            raise self._problem(error) from error

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._index.close()

    def is_there(self) -> bool:
        """Whether the folder is still the one that was opened."""
        try:
            return (self._folder / "index.db").stat().st_ino == self._inode and self._blocks.is_dir()
        except OSError:
            return False

    # ---- budget

    def limit_bytes(self) -> int:
        """The budget now."""
        with self._guard():
            used = self._index.usage()[0]
            return self._limit(shutil.disk_usage(self._folder).free, used)

    def room_bytes(self) -> int:
        """What the disk has room for, with what the tier holds already."""
        with self._guard():
            return shutil.disk_usage(self._folder).free + self._index.usage()[0]

    def usage(self) -> tuple[int, int, int]:
        """(bytes, tokens, blocks) that the tier holds."""
        with self._guard():
            return self._index.usage()

    def can_evict(self) -> bool:
        """Whether there is a block that neither is pinned nor has others behind it."""
        with self._guard():
            return self._index.victim() is not None

    def shrink(self) -> None:
        """Evict down to the budget."""
        self._make_room(0)

    def _make_room(self, more_bytes: int, spare: bytes | None = None, *, may_evict: bool = True) -> bool:
        """Evict the leaves that were not used for the longest time until so much more fits.

        False where it does not, also because it would be the turn of `spare`.
        """
        with self._guard():
            limit = self.limit_bytes()
            if more_bytes > limit:
                return False
            while self._index.usage()[0] + more_bytes > limit:
                victim = self._index.victim() if may_evict else None
                if victim is None or victim[0] == spare:
                    return False
                self._delete([victim[0]])
                self._gone.append(victim[0])
                self.evictions += 1
            return True

    def _check_free(self, more_bytes: int) -> None:
        usage = shutil.disk_usage(self._folder)
        reserve = min(RESERVE_BYTES, int(usage.total * RESERVE_SHARE))
        if usage.free < more_bytes + reserve:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    # ---- reading

    def find(self, tokens: Sequence[int], pos: int, parent: bytes | None) -> list[Row]:
        """The stored blocks of `tokens` from `pos` on, in ascending order, behind the block named `parent`.

        Only the last one may hold less than a block, or more than `tokens` has. Files that are missing or
        have another length end the chain.
        """
        model = self._model
        assert model is not None
        size = model.block_tokens
        chain: list[Row] = []
        key = parent or model.root
        with self._guard():
            while pos + size <= len(tokens):
                row = self._index.get(child_key(key, tokens[pos : pos + size]))
                if row is None or not self._fits(row, tokens, pos, key):
                    break
                chain.append(row)
                key, pos = row.key, pos + size
            rest = tokens[pos:]
            best, best_len = None, 0
            for row in self._index.children(key):
                found = unpack(row.tokens)
                length = common_prefix(found, rest)
                if length > best_len and (model.partial or length == len(found)):
                    best, best_len = row, length
            if best is not None and self._fits(best, None, pos, key):
                chain.append(best)
        return chain

    def _fits(self, row: Row, tokens: Sequence[int] | None, pos: int, parent: bytes) -> bool:
        """Whether a row says what its place in the tree demands, and its file has the right length."""
        model = self._model
        assert model is not None
        mine = unpack(row.tokens)
        sound = (
            row.start == pos
            and row.parent == parent
            and row.fingerprint == model.fingerprint
            and 0 < len(mine) <= model.block_tokens
            and row.key == child_key(parent, mine)
            and (tokens is None or list(mine) == list(tokens[pos : pos + len(mine)]))
        )
        if sound:
            try:
                found = self._file(row.key).lstat()
            except (FileNotFoundError, NotADirectoryError):
                sound = False
            else:
                num_bytes = row.header().file_bytes()
                sound = (
                    stat.S_ISREG(found.st_mode)
                    and found.st_size == num_bytes
                    and row.held == page_bytes(num_bytes)
                )
        if not sound:
            self._set_aside(row.key)
        return sound

    def read(self, row: Row, memory: memoryview) -> bool:
        """Read a block's payload into `memory`, verified; False (and counted) if it may not be used."""
        with self._guard():
            try:
                read_block(self._file(row.key), self._secret, row.header(), memory)
            except (BadBlock, FileNotFoundError):
                self._set_aside(row.key)
                return False
            except OSError as error:
                if error.errno == errno.EIO:
                    self._set_aside(row.key)
                    return False
                raise
            return True

    def count(self, tokens: Sequence[int]) -> int:
        """How many leading tokens the tier could serve, by the index alone."""
        model = self._model
        assert model is not None
        size, key, pos = model.block_tokens, model.root, 0
        with self._guard():
            while pos + size <= len(tokens):
                child = child_key(key, tokens[pos : pos + size])
                if self._index.get(child) is None:
                    break
                key, pos = child, pos + size
            rest = tokens[pos:]
            lengths = [0]
            for row in self._index.children(key):
                found = unpack(row.tokens)
                length = common_prefix(found, rest)
                if model.partial or length == len(found):
                    lengths.append(length)
        return pos + max(lengths)

    # ---- writing

    def write(
        self,
        key: bytes,
        parent: bytes | None,
        start: int,
        tokens: Sequence[int],
        payload: memoryview,
        owners: Iterable[str] = (),
    ) -> bool:
        """Store one block of the sessions `owners`; False if the budget has no room for it."""
        model = self._model
        assert model is not None
        assert self._model_id is not None
        header = BlockHeader(
            model.fingerprint, key, parent or model.root, start, pack(tokens), payload.nbytes
        )
        with self._guard():
            if self._index.get(key) is not None:
                self._index.touch([key], owners)
                return True
            held = page_bytes(header.file_bytes())
            if not self._make_room_for(header, held):
                return False
            file = self._file(key)
            try:
                if file.parent.is_symlink() or file.parent.is_file():
                    file.parent.unlink()
                file.parent.mkdir(mode=0o700, exist_ok=True)
                write_block(file, self._temporary(key), self._secret, header, payload)
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._index.end_delete([key])
                raise
            if not self._index.end_write(key, owners, self._writer):
                file.unlink(missing_ok=True)  # another host took this one for dead
                return False
            self._drop_needless(header)
        return True

    def _make_room_for(self, header: BlockHeader, held: int) -> bool:
        """Enter a block that is about to be written, within the budget; False if it cannot be.

        It never takes its parent's place, without which it is of no use, nor any other's while the parent
        is not there.
        """
        assert self._model_id is not None
        self._sweep()
        is_reachable = header.start == 0 or self._index.state(header.parent) == STORED
        for _ in range(MAX_ATTEMPTS):
            if not self._make_room(held, header.parent, may_evict=is_reachable):
                return False
            self._check_free(held)
            with self._index.exclusive():
                # Another host may have taken the room meanwhile.
                if self._index.usage()[0] + held <= self.limit_bytes():
                    return self._index.begin_write(header, held, self._model_id, self._writer)
        return False

    def touch(self, keys: Sequence[bytes], owner: str) -> None:
        """A chain was used by, or belongs to, the session `owner`."""
        with self._guard():
            self._index.touch(keys, [owner])

    def lost(self, keys: Iterable[bytes]) -> list[bytes]:
        """Which of these blocks are not stored: another host may have needed their room."""
        with self._guard():
            return [key for key in keys if self._index.state(key) != STORED]

    def take_gone(self) -> tuple[bytes, ...]:
        """Blocks that had to leave since the last call, for want of room or because they were bad."""
        gone, self._gone = self._gone, []
        return tuple(gone)

    def _drop_needless(self, header: BlockHeader) -> None:
        """A longer tail makes the shorter ones behind the same parent needless, where a part can be used."""
        if self._model is None or not self._model.partial:
            return
        needless = [
            row.key
            for row in self._index.children(header.parent)
            if len(row.tokens) < len(header.tokens)
            and header.tokens.startswith(row.tokens)
            and not self._index.children(row.key)
        ]
        if needless:
            for key in needless:
                self._index.inherit(key, header.key)
            self._delete(needless)

    # ---- sessions

    def remember(self, past: PastRow, keep: int) -> None:
        assert self._model_id is not None
        with self._guard():
            self._index.remember(self._model_id, past, keep)

    def past(self) -> list[PastRow]:
        assert self._model_id is not None
        with self._guard():
            return self._index.past(self._model_id)

    def all_past(self) -> list[tuple[str, PastRow, int]]:
        """(model name, past, tokens on disk at most) of every session, the one used last first."""
        with self._guard():
            return [(name, past, num_tokens) for name, num_tokens, past in self._index.all_past()]

    def pin(self, session: str, pinned: bool) -> None:
        assert self._model_id is not None
        with self._guard():
            self._index.pin(session, self._model_id, pinned)
            self._make_room(0)  # what was pinned may have been over the budget

    def forget(self, session: str) -> int:
        """Delete what only this session has; the number of blocks."""
        with self._guard():
            keys = self._index.disown(session)
            self._delete_leaves(keys)
            self._make_room(0)
            return len(keys)

    # ---- counters for ever

    def totals(self) -> Totals:
        with self._guard():
            return _decode_totals(self._index.totals())

    def add_totals(self, more: Totals) -> Totals:
        """Add to the counters that last for ever, and return them."""
        with self._guard():
            with self._index.exclusive():
                now = _decode_totals(self._index.totals()) + more
                self._index.set_totals(msgspec.msgpack.encode(now))
            return now

    # ---- upkeep

    def clear(self) -> tuple[int, int, int]:
        """Delete everything that is not pinned: (blocks, bytes, blocks kept)."""
        with self._guard():
            before = self._index.usage()
            self._delete_leaves(self._index.unpinned())
            after = self._index.usage()
            if not after[2]:
                self._wipe_folder(self._bad)
            return before[2] - after[2], before[0] - after[0], after[2]

    def models(self, build: str, weights_of: Callable[[Path], str]) -> list[DiskModel]:
        """The models with blocks on disk. `stale` ones can never be used again."""
        with self._guard():
            return [
                DiskModel(
                    row.name,
                    row.path,
                    row.fingerprint,
                    row.blocks,
                    row.bytes,
                    current=row.id == self._model_id,
                    stale=_is_stale(row, build, weights_of),
                )
                for row in self._index.models()
            ]

    def prune(self, build: str, weights_of: Callable[[Path], str]) -> tuple[list[str], int, int]:
        """Delete the blocks of stale models: (their names, blocks, bytes)."""
        with self._guard():
            before = self._index.usage()
            names = []
            for row in self._index.models():
                if row.id != self._model_id and _is_stale(row, build, weights_of):
                    self._delete_leaves(self._index.of_model(row.id))
                    if not self._index.of_model(row.id):
                        self._index.drop_model(row.id)
                    names.append(row.name)
            after = self._index.usage()
            return names, before[2] - after[2], before[0] - after[0]

    def verify(self) -> Iterator[tuple[int, int] | Checked]:
        """Hash all files again, one a step: (done, total) each time, at the end what was found."""
        with self._guard():
            try:
                self._index.check()
            except DamagedIndex:
                self._index.close()
                self._open(distrust=True)
                yield Checked(0, 0, 1, 0)
                return
            orphans = self._sweep()
            rows = self._index.keys()
            num_files = num_bytes = bad = 0
        for done, key in enumerate(rows):
            yield done, len(rows)
            with self._guard():
                row = self._index.get(key)
                if row is None:
                    if self._index.state(key) == STORED:  # of no model
                        self._set_aside(key)
                        bad += 1
                    continue  # deleted, or being written, meanwhile
                try:
                    header = check_block(self._file(key), self._secret)
                    if (
                        header != row.header()
                        or header.key != child_key(header.parent, unpack(header.tokens))
                        or row.held != page_bytes(header.file_bytes())
                    ):
                        raise BadBlock("it is another block than the index says")
                    num_files += 1
                    num_bytes += header.file_bytes()
                except FileNotFoundError:
                    if self._index.get(key) is not None:
                        self._set_aside(key)
                        orphans += 1
                except (BadBlock, OSError):
                    self._set_aside(key)
                    bad += 1
        with self._guard():
            for file in self._files():
                key = _key(file.name)
                state = self._index.state(key)
                in_use = state is not None and file.parent == self._file(key).parent
                if not in_use or (state == STORED and file != self._file(key)):
                    _remove(file)
                    orphans += 1
            self._index.recount()
        yield Checked(num_files, num_bytes, bad, orphans)

    # ---- files

    def _file(self, key: bytes) -> Path:
        name = _name(key)
        return self._blocks / name[:2] / name

    def _temporary(self, key: bytes) -> Path:
        return self._file(key).with_suffix(f".{os.getpid()}")

    def _files(self) -> Iterator[Path]:
        for folder in self._blocks.iterdir():
            if folder.is_dir() and not folder.is_symlink():
                yield from folder.iterdir()
            else:
                yield folder

    def _delete_leaves(self, keys: Iterable[bytes]) -> None:
        """Delete blocks, children before parents; those that others stand on stay."""
        gone: dict[bytes, None] = {}
        for key in keys:
            if all(child.key in gone for child in self._index.children(key)):
                gone[key] = None
        self._delete(list(gone))

    def _delete(self, keys: Sequence[bytes]) -> None:
        self._index.begin_delete(keys, self._writer)
        for key in keys:
            _remove(self._file(key))
        self._index.end_delete(keys)

    def _set_aside(self, key: bytes) -> None:
        """A block that may not be used: its file goes to the side, for whoever wants to know why."""
        self.quarantined += 1
        self._gone.append(key)
        self._index.begin_delete([key], self._writer)
        self._move_aside(self._file(key))
        self._index.end_delete([key])

    def _move_aside(self, file: Path) -> None:
        with contextlib.suppress(OSError):
            kept = sorted(self._bad.iterdir(), key=lambda old: old.lstat().st_mtime)
            for old in kept[: max(0, len(kept) - MAX_SET_ASIDE + 1)]:
                _remove(old)
            os.replace(file, self._bad / file.name)
        _remove(file)

    def _sweep(self) -> int:
        """Delete what a dead process, or this one in vain, was writing or deleting; the number of blocks."""
        dead = [
            key for key, writer in self._index.unsettled() if writer == self._writer or not _is_alive(writer)
        ]
        for key in dead:
            for file in (self._file(key), *self._file(key).parent.glob(f"{_stem(key)}.*")):
                _remove(file)
        self._index.end_delete(dead)
        return len(dead)

    def _wipe_folder(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, exist_ok=True)

    def _enter(self, model: Model) -> int:
        return self._index.model_id(model.fingerprint, model.name, model.path, model.weights, model.build)

    def _open(self, *, distrust: bool) -> None:
        file = self._folder / "index.db"
        with contextlib.suppress(FileNotFoundError):
            distrust = distrust or not stat.S_ISREG(file.lstat().st_mode)
        if distrust:
            # Without the index nobody knows what the files are worth; they are only a cache.
            for suffix in ("", "-wal", "-shm"):
                self._move_aside(file.with_name(file.name + suffix))
            self._wipe_folder(self._blocks)
            self.quarantined += 1
        self._index = DiskIndex(file)
        try:
            self._inode = file.stat().st_ino
            self._model_id = self._enter(self._model) if self._model else None
            self._sweep()
        except BaseException:
            self._index.close()
            raise

    def _is_damage(self, error: OSError | sqlite3.Error) -> bool:
        """Whether the index cannot be used any more; one that only claims to be read-only cannot either."""
        if not isinstance(error, sqlite3.Error):
            return False
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY:
            return os.access(self._folder / "index.db", os.W_OK)
        return is_damage(error)

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        """Errors of the disk and of the index as one DiskError."""
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise self._problem(error) from error

    def _problem(self, error: OSError | sqlite3.Error) -> DiskError:
        if isinstance(error, OSError):
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        else:
            full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        if full:
            return DiskError(
                f"The disk with {self._folder} is full: prompts are kept in RAM only. "
                "Make room, or set a lower disk limit.",
                full=True,
            )
        if not self._folder.is_dir():
            return DiskError(f"The folder {self._folder} is gone: prompts are kept in RAM only.")
        reason = ((error.strerror if isinstance(error, OSError) else "") or str(error)).lower()
        return DiskError(
            f"The disk cache in {self._folder} fails ({reason}): prompts are kept in RAM only.",
            damaged=self._is_damage(error),
        )


def _decode_totals(data: bytes) -> Totals:
    try:
        return msgspec.msgpack.decode(data, type=Totals) if data else Totals()
    except (ValueError, RecursionError):  # no MessagePack, no UTF-8, or nested without end
        return Totals()


def _is_stale(row: ModelRow, build: str, weights_of: Callable[[Path], str]) -> bool:
    if row.build != build:
        return True
    try:
        return weights_of(Path(row.path)) != row.weights
    except (OSError, ValueError, SamovarError):  # a damaged row may name what is no path at all
        return True


def _name(key: bytes) -> str:
    return f"{key.hex()}.kv"


def _stem(key: bytes) -> str:
    return key.hex()


def _key(name: str) -> bytes:
    """The key in the name of a file, finished or not."""
    try:
        return bytes.fromhex(name.partition(".")[0])
    except ValueError:
        return b""


def _remove(file: Path) -> None:
    """Delete whatever is there."""
    if file.is_dir() and not file.is_symlink():
        shutil.rmtree(file, ignore_errors=True)
        return
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        file.unlink()


def _make_private(folder: Path) -> None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise OSError(errno.EPERM, "it is a link or belongs to another user")
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)


def _writer_id(pid: int) -> str:
    """Names a process also after its number has been given to another."""
    return f"{pid} {psutil.Process(pid).create_time():.2f}"


def _is_alive(writer: str) -> bool:
    try:
        pid, created = writer.split()
        # Which second a process began in depends on the clock, which is being set all the time.
        return abs(psutil.Process(int(pid)).create_time() - float(created)) < CLOCK_SLACK_S
    except (psutil.Error, ValueError):
        return False
