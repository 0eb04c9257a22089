"""`samovar chat`: the same chats, the same engine, one line at a time, on prompt-toolkit.

Runs in one event loop. Prints to the terminal's own scrollback and draws nothing twice.
"""

import asyncio
import contextlib
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from prompt_toolkit import PromptSession, print_formatted_text
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.key_binding.key_processor import KeyPressEvent
from prompt_toolkit.patch_stdout import patch_stdout

from samovar.chats import cache_words, changes, slash
from samovar.chats.command_desk import ANSWERED, CommandDesk
from samovar.chats.compare import Comparison
from samovar.chats.conversation import Conversations
from samovar.chats.side_tasks import SideTasks, TaskState
from samovar.client.interface import Client
from samovar.config import Config
from samovar.core.chat import Role
from samovar.core.errors import SamovarError
from samovar.core.figures import count, duration, mib, percent, rate
from samovar.core.reasoning import Streamed, answer_of
from samovar.core.request import RequestStats
from samovar.core.safe_text import clean
from samovar.core.snapshot import CacheSnapshot, TierUse
from samovar.core.units import format_size
from samovar.repl.typed_ahead import typed_ahead
from samovar.sessions.encoding import storable
from samovar.sessions.lookup import ChatName, look_up
from samovar.sessions.store import MessageState, Store, StoredMessage
from samovar.tasks.spec import Output

EXTRA_HELP: Final = (
    ("/chats", "list the chats; /chats NUMBER goes to one"),
    ("ctrl+j", "breaks the line; enter sends"),
    ("ctrl+c", "stops a reply"),
    ("ctrl+d", "leaves"),
)


MAX_HITS: Final = 10


