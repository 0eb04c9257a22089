"""Side tasks of this front end: started, followed, ended; their results until they are discarded.

A task is asked behind the chat's last reply and changes nothing of the chat but, in the end, its title or its
tags. Runs in the event loop and owns every `TaskRun`. Never imports Textual.
"""

import asyncio
import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from samovar.chats import changes
from samovar.chats.chat import Chat, auto_title
from samovar.chats.host_state import HostPhase, HostState
from samovar.chats.profile import Profile
from samovar.chats.sent import Sender
from samovar.chats.shared import Shared
from samovar.core.chat import Role
from samovar.core.commands import Cancel, Submit
from samovar.core.errors import SamovarError
from samovar.core.events import (
    PrefillProgressed,
    RequestFinished,
    RequestQueued,
    RequestStarted,
    TokensGenerated,
)
from samovar.core.figures import count, duration
from samovar.core.reasoning import answer_of
from samovar.core.request import FinishReason, RequestStats
from samovar.sessions.store import MessageState, StoredMessage
from samovar.tasks.answer import is_about, meaning
from samovar.tasks.prompt import Filling, about, side_request
from samovar.tasks.spec import Output, Scope, TaskSpec, When
from samovar.tasks.user import TaskShelf

MAX_KEPT: Final = 50
THINKING_TOKENS: Final = 1024
"""What a model that reasons may think, besides its answer; nothing where the answer has to be in a form."""
TELL_EVERY_S: Final = 0.1

_CUTS: Final = {
    FinishReason.LENGTH: "cut at {} tokens",
    FinishReason.CONTEXT_FULL: "cut: chat and answer fill the context",
}

TaskEvent = RequestQueued | RequestStarted | PrefillProgressed | TokensGenerated | RequestFinished


class TaskState(enum.Enum):
    """How far a side task is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(slots=True, eq=False)
class TaskRun:
    """One run of a task. `text` is what has been generated so far but for thinking, `result` what came of it
    in the end.

    `id` is that of its request; `position` and `estimate_ms` are of waiting, `read_tokens` and
    `to_read_tokens` of processing the prompt. `results` are the texts that `result` shows as one: tags,
    suggestions. `note` says what there is to know about a result: that it is cut, say; `did` what it has done
    to the chat. Times: seconds since the epoch.
    """

    id: str
    spec: TaskSpec
    session: str
    chat_title: str
    asked: str  # what the user typed, or the beginning of the message that it is about
    started_at: float
    input: str = ""
    message_id: int | None = None
    urgent: bool = True
    state: TaskState = TaskState.WAITING
    text: str = ""
    num_tokens: int = 0
    result: str = ""
    results: tuple[str, ...] = ()
    note: str = ""
    did: str = ""
    error: str = ""
    stats: RequestStats | None = None
    position: int = 0
    estimate_ms: float | None = None
    read_tokens: int = 0
    to_read_tokens: int = 0
    ended_at: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether it has not ended yet."""
        return self.state in (TaskState.WAITING, TaskState.RUNNING)


@dataclass(slots=True)
class _Job:
    """What only the runner knows of a run until its request has ended. `timer` cancels it when it is late."""

    run: TaskRun
    chat: Chat
    max_tokens: int
    parts: list[str] = field(default_factory=list)
    thinks: bool = False  # its prompt has opened the thinking
    timer: asyncio.TimerHandle | None = None
    is_late: bool = False


