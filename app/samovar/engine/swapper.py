"""The swap thread: reads, writes and hashes the disk tier's files, and nothing else.

Jobs are values; what came of them goes back as values through `tell`. What somebody waits for goes first,
then writing, then upkeep, which gives way after every file.
"""

import collections
import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

from samovar.core.snapshot import DiskModel, Totals
from samovar.core.units import format_size
from samovar.engine.limits import is_off
from samovar.kv.disk_index import PastRow, Row
from samovar.kv.disk_tier import Checked, DiskError, DiskTier, Model
from samovar.kv.host_tier import Blob

log = logging.getLogger("samovar.swapper")

RETRY_S: Final = 5.0
MAX_PASTS: Final = 200
_OFF: Final = "The disk cache is off."
_BROKE: Final = "The disk cache broke; the log tells more. It is tried again."


class Urgency(IntEnum):
    """Lower goes first."""

    WAITED_FOR = 0
    WRITE = 1
    UPKEEP = 2
    STOP = 3


# ---- jobs


@dataclass(frozen=True, slots=True)
class Find:
    """Which blocks of `tokens` are stored from `pos` on? `Found` answers."""

    ticket: int
    tokens: tuple[int, ...]
    pos: int
    parent: bytes | None


@dataclass(frozen=True, slots=True)
class Read:
    """Fill each blob with its block's payload, in order, up to the first failure. `ReadDone` answers."""

    ticket: int
    rows: tuple[Row, ...]
    blobs: tuple[Blob, ...]


@dataclass(frozen=True, slots=True)
class Write:
    """Store a block that `owners` own. `Written` answers; the blob is not touched afterwards."""

    key: bytes
    parent: bytes | None
    start: int
    tokens: tuple[int, ...]
    blob: Blob
    owners: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Remember:
    """A session was used: its chain of blocks, its past, and counters to add to those for ever."""

    past: PastRow
    keys: tuple[bytes, ...]
    totals: Totals


@dataclass(frozen=True, slots=True)
class PinOnDisk:
    session: str
    pinned: bool


@dataclass(frozen=True, slots=True)
class ForgetOnDisk:
    """Delete what only this session has."""

    session: str


@dataclass(frozen=True, slots=True)
class Count:
    """How many leading tokens of each could the disk serve? `Counted` answers."""

    prompts: tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True, slots=True)
class SetLimit:
    """A new budget, as text; it takes effect at once."""

    text: str


@dataclass(frozen=True, slots=True)
class Upkeep:
    """`what` is clear, verify or prune; `client` is told."""

    what: str
    client: str


Job = Find | Read | Write | Remember | PinOnDisk | ForgetOnDisk | Count | SetLimit | Upkeep


# ---- results


@dataclass(frozen=True, slots=True)
class Opened:
    """The tier works (again). `pasts` is empty but for the first time."""

    pasts: tuple[PastRow, ...]


@dataclass(frozen=True, slots=True)
class Found:
    ticket: int
    rows: tuple[Row, ...]
    ms: float


@dataclass(frozen=True, slots=True)
class ReadDone:
    """The first `num_read` blobs hold what was asked for."""

    ticket: int
    num_read: int
    ms: float


@dataclass(frozen=True, slots=True)
class Written:
    key: bytes
    stored: bool
    ms: float


@dataclass(frozen=True, slots=True)
class Gone:
    """These blocks are not on disk, or not any more."""

    keys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Counted:
    tokens: dict[str, int]


@dataclass(frozen=True, slots=True)
class Cleared:
    client: str
    num_blocks: int
    num_bytes: int
    kept_blocks: int


@dataclass(frozen=True, slots=True)
class Pruned:
    client: str
    models: tuple[str, ...]
    num_blocks: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class NotDone:
    """Clearing or pruning (`what`) was not possible."""

    client: str
    what: str
    problem: str


@dataclass(frozen=True, slots=True)
class Verifying:
    client: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Verified:
    client: str
    found: Checked
    problem: str = ""


