"""`samovar sessions list|show|search|export|import|delete|restore`: on the store alone, without a model.

Other windows may have the same chats open: they see at once what is changed here.
"""

import asyncio
import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from samovar.commands import chat_text
from samovar.commands.visit import visit_any
from samovar.core.commands import Forget, ListRequests
from samovar.core.errors import SamovarError
from samovar.core.events import RequestsListed
from samovar.core.figures import count
from samovar.core.safe_text import clean
from samovar.core.units import format_size
from samovar.sessions.lookup import SHORT_ID, ChatName, look_up, one_line, short_ids
from samovar.sessions.samples import sample_files
from samovar.sessions.store import Store
from samovar.sessions.tags import cut_tag
from samovar.sessions.transfer.files import (
    ExportedFile,
    Format,
    ImportedFile,
    ImportProgress,
    export_pieces,
    export_to,
    import_files,
)
from samovar.sessions.values import Session

_SORTS: Final[dict[str, Callable[[Session], Any]]] = {
    "recent": lambda session: -session.updated_at,
    "created": lambda session: -session.created_at,
    "title": lambda session: one_line(session.title).casefold(),
    "length": lambda session: -session.num_messages,
}
_PROGRESS_EVERY_S: Final = 0.1


class Sessions:
    """The actions; each returns its exit code, or raises SamovarError."""

    def __init__(self, store: Store, run_dir: Path, *, as_json: bool) -> None:
        """`run_dir` is where an engine may run, which is told of deleted chats."""
        self._store = store
        self._run_dir = run_dir
        self._as_json = as_json

    # Looking

    def list_chats(self, tag: str | None, sort: str, limit: int | None, *, archived: bool) -> int:
        """Print the chats that are not archived, or those that are."""
        everything = self._store.sessions()
        wanted = None if tag is None else cut_tag(tag)
        tagged = [session for session in everything if wanted is None or wanted in session.tags]
        found = sorted((s for s in tagged if s.is_archived is archived), key=_SORTS[sort])
        shown = found[:limit]
        if self._as_json:
            _print_json(
                {"chats": [_summary(session) for session in shown], "num_more": len(found) - len(shown)}
            )
            return 0
        if shown:
            ids = short_ids([session.id for session in everything])
            print("\n".join(chat_text.table(shown, ids, time.time(), _width())))
        elif not everything:
            _say(
                "There are no chats yet. `samovar` starts one, `samovar sessions import FILE` brings some in."
            )
        else:
            _say("There are no such chats.")
        left_out = len(tagged) - len(found)
        if len(found) > len(shown):
            _say(f"{_chats(len(found) - len(shown))} more; --limit shows more of them.")
        if left_out and not archived:
            _say(f"{_chats(left_out)} in the archive; --archived lists them.")
        return 0

    def show(self, name: str, *, all_branches: bool) -> int:
        """Print a chat: the path that is shown, or the whole tree as an outline."""
        session_id = self._find([name])[0].id
        if self._as_json:
            document = self._store.exchange.document(session_id)
            fields = msgspec.to_builtins(document)
            messages = fields.get("messages", [])
            if not all_branches:
                shown = chat_text.path_ids(document)
                messages = [message for message in messages if message["id"] in shown]
            _print_json({"id": session_id, **fields, "messages": messages})
        elif all_branches:
            _write(chat_text.outline(self._store.exchange.document(session_id)))
        else:
            session = self._store.session(session_id)
            _write(chat_text.readable(session, self._store.path(session_id), time.time()))
        return 0

    def search(self, words: str, limit: int) -> int:
        """Print what is found, the best first."""
        results = self._store.search(words, limit)
        for problem in results.problems:
            print(f"samovar: {clean(problem)}", file=sys.stderr)
        if self._as_json:
            _print_json(msgspec.to_builtins(results))
            return 0
        ids = short_ids([name.id for name in self._store.names()])
        is_marked = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        for hit in results.hits:
            lines = chat_text.hit_lines(
                hit, ids.get(hit.session_id, hit.session_id), time.time(), _width(), marked=is_marked
            )
            print("\n".join(lines))
        if not results.hits:
            _say("Nothing was found.")
        elif results.num_more or not results.is_complete:
            more = count(results.num_more) if results.is_complete else f"{count(results.num_more)} or more"
            _say(f"{more} others; more words find less, --limit shows more.")
        return 0

    # Out and in

    def export(
        self, names: Sequence[str], form: str | None, output: str | None, *, everything: bool, overwrite: bool
    ) -> int:
        """Write chats to standard output, a file or a folder."""
        if everything == bool(names):
            raise SamovarError("Say what to export: one or more chats, or --all.")
        found = self._store.names() if everything else self._find(names)
        if not found:
            raise SamovarError("There are no chats to export.")
        ids = [name.id for name in found]
        chosen = None if form is None else Format(form)
        if output is None or output == "-":
            self._print_export(ids, chosen or Format.MARKDOWN)
            return 0
        target = Path(output).expanduser()
        with _progress_line(is_quiet=self._as_json) as show:
            files = export_to(
                self._store,
                ids,
                target,
                chosen,
                overwrite=overwrite,
                is_folder=output.endswith(os.sep),
                progress=lambda done: show(f"{count(done)} of {_chats(len(ids))} written"),
            )
        if self._as_json:
            _print_json({"files": msgspec.to_builtins(files)})
        elif len(files) > 1:
            print(f"{_chats(len(files))} written to {clean(str(target))}")
            _say_left_out(sum(file.num_left_out for file in files))
        else:
            print(f"{_exported(files[0])} written to {clean(files[0].path)}")
            _say_left_out(files[0].num_left_out)
        return 0

    def bring_in(self, names: Sequence[str], *, samples: bool) -> int:
        """Import files; returns 1 if one failed, the others are in then."""
        paths = [*(sample_files() if samples else ()), *(Path(name).expanduser() for name in names)]
        if not paths:
            raise SamovarError(
                "This installation came without sample chats. Install Samovar again."
                if samples
                else "Say what to import: one or more files, a folder, or --samples."
            )
        self._store.exchange.drop_dead_imports()
        with _progress_line(is_quiet=self._as_json) as show:
            report = import_files(self._store, paths, lambda step: show(_step(step)))
        if self._as_json:
            _print_json(msgspec.to_builtins(report))
        else:
            for file in report.files:
                if not file.error:
                    print("\n".join(_imported(file)))
        for file in (*report.ignored, *report.files):
            if file.error:
                print(f"samovar: {clean(file.error)}", file=sys.stderr)
        if not (report.files or self._as_json):
            _say("There is nothing in it that Samovar can import.")
        return int(report.num_failed > 0 or not report.files)

    # Away and back

    def delete(self, names: Sequence[str], *, is_sure: bool) -> int:
        """Delete chats, all or none; asks first."""
        found = self._find(names)
        if not is_sure and not _agreed(found):
            _say("Nothing is deleted.")
            return 1
        for name in found:
            self._store.delete(name.id)
        if problem := asyncio.run(self._forget(found)):
            print(f"samovar: {clean(problem)}", file=sys.stderr)
        if self._as_json:
            _print_json({"deleted": msgspec.to_builtins(found)})
            return 0
        for name in found:
            back = f"samovar sessions restore {name.id[:SHORT_ID]}"
            print(f"{_quoted(name)} is deleted; for 30 days `{back}` brings it back.")
        return 0

    def restore(self, names: Sequence[str]) -> int:
        """Bring back deleted chats, all or none; without names, list them."""
        deleted = self._store.names(deleted=True)
        if not names:
            if self._as_json:
                _print_json({"deleted": msgspec.to_builtins(deleted)})
            else:
                ids = short_ids([name.id for name in deleted])
                print(
                    "\n".join(f"{ids[name.id]}  {_quoted(name)}" for name in deleted) or "No chat is deleted."
                )
            return 0
        found = _found(deleted, names, "There is no deleted chat {}. `samovar sessions restore` lists them.")
        for name in found:
            self._store.restore(name.id)
        if self._as_json:
            _print_json({"restored": msgspec.to_builtins(found)})
            return 0
        for name in found:
            print(f"{_quoted(name)} is back.")
        return 0

    # Inside

    def _find(self, names: Sequence[str]) -> list[ChatName]:
        return _found(self._store.names(), names, "There is no chat {}. `samovar sessions list` shows all.")

    def _print_export(self, ids: Sequence[str], form: Format) -> None:
        if self._as_json:
            raise SamovarError(
                "--json tells what was written, so it needs -o. For chats as JSON: --format json."
            )
        if len(ids) > 1 and form is not Format.JSON:
            raise SamovarError(
                f"{count(len(ids))} chats do not fit one file of this format. "
                "Give a folder with -o, or take --format json."
            )
        pieces = export_pieces(self._store, ids, form)
        if sys.stdout.isatty():
            _write(piece.decode() for piece in pieces)
            return
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()

    async def _forget(self, names: Iterable[ChatName]) -> str:
        """Tell a running engine to drop what it has cached of deleted chats; returns what is wrong."""
        try:
            async with visit_any(self._run_dir, "") as host:
                if host is not None:
                    for name in names:
                        host.send(Forget(name.id))
                    await host.ask(ListRequests(), RequestsListed)  # answered when the others are done
        except SamovarError as error:
            return f"What is cached of it stays until it is evicted. {error}"
        return ""


