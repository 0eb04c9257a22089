"""Compaction: the oldest part of a chat becomes a summary before the chat outgrows the context.

A side task writes the summary ahead of time, while the user reads and types. Once it is stored, the chat goes
on from system prompt, summary and the messages behind it; the messages themselves stay as they are. Whatever
goes wrong leaves the chat as it was. Runs in the event loop. Never imports Textual.

    reply ends ─▶ past the mark? ─▶ side task ─▶ stored ─▶ the new prompt is processed ahead
    message sent, no room ─▶ wait for the one that runs, or run it ─▶ sent; without one: left out, and told
"""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from samovar.chats import changes
from samovar.chats.chat import Chat
from samovar.chats.compaction_plan import Part, instruction, next_part, usable
from samovar.chats.host_state import HostPhase, HostState
from samovar.chats.sent import Sender, active, behind, standing
from samovar.chats.shared import Shared
from samovar.chats.side_tasks import THINKING_TOKENS, TaskRun, TaskState
from samovar.core.chat import GREEDY, ChatMessage, Role
from samovar.core.commands import Cancel, Submit
from samovar.core.errors import SamovarError
from samovar.core.events import (
    PrefillProgressed,
    RequestFinished,
    RequestQueued,
    RequestStarted,
    TokensGenerated,
)
from samovar.core.figures import count
from samovar.core.reasoning import answer_of
from samovar.core.request import FinishReason, Request, RequestKind
from samovar.sessions.settings import SessionSettings
from samovar.sessions.store import MessageState, StoredMessage
from samovar.sessions.values import Compaction
from samovar.tasks.spec import TaskSpec

SPEC: Final = TaskSpec("compact", "", help="summarize the oldest part of a chat")
_MAX_ROUNDS: Final = 4  # a chat that has been imported may hold many times the context
_SURE_TOKENS: Final = 256  # fit every context
_UNDER_WAY: Final = frozenset({HostPhase.STARTING, HostPhase.LOADING, HostPhase.LOST})
_UNFINISHED: Final = frozenset({MessageState.STREAMING, MessageState.CUT})

TaskEvent = RequestQueued | RequestStarted | PrefillProgressed | TokensGenerated | RequestFinished


@dataclass(slots=True)
class _Job:
    """A summary that is being written. `done` tells whether the chat goes on from it."""

    chat: Chat
    summarized: tuple[StoredMessage, ...]
    num_messages: int
    run: TaskRun
    done: asyncio.Future[bool]
    base_tokens: int
    thinks: bool = False  # its prompt has opened the thinking
    parts: list[str] = field(default_factory=list)


