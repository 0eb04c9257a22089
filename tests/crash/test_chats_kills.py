"""`kill -9` of front ends and of the host at random moments, whatever they do: no chat loses anything.

One store goes through all kills. Every start is the next start after a kill: it recovers, and then the file
is compared with what the killed ones had said.
"""

import asyncio
import contextlib
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
import psutil
import pytest

from samovar.core.settings import EngineSettings
from samovar.sessions.store import Store
from tests.crash import chats_lines as lines
from tests.crash.chats_ledger import Ledger
from tests.crash.chats_picture import check_file, check_words, connect, read
from tests.crash.conftest import kill, until

pytestmark = [pytest.mark.model, pytest.mark.timeout(5400)]

SOAK: Final = bool(os.environ.get("SAMOVAR_SOAK"))
NUM_KILLS: Final = 300 if SOAK else 24
SEED: Final = int(os.environ.get("SAMOVAR_SOAK_SEED", "20261130"))
ROOT: Final = Path(__file__).parents[2]
WORDS_EVERY: Final = 20  # starts between two looks at every word of the search
KINDS: Final = {
    "clock": 4,  # from outside, at any moment
    "import": 4,  # in the middle of imports
    "statement": 3,  # between two statements
    "commit": 6,  # between two transactions
    "loading": 2,  # while it settles what the one before has left
    "two": 2,  # of two front ends one, the other goes on
    "engine": 1,  # with a real host
    "host": 2,  # the host; the front end goes on
}


