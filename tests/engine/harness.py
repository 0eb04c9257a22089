"""Drives an `EngineLoop` on the fake backend step by step, and checks after each what must always hold."""

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from samovar.core import commands, events
from samovar.core.chat import GREEDY, ChatMessage, Role, open_reply
from samovar.core.request import FinishReason, Request, RequestKind
from samovar.core.settings import EngineSettings
from samovar.engine.backend import DecodeResult
from samovar.engine.disk import Fetch, MakeSwapper
from samovar.engine.limits import disk_limit as disk_bytes
from samovar.engine.loop import ClientGone, EngineLoop, Envelope
from samovar.engine.prompt import CHATML, PromptBuilder
from samovar.engine.sleep import Sleep
from samovar.engine.stream import TextStream
from samovar.engine.swapper import Folder, Job, Result, Swapper
from samovar.kv.block import root_key
from samovar.kv.disk_tier import Model
from samovar.kv.index import common_prefix
from tests.engine.fake_backend import TOKENIZER, FakeBackend, Kind, cold_reply

BLOCK = 16
CLIENT = "a"
MAX_IDLE_STEPS = 30
MAX_STEPS = 5000
HOST_READY = events.HostReady(
    events.ModelInfo("fake", "fake.gguf", "dense", 400, 400, "f16", "f16", TOKENIZER, "f", BLOCK, True)
)


def user(text: str) -> ChatMessage:
    return ChatMessage(Role.USER, text)


def system(text: str) -> ChatMessage:
    return ChatMessage(Role.SYSTEM, text)


def words(count: int, start: int = 0) -> str:
    """Text of `count` tokens; another `start` gives other tokens."""
    return "".join(f" {'abcdefgh'[(start + start // 8 + i // 8) % 8]}{(start + i) % 8}" for i in range(count))


@dataclass
class Asked:
    """A submitted request with what has come back for it.

    `reusable` is its longest common prefix with anything that was in the context before it started.
    """

    request: Request
    prompt: tuple[int, ...]
    client: str
    text: str = ""
    started: events.RequestStarted | None = None
    ended: list[events.RequestFinished] = field(default_factory=list)
    reusable: int = 0

    @property
    def finished(self) -> events.RequestFinished:
        assert len(self.ended) == 1, "exactly one terminal event"
        return self.ended[0]

    def answer(self) -> ChatMessage:
        """The whole reply, as a front end keeps it: with what there was of it before."""
        end, begun = self.finished, open_reply(self.request.messages)
        tokens = end.begun + end.tokens
        if begun is None:
            return ChatMessage(Role.ASSISTANT, end.reply, tokens, end.tokenizer)
        if not tokens:
            return msgspec.structs.replace(begun, content=begun.content + end.reply)
        return ChatMessage(Role.ASSISTANT, begun.content + end.reply, tokens, end.tokenizer)

    def history(self) -> list[ChatMessage]:
        """The messages with the answer, which replaces an open reply."""
        messages = list(self.request.messages)
        return [*(messages[:-1] if open_reply(messages) else messages), self.answer()]

    @property
    def begun(self) -> str:
        """What there was of the reply."""
        begun = open_reply(self.request.messages)
        return begun.content if begun else ""


class SteppedSwapper(Swapper):
    """The swap thread's work without a thread: done when the test says so."""

    eager = False

    def start(self) -> None:
        self.open()

    def post(self, job: Job) -> None:
        super().post(job)
        if self.eager:
            self.serve_all()

    def serve_all(self) -> None:
        while self.serve_next(wait=False):
            pass

    def stop(self, patience_s: float) -> None:
        self.serve_all()
        self._close()