class LineMode:
    """Reads lines, prints replies. Chats and engine are `Conversations`' business."""

    def __init__(
        self,
        client: Client,
        store: Store,
        config: Config,
        history_file: Path,
        personas_dir: Path | None = None,
        tasks_dir: Path | None = None,
    ) -> None:
        self._client = client
        self._conversations = Conversations(client, store, config, self._on_change, tasks_dir=tasks_dir)
        self._desk = CommandDesk(self._conversations, personas_dir)
        self._ended = asyncio.Event()
        self._is_unread = False
        self._is_keeping = False  # what comes into the chat has been printed as an answer to compare
        self._told_stage = ""
        self._told_runs = set[str]()  # side tasks whose end has been printed
        self._unsent = ""  # a text that could not be sent: the next prompt starts with it
        self._streamed: Streamed | None = None  # the reply that is being printed
        self._was_thinking = False
        self._printed = set[tuple[int, str]]()  # messages of the shown chat, with what was printed of them
        self._prompt: PromptSession[str] = PromptSession(
            history=_History(str(history_file)),
            auto_suggest=AutoSuggestFromHistory(),
            completer=_Commands(),
            complete_while_typing=True,
            multiline=True,
            key_bindings=_keys(),
            bottom_toolbar=self._toolbar,
            prompt_continuation="  ",
        )

    async def run(self, chat_name: str | None) -> int:
        """Chat until the user leaves; returns the exit code."""
        await self._client.start()
        follower = asyncio.create_task(self._follow())
        try:
            await self._conversations.load()
            self._open_first(chat_name)
            for note in self._conversations.notes:
                _say(note, "faint")
            with patch_stdout(raw=True):
                while await self._turn():
                    pass
        finally:
            await self._conversations.close()
            await self._client.close()
            follower.cancel()
        return 0

    async def _turn(self) -> bool:
        """One line of the user's and what follows from it; False to leave."""
        unsent, self._unsent = self._unsent, ""
        try:
            text = await self._prompt.prompt_async("› ", default=unsent)
        except KeyboardInterrupt:
            self._conversations.branches.cancel_edit(self._conversations.shown)
            return True
        except EOFError:
            return False
        if not text.strip():
            self._conversations.branches.cancel_edit(self._conversations.shown)
            return True
        try:
            if text.split(maxsplit=1)[0] == "/chats":
                self._chats(text.strip().removeprefix("/chats").strip())
            elif slash.is_command(text):
                return await self._command(slash.parse(text))
            else:
                await self._say(text)
        except SamovarError as error:
            _say(str(error), "error")
        return True

    async def _say(self, text: str) -> None:
        chat = self._conversations.shown
        if refusal := self._conversations.refusal(chat):
            self._unsent = text
            raise SamovarError(refusal)
        self._ended.clear()
        await self._conversations.send(chat, text)
        await self._wait_for_reply()

    async def _wait_for_reply(self) -> None:
        """Until the reply has ended; Ctrl+C stops it."""
        chat = self._conversations.shown
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._conversations.stop, chat)
        try:
            with typed_ahead():
                while chat.reply is not None:
                    await self._ended.wait()
                    self._ended.clear()
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    # ---- commands

    async def _command(self, command: slash.SlashCommand) -> bool:
        chats = self._conversations
        match command.name:
            case "quit":
                return False
            case "help":
                for usage in slash.USAGES:
                    _say(f"/{usage.name + ' ' + usage.argument:<18} {usage.help}")
                for name, explained in EXTRA_HELP:
                    _say(f"{name:<19} {explained}")
            case "new":
                chats.new()
            case "delete":
                _say(f"deleted {clean(chats.delete(chats.shown.id).title)}; /undo brings it back")
            case "retry" | "continue":
                self._ended.clear()
                await self._desk.run(command)
                await self._wait_for_reply()
            case "compare":
                await self._compare(command.argument)
            case "edit":
                await self._desk.run(command)
                self._unsent = chats.shown.draft
            case "tasks":
                for line in task_lines(chats.tasks):
                    _say(line)
            case "search":
                await self._search(command.argument)
            case name if name in ANSWERED:
                loop = asyncio.get_running_loop()
                loop.add_signal_handler(signal.SIGINT, chats.compacting.stop, chats.shown)
                try:
                    if answer := await self._desk.run(command):
                        _say(answer)
                finally:
                    loop.remove_signal_handler(signal.SIGINT)
            case "cache":
                for line in cache_lines(chats.snapshot):
                    _say(line)
        return True

    async def _compare(self, argument: str) -> None:
        """Print several answers one after another, and ask which of them is kept."""
        comparisons, chat = self._conversations.comparisons, self._conversations.shown
        wish = comparisons.wish(chat, argument, self._desk.personas_dir)
        comparison = await comparisons.begin(chat, wish)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, comparisons.stop, comparison)
        try:
            _say(f"{len(comparison.answers)} answers are being written; ctrl+c stops them", "faint")
            for place, answer in enumerate(comparison.answers, 1):
                with typed_ahead():
                    while answer.message is None:
                        self._ended.clear()
                        await self._ended.wait()
                _say(f"── {place} · {clean(answer.variant.label)} ──", "head")
                _say(clean(answer_of(answer.text, thinks=answer.thinks)))
                _say(clean(answer.message.error), "error" if not answer.text else "faint")
                if answer.stats is not None:
                    _say(cost_line(answer.stats), "faint")
        finally:
            loop.remove_signal_handler(signal.SIGINT)
        self._is_keeping = True
        try:
            await self._keep(comparison)
        finally:
            self._is_keeping = False
            comparisons.discard(comparison)
            if comparison.wish.text and chat.draft:  # its text is there again
                self._unsent = chat.draft
                self._conversations.drafts.typed(chat, "")

    async def _keep(self, comparison: Comparison) -> None:
        comparisons, num_answers = self._conversations.comparisons, len(comparison.answers)
        asked: PromptSession[str] = PromptSession()  # what is chosen is no line of the history
        while True:
            try:
                chosen = (await asked.prompt_async(f"keep 1 … {num_answers}, all, or none › ")).strip()
            except (KeyboardInterrupt, EOFError):
                return
            if chosen in ("", "none"):
                return
            if chosen == "all":
                refusal = await comparisons.keep_all(comparison, 0)
            elif chosen.isascii() and chosen.isdigit() and 1 <= int(chosen[:4]) <= num_answers:
                refusal = await comparisons.keep(comparison, int(chosen) - 1)
            else:
                refusal = f"write a number from 1 to {num_answers}, all or none"
            if not refusal:
                return
            _say(refusal, "error")

    async def _search(self, text: str) -> None:
        """Print what a search finds, with the chats' numbers in the list."""
        found = await self._conversations.finder.find(text)
        if found is None:
            return
        for problem in found.problems:
            _say(problem, "error")
        numbers = {chat.id: number for number, chat in enumerate(self._conversations.ordered(), 1)}
        for hit in found.hits[:MAX_HITS]:
            number = numbers.get(hit.session_id)
            _say(f"{'   ' if number is None else f'{number:3}'}  {clean(hit.title) or 'new chat'}", "head")
            _say("     " + " ".join(clean("".join(part.text for part in hit.snippet)).split()))
        num_more = len(found.hits) + found.num_more - MAX_HITS
        if num_more > 0:
            _say(f"{num_more:,} more: other words, or a filter such as tag: or after:", "faint")
        elif not found.hits and not found.problems:
            _say("nothing found", "faint")

    def _chats(self, number: str) -> None:
        ordered = self._conversations.ordered()
        if number:
            wanted = [chat for i, chat in enumerate(ordered, 1) if number == str(i)]
            if not wanted:
                raise SamovarError(f"there is no chat {clean(number)}: /chats lists them")
            self._conversations.show(wanted[0].id)
            return
        for i, chat in enumerate(ordered, 1):
            mark = "›" if chat is self._conversations.shown else " "
            _say(f"{mark}{i:3}  {clean(chat.title) or 'new chat'}")

    def _open_first(self, name: str | None) -> None:
        if name is None:
            return
        chats = [ChatName(chat.id, chat.title) for chat in self._conversations.ordered()]
        found = look_up(chats, storable(name))
        if found is None:
            raise SamovarError(
                f"There is no chat “{clean(name)}”. Leave --session out and use /chats to see all."
            )
        self._conversations.show(found.id)

    # ---- what happens meanwhile

    async def _follow(self) -> None:
        async for event in self._client.events():
            self._conversations.handle(event)

    def _on_change(self, change: changes.Change) -> None:
        shown = self._conversations.shown.id
        match change:
            case changes.ReplyBegan(session) if session == shown:
                self._streamed = None
            case changes.ReplyGrew(session, text) if session == shown:
                self._grow(text)
            case changes.ReplyEnded(session=session, message=message) if session == shown:
                self._end_reply(message)
            case changes.ChatShown() if self._conversations.shown.path is not None:
                self._show_chat()
            case changes.ChatShown():
                self._is_unread = True
            case changes.PathChanged(session) if session == shown and self._is_unread:
                self._show_chat()
            case changes.PathChanged(session) if session == shown and self._is_keeping:
                self._printed |= {(one.id, one.content) for one in self._conversations.shown.path or ()}
            case changes.PathChanged(session) if session == shown:
                self._show_news()
            case changes.MessageAdded(session, message) if session == shown:
                self._printed.add((message.id, message.content))
            case changes.SendFailed(text=text, error=error):
                _say(error, "error")
                self._unsent = text
            case changes.Noticed(text, is_error=True) | changes.LimitRefused(error=text):
                _say(text, "error")
            case changes.Noticed(text):
                _say(text, "faint")
            case changes.ComparisonChanged():
                self._ended.set()
            case changes.TasksChanged():
                self._tell_tasks()
            case changes.HostChanged():
                self._tell_host()
                self._prompt.app.invalidate()
            case changes.CacheDrawn():
                self._prompt.app.invalidate()
            case _:
                pass

    def _grow(self, text: str) -> None:
        """Print what has come of the reply, its thinking faint."""
        reply = self._conversations.shown.reply
        if self._streamed is None:
            self._streamed = Streamed(thinks=reply is not None and reply.thinks)
            self._was_thinking = False
        self._print_pieces(self._streamed.push(text))

    def _print_pieces(self, pieces: Sequence[tuple[bool, str]]) -> None:
        for is_thinking, piece in pieces:
            if self._was_thinking and not is_thinking:
                _say("\n")
            self._was_thinking = is_thinking
            _say(clean(piece), "faint" if is_thinking else "", end="")

    def _end_reply(self, message: StoredMessage) -> None:
        if self._streamed is not None:
            self._print_pieces(self._streamed.finish())
        self._printed.add((message.id, message.content))
        _say("")
        if message.stats is not None:
            _say(cost_line(message.stats), "faint")
        if message.state is MessageState.FAILED:
            _say(f"{message.error} · /retry answers again", "error")
        elif message.state is MessageState.CUT:
            _say(f"{message.error} · /continue goes on", "faint")
        self._ended.set()

    def _show_chat(self) -> None:
        self._is_unread = False
        chat = self._conversations.shown
        _say(f"── {clean(chat.title) or 'new chat'} ──", "head")
        path = chat.path or []
        self._printed = {(message.id, message.content) for message in path[:-4]}
        self._print(path[-4:])

    def _show_news(self) -> None:
        """Print what another window has written in the shown chat."""
        path = self._conversations.shown.path or []
        news = [message for message in path if (message.id, message.content) not in self._printed]
        if news:
            _say("── from another window ──", "head")
            self._print(news)

    def _print(self, messages: Sequence[StoredMessage]) -> None:
        for message in messages:
            self._printed.add((message.id, message.content))
            _say(f"{'you' if message.role is Role.USER else 'samovar'}:", "head")
            thinks = message.stats is not None and message.stats.thinking_tokens > 0
            is_reply = message.role is Role.ASSISTANT
            answer = answer_of(message.content, thinks=thinks) if is_reply else ""
            _say(clean(answer or message.content))

    def _tell_tasks(self) -> None:
        """Print what came of the side tasks that have ended."""
        for run in reversed(self._conversations.tasks.runs):
            if run.is_open or run.id in self._told_runs:
                continue
            self._told_runs.add(run.id)
            if run.state is TaskState.DONE and run.spec.output in (Output.TITLE, Output.TAGS):
                result = f"{run.spec.name}: {clean(run.result)}" + (run.note and f" ({run.note})")
                _say(clean(run.did) or result, "faint")
            elif run.state is TaskState.DONE:
                _say(f"{run.spec.name}:", "head")
                _say(clean(run.result))
                told = [run.note, cost_line(run.stats) if run.stats is not None else ""]
                _say(" · ".join(filter(None, told)), "faint")
            elif run.urgent and run.error:
                _say(f"{run.spec.name}: {clean(run.error)}", "error")

    def _tell_host(self) -> None:
        host = self._conversations.host
        if host.error:
            _say(host.error, "error")
        elif host.doing and host.stage != self._told_stage:
            _say(host.stage, "faint")
        self._told_stage = host.stage

    def _toolbar(self) -> str:
        snapshot = self._conversations.snapshot
        host = self._conversations.host
        if host.doing:
            return f" {host.doing} "
        context = f"context {count(snapshot.context.used_tokens)} / {count(snapshot.context.total_tokens)}"
        context = cache_words.asleep(snapshot) or context
        ram = "off" if snapshot.host.off else f"{mib(snapshot.host.bytes)} MiB"
        hit = percent(snapshot.totals.hit_ratio)
        return f" {snapshot.model} · {context} · RAM {ram} · hit ratio {hit} · /help "