class FrontEnd:
    """A worker process; what it says goes to the ledger."""

    def __init__(self, job: lines.Job, ledger: Ledger) -> None:
        self._job = job
        self._ledger = ledger
        self._process: asyncio.subprocess.Process | None = None
        self._listening: asyncio.Task[None] | None = None
        self.drafts: dict[str, str] | None = None  # once it has started
        self.said: list[lines.Line] = []
        self.host: int | None = None

    @property
    def index(self) -> int:
        return self._job.index

    @property
    def kills_itself(self) -> bool:
        return self._job.trip is not None

    async def start(self, home: Path) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.crash.chats_worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'app'}:{ROOT}", "SAMOVAR_HOME": str(home)},
            cwd=ROOT,
            limit=1 << 24,
        )
        self._listening = asyncio.create_task(self._listen())
        await self.tell(msgspec.json.encode(self._job).decode())

    async def tell(self, text: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode() + b"\n")
        with contextlib.suppress(ConnectionError):
            await self._process.stdin.drain()

    async def until(self, condition: Callable[[], object]) -> bool:
        """Wait for what its lines bring; False if it ends without."""
        assert self._listening is not None
        listening = self._listening
        await until(lambda: condition() or listening.done())
        if listening.done():
            listening.result()
        return bool(condition())

    async def has_done(self, num_changes: int) -> bool:
        """Wait until it has said so much; False if it ends before."""
        wanted = len(self.said) + num_changes
        return await self.until(lambda: len(self.said) >= wanted)

    async def kill(self) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            # Not the process's own method, which may take the exit code from under the event loop.
            with contextlib.suppress(ProcessLookupError):
                kill(self._process.pid)
        await self.ended()

    async def ended(self) -> None:
        assert self._process is not None
        assert self._listening is not None
        await self._listening
        await self._process.wait()

    @property
    def was_killed(self) -> bool:
        return self._process is not None and self._process.returncode == -9

    async def _listen(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        decoder: msgspec.json.Decoder[lines.Line] = msgspec.json.Decoder(lines.Line)
        async for data in self._process.stdout:
            if not data.endswith(b"\n"):
                break  # cut by the kill: this has not been said
            line = decoder.decode(data)
            self._ledger.take(self.index, line)
            self.said.append(line)
            match line:
                case lines.Loaded(drafts):
                    self.drafts = drafts
                case lines.HostFound(pid):
                    self.host = pid
                case lines.HostGone():
                    self.host = None
                case _:
                    pass


class Kills:
    """All rounds over one store: front ends start, what is there is checked, they work, one is killed."""

    def __init__(self, folder: Path, engine: EngineSettings) -> None:
        self._folder = folder
        self._engine = engine
        self._dice = random.Random(SEED)
        self._index = 0
        self._num_starts = 0
        self._checked: lines.Line | None = None
        self.file = folder / "chats.db"
        self.ledger = Ledger()
        self.counts = Counter[str]()

    async def round(self, kind: str) -> None:
        """Front ends start, work, and one of them, or their host, is killed."""
        num = 2 if kind == "two" or (kind in ("engine", "host") and self._dice.random() < 0.3) else 1
        jobs = [self._job(kind, number, num) for number in range(num)]
        front_ends = [FrontEnd(job, self.ledger) for job in jobs]
        try:
            for front_end in front_ends:
                await front_end.start(self._folder / "home")
            if await self._loaded(front_ends):
                self._check(front_ends)
                for front_end in front_ends:
                    await front_end.tell("go")
                await self._kill_one(kind, front_ends)
                for front_end in front_ends[1:]:  # one that was not killed loses nothing either
                    await front_end.has_done(self._dice.randrange(10, 80))
                    await front_end.tell("stop")
                    await front_end.ended()
                    assert isinstance(front_end.said[-1], lines.Closed)
        finally:
            for front_end in front_ends:
                await front_end.kill()
        assert front_ends[0].was_killed
        self.counts[kind] += 1
        if self._dice.random() < 0.5:
            # Else the next front end is the first that opens the file after the kill.
            self._check_at_rest()

    async def last_start(self) -> None:
        """A start after the last kill, which only looks."""
        front_end = FrontEnd(self._job("clock", 0, 1), self.ledger)
        await front_end.start(self._folder / "home")
        assert await self._loaded([front_end])
        self._check([front_end], all_words=True)
        await front_end.tell("stop")
        await front_end.ended()

    def _job(self, kind: str, number: int, num_workers: int) -> lines.Job:
        dice = self._dice
        trip = {
            "statement": lines.Trip("statement", dice.randrange(1, 1200)),
            "commit": lines.Trip("commit", dice.randrange(1, 120)),
            "import": lines.Trip("statement", dice.randrange(100, 2000)) if dice.random() < 0.5 else None,
            "loading": lines.Trip("statement", dice.randrange(1, 60), while_loading=True),
        }.get(kind)
        self._index += 1
        return lines.Job(
            file=str(self.file),
            folder=str(self._folder),
            seed=dice.getrandbits(32),
            index=self._index,
            num_workers=num_workers,
            trip=trip,
            fond_of="import" if kind == "import" or (kind == "statement" and dice.random() < 0.3) else "",
            engine=self._engine if kind in ("engine", "host") else None,
        )

    @staticmethod
    async def _loaded(front_ends: Sequence[FrontEnd]) -> bool:
        """Wait until all have started; False if one is killed before."""
        started = [await one.until(lambda one=one: one.drafts is not None) for one in front_ends]  # type: ignore[misc]
        return all(started)

    async def _kill_one(self, kind: str, front_ends: Sequence[FrontEnd]) -> None:
        victim, dice = front_ends[0], self._dice
        if victim.kills_itself and kind != "loading":
            await victim.ended()
            return
        match kind:
            case "loading":
                await victim.has_done(dice.randrange(0, 20))
            case "host":
                await self._kill_host(front_ends)
            case "import":
                await victim.until(lambda: any(isinstance(line, lines.Importing) for line in victim.said))
                await asyncio.sleep(dice.uniform(0.0, 0.5))  # the moment is what is drawn here
            case _:
                await victim.has_done(dice.randrange(0, 120))
                await asyncio.sleep(dice.uniform(0.0, 0.02))
        await victim.kill()

    async def _kill_host(self, front_ends: Sequence[FrontEnd]) -> None:
        """All front ends notice, and have a reply of the next host."""
        for front_end in front_ends:
            assert await front_end.until(lambda one=front_end: one.host)  # type: ignore[misc]
        await front_ends[0].has_done(self._dice.randrange(0, 60))
        pid = front_ends[0].host
        assert pid is not None
        before = [len(front_end.said) for front_end in front_ends]
        kill(pid)
        self.counts["hosts"] += 1
        for front_end, since in zip(front_ends, before, strict=True):
            assert await front_end.until(lambda one=front_end, since=since: _has_gone_on(one.said[since:]))  # type: ignore[misc]

    def _check(self, front_ends: Sequence[FrontEnd], *, all_words: bool = False) -> None:
        self._num_starts += 1
        drafts = {
            (one.index, session): text for one in front_ends for session, text in (one.drafts or {}).items()
        }
        with contextlib.closing(Store.open(self.file)) as store:
            store.exchange.drop_dead_imports()  # a front end does it beside, some time after its start
        with contextlib.closing(connect(self.file)) as db:
            check_file(db)
            found = read(db)
            if all_words or self._num_starts % WORDS_EVERY == 0:
                check_words(db, found)
        self.ledger.check(found, drafts)
        self._check_search()

    def _check_search(self) -> None:
        """Messages that can be seen are found by their first word, which no other message has."""
        picture = self.ledger.picture
        heads = [session.head for session in picture.sessions.values() if not session.is_deleted]
        wanted = [
            picture.messages[head] for head in heads if head is not None and picture.messages[head].content
        ]
        with contextlib.closing(Store.open(self.file)) as store:
            assert not store.trouble, "a kill has left damage"
            for message in self._dice.sample(wanted, min(3, len(wanted))):
                word = message.content.split()[0]
                assert message.id in [hit.message_id for hit in store.search(word).hits], message

    def _check_at_rest(self) -> None:
        if self.file.exists():
            with contextlib.closing(connect(self.file)) as db:
                if db.execute("PRAGMA user_version").fetchone()[0]:
                    check_file(db)


def _has_gone_on(said: Sequence[lines.Line]) -> bool:
    """Whether another host has been found after one was lost, and a reply has ended since."""
    gone = next((i for i, line in enumerate(said) if isinstance(line, lines.HostGone)), None)
    if gone is None:
        return False
    found = next((i for i, line in enumerate(said) if i > gone and isinstance(line, lines.HostFound)), None)
    return found is not None and any(
        isinstance(line, lines.Ended) and line.message.state.value != "failed" for line in said[found:]
    )


@pytest.fixture
def engine(smollm2: Path) -> EngineSettings:
    return EngineSettings(
        str(smollm2), context_tokens=2048, ram_limit="128MiB", disk_limit="off", keep_alive_s=120.0
    )


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, for sockets. Hosts that workers have started there end with it."""
    with tempfile.TemporaryDirectory(prefix="samovar-kills-") as name:
        yield Path(name)
        for process in psutil.process_iter(["cmdline"]):
            if "samovar.engine.host" in (process.info["cmdline"] or ()):
                with contextlib.suppress(psutil.Error):
                    if process.environ().get("SAMOVAR_HOME") == str(Path(name) / "home"):
                        process.kill()
                        process.wait(30)


async def test_killed_at_random_moments_no_chat_loses_anything(folder: Path, engine: EngineSettings) -> None:
    kills = Kills(folder, engine)
    dice = random.Random(SEED)
    kinds = [kind for kind, share in KINDS.items() for _ in range(share)]
    for number in range(NUM_KILLS):
        if number % len(kinds) == 0:
            dice.shuffle(kinds)
        await kills.round(kinds[number % len(kinds)])
    await kills.last_start()
    told = ", ".join(
        f"{count} {kind}" for kind, count in [*kills.counts.items(), *kills.ledger.counts.items()]
    )
    picture = kills.ledger.picture
    sys.stdout.write(
        f"{NUM_KILLS} kills: {told}; {len(picture.sessions)} chats, {len(picture.messages)} messages\n"
    )
    assert kills.ledger.counts["done"] > NUM_KILLS
    assert kills.counts["hosts"] > 0
    assert kills.ledger.counts["imports found"] > 0
    if SOAK:
        assert kills.ledger.counts["imports dropped"] > 0
        assert kills.ledger.counts["saves"] > 0