class SideTasks:
    """Runs side tasks on chats. `tasks_dir` holds the user's own, None for none; `host` tells its state."""

    def __init__(
        self,
        shared: Shared,
        sender: Sender,
        profile: Profile,
        host: Callable[[], HostState],
        tasks_dir: Path | None = None,
    ) -> None:
        self._shared = shared
        self._sender = sender
        self._profile = profile
        self._host = host
        self._shelf = TaskShelf(tasks_dir)
        self._runs: list[TaskRun] = []
        self._jobs: dict[str, _Job] = {}
        self._titled = set[str]()  # chats for which a title has been asked
        self._adopted: dict[str, Callable[[], object]] = {}  # what cancels runs that others look after
        self._tell_timer: asyncio.TimerHandle | None = None
        self._replaced: dict[str, tuple[str, str]] = {}  # by chat: the title before a task's, and that one

    @property
    def specs(self) -> tuple[TaskSpec, ...]:
        """The tasks that can be run: built-in ones first, then the user's by name."""
        return self._shelf.specs()

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with files of the user's, a sentence each."""
        self._shelf.specs()
        return self._shelf.problems

    @property
    def tasks_dir(self) -> Path | None:
        """Where the user's own tasks are."""
        return self._shelf.folder

    @property
    def runs(self) -> list[TaskRun]:
        """All runs that are kept, the newest first."""
        return self._runs[::-1]

    @property
    def open_runs(self) -> list[TaskRun]:
        """Those that wait or run, the newest first."""
        return [run for run in self.runs if run.is_open]

    def spec(self, name: str) -> TaskSpec:
        """The task of this name; SamovarError if there is none, or why a file of the user's is none."""
        specs, name = self.specs, name.strip().lower()
        found = next((spec for spec in specs if spec.name == name), None)
        if found is None and name in self._shelf.missing:
            raise SamovarError(self._shelf.missing[name])
        if found is None:
            raise SamovarError(f"there is no task {name}; known are {', '.join(spec.name for spec in specs)}")
        return found

    # Asked for

    def refusal(self, chat: Chat, spec: TaskSpec, *, text: str = "", message_id: int | None = None) -> str:
        """Why this task cannot be run on this chat now; empty if it can."""
        if chat.id not in self._shared.roster.chats:
            return "this chat has been deleted"
        if chat.path is None:
            return "the messages of this chat are still being read"
        if not _answered(chat.path):
            return "there is no reply in this chat yet"
        if message_id is not None and chat.message(message_id) is None:
            return "this message is not on the branch that is shown"
        if spec.needs_input and not (text.strip() or spec.default_input):
            return f"{spec.name} needs to know more: write /{_typed(spec)} {spec.needs_input}"
        return ""

    def run(
        self,
        chat: Chat,
        spec: TaskSpec,
        *,
        text: str = "",
        message_id: int | None = None,
        urgent: bool = True,
    ) -> TaskRun:
        """Start a task on a chat; SamovarError if it cannot be. `urgent`: the user waits for it."""
        if refusal := self.refusal(chat, spec, text=text, message_id=message_id):
            raise SamovarError(refusal)
        assert chat.path is not None
        path = _answered(chat.path)
        text = text.strip() or spec.default_input
        message = _message(chat, path, spec, message_id)
        filling = Filling(
            text, message.content if message else "", about(path, message) if message else "", chat.title
        )
        request = side_request(
            spec,
            self._sender.sent(chat, path).messages,
            filling,
            session=chat.id,
            chat_title=chat.title,
            urgent=urgent,
        )
        is_free = not (spec.json_schema or spec.grammar)
        if is_free and self._host().thinks:
            assert request.max_tokens is not None
            request = msgspec.structs.replace(request, max_tokens=request.max_tokens + THINKING_TOKENS)
        if not request.messages[-1].content.strip():
            raise SamovarError(
                f"{spec.name} has nothing to say to the model: write something behind its name"
            )
        run = TaskRun(
            id=request.id,
            spec=spec,
            session=chat.id,
            chat_title=chat.title,
            asked=text or auto_title(message.content if message else ""),
            started_at=self._shared.clock(),
            input=text,
            message_id=message_id,
            urgent=urgent,
        )
        if spec.output is Output.TITLE:
            self._titled.add(chat.id)
        self._runs.append(run)
        self._jobs[run.id] = _Job(run, chat, request.max_tokens or spec.max_tokens)
        self._forget_oldest()
        self._shared.client.send(Submit(request))
        self._tell()
        return run

    def adopt(self, run: TaskRun, cancel: Callable[[], object]) -> None:
        """List a run that somebody else looks after, and who ends it by `cancel`."""
        self._runs.append(run)
        self._adopted[run.id] = cancel
        self._forget_oldest()
        self._tell()

    def cancel(self, run_id: str) -> bool:
        """End a run that waits or runs; what comes of it is not used any more. False if it had ended."""
        if run_id in self._adopted:
            run = next((run for run in self._runs if run.id == run_id), None)
            if run is None or not run.is_open:
                return False
            self._adopted[run_id]()
            return True
        job = self._jobs.get(run_id)
        if job is None or not job.run.is_open:
            return False
        self._shared.client.send(Cancel(run_id))
        self._end(job, TaskState.CANCELLED)
        return True

    def again(self, run_id: str) -> TaskRun:
        """Start the same task with the same input once more; SamovarError if it cannot be."""
        run = self._run(run_id)
        chat = self._shared.roster.chats.get(run.session)
        if chat is None:
            raise SamovarError("this chat has been deleted")
        if run_id in self._adopted:
            raise SamovarError(f"write /{run.spec.name} in that chat to have it done again")
        return self.run(chat, run.spec, text=run.input, message_id=run.message_id)

    def discard(self, run_id: str) -> None:
        """Let go of a run and its result; one that has not ended is cancelled."""
        run = self._run(run_id)
        self.cancel(run_id)
        self._runs.remove(run)
        self._adopted.pop(run_id, None)
        self._tell()

    def _run(self, run_id: str) -> TaskRun:
        found = next((run for run in self._runs if run.id == run_id), None)
        if found is None:
            raise SamovarError("this side task has been discarded")
        return found

    def undoable_title(self, chat: Chat) -> str:
        """The title that a chat had before a task gave it the one it has; empty if no task did."""
        before, title = self._replaced.get(chat.id, ("", ""))
        return before if chat.title == title else ""

    def undo_title(self, chat: Chat) -> str:
        """Give a chat back the title that a task has replaced; returns it, empty if there is none."""
        if before := self.undoable_title(chat):
            del self._replaced[chat.id]
            self._profile.rename(chat, before)
        return before

    # By themselves

    def ended(self, chat: Chat) -> None:
        """A reply of this chat has ended: start what runs by itself then."""
        if not self._starts_by_itself(chat) or not chat.path:
            return
        replies = [message for message in chat.path if message.role is Role.ASSISTANT]
        if not replies or replies[-1].state is not MessageState.COMPLETE:
            return
        is_first = sum(reply.state is MessageState.COMPLETE for reply in replies) == 1
        for spec in self.specs:
            is_title = spec.output is Output.TITLE
            is_its_moment = spec.when is When.EVERY_REPLY or (
                spec.when is When.FIRST_REPLY and (chat.id not in self._titled if is_title else is_first)
            )
            if not is_its_moment or self.refusal(chat, spec):
                continue
            if any(run.session == chat.id and run.spec.name == spec.name for run in self.open_runs):
                continue
            if not is_title or _has_auto_title(chat):
                try:
                    self.run(chat, spec, urgent=False)
                except SamovarError as error:  # a prompt of the user's own that comes to nothing, say
                    self._shared.complain(str(error))

    def _starts_by_itself(self, chat: Chat) -> bool:
        return (
            self._shared.config.side_tasks == "on"
            and chat.settings.side_tasks is not False
            and chat.in_store
            and self._host().phase is HostPhase.READY
        )

    def deleted(self, chat: Chat) -> None:
        """A chat has been deleted: what runs on it ends."""
        for run in self.open_runs:
            if run.session == chat.id:
                self.cancel(run.id)

    def close(self) -> None:
        """End all that runs."""
        for run in self.open_runs:
            self.cancel(run.id)
        if self._tell_timer is not None:
            self._tell_timer.cancel()

    # Events

    def handle(self, event: TaskEvent) -> bool:
        """Take in what happened to a task's request; False if it is none of ours."""
        job = self._jobs.get(event.request_id)
        if job is None:
            return False
        run = job.run
        if isinstance(event, RequestFinished):
            del self._jobs[event.request_id]
            run.stats = event.stats
            if run.is_open:
                self._finish(job, event)
            return True
        if not run.is_open:
            return True
        match event:
            case RequestQueued(position=position, estimate_ms=estimate_ms):
                run.position, run.estimate_ms = position, estimate_ms
            case RequestStarted(stats=stats, thinks=thinks):
                run.state, run.stats, job.thinks = TaskState.RUNNING, stats, thinks
                if job.timer is None:
                    loop = asyncio.get_running_loop()
                    job.timer = loop.call_later(run.spec.timeout_s, self._expire, job)
                self._tell()
            case PrefillProgressed(done=done, total=total):
                run.read_tokens, run.to_read_tokens = done, total
            case TokensGenerated(text=text, num_tokens=num_tokens):
                job.parts.append(text)
                run.text = answer_of("".join(job.parts), thinks=job.thinks)
                run.num_tokens += num_tokens
        self._tell_soon()
        return True

    def _expire(self, job: _Job) -> None:
        job.timer, job.is_late = None, True
        self._shared.client.send(Cancel(job.run.id))

    def _finish(self, job: _Job, event: RequestFinished) -> None:
        run, spec = job.run, job.run.spec
        if event.reply:
            run.text = answer_of(event.reply, thinks=job.thinks)
        match event.reason:
            case FinishReason.CANCELLED if job.is_late:
                self._end(job, TaskState.FAILED, f"took longer than {_span(spec.timeout_s)}")
            case FinishReason.CANCELLED:
                self._end(job, TaskState.CANCELLED, event.error)
            case FinishReason.HOST_LOST:
                self._end(job, TaskState.FAILED, "the engine stopped and is restarting: run it again")
            case FinishReason.FAILED:
                self._end(job, TaskState.FAILED, event.error or "the engine could not do this")
            case reason:
                self._take(job, _CUTS.get(reason, "").format(count(job.max_tokens)))

    def _take(self, job: _Job, cut: str) -> None:
        """Use an answer that has ended, or been `cut` for this reason."""
        run = job.run
        run.results = meaning(run.spec, run.text)
        if not run.results:
            told = "the model gave no answer that can be used"
            if run.stats is not None and run.stats.thinking_tokens and not run.text:
                told = "the model only thought about it, and gave no answer"
            self._end(job, TaskState.FAILED, f"{cut} before there was an answer" if cut else told)
        elif cut and run.spec.output is Output.TITLE:
            self._end(job, TaskState.FAILED, f"{cut}: no title")
        elif run.spec.output is Output.TITLE and not (run.urgent or _is_title_of(run.results[0], job.chat)):
            run.result, run.note = run.results[0], "no word of it is in the chat, which keeps its title"
            self._end(job, TaskState.DONE)
        else:
            run.result = (", " if run.spec.output is Output.TAGS else "\n").join(run.results)
            run.note = self._apply(job) or cut
            self._end(job, TaskState.DONE)

    def _apply(self, job: _Job) -> str:
        """Give the chat its title or its tags; returns why not, empty if that is done or is not asked for."""
        run, chat = job.run, job.chat
        if run.spec.output not in (Output.TITLE, Output.TAGS):
            return ""
        if self._shared.roster.chats.get(chat.id) is not chat:
            return "the chat has been deleted meanwhile"
        if run.spec.output is Output.TAGS:
            new = [tag for tag in run.results if tag not in chat.tags]
            if not new:
                return "the chat had these tags already"
            self._profile.set_tags(chat, {*chat.tags, *new})
            run.did = f"{'tag' if len(new) == 1 else 'tags'} added: {', '.join(new)}"
        elif chat.title != run.chat_title or not (run.urgent or _has_auto_title(chat)):
            return "the chat has been given another title meanwhile"
        else:
            before, title = chat.title, run.results[0]
            self._profile.rename(chat, title, instead_of=None if run.urgent else before)
            run.did = f"title: {title}"
            if before and title != before:
                self._replaced[chat.id] = (before, title)
                run.did += " · /undo takes it back"
        return ""

    def _end(self, job: _Job, state: TaskState, error: str = "") -> None:
        run = job.run
        run.state, run.error, run.ended_at = state, error, self._shared.clock()
        if job.timer is not None:
            job.timer.cancel()
            job.timer = None
        self._tell()

    def _forget_oldest(self) -> None:
        num_too_many = max(0, len(self._runs) - MAX_KEPT)
        for run in [run for run in self._runs if not run.is_open][:num_too_many]:
            self._runs.remove(run)
            self._adopted.pop(run.id, None)

    # What is told

    def _tell(self) -> None:
        if self._tell_timer is not None:
            self._tell_timer.cancel()
            self._tell_timer = None
        self._shared.notify(changes.TasksChanged())

    def _tell_soon(self) -> None:
        """Tokens come in bursts: they are told of a few times a second."""
        if self._tell_timer is None:
            self._tell_timer = asyncio.get_running_loop().call_later(TELL_EVERY_S, self._tell)