class _History(FileHistory):
    """Lines of earlier runs. Where the file cannot be read or written, those of this run only."""

    def load_history_strings(self) -> Iterable[str]:
        try:
            return list(super().load_history_strings())
        except OSError:
            return []

    def store_string(self, string: str) -> None:
        with contextlib.suppress(OSError):
            super().store_string(storable(string))


class _Commands(Completer):
    """Completes `/` commands."""

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        text = document.text
        if " " in text or "\n" in text:
            return
        for usage in slash.matching(text):
            yield Completion(f"/{usage.name}", -len(text), display_meta=usage.help)


def cost_line(stats: RequestStats) -> str:
    """What a reply cost: `31 tokens · 78 tok/s · 3,888 reused, 24 processed · first token 21 ms`."""
    parts = [f"{count(stats.generated_tokens)} tokens"]
    if stats.tokens_per_second is not None:
        parts.append(f"{rate(stats.tokens_per_second)} tok/s")
    parts.append(f"{count(stats.reused.total)} reused, {count(stats.processed_tokens)} processed")
    if stats.first_token_ms is not None:
        parts.append(f"first token {duration(stats.first_token_ms)}")
    return " · ".join(parts)


def cache_lines(snapshot: CacheSnapshot) -> list[str]:
    """The tiers and the table of prompts as plain lines."""
    tiers = [*tier_lines("RAM", snapshot.host), *tier_lines("disk", snapshot.disk)]
    lines = [*tiers, f"{'prompt':<32} {'tokens':>8} {'MiB':>8} {'hits':>5}  where"]
    for row in snapshot.prompts:
        size = mib(row.own_bytes + row.shared_bytes)
        figures = f"{count(row.tokens):>8} {size:>8} {row.hits:>5}"
        lines.append(f"{clean(row.title)[:32]:<32} {figures}  {cache_words.where(row)}")
    return lines if snapshot.prompts else [*tiers, "nothing is cached yet"]