@contextlib.contextmanager
def _progress_line(*, is_quiet: bool) -> Iterator[Callable[[str], None]]:
    """Shows texts on one line of standard error, each over the one before; nothing where no terminal is."""
    if is_quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    next_at = 0.0

    def show(text: str) -> None:
        nonlocal next_at
        if time.monotonic() >= next_at:
            next_at = time.monotonic() + _PROGRESS_EVERY_S
            line = chat_text.cut(text, shutil.get_terminal_size().columns - 1)
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)

    try:
        yield show
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _found(names: Sequence[ChatName], wanted: Sequence[str], missing: str) -> list[ChatName]:
    """The chats meant, each once; SamovarError if one is not there, or may be several."""
    found: dict[str, ChatName] = {}
    for one in wanted:
        name = look_up(names, one)
        if name is None:
            raise SamovarError(missing.format(f"“{one_line(one)}”"))
        found[name.id] = name
    return list(found.values())


def _agreed(names: Sequence[ChatName]) -> bool:
    if not (sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()):
        raise SamovarError("Nobody can be asked here. To delete without a question, give --yes.")
    what = _quoted(names[0]) if len(names) == 1 else _chats(len(names))
    print(f"Delete {what}? For 30 days it can be brought back. [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _summary(session: Session) -> dict[str, Any]:
    return {
        "id": session.id,
        "title": session.title,
        "messages": session.num_messages,
        "created_at": session.created_at,
        "updated_at": session.updated_at,
        "tags": session.tags,
        "is_favourite": session.is_favourite,
        "is_archived": session.is_archived,
    }


def _exported(file: ExportedFile) -> str:
    what = (
        f"“{one_line(file.titles[0]) or 'untitled'}”" if len(file.titles) == 1 else _chats(len(file.titles))
    )
    return f"{what} ({_messages(file.num_messages)}, {format_size(file.num_bytes)})"


def _say_left_out(num_messages: int) -> None:
    if num_messages:
        _say(f"{_messages(num_messages)} of other branches left out; --format json or toml holds all.")


def _imported(file: ImportedFile) -> list[str]:
    what = f"{_chats(len(file.session_ids))}, {_messages(file.num_messages)}"
    return [
        f"{clean(file.path)}: {what} ({file.format_name})",
        *(f"  {one_line(note)}" for note in file.notes),
    ]


def _step(step: ImportProgress) -> str:
    name = one_line(Path(step.path).name)
    which = f"{step.number} of {step.num_files}, " if step.num_files > 1 else ""
    share = 100 * step.done_bytes // max(1, step.total_bytes)
    return f"{name}: {which}{share} %, {_chats(step.num_chats)}"


def _quoted(name: ChatName) -> str:
    return f"“{one_line(name.title) or 'untitled'}”"


def _chats(number: int) -> str:
    return "1 chat" if number == 1 else f"{count(number)} chats"


def _messages(number: int) -> str:
    return "1 message" if number == 1 else f"{count(number)} messages"


def _width() -> int | None:
    """Cells of the terminal; None where there is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _write(pieces: Iterable[str]) -> None:
    """Text of chats: harmless in a terminal, as it is elsewhere."""
    harmless = clean if sys.stdout.isatty() else str
    for piece in pieces:
        sys.stdout.write(harmless(piece))
    sys.stdout.flush()


def _say(text: str) -> None:
    """A remark for people, which is none of the output."""
    print(text, file=sys.stderr)


def _print_json(report: dict[str, Any]) -> None:
    print(msgspec.json.encode(report).decode())
