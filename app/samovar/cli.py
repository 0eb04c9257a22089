"""The command `samovar`: reads arguments, wires the parts together, runs a front end or one command.

Every error a user can cause ends in one sentence on standard error and an exit code that is not 0.
"""

import argparse
import asyncio
import io
import os
import sys
from collections.abc import Sequence
from typing import Final

from samovar import __version__
from samovar.client.absent import AbsentClient
from samovar.client.interface import Client
from samovar.client.local import LocalClient
from samovar.config import Config, resolve_model
from samovar.core.errors import SamovarError
from samovar.core.kv_types import KV_TYPES
from samovar.core.safe_text import clean
from samovar.paths import Paths
from samovar.sessions.encoding import storable
from samovar.sessions.lookup import look_up
from samovar.sessions.store import Store

EXIT_ERROR: Final = 1
EXIT_INTERRUPTED: Final = 130

_OPTIONS: Final = {
    "model": "PATH",
    "context": "TOKENS",
    "threads": "N",
    "ram_limit": "SIZE",
    "token_limit": "TOKENS",
    "disk_limit": "SIZE",
    "kv_type_k": "TYPE",
    "kv_type_v": "TYPE",
    "flash_attn": "auto|on|off",
    "keep_alive": "TIME",
    "theme": "NAME",
}
_SAMPLING: Final = ("max_tokens", "temperature", "seed")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    args = _parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that is not UTF-8 shows `?`, and all the rest
    try:
        return int(args.run(args))
    except SamovarError as error:
        print(f"samovar: {clean(str(error))}", file=sys.stderr)
        return EXIT_ERROR
    except BrokenPipeError:
        # Whoever read the output has gone; Python would complain once more while it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="samovar",
        description="A terminal chat workstation that keeps the prompts of a local model hot.",
        epilog="Without a command, the chat workstation opens.",
    )
    parser.add_argument("--version", action="version", version=f"samovar {__version__}")
    _add_options(parser)
    parser.set_defaults(run=_run_app)
    commands = parser.add_subparsers(metavar="COMMAND")

    ask = commands.add_parser("ask", help="ask one question and print the reply")
    _add_options(ask)
    ask.add_argument("-s", "--session", help="go on with this chat (its id or title); made if it is new")
    ask.add_argument("--system", help="the system prompt of a new chat")
    ask.add_argument("--max-tokens", metavar="N", help="end the reply after so many tokens")
    ask.add_argument("--temperature", metavar="NUMBER", help="0 always gives the same reply")
    ask.add_argument("--seed", metavar="N", help="makes a reply repeatable")
    ask.add_argument("--json", action="store_true", help="print reply and costs as one JSON object")
    ask.add_argument("prompt", nargs="*", help="the question; none, or -, reads it from standard input")
    ask.set_defaults(run=_run_ask)

    chat = commands.add_parser("chat", help="chat line by line, without the full screen")
    _add_options(chat)
    chat.add_argument("-s", "--session", help="open this chat (its id or title, or the beginning of either)")
    chat.set_defaults(run=_run_line_mode)

    cache = commands.add_parser("cache", help="look at the cache, and look after it")
    actions = cache.add_subparsers(metavar="ACTION", required=True)
    status = actions.add_parser("status", help="what is cached, how big, how often it was used")
    _add_options(status)
    status.add_argument("--json", action="store_true", help="print one JSON object")
    status.set_defaults(run=_run_cache_status)
    for name, explained in _CACHE_ACTIONS.items():
        action = actions.add_parser(name, help=explained)
        _add_options(action)
        action.add_argument("--json", action="store_true", help="print one JSON object")
        action.set_defaults(run=_run_cache, action=name)
        if name in ("pin", "unpin", "evict"):
            action.add_argument("session", metavar="CHAT", help="its id or title, or the beginning of either")
        if name == "evict":
            action.add_argument("--everywhere", action="store_true", help="off the disk too")
        if name == "clear":
            action.add_argument("--ram", action="store_true", help="what is in RAM")
            action.add_argument("--disk", action="store_true", help="what is on disk")

    plan = actions.add_parser("plan", help="what chats take in the context, in RAM and on disk")
    _add_options(plan)
    plan.add_argument("--chats", type=int, default=5, metavar="N", help="so many chats (default 5)")
    plan.add_argument("--tokens", type=int, default=4096, metavar="M", help="tokens of each (default 4096)")
    plan.add_argument(
        "--shared", type=int, default=0, metavar="S", help="tokens at the beginning that are the same in all"
    )
    plan.add_argument("--json", action="store_true", help="print one JSON object")
    plan.set_defaults(run=_run_cache_plan)

    stop = commands.add_parser("stop", help="end the running engine and free its memory")
    _add_options(stop)
    stop.set_defaults(run=_run_stop)

    from samovar.bench import command as bench
    from samovar.commands import sessions_parser

    sessions_parser.add_parser(commands)
    bench.add_parser(commands)
    return parser


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Settings that go before or after a command; absent ones do not hide what came before."""
    for key, metavar in _OPTIONS.items():
        parser.add_argument(
            f"--{key.replace('_', '-')}", metavar=metavar, default=argparse.SUPPRESS, help=_HELP[key]
        )


_CACHE_ACTIONS: Final = {
    "list": "every cached prompt, and whose blocks lie on disk",
    "verify": "hash all files on disk again; exit code 1 if one is bad",
    "prune": "delete the blocks of models that are gone or have changed",
    "clear": "empty RAM or the disk, but for what is pinned or in use",
    "pin": "keep a chat's prompt whatever else comes",
    "unpin": "let a pinned chat's prompt go when room is needed",
    "evict": "take a chat's prompt out of context and RAM",
    "log": "what the last requests cost, and why",
}
_HELP: Final = {
    "model": "a GGUF file (default: the bundled SmolLM2; also SAMOVAR_MODEL)",
    "context": "size of the context in tokens",
    "threads": "threads that compute",
    "ram_limit": "RAM for cached prompts: auto, 2GiB, unlimited or off",
    "token_limit": "tokens kept in RAM: a number, auto, unlimited or off",
    "disk_limit": "disk for cached prompts: auto, 8GiB or off",
    "kv_type_k": f"type of cached keys: {', '.join(KV_TYPES)}",
    "kv_type_v": "type of cached values, likewise; a quantized one needs flash attention",
    "flash_attn": "flash attention",
    "keep_alive": "how long the model stays loaded without a request: 30m, 0, -1 for ever",
    "theme": "colours of the screen",
}


def _settings(args: argparse.Namespace) -> tuple[Config, Paths]:
    paths = Paths.from_env(os.environ)
    if (home := str(paths.run_dir)) != storable(home):
        raise SamovarError("The folder in SAMOVAR_HOME is not valid UTF-8. Set it to one with another name.")
    overrides = {key: getattr(args, key, None) for key in _OPTIONS}
    overrides |= {f"sampling.{key}": getattr(args, key, None) for key in _SAMPLING}
    return Config.load(paths.config_file, os.environ, overrides), paths


def _insisted(args: argparse.Namespace) -> frozenset[str]:
    """The settings of a running engine that this command line or its environment gives explicitly."""
    fields = {
        "ram_limit": "ram_limit",
        "token_limit": "token_limit",
        "disk_limit": "disk_limit",
        "keep_alive": "keep_alive_s",
    }
    return frozenset(
        field
        for key, field in fields.items()
        if getattr(args, key, None) is not None or os.environ.get(f"SAMOVAR_{key.upper()}")
    )


def _interactive(args: argparse.Namespace, name: str) -> tuple[Config, Paths, Client, Store]:
    """What a front end for people needs; SamovarError where there is no terminal.

    Where nothing can be written, the chats that are there can still be read.
    """
    config, paths = _settings(args)
    model = resolve_model(config)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise SamovarError("This needs a terminal. In a script, use: samovar ask 'your question'.")
    try:
        paths.ensure()
    except SamovarError as error:
        if not paths.database.exists():
            raise
        return config, paths, AbsentClient(str(error)), Store.open(paths.database)
    client = LocalClient.starting(
        config.engine_settings(model),
        run_dir=paths.run_dir,
        cache_dir=paths.cache_dir,
        log_file=paths.log_file,
        name=name,
        insist=_insisted(args),
    )
    return config, paths, client, Store.open(paths.database)


def _run_app(args: argparse.Namespace) -> int:
    from samovar.tui.app import SamovarApp, check_terminal

    check_terminal(os.environ)
    config, paths, client, store = _interactive(args, "tui")

    try:
        themes = paths.config_dir / "themes"
        app = SamovarApp(
            client,
            store,
            config,
            themes_dir=themes,
            personas_dir=paths.personas_dir,
            tasks_dir=paths.tasks_dir,
        )
        app.run()
    finally:
        store.close()
    return app.return_code or 0


def _run_line_mode(args: argparse.Namespace) -> int:
    config, paths, client, store = _interactive(args, "chat")
    from samovar.repl.line_mode import LineMode

    async def run() -> int:
        history = paths.state_dir / "line_history"
        line_mode = LineMode(client, store, config, history, paths.personas_dir, paths.tasks_dir)
        return await line_mode.run(args.session)

    try:
        return asyncio.run(run())
    finally:
        store.close()


def _run_ask(args: argparse.Namespace) -> int:
    from samovar.commands.ask import Question, ask

    config, paths = _settings(args)
    text = _standard_input() if args.prompt in ([], ["-"]) else " ".join(args.prompt)
    question = Question(text, args.session, args.system, as_json=args.json)
    model = resolve_model(config)
    paths.ensure()
    client = LocalClient.starting(
        config.engine_settings(model),
        run_dir=paths.run_dir,
        cache_dir=paths.cache_dir,
        log_file=paths.log_file,
        name="ask",
        insist=_insisted(args),
    )
    store = Store.open(paths.database) if question.session else None
    try:
        return asyncio.run(ask(client, store, config, question))
    finally:
        if store is not None:
            store.close()


def _standard_input() -> str:
    """All of standard input; bytes that are not UTF-8 become �."""
    return sys.stdin.buffer.read().decode(errors="replace") if sys.stdin is not None else ""


def _run_cache_status(args: argparse.Namespace) -> int:
    from samovar.commands.cache import Place
    from samovar.commands.status import print_status
    from samovar.core.maintenance import DiskList

    paths = Paths.from_env(os.environ)
    try:
        config, _ = _settings(args)
        disk_limit = config.disk_limit
        socket_name = config.engine_settings(resolve_model(config)).socket_name()
    except SamovarError:  # settings that cannot start an engine say nothing of the one that runs
        disk_limit, socket_name = "auto", ""
    place = Place(paths.run_dir, socket_name, paths.cache_dir, disk_limit)
    return asyncio.run(
        print_status(
            paths.run_dir,
            socket_name,
            as_json=args.json,
            look_at_disk=lambda: place.maintain("list", DiskList),
        )
    )


def _run_cache(args: argparse.Namespace) -> int:
    from samovar.commands import cache

    config, paths = _settings(args)
    try:
        socket_name = config.engine_settings(resolve_model(config)).socket_name()
    except SamovarError:  # a model that cannot be loaded says nothing of the cache
        socket_name = ""

    def find(name: str) -> str | None:
        if not paths.database.exists():
            return None
        store = Store.open(paths.database)
        try:
            found = look_up(store.names(), storable(name))
            return found.id if found is not None else None
        finally:
            store.close()

    place = cache.Place(paths.run_dir, socket_name, paths.cache_dir, config.disk_limit, find)
    match args.action:
        case "list":
            work = cache.list_cache(place, as_json=args.json)
        case "verify":
            work = cache.verify(place, as_json=args.json)
        case "prune":
            work = cache.prune(place, as_json=args.json)
        case "clear":
            work = cache.clear(place, ram=args.ram, disk=args.disk, as_json=args.json)
        case "pin" | "unpin":
            pinned = args.action == "pin"
            work = cache.pin(place, args.session, pinned=pinned, as_json=args.json)
        case "evict":
            work = cache.evict(place, args.session, everywhere=args.everywhere, as_json=args.json)
        case _:
            work = cache.log(place, as_json=args.json)
    return asyncio.run(work)


def _run_cache_plan(args: argparse.Namespace) -> int:
    from samovar.commands.plan import print_plan
    from samovar.core.arithmetic import Load

    config, paths = _settings(args)
    settings = config.engine_settings(resolve_model(config))
    load = Load(args.chats, args.tokens, args.shared)
    return asyncio.run(print_plan(settings, paths.run_dir, paths.cache_dir, load, as_json=args.json))


def _run_stop(_: argparse.Namespace) -> int:
    from samovar.commands.status import stop_hosts

    return asyncio.run(stop_hosts(Paths.from_env(os.environ).run_dir))
