"""A front end without a screen: does whatever a user may do, at random, until it is killed or told to stop.

A script: reads a `Job` and then `go` and `stop` from its standard input, writes `chats_lines` to its standard
output, each with one system call, so that what has been said has been said when the process is killed.
"""

import asyncio
import functools
import os
import random
import sys
import time
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec

from samovar.chats import changes
from samovar.chats.chat import Chat
from samovar.chats.conversation import Conversations
from samovar.client.interface import Client
from samovar.client.local import LocalClient
from samovar.config import Config, SamplingConfig
from samovar.core.chat import Role
from samovar.core.errors import SamovarError
from samovar.core.events import HostLost, HostReady, Welcome
from samovar.sessions.store import StoredMessage
from samovar.sessions.transfer import samovar_json
from samovar.sessions.values import MessageState
from tests.crash import chats_lines as lines
from tests.crash.quick_host import QuickHost
from tests.crash.tripwire import Tripwire

A_MONTH_S: Final = 31 * 86_400.0


def say(line: lines.Line) -> None:
    data = msgspec.json.encode(line) + b"\n"
    while data:
        data = data[os.write(1, data) :]


class Worker:
    """One front end and its user."""

    def __init__(self, job: lines.Job) -> None:
        self._job = job
        self._dice = random.Random(job.seed)
        self._wire = Tripwire(job.trip)
        self._file = Path(job.file)
        self._store = self._wire.open(self._file)
        self._client = self._new_client()
        # It knows what it did itself: a title that comes from nowhere would be an error.
        config = Config(sampling=SamplingConfig(max_tokens=24), side_tasks="off")
        self._chats = Conversations(self._client, self._store, config, self._hear)
        self._places: dict[str, int] = {}  # of running replies, by chat
        self._ending: dict[str, asyncio.Task[None]] = {}
        self._failures: list[str] = []
        self._imports: set[asyncio.Task[None]] = set()
        self._is_stopped = False
        self._ops: dict[str, tuple[int, Callable[[], Awaitable[None]]]] = {
            "send": (16, self._send),
            "send_with_missing_file": (1, self._send_with_missing_file),
            "edit": (6, self._edit),
            "retry": (4, self._retry),
            "again": (4, self._again),
            "go_on": (4, self._go_on),
            "step": (3, self._step),
            "fork": (3, self._fork),
            "delete_branch": (5, self._delete_branch),
            "undo_branch": (4, self._undo_branch),
            "stop": (2, self._stop),
            "rename": (2, self._rename),
            "system_prompt": (2, self._system_prompt),
            "settings": (2, self._settings),
            "tags": (2, self._tags),
            "favourite": (1, self._favourite),
            "archive": (1, self._archive),
            "delete": (3, self._delete),
            "undo_delete": (3, self._undo_delete),
            "send_and_delete": (1, self._send_and_delete),
            "draft": (4, self._draft),
            "export": (2, self._export),
            "look": (4, self._look),
            "import": (1, self._import),
        }

    async def run(self) -> None:
        await self._client.start()
        listening = asyncio.create_task(self._listen())
        await self._chats.load()
        drafts = {chat.id: chat.draft for chat in self._chats.chats.values() if chat.draft}
        say(lines.Loaded(drafts))
        if await asyncio.to_thread(sys.stdin.readline) != "stop\n":
            self._wire.arm()
            stopping = asyncio.create_task(self._wait_for_stop())
            if self._job.num_workers == 1 and self._dice.random() < 0.1:
                await self._purge()
            while not self._is_stopped:
                await self._one_op()
                await asyncio.sleep(self._dice.choice([0.0, 0.0, 0.0, 0.02]))
            await stopping
        await asyncio.gather(*self._imports)
        await self._chats.close()
        await asyncio.gather(*self._ending.values())
        await self._client.close()
        await listening
        self._store.close()
        self._wire.close()
        say(lines.Closed())

    async def _wait_for_stop(self) -> None:
        await asyncio.to_thread(sys.stdin.readline)
        self._is_stopped = True

    # The host

    def _new_client(self) -> Client:
        if self._job.engine is None:
            return QuickHost(self._dice)
        folder = Path(self._job.folder)
        return LocalClient.starting(
            self._job.engine, run_dir=folder, cache_dir=folder, log_file=folder / "host.log", name="worker"
        )

    async def _listen(self) -> None:
        async for event in self._client.events():
            self._chats.handle(event)
            match event:
                case HostReady() | Welcome():
                    if isinstance(self._client, LocalClient) and self._client.host_pid is not None:
                        say(lines.HostFound(self._client.host_pid))
                case HostLost():
                    say(lines.HostGone())
                case _:
                    pass

    # What the chats tell

    def _hear(self, change: changes.Change) -> None:
        match change:
            case changes.ReplyBegan(session):
                reply = self._chats.chats[session].reply
                assert reply is not None
                assert reply.row is not None
                self._places[session] = reply.row.id
                say(lines.Asked(reply.row.id, reply.row.content))
            case changes.ReplyGrew(session, text):
                say(lines.Grew(self._places[session], text))
            case changes.ReplyEnded(session, message):
                del self._places[session]
                self._ending[session] = asyncio.create_task(self._say_end(message))
            case changes.SendFailed():
                self._failures.append(change.error)
            case changes.Noticed(text, is_error=True) if self._job.num_workers == 1:
                say(lines.Broken(text))
            case _:
                pass

    async def _say_end(self, message: StoredMessage) -> None:
        await self._settled()
        say(lines.Ended(_shown(message)))
        self._ending.pop(message.session_id, None)

    async def _settled(self) -> None:
        """All that was given to the store before has been done."""
        await self._chats.archive.run(lambda _store: None)

    # What the user does

    async def _one_op(self) -> None:
        ops = dict(self._ops)
        if self._job.fond_of:
            ops[self._job.fond_of] = (40, ops[self._job.fond_of][1])
        ((_, op),) = self._dice.choices(list(ops.values()), [weight for weight, _ in ops.values()])
        self._failures.clear()
        await op()

    async def _do(self, began: lines.Began, work: Awaitable[object]) -> None:
        """Say what begins, do it, say that it is done. A text that is not empty says why it was not."""
        say(began)
        reason = await work
        await self._settled()
        if isinstance(reason, str) and reason:
            self._failures.append(reason)
        if self._failures:
            say(lines.Declined(began.op, began.session, self._failures[0]))
        else:
            chat = self._chats.chats.get(began.session)
            say(lines.Did(began.op, began.session, None if chat is None else self._chat_shown(chat)))

    async def _change(self, op: str, chat: Chat, work: Callable[[], object], **fields: object) -> None:
        """Do what sets fields of a chat at once and stores them behind."""

        async def do() -> None:
            work()

        await self._do(lines.Began(op, chat.id, fields), do())

    async def _send(self) -> None:
        chat = await self._idle_chat() if self._dice.random() < self._share_of_old() else None
        if chat is None:
            chat = self._chats.new()
        text = lines.text_of(self._dice, self._dice.randrange(0, 20))
        if self._dice.random() < 0.3:
            self._type(chat, text[:20])
        self._type(chat, "")  # as the composer does
        await self._do(lines.Began("send", chat.id, num_added=2), self._chats.send(chat, text))
        if chat.reply is not None or chat.in_store:
            say(lines.Kept(chat.id, (chat.draft,)))

    async def _send_with_missing_file(self) -> None:
        chat = self._chats.new()
        text = lines.text_of(self._dice, 3) + " @./there-is-no-such-file.txt"
        await self._do(lines.Began("send_with_missing_file", chat.id), self._chats.send(chat, text))

    async def _edit(self) -> None:
        if (chat := await self._idle_chat()) and chat.path:
            message = self._dice.choice(chat.path)
            self._chats.branches.begin_edit(chat, message.id)
            if self._dice.random() < 0.5:
                self._type(chat, lines.text_of(self._dice, 3))
                self._chats.drafts.flush()
                await self._settled()
                say(lines.Kept(chat.id, (chat.draft, chat.set_aside)))
            num_added = 1 if message.role is Role.ASSISTANT else 2
            began = lines.Began("edit", chat.id, num_added=num_added)
            self._type(chat, "")
            await self._do(began, self._chats.send(chat, lines.text_of(self._dice, 6)))
            self._chats.branches.cancel_edit(chat)
            say(lines.Typing(chat.id, (chat.draft,)))

    async def _retry(self) -> None:
        if chat := await self._idle_chat():
            await self._do(lines.Began("retry", chat.id, num_added=1), self._chats.branches.retry(chat))

    async def _again(self) -> None:
        if (chat := await self._idle_chat()) and chat.path:
            message = self._dice.choice(chat.path)
            work = self._chats.branches.again(chat, message.id)
            await self._do(lines.Began("again", chat.id, num_added=1), work)

    async def _go_on(self) -> None:
        if (chat := await self._idle_chat()) and chat.path and chat.path[-1].role is Role.ASSISTANT:
            began = lines.Began("go_on", chat.id, message=chat.path[-1].id)
            await self._do(began, self._chats.branches.go_on(chat))

    async def _step(self) -> None:
        if (chat := await self._idle_chat()) and chat.path:
            siblings = [message for message in chat.path if message.num_siblings > 1]
            if siblings:
                message = self._dice.choice(siblings)
                work = self._chats.branches.step(chat, message.id, self._dice.choice([-1, 1]))
                await self._do(lines.Began("step", chat.id, message=message.id), work)

    async def _fork(self) -> None:
        if (chat := await self._idle_chat()) and chat.path:
            place = self._dice.randrange(len(chat.path))
            say(lines.Began("fork", chat.id, num_added=place + 1))
            refusal = await self._chats.branches.fork(chat, chat.path[place].id)
            await self._settled()
            fork = self._chats.shown
            if refusal:
                say(lines.Declined("fork", chat.id, refusal))
            else:
                await self._read(fork)
                say(lines.Did("fork", chat.id, self._chat_shown(fork)))

    async def _delete_branch(self) -> None:
        if (chat := await self._idle_chat()) and chat.path:
            message = self._dice.choice(chat.path[-4:])
            work = self._chats.branches.delete(chat, message.id)
            await self._do(lines.Began("delete_branch", chat.id, message=message.id), work)

    async def _undo_branch(self) -> None:
        idle = [chat for chat in self._candidates() if self._chats.branches.can_undo(chat)]
        if idle and (chat := await self._idle_chat(idle)):
            await self._do(lines.Began("undo_branch", chat.id), self._chats.branches.undo(chat))

    async def _stop(self) -> None:
        busy = [chat for chat in self._chats.chats.values() if chat.reply is not None]
        if busy:
            self._chats.stop(self._dice.choice(busy))

    async def _rename(self) -> None:
        if chat := self._any_chat():
            title = lines.text_of(self._dice, 2)
            work = functools.partial(self._chats.profile.rename, chat, title)
            await self._change("rename", chat, work, title=title)

    async def _system_prompt(self) -> None:
        if chat := self._any_chat():
            text = lines.text_of(self._dice, 5)
            work = functools.partial(self._chats.profile.set_system_prompt, chat, text)
            await self._change("system_prompt", chat, work, system_prompt=text)

    async def _settings(self) -> None:
        if chat := self._any_chat():
            settings = msgspec.structs.replace(chat.settings, temperature=self._dice.random())
            work = functools.partial(self._chats.profile.set_settings, chat, settings)
            await self._change("settings", chat, work, settings=msgspec.to_builtins(settings))

    async def _tags(self) -> None:
        if chat := self._any_chat():
            tags = sorted(self._dice.sample(["work", "home", "tea", "雪"], 2))
            work = functools.partial(self._chats.profile.set_tags, chat, tags)
            await self._change("tags", chat, work, tags=tags)

    async def _favourite(self) -> None:
        if chat := self._any_chat():
            wanted = not chat.is_favourite
            work = functools.partial(self._chats.profile.set_favourite, chat, is_favourite=wanted)
            await self._change("favourite", chat, work, is_favourite=wanted)

    async def _archive(self) -> None:
        if chat := self._any_chat():
            wanted = not chat.is_archived
            work = functools.partial(self._chats.profile.set_archived, chat, is_archived=wanted)
            await self._change("archive", chat, work, is_archived=wanted)

    async def _delete(self) -> None:
        chat = self._any_chat()
        if chat is not None and any(one is chat for one in self._chats.ordered()):
            say(lines.Began("delete", chat.id, {"is_deleted": True}))
            say(lines.Typing(chat.id, ()))
            self._chats.delete(chat.id)
            await self._settled()
            say(lines.Did("delete", chat.id))

    async def _undo_delete(self) -> None:
        deleted = self._chats.roster.deleted
        if deleted:
            chat = deleted[-1]
            say(lines.Began("undo_delete", chat.id, {"is_deleted": False}))
            self._chats.undo_delete()
            await self._settled()
            say(lines.Did("undo_delete", chat.id, self._chat_shown(chat)))
            say(lines.Typing(chat.id, (chat.draft,)))

    async def _send_and_delete(self) -> None:
        """The chat is deleted while its message is being stored."""
        if chat := await self._idle_chat():
            say(lines.Began("send_and_delete", chat.id, {"is_deleted": True}, num_added=2))
            say(lines.Typing(chat.id, ()))
            sending = asyncio.create_task(self._chats.send(chat, lines.text_of(self._dice, 3)))
            await asyncio.sleep(0)
            if any(one is chat for one in self._chats.ordered()):
                self._chats.delete(chat.id)
            await sending
            await self._settled()
            say(lines.Did("send_and_delete", chat.id))

    async def _draft(self) -> None:
        chat = self._any_chat() if self._dice.random() < 0.8 else self._chats.new()
        if chat is not None and chat.editing is None:
            text = lines.text_of(self._dice, self._dice.randrange(0, 8))
            self._type(chat, text)
            if self._dice.random() < 0.7:
                self._chats.drafts.flush()
                await self._settled()
                say(lines.Kept(chat.id, (text,)))

    async def _export(self) -> None:
        if (chat := await self._idle_chat()) and chat.path:
            shown = [message.content for message in chat.path]
            document = await self._chats.archive.run(lambda store: store.exchange.document(chat.id))
            parents = {message.id: message for message in document.messages}
            told: list[str] = []
            here = document.head
            while here is not None:
                told.insert(0, parents[here].content)
                here = parents[here].parent
            if told != shown and self._job.num_workers == 1:
                say(lines.Broken(f"chat {chat.id} is shown as {shown} and exported as {told}"))

    async def _look(self) -> None:
        """Read back how much of a running reply is stored."""
        if self._places:
            message_id = next(iter(self._places.values()))
            stored = await self._chats.archive.run(lambda store: store.messages.message(message_id))
            if stored.state is MessageState.STREAMING:
                say(lines.Saved(message_id, len(stored.content)))

    async def _import(self) -> None:
        """Beside everything else, as a file or directly."""
        if self._imports:
            return
        key = f"import-{self._dice.getrandbits(48):012x}"
        if self._dice.random() < 0.5:
            path = Path(self._job.folder) / f"{key}.json"
            path.write_bytes(samovar_json.write(lines.documents_of(key)))
            work: Awaitable[object] = self._chats.transfers.take_in([path])
        else:
            work = asyncio.to_thread(self._take_in, key)
        task = asyncio.create_task(self._imported(key, work))
        self._imports.add(task)
        task.add_done_callback(self._imports.discard)

    async def _imported(self, key: str, work: Awaitable[object]) -> None:
        say(lines.Importing(key))
        try:
            await work
        except SamovarError as error:
            say(lines.Broken(f"import {key} failed: {error}"))
            return
        say(lines.Imported(key))

    def _take_in(self, key: str) -> None:
        store = self._wire.open(self._file)
        try:
            store.exchange.take_in(lines.documents_of(key))
        finally:
            store.close()

    async def _purge(self) -> None:
        """What was deleted is removed for good, as it is after a month."""

        def work() -> None:
            store = self._wire.open(self._file, lambda: time.time() + A_MONTH_S)
            try:
                store.purge()
            finally:
                store.close()

        say(lines.Began("purge", ""))
        await asyncio.to_thread(work)
        say(lines.Did("purge", ""))

    # Choosing

    def _share_of_old(self) -> float:
        return 0.7 if self._job.engine is None else 0.4

    def _type(self, chat: Chat, text: str) -> None:
        say(lines.Typing(chat.id, (text, chat.set_aside)))
        self._chats.drafts.typed(chat, text)

    def _candidates(self) -> list[Chat]:
        """Chats in the store. Where two workers are at it, mostly those that this one has to itself."""
        chats = [chat for chat in self._chats.chats.values() if chat.in_store]
        if self._job.num_workers > 1 and self._dice.random() < 0.8:
            here, num = self._job.index, self._job.num_workers
            chats = [chat for chat in chats if zlib.crc32(chat.id.encode()) % num == here]
        recent = sorted(chats, key=lambda chat: -chat.updated_at)[:12]
        return recent if self._dice.random() < 0.8 else chats

    def _any_chat(self) -> Chat | None:
        chats = [chat for chat in self._candidates() if not chat.sending]
        return self._dice.choice(chats) if chats else None

    async def _idle_chat(self, chats: list[Chat] | None = None) -> Chat | None:
        """A chat that is read and in which nothing runs."""
        found = self._candidates() if chats is None else chats
        found = [chat for chat in found if not chat.is_busy and chat.id not in self._ending]
        if not found:
            return None
        chat = self._dice.choice(found)
        return chat if await self._read(chat) else None

    async def _read(self, chat: Chat) -> bool:
        """Show a chat until its messages are there; False if another worker has deleted it."""
        self._chats.show(chat.id)
        while chat.path is None:
            await asyncio.sleep(0.001)
            if chat.id not in self._chats.chats or self._failures:
                return False
        await self._settled()
        return not chat.is_busy

    def _chat_shown(self, chat: Chat) -> lines.ChatShown:
        """A reply whose end may not be stored yet is shown as one that is being written."""
        messages = None if chat.path is None else [_shown(message) for message in chat.path]
        if messages is not None and chat.reply is not None and chat.reply.row is not None:
            messages.append(_shown(chat.reply.row))
        if messages and chat.id in self._ending:
            messages[-1] = msgspec.structs.replace(messages[-1], state=MessageState.STREAMING)
        return lines.ChatShown(
            chat.id,
            chat.title,
            chat.system_prompt,
            chat.settings,
            chat.tags,
            chat.is_favourite,
            chat.is_archived,
            None if messages is None else tuple(messages),
        )


def _shown(message: StoredMessage) -> lines.Shown:
    return lines.Shown(
        message.id, message.session_id, message.parent_id, message.role, message.content, message.state
    )


if __name__ == "__main__":
    asyncio.run(Worker(msgspec.json.decode(sys.stdin.readline(), type=lines.Job)).run())