Result = (
    Opened | Found | ReadDone | Written | Gone | Counted | Cleared | Pruned | NotDone | Verifying | Verified
)


@dataclass(frozen=True, slots=True)
class DiskState:
    """What the tier holds; replaced as a whole, so that any thread may look at it.

    With a `problem` it may still be open: then it can be read, but not written.
    """

    bytes: int = 0
    tokens: int = 0
    blocks: int = 0
    limit_bytes: int | None = None
    setting: str = "auto"
    off: bool = False
    problem: str = ""
    is_open: bool = False
    quarantined: int = 0
    evictions: int = 0
    totals: Totals | None = None
    models: tuple[DiskModel, ...] = ()
    room_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Folder:
    """Where and for whom the tier is opened. `limit(text, free, own)` is the budget in bytes."""

    cache_dir: Path
    model: Model
    limit: Callable[[str, int, int], int]
    weights_of: Callable[[Path], str]


class Swapper:
    """Owns the thread and the tier. `tell` is called in the thread and must not block."""

    def __init__(self, folder: Folder, setting: str, tell: Callable[[Result], None]) -> None:
        self._folder = folder
        self._setting = setting
        self._tell = tell
        self._jobs: queue.PriorityQueue[tuple[int, int, Job | None]] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._tier: DiskTier | None = None
        self._t_failed: float | None = None
        self._full, self._t_full = "", 0.0
        self._distrust = False
        self._was_open = False
        self._quarantined = self._evictions = 0
        self._verifying: tuple[Upkeep, Iterator[tuple[int, int] | Checked]] | None = None
        self._to_forget: list[str] = []
        self._to_verify: collections.deque[Upkeep] = collections.deque()
        self._models: tuple[DiskModel, ...] = ()
        self._weights: dict[tuple[str, int, int], str] = {}
        self._totals: Totals | None = None
        self.state = DiskState(setting=setting, off=is_off(setting))
        self._thread = threading.Thread(target=self._run, name="swap", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def post(self, job: Job) -> None:
        """Hand over a job. Any thread."""
        self._jobs.put((_urgency(job), next(self._numbers), job))

    def stop(self, patience_s: float) -> None:
        """Do what is left to write, for so long at most, and end."""
        self._jobs.put((Urgency.STOP, next(self._numbers), None))
        self._thread.join(patience_s)

    # ---- the thread

    def _run(self) -> None:
        self.open()
        while self.serve_next():
            pass
        self._close()

    def open(self) -> None:
        """Open the tier, if it can be."""
        self._attempt()

    def serve_next(self, *, wait: bool = True) -> bool:
        """Do one job, or a part of a long one; False at the end, or when there is none and no `wait`."""
        if self._verifying is not None and self._jobs.empty():
            self._verify_on()
            return True
        try:
            _, _, job = self._jobs.get(block=wait)
        except queue.Empty:
            return False
        if job is not None:
            self._serve(job)
        return job is not None

    def _serve(self, job: Job) -> None:
        match job:
            case SetLimit(text):
                self._setting = text
                self._t_failed, self._full = None, ""
            case _:
                pass
        tier = self._attempt()
        if isinstance(job, ForgetOnDisk) and is_off(self._setting):
            self._forget_while_off(job.session)
            return
        done = False
        if tier is not None and not (isinstance(job, Write) and self._is_full()):
            try:
                self._do(job, tier)
                done = True
                if isinstance(job, Write):
                    self._full = ""
            except DiskError as error:
                if error.full:
                    self._full, self._t_full = str(error), time.monotonic()
                else:
                    self._fail(error)
            except Exception:
                # What nobody foresaw must still be answered, and the thread must live.
                log.exception("the swap thread broke")
                self._fail(DiskError(_BROKE))
        if not done:
            self._give_up(job)
        self._refresh()

    def _forget_while_off(self, session: str) -> None:
        """What was stored before the tier was turned off still lies there, and a deleted chat must go."""
        if not (self._folder.cache_dir / "kv" / "index.db").exists():
            return
        with suppress(DiskError):
            tier = DiskTier(self._folder.cache_dir, lambda _free, own: own, self._folder.model)
            try:
                tier.forget(session)
            finally:
                tier.close()

    def _is_full(self) -> bool:
        """Whether writing had better wait: what is there can be read all the while."""
        return bool(self._full) and time.monotonic() - self._t_full < RETRY_S

    def _attempt(self) -> DiskTier | None:
        """The tier, opened (again) if it can be; None while it cannot."""
        if is_off(self._setting):
            self._close()
            self.state = DiskState(
                setting=self._setting,
                off=True,
                quarantined=self._quarantined,
                evictions=self._evictions,
                totals=self._totals,
            )
            return None
        if self._tier is not None and not self._tier.is_there():
            self._close()
            self._fail(None)
        if self._tier is not None:
            return self._tier
        if self._t_failed is not None and time.monotonic() - self._t_failed < RETRY_S:
            return None
        try:
            tier = DiskTier(self._folder.cache_dir, self._limit, self._folder.model, distrust=self._distrust)
            pasts = () if self._was_open else tuple(tier.past())
            self._totals = tier.totals()
            while self._to_forget:
                tier.forget(self._to_forget[-1])
                self._to_forget.pop()
            tier.shrink()
            self._tier, self._t_failed, self._distrust, self._was_open = tier, None, False, True
            self._look_at_models()
        except DiskError as error:
            self._fail(error)
            return None
        except Exception:
            log.exception("the swap thread broke")
            self._fail(DiskError(_BROKE))
            return None
        self._refresh()
        self._tell(Opened(pasts))
        return tier

    def _limit(self, free: int, own: int) -> int:
        return self._folder.limit(self._setting, free, own)

    def _do(self, job: Job, tier: DiskTier) -> None:
        start = time.perf_counter()

        def elapsed() -> float:
            return 1000 * (time.perf_counter() - start)

        match job:
            case Find(ticket, tokens, pos, parent):
                rows = tuple(tier.find(tokens, pos, parent))
                self._tell(Found(ticket, rows, elapsed()))
            case Read(ticket, rows, blobs):
                num_read = 0
                for row, blob in zip(rows, blobs, strict=True):
                    with blob.view() as memory:
                        if not tier.read(row, memory):
                            break
                    num_read += 1
                self._tell(ReadDone(ticket, num_read, elapsed()))
            case Write(key, parent, start_pos, tokens, blob, owners):
                with blob.view() as memory:
                    stored = tier.write(key, parent, start_pos, tokens, memory, owners)
                self._tell(Written(key, stored, elapsed()))
            case Remember(past, keys, totals):
                tier.remember(past, MAX_PASTS)
                tier.touch(keys, past.session)
                if lost := tier.lost(keys):
                    self._tell(Gone(tuple(lost)))
                self._totals = tier.add_totals(totals)
            case PinOnDisk(session, pinned):
                tier.pin(session, pinned)
            case ForgetOnDisk(session):
                tier.forget(session)
            case Count(prompts):
                self._tell(Counted({session: tier.count(tokens) for session, tokens in prompts}))
            case SetLimit():
                tier.shrink()
            case Upkeep("verify", _) if self._verifying is not None:
                self._to_verify.append(job)
            case Upkeep("verify", _):
                self._verifying = (job, tier.verify())
            case Upkeep("clear", client):
                self._tell(Cleared(client, *tier.clear()))
                self._look_at_models()
            case Upkeep(_, client):
                model = self._folder.model
                names, num_blocks, num_bytes = tier.prune(model.build, self._folder.weights_of)
                self._tell(Pruned(client, tuple(names), num_blocks, num_bytes))
                self._look_at_models()

    def _give_up(self, job: Job) -> None:
        """Every job that somebody waits for is answered, whatever the disk does."""
        problem = self.state.problem or _OFF
        match job:
            case Find(ticket):
                self._tell(Found(ticket, (), 0.0))
            case Read(ticket):
                self._tell(ReadDone(ticket, 0, 0.0))
            case Write(key):
                self._tell(Written(key, False, 0.0))
            case Count(prompts):
                self._tell(Counted(dict.fromkeys((session for session, _ in prompts), 0)))
            case Upkeep("verify", client):
                self._tell(Verified(client, Checked(0, 0, 0, 0), problem))
            case Upkeep(what, client):
                self._tell(NotDone(client, what, problem))
            case ForgetOnDisk(session):
                self._to_forget.append(session)
            case _:
                pass

    def _verify_on(self) -> None:
        """One more file."""
        assert self._verifying is not None
        job, steps = self._verifying
        try:
            if self._attempt() is None:
                self._end_verifying(Verified(job.client, Checked(0, 0, 0, 0), self.state.problem or _OFF))
                return
            match next(steps):
                case (int(done), int(total)):
                    if done % 16 == 0:
                        self._tell(Verifying(job.client, done, total))
                case Checked() as found:
                    self._end_verifying(Verified(job.client, found))
                    self._look_at_models()
        except DiskError as error:
            self._fail(error)
            self._end_verifying(Verified(job.client, Checked(0, 0, 0, 0), str(error)))
        except Exception:
            log.exception("the swap thread broke")
            self._fail(DiskError(_BROKE))
            self._end_verifying(Verified(job.client, Checked(0, 0, 0, 0), _BROKE))
        self._refresh()

    def _end_verifying(self, result: Verified) -> None:
        """Answer, and go on to who asked meanwhile."""
        self._verifying = None
        self._tell(result)
        if self._to_verify:
            self.post(self._to_verify.popleft())

    # ---- state

    def _close(self) -> None:
        if self._tier is not None:
            self._quarantined += self._tier.quarantined
            self._evictions += self._tier.evictions
            self._tier.close()
            self._tier = None

    def _fail(self, error: DiskError | None) -> None:
        """Something is wrong with the disk: say so, and try again later."""
        self._distrust = error is not None and error.damaged
        folder = self._folder.cache_dir / "kv"
        problem = str(error) if error else f"The folder {folder} is gone: prompts are kept in RAM only."
        self._t_failed = time.monotonic()
        self._close()
        self.state = DiskState(
            setting=self._setting,
            problem=problem,
            quarantined=self._quarantined,
            evictions=self._evictions,
            totals=self._totals,
        )

    def _refresh(self) -> None:
        tier = self._tier
        if tier is None:
            return
        if gone := tier.take_gone():
            self._tell(Gone(gone))
        if self._jobs.empty():
            self._look_at_models()
        try:
            num_bytes, num_tokens, num_blocks = tier.usage()
            limit = tier.limit_bytes()
            problem = self._full
            if not problem and num_bytes > limit and not tier.can_evict():
                problem = (
                    f"Pinned chats hold {format_size(num_bytes)} on disk, more than its limit of "
                    f"{format_size(limit)}: unpin one, or set a higher limit."
                )
            self.state = DiskState(
                num_bytes,
                num_tokens,
                num_blocks,
                limit,
                self._setting,
                problem=problem,
                is_open=True,
                quarantined=self._quarantined + tier.quarantined,
                evictions=self._evictions + tier.evictions,
                totals=self._totals,
                models=self._models,
                room_bytes=tier.room_bytes(),
            )
        except DiskError as error:
            self._fail(error)

    def _look_at_models(self) -> None:
        assert self._tier is not None
        model = self._folder.model
        with suppress(DiskError):
            self._models = tuple(self._tier.models(model.build, self._weights_of))

    def _weights_of(self, path: Path) -> str:
        """Looked up again only when the file has another size or time."""
        found = path.stat()
        seen = (str(path), found.st_size, found.st_mtime_ns)
        if seen not in self._weights:
            self._weights[seen] = self._folder.weights_of(path)
        return self._weights[seen]


def _urgency(job: Job) -> Urgency:
    match job:
        case Find() | Read():
            return Urgency.WAITED_FOR
        case Upkeep() | Count():
            return Urgency.UPKEEP
        case _:
            return Urgency.WRITE
