"""A client without an engine: records commands, lets a test push events, or plays a whole host."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

import msgspec

from samovar.core.commands import (
    Cancel,
    Command,
    CountTokens,
    Describe,
    Focus,
    Forget,
    Rename,
    SetRamLimit,
    Submit,
)
from samovar.core.events import (
    CacheChanged,
    CommandRefused,
    Event,
    HostReady,
    HostStarting,
    LoadingProgressed,
    ModelInfo,
    PrefillProgressed,
    RequestFinished,
    RequestStarted,
    SwapFinished,
    TokensCounted,
    TokensGenerated,
)
from samovar.core.request import (
    FinishReason,
    Mismatch,
    MismatchReason,
    Request,
    RequestKind,
    RequestStats,
    TierTokens,
)
from samovar.core.snapshot import (
    FREE,
    SHARED,
    CacheSnapshot,
    CellRun,
    ContextUse,
    LastRequest,
    PromptRow,
    Tier,
    TierUse,
    Totals,
)

C = TypeVar("C", bound=Command)

MODEL = ModelInfo(
    name="SmolLM2 135M",
    path="/models/smollm2.gguf",
    family="dense",
    context_tokens=8192,
    trained_context_tokens=8192,
    kv_type_k="f16",
    kv_type_v="f16",
    tokenizer="tok-1",
    fingerprint="f" * 16,
    block_tokens=128,
    has_template=True,
)
KIB_PER_TOKEN = 22.5


class FakeClient:
    """Does nothing by itself: `push` makes events, `sent` holds the commands."""

    def __init__(self) -> None:
        self.sent: list[Command] = []
        self.started = self.closed = False
        self.waiting: asyncio.Queue[Event | None] = asyncio.Queue()

    async def start(self) -> None:
        self.started = True

    async def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.waiting.put_nowait(None)

    def send(self, command: Command) -> None:
        self.sent.append(command)

    async def events(self) -> AsyncIterator[Event]:
        while (event := await self.waiting.get()) is not None:
            yield event

    def push(self, *events: Event) -> None:
        for event in events:
            self.waiting.put_nowait(event)

    def of(self, kind: type[C]) -> list[C]:
        """The commands of one kind, in order."""
        return [command for command in self.sent if isinstance(command, kind)]

    @property
    def requests(self) -> list[Request]:
        """What was asked in chats, in order."""
        return [request for request in self._submitted if request.kind is RequestKind.CHAT]

    @property
    def side_requests(self) -> list[Request]:
        """What side tasks have asked, in order."""
        return [request for request in self._submitted if request.kind is RequestKind.SIDE_TASK]

    @property
    def prepared(self) -> list[Request]:
        """What was prepared ahead, in order."""
        return [request for request in self._submitted if request.kind is RequestKind.PREPARE]

    @property
    def _submitted(self) -> list[Request]:
        return [submit.request for submit in self.of(Submit)]

    # What a host would say

    def ready(self) -> None:
        self.push(HostStarting(), LoadingProgressed("loading the model", 0.4), HostReady(MODEL))

    def begin(self, request: Request, stats: RequestStats | None = None) -> None:
        self.push(RequestStarted(request.id, request.session, stats or STATS))

    def say(self, request: Request, *texts: str) -> None:
        self.push(*(TokensGenerated(request.id, request.session, text, 1) for text in texts))

    def finish(
        self,
        request: Request,
        reply: str,
        reason: FinishReason = FinishReason.STOP,
        *,
        stats: RequestStats | None = None,
        error: str = "",
        tokens: Sequence[int] = (1, 2, 3),
        begun: Sequence[int] = (),
    ) -> None:
        self.push(
            RequestFinished(
                request.id,
                request.session,
                reason,
                reply,
                tuple(tokens),
                MODEL.tokenizer,
                stats or STATS,
                error,
                tuple(begun),
            )
        )


STATS = RequestStats(
    prompt_tokens=3912,
    reused=TierTokens(context=3200, host=688),
    processed_tokens=24,
    generated_tokens=212,
    restore_ms=9.0,
    prefill_ms=130.0,
    first_token_ms=140.0,
    tokens_per_second=76.3,
    mismatch=Mismatch(3888, MismatchReason.NEW_MESSAGE),
)


class ScriptedClient(FakeClient):
    """Plays a host: answers every request with `reply`, token by token, and keeps a plausible cache."""

    def __init__(
        self, reply: str = "", *, tokens_per_second: float = 80.0, known: Sequence[PromptRow] = ()
    ) -> None:
        super().__init__()
        self.reply = reply
        self._interval_s = 1 / tokens_per_second if tokens_per_second else 0.0
        self._prompts = {row.session: row for row in known}
        self._context: dict[str, int] = {}
        self._totals = Totals()
        self._last: LastRequest | None = None
        self.now = 0.0
        self._limit = TierUse(limit_bytes=2048 << 20, setting="auto")
        self._cancelled = set[str]()
        self._tasks = set[asyncio.Task[None]]()

    async def start(self) -> None:
        await super().start()
        self.ready()
        self.push(CacheChanged(self.snapshot()))

    def send(self, command: Command) -> None:
        super().send(command)
        match command:
            case Submit(request) if request.kind is RequestKind.PREPARE:
                self.finish(request, "", stats=RequestStats())
            case Submit(request):
                task = asyncio.create_task(self._answer(request))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case Cancel(request_id):
                self._cancelled.add(request_id)
            case Focus(session) if session in self._prompts:
                row = self._prompts[session]
                self._to_ram()
                self._context = {session: row.tokens}
                self._prompts[session] = msgspec.structs.replace(row, tier=Tier.CONTEXT)
                self.push(
                    SwapFinished(session, True, row.tokens, int(row.tokens * KIB_PER_TOKEN * 1024), 6.2)
                )
                self.push(CacheChanged(self.snapshot()))
            case Rename(session, title) if session in self._prompts:
                self._prompts[session] = msgspec.structs.replace(self._prompts[session], title=title)
            case Forget(session):
                self._prompts.pop(session, None)
            case SetRamLimit("nonsense"):
                self.push(CommandRefused("'nonsense' is no size: write a number with a unit, such as 2GiB."))
            case CountTokens(request_id, texts):
                self.push(TokensCounted(request_id, tuple(len(text) // 4 for text in texts)))
            case Describe():
                self.push(CacheChanged(self.snapshot()))
            case _:
                pass

    def _to_ram(self) -> None:
        for session, row in self._prompts.items():
            if row.tier is Tier.CONTEXT:
                self._prompts[session] = msgspec.structs.replace(row, tier=Tier.HOST)

    async def _answer(self, request: Request) -> None:
        row = self._prompts.get(request.session)
        new_tokens = len(request.messages[-1].content) // 4 + 9
        prompt_tokens = row.tokens + new_tokens if row else 640 + new_tokens
        reused = min(row.tokens, prompt_tokens - 1) if row else 0
        processed = prompt_tokens - reused
        stats = RequestStats(
            prompt_tokens=prompt_tokens,
            reused=TierTokens(context=reused),
            processed_tokens=processed,
            restore_ms=9.0 if reused else 0.0,
            mismatch=Mismatch(reused, MismatchReason.NEW_MESSAGE if row else MismatchReason.NEW_CHAT),
        )
        self.push(RequestStarted(request.id, request.session, stats))
        self.push(PrefillProgressed(request.id, request.session, processed // 2, processed, processed * 3.0))
        text, num_tokens = "", 0
        for word in self.reply.split(" ") if self.reply else []:
            if request.id in self._cancelled:
                break
            await asyncio.sleep(self._interval_s)
            piece = word if not text else " " + word
            text, num_tokens = text + piece, num_tokens + 1
            self.push(TokensGenerated(request.id, request.session, piece, 1))
        stats = msgspec.structs.replace(
            stats, generated_tokens=num_tokens, first_token_ms=21.0, tokens_per_second=78.2
        )
        self._to_ram()
        tokens = prompt_tokens + num_tokens
        self._context = {request.session: tokens}
        self._prompts[request.session] = PromptRow(
            session=request.session,
            title=request.title,
            tokens=tokens,
            context_tokens=tokens,
            host_tokens=tokens,
            disk_tokens=0,
            own_bytes=int(tokens * KIB_PER_TOKEN * 1024),
            shared_bytes=int(660 * KIB_PER_TOKEN * 1024) if len(self._prompts) > 1 else 0,
            tier=Tier.CONTEXT,
            hits=(row.hits if row else 0) + bool(reused),
            last_used=self.now,
        )
        self._totals = msgspec.structs.replace(
            self._totals,
            requests=self._totals.requests + 1,
            hits=self._totals.hits + bool(reused),
            prompt_tokens=self._totals.prompt_tokens + prompt_tokens,
            reused_tokens=self._totals.reused_tokens + reused,
            processed_tokens=self._totals.processed_tokens + processed,
            saved_ms=self._totals.saved_ms + reused * 5.0,
        )
        self._last = LastRequest(request.session, request.title, stats)
        reason = FinishReason.CANCELLED if request.id in self._cancelled else FinishReason.STOP
        self.finish(request, text, reason, stats=stats)
        self.push(CacheChanged(self.snapshot()))

    def snapshot(self) -> CacheSnapshot:
        """The cache as it would be."""
        shared = 660 if len(self._prompts) > 1 else 0
        runs = [CellRun(SHARED, shared)] if shared and self._context else []
        runs += [CellRun(session, max(0, tokens - shared)) for session, tokens in self._context.items()]
        used = sum(run.num_cells for run in runs)
        rows = sorted(self._prompts.values(), key=lambda row: -row.last_used)
        return CacheSnapshot(
            model=MODEL.name,
            context=ContextUse(used, MODEL.context_tokens, used, (*runs, CellRun(FREE, 8192 - used))),
            host=msgspec.structs.replace(
                self._limit, bytes=sum(row.own_bytes for row in rows) + int(shared * KIB_PER_TOKEN * 1024)
            ),
            prompts=tuple(rows),
            totals=self._totals,
            last=self._last,
            bytes_per_token=KIB_PER_TOKEN * 1024,
            prefill_tokens_per_second=210.0,
            decode_tokens_per_second=78.2 if self._totals.requests else None,
        )