def _answered(path: Sequence[StoredMessage]) -> list[StoredMessage]:
    """The path up to its last reply that says something and has ended; empty if there is none."""
    for end in range(len(path), 0, -1):
        last = path[end - 1]
        if last.role is Role.ASSISTANT and last.content and last.state is not MessageState.STREAMING:
            return list(path[:end])
    return []


def _message(
    chat: Chat, path: Sequence[StoredMessage], spec: TaskSpec, message_id: int | None
) -> StoredMessage | None:
    if message_id is not None:
        return chat.message(message_id)
    return path[-1] if spec.scope is Scope.MESSAGE else None


def _is_title_of(title: str, chat: Chat) -> bool:
    """Whether a title speaks of what is written in the chat."""
    return is_about(title, [message.content for message in chat.path or ()])


def _has_auto_title(chat: Chat) -> bool:
    """Whether the title is the beginning of the first message, and not what somebody has given it."""
    first = next((message for message in chat.path or () if message.role is Role.USER), None)
    return not chat.title or (first is not None and chat.title == auto_title(first.content))


def _span(seconds: float) -> str:
    """A limit in words: `5 min`."""
    return f"{seconds / 60:g} min" if seconds >= 60 and seconds % 60 == 0 else duration(1000 * seconds)


def _typed(spec: TaskSpec) -> str:
    """How the task is called in the composer."""
    return spec.name if spec.is_builtin else f"task {spec.name}"