class Engine:
    """The loop under test, without a thread: `step` is what its thread does once.

    `now` is the clock of its keep-alive; `check_reload` runs before the model is loaded again.
    """

    def __init__(
        self,
        kind: Kind = Kind.DENSE,
        *,
        num_cells: int = 400,
        num_slots: int = 4,
        ram_limit: str = "unlimited",
        token_limit: str = "unlimited",
        chunk: int = 16,
        disk: Path | None = None,
        disk_limit: str = "1GiB",
        keep_alive_s: float = -1.0,
        template: str = CHATML,
    ) -> None:
        self.kind = kind
        self.swapper: SteppedSwapper | None = None
        self.swap_eagerly = True
        self.backend = FakeBackend(
            kind,
            num_cells=num_cells,
            num_slots=num_slots,
            batch_tokens=chunk + num_slots,
            template=template,
        )
        self.machine = self.backend.machine
        settings = EngineSettings(
            "fake.gguf",
            num_slots=num_slots,
            block_tokens=BLOCK,
            prefill_chunk=chunk,
            ram_limit=ram_limit,
            token_limit=token_limit,
            keep_alive_s=keep_alive_s,
        )
        oracle = FakeBackend(kind, template=template)  # knows the vocabulary, also while the model sleeps
        self._piece = oracle.piece
        self._prompts = PromptBuilder(
            template=oracle.traits.template,
            tokenize=oracle.tokenize,
            piece=oracle.piece,
            control_tokens=oracle.traits.control_tokens,
            bos=oracle.traits.bos,
            eos=oracle.traits.eos,
            add_bos=oracle.traits.add_bos,
            tokenizer=TOKENIZER,
        )
        self.now = 0.0
        self.check_reload: Callable[[], None] = lambda: None
        self.sleep = Sleep(
            self.backend,
            keep_alive_s,
            tell=lambda event: self._emit(None, event),
            ready=HOST_READY,
            check=lambda: self.check_reload(),
            clock=lambda: self.now,
        )
        self.available_bytes = 1 << 34
        self.loop = EngineLoop(
            self.backend,
            settings,
            "fingerprint",
            self._emit,
            lambda: self.available_bytes,
            make_swapper=self._swapper_for(disk, disk_limit) if disk else None,
            sleep=self.sleep,
            clock=lambda: self.machine.now,
        )
        self.events: list[tuple[str | None, events.Event]] = []
        self.asked: dict[str, Asked] = {}
        self._ids = itertools.count(1)
        self.seen: set[tuple[int, ...]] = set()
        self.swapped_out: set[str] = set()

    def _swapper_for(self, folder: Path, limit: str) -> MakeSwapper:
        can_trim = self.kind.value.can_trim
        model = Model("fingerprint", root_key("fingerprint"), BLOCK, can_trim, "fake", "", "", "")

        def make(tell: Callable[[Result], None]) -> SteppedSwapper:
            self.swapper = SteppedSwapper(Folder(folder, model, disk_bytes, lambda _: ""), limit, tell)
            return self.swapper

        return make

    def close(self) -> None:
        """End as a host does that was asked to."""
        self.post(commands.StopHost())
        if self.swapper is not None:
            self.swapper.eager = True
            self.swapper.serve_all()
        self.loop.run()

    def _emit(self, client: str | None, event: events.Event) -> None:
        self.events.append((client, event))
        match event:
            case events.RequestStarted():
                asked = self.asked[event.request_id]
                assert asked.started is None
                assert not asked.ended
                asked.started = event
                others = [
                    tuple(r.known)
                    for r in self.loop.requests.running.values()
                    if r.request is not asked.request
                ]
                asked.reusable = max(
                    (common_prefix(asked.prompt, tokens) for tokens in (*self.seen, *others)), default=0
                )
                self.seen.add(asked.prompt)
            case events.TokensGenerated():
                asked = self.asked[event.request_id]
                assert not asked.ended, "nothing comes after the end"
                asked.text += event.text
            case events.RequestFinished():
                self.asked[event.request_id].ended.append(event)

    # ---- what a front end does

    def post(self, command: commands.Command, client: str = CLIENT) -> None:
        self.loop.post(Envelope(client, command))

    def submit(
        self,
        session: str,
        messages: list[ChatMessage],
        *,
        max_tokens: int | None = 12,
        side_task: bool = False,
        store: bool | None = None,
        client: str = CLIENT,
        stop: tuple[str, ...] = (),
        urgent: bool = False,
        json_schema: str = "",
        grammar: str = "",
        may_shift: bool = False,
    ) -> Asked:
        request = Request(
            id=f"r{next(self._ids)}",
            session=session,
            messages=tuple(messages),
            kind=RequestKind.SIDE_TASK if side_task else RequestKind.CHAT,
            title=session,
            sampling=GREEDY,
            max_tokens=max_tokens,
            stop=stop,
            store=not side_task if store is None else store,
            urgent=urgent,
            json_schema=json_schema,
            grammar=grammar,
            may_shift=may_shift,
        )
        asked = Asked(request, self._prompts.build(request.messages), client)
        self.asked[request.id] = asked
        self.post(commands.Submit(request), client)
        return asked

    def ask(
        self,
        session: str,
        messages: list[ChatMessage],
        *,
        max_tokens: int | None = 12,
        side_task: bool = False,
        store: bool | None = None,
        stop: tuple[str, ...] = (),
    ) -> Asked:
        """Submit, and serve until everything has ended."""
        asked = self.submit(
            session, messages, max_tokens=max_tokens, side_task=side_task, store=store, stop=stop
        )
        self.drain()
        return asked

    def prepare(
        self,
        session: str,
        messages: list[ChatMessage],
        *,
        client: str = CLIENT,
        complete: bool = False,
        may_shift: bool = False,
    ) -> Asked:
        """Submit a `PREPARE`."""
        request = Request(
            f"p{next(self._ids)}",
            session,
            tuple(messages),
            RequestKind.PREPARE,
            complete=complete,
            may_shift=may_shift,
        )
        asked = Asked(request, (), client)
        self.asked[request.id] = asked
        self.post(commands.Submit(request), client)
        return asked

    def chat(self, session: str, history: list[ChatMessage], text: str, max_tokens: int = 12) -> Asked:
        """One more turn; `history` grows by the message and its answer."""
        history.append(user(text))
        asked = self.ask(session, history, max_tokens=max_tokens)
        history.append(asked.answer())
        return asked

    def focus(self, session: str | None, client: str = CLIENT) -> None:
        self.post(commands.Focus(session), client)
        self.step()

    def client_gone(self, client: str = CLIENT) -> None:
        self.loop.post(ClientGone(client))

    # ---- the engine's side

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            self.seen |= {tuple(r.known) for r in self.loop.requests.running.values()}
            if self.swapper is not None and self.swap_eagerly:
                self.swapper.serve_all()
            self.loop.serve_once(wait=False)
            self.seen |= {tuple(work.tokens or ()) for work in self.loop.preparing.works}
            self.swapped_out |= {r.request.id for r in self.loop.requests.waiting if r.started}
            self.check()

    @property
    def busy(self) -> bool:
        return any(not asked.ended for asked in self.asked.values())

    def drain(self) -> None:
        """Serve until every request has ended; steps without any progress must stay few."""
        idle, progress = 0, (0, 0)
        while self.busy:
            if self.swapper is not None:
                self.swapper.serve_all()
            self.step()
            now = (self.backend.num_decoded, sum(bool(asked.ended) for asked in self.asked.values()))
            idle, progress = (idle + 1, progress) if now == progress else (0, now)
            assert idle < MAX_IDLE_STEPS, "the engine makes no progress"

    def talkative(self, before: list[ChatMessage], count: int, num_tokens: int) -> list[ChatMessage]:
        """`before` and a message of `count` tokens, to which the answer has `num_tokens` tokens or more."""
        for start in range(100):
            messages = [*before, user(words(count, start))]
            prompt = self._prompts.build(messages)
            if len(cold_reply(self.kind, prompt, num_tokens)) >= num_tokens:
                return messages
        raise AssertionError("no such message")

    def serve_until(self, happened: Callable[[], bool]) -> None:
        """Serve until something has happened."""
        for _ in range(MAX_STEPS):
            if happened():
                return
            self.step()
        raise AssertionError("it does not happen")

    def run_until_started(self, asked: Asked) -> None:
        while asked.started is None:
            self.step()

    # ---- what must hold

    def check(self) -> None:
        """Everything that holds between two steps."""
        self._check_slots()
        self._check_cache()

    def _check_slots(self) -> None:
        loop, backend = self.loop, self.backend
        used = {sequence.seq: sequence for sequence in loop.slots.used()}
        assert loop.slots.num_free + len(used) == loop.slots.num_slots
        assert backend.is_empty(loop.slots.scratch)
        for seq in range(loop.slots.num_slots):
            if seq not in used:
                assert backend.is_empty(seq)
                continue
            sequence = used[seq]
            assert backend.length(seq) == len(sequence.tokens)
            if self.kind.has_attention:
                assert backend.tokens_of(seq) == sequence.tokens
                assert loop.mover.cells.count(seq) == len(sequence.tokens)
            if sequence.owner is not None:
                running = loop.requests.running[sequence.owner]
                assert running.sequence is sequence
                assert running.known[: len(sequence.tokens)] == sequence.tokens
        if self.kind.has_attention:
            assert loop.mover.cells.num_used == backend.num_used()
        for running in loop.requests.running.values():
            assert running.sequence is not None
            assert running.sequence.owner == running.request.id
        assert all(running.sequence is None for running in loop.requests.waiting)
        open_samplers = [sampler for sampler in backend.samplers if not sampler.closed]
        started = [a for a in self.asked.values() if a.started is not None and not a.ended]
        assert len(open_samplers) == len(started)

    def _check_cache(self) -> None:
        loop = self.loop
        loop.index.check()
        holds: Counter[bytes] = Counter()
        for sequence in loop.slots.used():
            tokens: list[int] = []
            for block in sequence.stored:
                assert loop.index.get(block.key) is block
                assert block.num_tokens == BLOCK
                tokens += block.tokens
                holds[block.key] += 1
            assert tokens == sequence.tokens[: len(tokens)]
        disk = loop._control.disk
        fetches: dict[int, Fetch] = {}
        if disk is not None:
            holds.update(list(disk._in_flight))
            fetches |= {id(f): f for f in disk._fetches.values()}
            fetches |= {id(r.fetch): r.fetch for r in loop.requests.waiting if r.fetch is not None}
            fetches |= {id(w.fetch): w.fetch for w in loop.preparing.works if w.fetch is not None}
            for fetch in fetches.values():
                holds.update(block.key for block in fetch.held)
        blocks = list(loop.index)
        assert {block.key: block.users for block in blocks if block.users} == dict(holds)
        ahead = loop.ledger.ahead
        assert ahead.tokens == ahead.used_tokens + ahead.wasted_tokens + ahead.open_tokens
        host = loop.host
        assert {block.key for block in blocks} == set(host._blobs)
        coming = [blob for fetch in disk._fetches.values() for blob in fetch.blobs] if disk else []
        assert host.num_bytes == sum(block.num_bytes for block in blocks) + sum(b.held for b in coming)
        assert host.num_bytes == sum(blob.held for blob in [*host._blobs.values(), *coming])
        assert host.num_tokens == sum(block.num_tokens for block in blocks) + sum(
            blob.num_tokens for blob in coming
        )
        # Only what is being written or read, or was fetched for a request that waits, and what it stands on,
        # may outstay a limit that was lowered.
        over = host.excess()
        if over != (0, 0) or (host.limits.off and blocks):
            assert disk is not None
            assert disk._in_flight or disk._fetches or fetches
            assert all(block.users or block.children for block in blocks)

    def check_ended(self, asked: Asked) -> None:
        """The reply is the cold one (or a beginning of it), and the counts are right."""
        end, prompt = asked.finished, asked.prompt
        stats = end.stats
        if asked.request.kind is RequestKind.PREPARE:
            assert (asked.started, end.reply, end.tokens) == (None, "", ())
            assert end.reason in (FinishReason.STOP, FinishReason.CANCELLED, FinishReason.FAILED)
            return
        assert asked.text == end.reply
        assert end.tokenizer == TOKENIZER
        if end.reason is FinishReason.FAILED and asked.started is None:
            assert end.error
            return
        tokens = cold_reply(self.kind, prompt, max(stats.generated_tokens, 1))
        expected = TextStream(asked.request.stop, asked.begun)
        for token in tokens[: stats.generated_tokens]:
            expected.push(self._piece(token))
        expected.finish()
        assert end.reply == expected.text
        assert list(end.tokens) == tokens[: len(end.tokens)]
        assert end.reply.startswith(self._prompts.text_of(end.tokens))
        assert prompt[len(prompt) - len(end.begun) :] == end.begun
        assert self._prompts.text_of(end.begun) == asked.begun, "what was there stays"
        match end.reason:
            case FinishReason.STOP if not expected.stopped:
                assert (
                    len(cold_reply(self.kind, prompt, stats.generated_tokens + 1)) == stats.generated_tokens
                )
            case FinishReason.LENGTH:
                assert stats.generated_tokens == asked.request.max_tokens
            case FinishReason.CONTEXT_FULL:
                assert len(prompt) + stats.generated_tokens > self.backend.traits.num_cells
            case _:
                pass
        if asked.started is None:
            return
        assert stats.reused.total <= len(prompt) - 1
        assert stats.reused.total <= asked.reusable, "nothing is reused that was not there"
        complete = end.reason in (FinishReason.STOP, FinishReason.LENGTH, FinishReason.CONTEXT_FULL)
        if complete and asked.request.id not in self.swapped_out:
            assert stats.reused.total + stats.processed_tokens == len(prompt)

    def check_all_ended(self) -> None:
        """At the end: every request has ended well, nothing is left over."""
        self.drain()
        for asked in self.asked.values():
            self.check_ended(asked)
        assert all(sampler.closed for sampler in self.backend.samplers)
        assert all(sequence.idle for sequence in self.loop.slots.used())
        assert not self.loop.requests.running
        assert not self.loop.requests.waiting
        assert not self.loop.preparing.works

    def check_nothing_is_held(self) -> None:
        """After all has ended: the context has chats that are looked at, and nothing once nobody looks."""
        focused = self.loop._residency.focused()
        used = [sequence.session for sequence in self.loop.slots.used()]
        assert set(used) <= focused
        assert len(used) == len(set(used))
        for client in list(self.loop._residency._focus):
            self.client_gone(client)
        self.loop._take_commands(0.0)
        assert self.loop.slots.num_free == self.loop.slots.num_slots
        assert self.loop.mover.cells.num_used == 0
        assert not any(block.users for block in self.loop.index)
        self.check()

    def context_of(self, session: str) -> list[int]:
        """Tokens of the session's idle sequence, empty when it is not in the context."""
        found = [s for s in self.loop.slots.idle() if s.session == session]
        assert len(found) <= 1
        return list(found[0].tokens) if found else []

    def stored_blocks(self) -> set[bytes]:
        return {block.key for block in self.loop.index}

    def abort_next(self, result: DecodeResult = DecodeResult.ABORTED) -> None:
        self.backend.next_result = result