class Compacting:
    """Summarizes chats.

    `listed` hears of every run and of what cancels it, for the list of side tasks; `changed` hears of chats
    that will be sent otherwise from now on.
    """

    def __init__(
        self,
        shared: Shared,
        sender: Sender,
        host: Callable[[], HostState],
        listed: Callable[[TaskRun, Callable[[], object]], None],
        changed: Callable[[Chat], None],
    ) -> None:
        self._shared = shared
        self._sender = sender
        self._host = host
        self._listed = listed
        self._changed = changed
        self._jobs: dict[str, _Job] = {}  # by request
        self._told = set[str]()  # chats of which the user knows that it does not work
        self._hopeless: dict[str, int] = {}  # by chat: the end of a part that the model could not summarize
        self._known = asyncio.Event()  # it is known which model there is, or that there is none

    # Ahead of time

    def ended(self, chat: Chat) -> None:
        """A reply of this chat has ended: summarize the oldest part if the context fills up."""
        if (
            self._sender.context_full(chat) == "compact"
            and self._sender.may_summarize(chat)
            and not any(one.is_undone for one in self._applicable(chat))
            and self._sender.is_past_mark(chat)
        ):
            self._start(chat, is_urgent=False)

    # In time

    def is_needed(self, chat: Chat, path: Sequence[StoredMessage], settings: SessionSettings) -> bool:
        """Whether a request for this path has to wait: for a summary, or for the size of the context."""
        mode = self._sender.context_full(chat, settings)
        if self._sender.context_tokens is None:
            is_coming = self._host().phase in _UNDER_WAY
            return mode != "stop" and is_coming and self._sender.size(chat, path) > _SURE_TOKENS
        return (
            mode == "compact"
            and self._sender.may_summarize(chat, settings)
            and self._sender.needs_room(chat, path, settings)
            and (self._job_of(chat) is not None or self._next(chat) is not None)
        )

    async def make_room(self, chat: Chat, settings: SessionSettings) -> None:
        """Summarize until the chat's path leaves room for a reply, or nothing helps."""
        mine: str | None = None
        while self._sender.context_tokens is None and self._host().phase in _UNDER_WAY:
            self._known.clear()
            await self._known.wait()
        if not self.is_needed(chat, chat.path or (), settings):
            return
        try:
            for _ in range(_MAX_ROUNDS):
                job = self._job_of(chat)
                if job is None:
                    job = self._start(chat, is_urgent=True)
                    mine = job.run.id if job is not None else None
                if job is None or not await asyncio.shield(job.done):
                    return
                if not self._sender.needs_room(chat, chat.path or (), settings):
                    return
        except asyncio.CancelledError:
            if mine is not None:
                self.cancel(mine)
            raise

    def host_changed(self) -> None:
        """The engine is another one, or in another state."""
        self._known.set()

    # Asked for

    async def compact(self, chat: Chat) -> str:
        """Summarize the oldest part now, or let a summary that was undone stand again; says what was done.

        Raises SamovarError where it cannot be.
        """
        if chat.is_busy:
            raise SamovarError("the reply is still being written: esc stops it")
        undone = next((one for one in reversed(self._applicable(chat)) if one.is_undone), None)
        if undone is not None:
            await self._mark(chat, undone, is_undone=False)
            return f"the summary of {undone.num_messages:,} messages stands again"
        if self._sender.context_tokens is None:
            raise SamovarError("the engine is not ready yet: try again in a moment")
        self._hopeless.pop(chat.id, None)
        job = self._job_of(chat) or self._start(chat, is_urgent=True)
        if job is None:
            raise SamovarError("there is nothing to summarize: the last turns are kept as they are")
        if not await asyncio.shield(job.done):
            raise SamovarError(f"nothing was summarized: {job.run.error or 'stopped'}")
        made = self.undoable(chat)
        return "" if made is None else figures(chat, made)

    def undoable(self, chat: Chat) -> Compaction | None:
        """The summary that the chat goes on from now."""
        return standing(chat.path or (), chat.compactions)

    async def undo(self, chat: Chat) -> str:
        """Let the chat go on from all its messages again, or from an earlier summary; says what was done."""
        made = self.undoable(chat)
        if made is None:
            raise SamovarError("nothing of this chat is summarized")
        if (job := self._job_of(chat)) is not None:
            self.cancel(job.run.id)
        await self._mark(chat, made, is_undone=True)
        return f"{made.num_messages:,} messages are sent in full again; /compact summarizes them"

    def is_running(self, chat: Chat) -> bool:
        """Whether a summary of this chat is being written."""
        return self._job_of(chat) is not None

    def cancel(self, run_id: str) -> bool:
        """End a run; False if it is none of ours, or has ended."""
        job = self._jobs.get(run_id)
        if job is None:
            return False
        self._shared.client.send(Cancel(run_id))
        return True

    def stop(self, chat: Chat) -> None:
        """End what runs on a chat."""
        if (job := self._job_of(chat)) is not None:
            self.cancel(job.run.id)

    def close(self) -> None:
        """End all that runs; nobody waits for it any more."""
        for job in self._jobs.values():
            self._shared.client.send(Cancel(job.run.id))
            if not job.done.done():
                job.done.set_result(False)
        self._jobs.clear()

    # Events

    def handle(self, event: TaskEvent) -> bool:
        """Take in what happened to a request; False if it is none of ours."""
        job = self._jobs.get(event.request_id)
        if job is None:
            return False
        run = job.run
        match event:
            case RequestQueued(position=position, estimate_ms=estimate_ms):
                run.position, run.estimate_ms = position, estimate_ms
            case RequestStarted(stats=stats, thinks=thinks):
                run.state, run.stats, job.thinks = TaskState.RUNNING, stats, thinks
            case TokensGenerated(text=text):
                job.parts.append(text)
                run.text = answer_of("".join(job.parts), thinks=job.thinks)
            case RequestFinished():
                run.stats = event.stats
                self._shared.archive.spawn(self._finish(job, event))
            case _:
                return True
        self._shared.notify(changes.TasksChanged())
        return True

    # Inside

    def _job_of(self, chat: Chat) -> _Job | None:
        return next((job for job in self._jobs.values() if job.chat is chat), None)

    def _applicable(self, chat: Chat) -> list[Compaction]:
        """Summaries of the shown path, also those that are undone, the oldest first."""
        ids = {message.id for message in chat.path or ()}
        return [one for one in chat.compactions if one.upto_id in ids]

    def _next(self, chat: Chat) -> Part | None:
        path = chat.path or []
        if path and path[-1].state in _UNFINISHED:  # it may be gone on with
            path = path[:-1]
        if self._sender.context_tokens is None or not path:
            return None
        sizes = self._sender.sizes(chat, path)
        first = len(path) - len(behind(path, active(path, chat.compactions)))
        base = self._sender.base_size(chat, path)
        part = next_part(path, first, sizes, base, self._sender.context_tokens, self._thinking_tokens())
        is_hopeless = part is not None and self._hopeless.get(chat.id) == path[part.upto].id
        return None if is_hopeless else part

    def _thinking_tokens(self) -> int:
        """What the model may think before it writes a summary."""
        context_tokens = self._sender.context_tokens or 0
        return min(THINKING_TOKENS, context_tokens // 4) if self._host().thinks else 0

    def _start(self, chat: Chat, *, is_urgent: bool) -> _Job | None:
        part = self._next(chat)
        phase = self._host().phase
        can_run = phase is not HostPhase.FAILED if is_urgent else phase is HostPhase.READY
        if (
            chat.id not in self._shared.roster.chats
            or part is None
            or not can_run
            or not chat.in_store
            or self._job_of(chat) is not None
        ):
            return None
        assert chat.path is not None
        path = chat.path[: part.upto + 1]
        earlier = active(chat.path, chat.compactions)
        text = instruction(part.max_tokens, is_first=earlier is None)
        messages = (*self._sender.summarized(chat, path, earlier), ChatMessage(Role.USER, text))
        run = TaskRun(uuid.uuid4().hex, SPEC, chat.id, chat.title, "", started_at=self._shared.clock())
        request = Request(
            id=run.id,
            session=chat.id,
            messages=messages,
            kind=RequestKind.SIDE_TASK,
            title=chat.title,
            sampling=GREEDY,
            max_tokens=part.max_tokens + self._thinking_tokens(),
            store=False,
            urgent=is_urgent,
        )
        base_tokens = self._sender.size_of_text(chat, text)
        if chat.system_prompt:
            base_tokens += self._sender.size_of_text(chat, chat.system_prompt)
        done = asyncio.get_running_loop().create_future()
        job = _Job(chat, tuple(path), len(path), run, done, base_tokens)
        self._jobs[run.id] = job
        self._listed(run, lambda: self.cancel(run.id))
        self._shared.client.send(Submit(request))
        self._shared.notify(changes.TasksChanged())
        self._shared.notify(changes.ContextChanged(chat.id))
        return job

    async def _finish(self, job: _Job, event: RequestFinished) -> None:
        run, chat = job.run, job.chat
        is_good = False
        try:
            is_good = await self._store(job, event)
        finally:
            self._jobs.pop(run.id, None)
            run.ended_at = self._shared.clock()
            if is_good:
                run.state = TaskState.DONE
            else:
                was_cancelled = event.reason is FinishReason.CANCELLED
                run.state = TaskState.CANCELLED if was_cancelled else TaskState.FAILED
            if not job.done.done():
                job.done.set_result(is_good)
            self._shared.notify(changes.TasksChanged())
            self._shared.notify(changes.ContextChanged(chat.id))
        if is_good:
            self._told.discard(chat.id)
            self._hopeless.pop(chat.id, None)
            if not chat.is_busy:
                self._changed(chat)
        elif run.error and chat.id not in self._told:
            self._told.add(chat.id)
            self._shared.complain(f"the oldest messages could not be summarized: {run.error}")

    async def _store(self, job: _Job, event: RequestFinished) -> bool:
        """Keep the summary; False, with the reason in the run, if there is none that can be used."""
        run, chat = job.run, job.chat
        if event.reason is FinishReason.CANCELLED:
            return False
        if event.reason not in (FinishReason.STOP, FinishReason.LENGTH):
            run.error = event.error or "the engine stopped"
            return False
        model = self._host().model
        is_cut = event.reason is FinishReason.LENGTH
        summary = usable(event.reply, is_cut=is_cut, thinks=job.thinks)
        num_tokens = max(0, event.stats.prompt_tokens - job.base_tokens)
        summary_tokens = event.stats.generated_tokens - event.stats.thinking_tokens
        if not summary:
            run.error = "the summary was cut off" if is_cut else "the model wrote nothing"
        elif summary_tokens >= num_tokens:
            run.error = "the summary is no shorter than the messages themselves"
        if run.error:  # the same request would bring the same again
            self._hopeless[chat.id] = job.summarized[-1].id
            return False
        if not self._is_as_it_was(job):
            run.error = "the chat has been changed meanwhile"
            return False
        upto_id = job.summarized[-1].id
        try:
            made = await self._shared.archive.run(
                lambda store: store.compactions.add(
                    upto_id,
                    summary,
                    num_messages=job.num_messages,
                    tokens_before=num_tokens,
                    tokens_after=summary_tokens,
                    model=model.name if model is not None else "",
                )
            )
        except SamovarError as error:
            run.error = str(error)
            return False
        run.result = made.summary
        if made not in chat.compactions:
            chat.compactions = (*chat.compactions, made)
        return True

    def _is_as_it_was(self, job: _Job) -> bool:
        """Whether the chat still begins with what has been summarized."""
        path = job.chat.path
        if path is None or job.chat.id not in self._shared.roster.chats:
            return False
        begins = [(message.id, message.content) for message in path[: len(job.summarized)]]
        return begins == [(message.id, message.content) for message in job.summarized]

    async def _mark(self, chat: Chat, one: Compaction, *, is_undone: bool) -> None:
        await self._shared.archive.run(
            lambda store: store.compactions.set_undone(one.id, is_undone=is_undone)
        )
        chat.compactions = tuple(
            msgspec.structs.replace(other, is_undone=is_undone) if other.id == one.id else other
            for other in chat.compactions
        )
        self._shared.notify(changes.ContextChanged(chat.id))
        self._changed(chat)


def figures(chat: Chat, one: Compaction) -> str:
    """A summary in figures: `summarized: 14 messages · 1,310 → 96 tokens`."""
    return f"summarized: {sizes_in_words(chat, one)}"


def sizes_in_words(chat: Chat, one: Compaction) -> str:
    """What a summary stands for, and what it saves: `14 messages · 1,310 → 96 tokens`."""
    before, after = count(_whole_tokens(chat, one)), count(one.tokens_after)
    return f"{one.num_messages:,} messages · {before} → {after} tokens"


def _whole_tokens(chat: Chat, one: Compaction) -> int:
    """The tokens of the messages themselves, also of those for which an earlier summary stood already."""
    path = chat.path or []
    end = next((place for place, message in enumerate(path) if message.id == one.upto_id), len(path))
    earlier = standing(path[:end], [other for other in chat.compactions if other.id < one.id])
    if earlier is None:
        return one.tokens_before
    return one.tokens_before - earlier.tokens_after + _whole_tokens(chat, earlier)
