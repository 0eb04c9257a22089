"""What must be in the store after front ends were killed: the picture before, and what they said since.

`Ledger.take` books what workers say; `Ledger.check` compares the file with it, change by change: what was
done is there, what was only begun is there as a whole or not at all, and nothing else is another one than
before.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from samovar.chats.branches import FORK
from tests.crash import chats_lines as lines
from tests.crash.chats_picture import STREAMING, MessageRow, Picture, SessionRow

FIELDS: Final = ("title", "system_prompt", "settings", "tags", "is_favourite", "is_archived", "is_deleted")


class Ledger:
    """What workers have said since the last `check`, on top of what was there then."""

    def __init__(self) -> None:
        self.picture = Picture()
        self.counts = Counter[str]()
        # What each draft may be: of one of the tuples all texts.
        self._drafts: dict[tuple[int, str], list[tuple[str, ...]]] = {}
        self._pending: dict[int, lines.Began] = {}
        self._touched: dict[str, set[int]] = {}
        self._loose = set[str]()  # chats whose messages may have grown in more than one way
        self._written: dict[int, str] = {}  # all that has arrived of replies, by place
        self._running = set[int]()
        self._saved: dict[int, int] = {}
        self._imports: dict[str, bool] = {}  # whether it is done
        self._is_purged = False

    def take(self, worker: int, line: lines.Line) -> None:
        """Book what a worker says. Lines of one worker come in order."""
        match line:
            case lines.Began(op):
                self._pending[worker] = line
                self._touched.setdefault(line.session, set()).add(worker)
                self._is_purged = self._is_purged or op == "purge"
            case lines.Did(op):
                self.counts["done"] += 1
                self.counts[op] += 1
                self._book(self._pending.pop(worker), line)
            case lines.Declined(op):
                self.counts["declined"] += 1
                self._pending.pop(worker)
            case lines.Asked(message, begins):
                self._written[message] = begins
                self._running.add(message)
            case lines.Grew(message, text):
                self._written[message] += text
            case lines.Saved(message, num_characters):
                self.counts["saves"] += num_characters > 0
                self._saved[message] = num_characters
            case lines.Ended(message=shown):
                self.counts["replies"] += 1
                assert shown.content == self._written[shown.id], "a reply is not what has arrived of it"
                self._running.discard(shown.id)
                self._saved.pop(shown.id, None)
                known = self.picture.messages.get(shown.id)
                self._add(shown, is_deleted=known is not None and known.is_deleted)
            case lines.Typing(session, texts):
                self._drafts.setdefault((worker, session), [()]).append(texts)
            case lines.Kept(session, texts):
                self.counts["drafts"] += 1
                self._drafts[worker, session] = [texts]
            case lines.Importing(key):
                self._imports[key] = False
            case lines.Imported(key):
                self.counts["imports"] += 1
                self._imports[key] = True
            case lines.Broken(what):
                raise AssertionError(what)
            case _:
                pass

    def _book(self, began: lines.Began, did: lines.Did) -> None:
        sessions = self.picture.sessions
        if began.fields and began.session in sessions:
            sessions[began.session] = _with(sessions[began.session], began.fields)
        if began.op == "send_and_delete":
            self._loose.add(began.session)
        if began.op == "delete_branch" and began.message is not None:
            gone = self.picture.messages.get(began.message)
            if gone is not None:
                self.picture.messages[gone.id] = msgspec.structs.replace(gone, is_deleted=True)
        chat = did.chat
        if chat is None:
            return
        self._touched.setdefault(chat.id, set())
        before = sessions.get(chat.id)
        sessions[chat.id] = SessionRow(
            *(chat.id, chat.title, chat.system_prompt, chat.settings, chat.tags),
            *(chat.is_favourite, chat.is_archived, False, before.head if before else None),
            before.source if before else "",
        )
        if chat.messages is None:
            if before is None:  # of an import: nothing is known of its messages
                self._loose.add(chat.id)
        else:
            head = chat.messages[-1].id if chat.messages else None
            sessions[chat.id] = msgspec.structs.replace(sessions[chat.id], head=head)
            for shown in chat.messages:
                known = self.picture.messages.get(shown.id)
                if known is None:
                    self._add(shown, is_deleted=False)
                elif known.is_deleted:
                    self.picture.messages[shown.id] = msgspec.structs.replace(known, is_deleted=False)

    def _add(self, shown: lines.Shown, *, is_deleted: bool) -> None:
        self.picture.messages[shown.id] = MessageRow(
            *(shown.id, shown.session, shown.parent, shown.role.value),
            *(shown.content, shown.state.value, is_deleted),
        )

    # After a new start

    def check(self, found: Picture, drafts: Mapping[tuple[int, str], str]) -> None:
        """Compare with what is there now; from then on, that must stay.

        `drafts` were taken over, by worker and chat.
        """
        for session in {*self.picture.sessions, *found.sessions}:
            self._check_session(session, found)
        before, after = self._by_session(self.picture), self._by_session(found)
        for session, messages in before.items():
            if session in found.sessions:
                self._check_messages(messages, found)
        for session, rows in after.items():
            known = self.picture.messages
            assert rows or session in before, f"{found.sessions[session]} has no message"
            self._check_added(session, [row for row in rows if row.id not in known], found)
        for key, is_done in self._imports.items():
            self._check_import(key, found, is_done=is_done)
        self._check_drafts(list(drafts.values()))
        self.picture = found
        self._drafts = {place: [(text,)] for place, text in drafts.items()}
        self._pending, self._touched, self._loose = {}, {}, set()
        self._written, self._running, self._saved, self._imports = {}, set(), {}, {}
        self._is_purged = False

    @staticmethod
    def _by_session(picture: Picture) -> dict[str, list[MessageRow]]:
        found: dict[str, list[MessageRow]] = {session: [] for session in picture.sessions}
        for message in picture.messages.values():
            found.setdefault(message.session, []).append(message)
        return found

    def _begun(self, session: str) -> list[lines.Began]:
        return [began for began in self._pending.values() if began.session == session]

    def _is_shared(self, session: str) -> bool:
        return len(self._touched.get(session, ())) > 1

    def _check_session(self, session: str, found: Picture) -> None:
        before, after = self.picture.sessions.get(session), found.sessions.get(session)
        if before is None:
            assert after is not None
            is_begun = bool(self._begun(session)) or after.source in self._imports
            is_fork = after.title.startswith(FORK) and any(b.op == "fork" for b in self._pending.values())
            assert is_begun or is_fork or session in self._touched, f"nobody has made {after}"
            return
        if after is None:
            assert self._is_purged
            assert before.is_deleted, f"{before} is gone"
            return
        if self._is_shared(session):
            return
        begun = self._begun(session)
        for name in FIELDS:
            was, now = getattr(before, name), getattr(after, name)
            allowed = [getattr(_with(before, began.fields), name) for began in begun]
            assert now in [was, *allowed], f"{name} of {before} is {now!r}"
        if before.head != after.head:
            assert begun or session in self._loose, f"{before} now ends in {after.head}"

    def _check_messages(self, messages: Sequence[MessageRow], found: Picture) -> None:
        for before in messages:
            after = found.messages.get(before.id)
            if after is None:
                assert self._is_purged, f"{before} is gone"
                continue
            here = (before.session, before.parent, before.role)
            assert here == (after.session, after.parent, after.role)
            self._check_text(before, after)
            if before.is_deleted != after.is_deleted and not self._is_shared(before.session):
                is_begun = any(b.op in ("delete_branch", "undo_branch") for b in self._begun(before.session))
                is_nothing = before.role == "assistant" and not after.content  # answered again
                assert is_begun or is_nothing, f"{before} is {after}"

    def _check_text(self, before: MessageRow | None, after: MessageRow) -> None:
        """A reply that was being written is a beginning of what had arrived, or all of it."""
        is_running = after.id in self._running or (before is not None and before.state == STREAMING)
        is_begun = any(b.op == "go_on" and b.message == after.id for b in self._begun(after.session))
        if is_running:
            written = self._written.get(after.id, "")
            assert written.startswith(after.content)
            assert len(after.content) >= self._saved.get(after.id, 0)
            assert after.state == "stopped" or after.content == written
        elif before is not None and is_begun:
            assert after.content.startswith(before.content)
        elif before is not None:
            assert (before.content, before.state) == (after.content, after.state)

    def _check_added(self, session: str, added: list[MessageRow], found: Picture) -> None:
        row = found.sessions[session]
        is_fork = session not in self.picture.sessions and row.title.startswith(FORK)
        for message in added:
            self._check_text(None, message)
            has_reply = message.role != "user" or any(other.parent == message.id for other in added)
            assert has_reply or is_fork, f"{message} has no place for its reply"
        if not added or row.source in self._imports or self._is_shared(session) or session in self._loose:
            return
        begun = self._begun(session)
        if is_fork:
            begun = begun or [b for b in self._pending.values() if b.op == "fork"]
        assert begun, f"nobody has written {added}"
        assert len(added) in [b.num_added for b in begun], f"{begun} has left {added}"
        if not any(b.op == "send_and_delete" for b in begun):
            assert row.head == max(message.id for message in added), f"{row} does not end in {added}"

    def _check_import(self, key: str, found: Picture, *, is_done: bool) -> None:
        sessions = [session for session in found.sessions.values() if session.source == key]
        if not sessions:
            assert not is_done, f"{key} is gone"
            self.counts["imports dropped"] += 1
            return
        self.counts["imports found"] += 1
        documents = lines.documents_of(key)
        assert len(sessions) == len(documents), f"a part of {key} is there"
        ids = {session.id for session in sessions}
        there = {m.content.split(" ")[0]: m.content for m in found.messages.values() if m.session in ids}
        for wanted in [message.content for document in documents for message in document.messages]:
            assert there[wanted.split(" ")[0]].startswith(wanted)  # a reply may have been gone on with

    def _check_drafts(self, drafts: list[str]) -> None:
        for (_, session), choices in self._drafts.items():
            is_there = any(
                all(any(text in draft for draft in drafts) for text in texts if text) for texts in choices
            )
            assert is_there, f"the draft {choices} of {session} is not among {drafts}"


def _with(row: SessionRow, fields: dict[str, Any]) -> SessionRow:
    """The row with fields as they came over the wire."""
    known = {name: value for name, value in fields.items() if name in FIELDS}
    return msgspec.convert({**msgspec.to_builtins(row), **known}, SessionRow)