def task_lines(tasks: SideTasks) -> list[str]:
    """The runs of side tasks, the newest first, and the tasks that there are."""
    lines = [
        f"{run.spec.name:<12} {run.state.value:<10} "
        + " ".join(clean(run.error or run.result or run.asked).split())[:80]
        for run in tasks.runs
    ]
    for spec in tasks.specs:
        call = f"{'/' if spec.is_builtin else '/task '}{spec.name} {spec.needs_input}".rstrip()
        lines.append(f"{clean(call):<24} {clean(spec.help)}")
    return [*lines, *map(clean, tasks.problems)]


def tier_lines(name: str, use: TierUse) -> list[str]:
    """What a tier holds, and what is wrong with it."""
    limit = "" if use.limit_bytes is None else f" of {format_size(use.limit_bytes)}"
    text = "off" if use.off else f"{format_size(use.bytes)}{limit} in {cache_words.blocks(use.blocks)}"
    notes = (cache_words.lowered(use), cache_words.set_aside(use.quarantined), clean(use.problem))
    return [f"{name:<5} {text}", *(f"{'':<5} {note}" for note in notes if note)]


def _keys() -> KeyBindings:
    """Enter sends and Ctrl+J breaks the line, as in the workstation."""
    keys = KeyBindings()

    @keys.add("enter")
    def send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("c-j")
    @keys.add("escape", "enter")
    def break_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


_STYLES: Final = {"": "", "faint": "ansibrightblack", "error": "ansired", "head": "bold ansiyellow"}


def _say(text: str, style: str = "", end: str = "\n") -> None:
    print_formatted_text(FormattedText([(_STYLES[style], text)]), end=end, flush=True)
