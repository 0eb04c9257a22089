"""The arguments of `samovar sessions …`. What carries them out is loaded when it is needed."""

import argparse
import os
from typing import Final

from samovar.paths import Paths

SORTS: Final = ("recent", "created", "title", "length")
FORMATS: Final = ("md", "json", "toml")
_CHAT: Final = "its id or title, or the beginning of either"


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Mount `sessions` among the commands; each action sets `run` to be called with its arguments."""
    sessions = subparsers.add_parser(
        "sessions", help="chats: list, read, search, export, import, delete; needs no model"
    )
    actions = sessions.add_subparsers(dest="action", metavar="ACTION", required=True)

    listing = _action(actions, "list", "all chats, the latest first")
    listing.add_argument("--tag", metavar="T", help="those with this tag")
    listing.add_argument("--archived", action="store_true", help="those that are archived")
    listing.add_argument("--sort", choices=SORTS, default="recent", help="by what (default recent)")
    listing.add_argument("--limit", type=_count, metavar="N", help="so many at most")

    show = _action(actions, "show", "a chat as text")
    show.add_argument("chat", metavar="CHAT", help=_CHAT)
    show.add_argument("--all-branches", action="store_true", help="its whole tree, as an outline")

    search = _action(actions, "search", "find messages in all chats")
    search.add_argument(
        "words",
        nargs="+",
        metavar="WORD",
        help='words, tag:T, before:2026-11, role:me, model:M; -- "-without"',
    )
    search.add_argument("--limit", type=_count, default=20, metavar="N", help="so many at most (default 20)")

    export = _action(actions, "export", "write chats to standard output, a file or a folder")
    export.add_argument("chats", nargs="*", metavar="CHAT", help=_CHAT)
    export.add_argument("--all", action="store_true", help="all chats, archived ones too")
    export.add_argument("--format", choices=FORMATS, help="(default: what the file's ending says, else md)")
    export.add_argument("-o", "--output", metavar="PATH", help="a file, a folder, or - for standard output")
    export.add_argument("--overwrite", action="store_true", help="also over files that are there already")

    bring = _action(actions, "import", "take in chats of files, or of the files in a folder, as new ones")
    bring.add_argument("files", nargs="*", metavar="FILE", help="of Samovar, or of another program")
    bring.add_argument("--samples", action="store_true", help="the sample chats that come with Samovar")

    delete = _action(actions, "delete", "take chats from the list; for 30 days `restore` brings them back")
    delete.add_argument("chats", nargs="+", metavar="CHAT", help=_CHAT)
    delete.add_argument("--yes", action="store_true", help="do not ask")

    restore = _action(actions, "restore", "bring back deleted chats; without a name, list them")
    restore.add_argument("chats", nargs="*", metavar="CHAT", help=_CHAT)


def _action(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, explained: str
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=explained)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_run)
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _run(args: argparse.Namespace) -> int:
    from samovar.commands.sessions import Sessions
    from samovar.sessions.store import Store

    paths = Paths.from_env(os.environ)
    store = Store.open(paths.database)
    try:
        sessions = Sessions(store, paths.run_dir, as_json=args.json)
        match args.action:
            case "list":
                return sessions.list_chats(args.tag, args.sort, args.limit, archived=args.archived)
            case "show":
                return sessions.show(args.chat, all_branches=args.all_branches)
            case "search":
                return sessions.search(" ".join(args.words), args.limit)
            case "export":
                return sessions.export(
                    args.chats, args.format, args.output, everything=args.all, overwrite=args.overwrite
                )
            case "import":
                return sessions.bring_in(args.files, samples=args.samples)
            case "delete":
                return sessions.delete(args.chats, is_sure=args.yes)
            case _:
                return sessions.restore(args.chats)
    finally:
        store.close()
