"""`samovar bench …`: arguments in, figures out. Every benchmark has an engine host of its own."""

import argparse
import asyncio
import contextlib
import os
from typing import Final

import msgspec

from samovar.bench import (
    branches,
    engine,
    idle,
    longchat,
    parallel,
    restart,
    search,
    sidetasks,
    startup,
    stops,
    switchboard,
    typing,
)
from samovar.bench.driver import own_host
from samovar.client.interface import Client
from samovar.config import Config, resolve_model
from samovar.core.errors import SamovarError
from samovar.core.settings import EngineSettings
from samovar.paths import Paths

KEEP_ALIVE_S: Final = 120.0  # of a host whose benchmark was killed

_OPTIONS: Final = {
    "model": ("PATH", "a GGUF file (default: the bundled SmolLM2)"),
    "threads": ("N", "threads that compute"),
    "ram_limit": ("SIZE", "RAM for cached prompts: auto, 2GiB, unlimited or off"),
    "disk_limit": ("SIZE", "disk for cached prompts: auto, 8GiB or off"),
    "kv_type_k": ("TYPE", "type of cached keys"),
    "kv_type_v": ("TYPE", "type of cached values"),
    "flash_attn": ("auto|on|off", "flash attention"),
}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Mount `bench` among the commands; each benchmark sets `run` to be called with its arguments."""
    bench = subparsers.add_parser("bench", help="measure what the cache is worth on this machine")
    kinds = bench.add_subparsers(dest="benchmark", metavar="BENCHMARK", required=True)

    board = kinds.add_parser("switchboard", help="chats with a common system prompt, asked in turn")
    board.add_argument("--sessions", type=_count, default=5, help="chats (default 5)")
    board.add_argument(
        "--turns", type=_count, default=2, help="questions to each after its opening (default 2)"
    )
    board.add_argument(
        "--shared-words", type=_count, default=600, help="words of the system prompt (default 600)"
    )
    board.add_argument(
        "--own-words", type=_count, default=500, help="words of each chat's opening (default 500)"
    )
    _add_common(board, context=4096)

    tree = kinds.add_parser(
        "branches", help="a long chat edited in the middle, and the way back; regenerate, fork, continue"
    )
    tree.add_argument("--turns", type=_count, default=5, help="questions of the chat (default 5)")
    tree.add_argument("--own-words", type=_count, default=330, help="words of each question (default 330)")
    tree.add_argument("--repeats", type=_count, default=3, help="times each way is gone (default 3)")
    _add_common(tree, context=4096)

    beside = kinds.add_parser(
        "sidetasks", help="a chat with side tasks after each of its turns: what they cost, and cost the chat"
    )
    beside.add_argument("--turns", type=_count, default=5, help="questions after the opening (default 5)")
    beside.add_argument(
        "--own-words", type=_count, default=1200, help="words of the chat's opening (default 1200)"
    )
    _add_common(beside, context=4096)

    quiet = kinds.add_parser("idle", help="decode speed beside idle chats, compared with a chat alone")
    quiet.add_argument("--chats", type=_count, default=4, help="idle chats (default 4)")
    quiet.add_argument("--words", type=_count, default=1350, help="words in each (default 1350)")
    quiet.add_argument("--repeats", type=_count, default=7, help="replies on each side (default 7)")
    _add_common(quiet, context=8192)

    many = kinds.add_parser(
        "parallel", help="many chats that write at once; the chat in focus while side tasks run beside it"
    )
    many.add_argument("--tokens", type=_count, default=96, help="tokens of each reply (default 96)")
    many.add_argument("--words", type=_count, default=350, help="words of each chat (default 350)")
    many.add_argument("--repeats", type=_count, default=5, help="times each is measured (default 5)")
    _add_common(many, context=8192)

    halt = kinds.add_parser("stops", help="time until a stop or a switch takes effect")
    halt.add_argument("--stops", type=_count, default=100, help="how many (default 100)")
    _add_common(halt, context=4096)

    keys = kinds.add_parser("typing", help="first token after Enter, with and without work ahead")
    keys.add_argument("--repeats", type=_count, default=3, help="messages of each kind (default 3)")
    keys.add_argument("--speed", type=_count, default=1, help="type so many times as fast (default 1)")
    _add_common(keys, context=8192)

    again = kinds.add_parser(
        "restart", help="a long chat asked cold, hot, and warm from disk after a restart"
    )
    again.add_argument("--tokens", type=_count, default=3000, help="tokens of the chat (default 3000)")
    again.add_argument("--repeats", type=_count, default=3, help="restarts (default 3)")
    _add_common(again, context=4096)

    begin = kinds.add_parser("startup", help="starting with a full disk cache, compared with an empty one")
    begin.add_argument("--blocks", type=_count, default=50_000, help="blocks on disk (default 50000)")
    begin.add_argument("--repeats", type=_count, default=9, help="starts of each (default 9)")
    _add_common(begin, context=4096)

    inner = kinds.add_parser("engine", help="capture, restore and decode, compared with bare llama.cpp")
    inner.add_argument(
        "--tokens", type=_count, default=4096, help="tokens to capture and restore (default 4096)"
    )
    inner.add_argument("--repeats", type=_count, default=5, help="repeats of each (default 5)")
    _add_common(inner, context=None)

    find = kinds.add_parser(
        "search", help="searching a large store of chats, and listing it; without a model"
    )
    find.add_argument("--chats", type=_count, default=20_000, help="chats (default 20000)")
    find.add_argument("--messages", type=_count, default=400_000, help="messages (default 400000)")
    find.add_argument("--repeats", type=_count, default=20, help="warm searches for each query (default 20)")
    find.add_argument("--json", action="store_true", help="print one JSON object")
    find.set_defaults(run=_run_search)

    long = kinds.add_parser("longchat", help="opening very long chats in the workstation, and moving in them")
    long.add_argument("--messages", type=_count, default=10_000, help="messages of a chat (default 10000)")
    long.add_argument("--chats", type=_count, default=5, help="such chats, 7 at most (default 5)")
    long.add_argument("--json", action="store_true", help="print one JSON object")
    long.set_defaults(run=_run_longchat)


def run(args: argparse.Namespace) -> int:
    """Run the benchmark that was chosen and print its figures; returns the exit code."""
    settings = _settings(args)

    def factory() -> contextlib.AbstractAsyncContextManager[Client]:
        return own_host(settings)

    match args.benchmark:
        case "switchboard":
            result = asyncio.run(
                switchboard.run(
                    factory, args.sessions, args.turns, args.shared_words, args.own_words, args.context
                )
            )
            _print(result, switchboard.text(result), as_json=args.json)
        case "branches":
            grown = asyncio.run(branches.run(factory, args.turns, args.own_words, args.repeats))
            _print(grown, branches.text(grown), as_json=args.json)
        case "sidetasks":
            cost = asyncio.run(sidetasks.run(factory, args.turns, args.own_words))
            _print(cost, sidetasks.text(cost), as_json=args.json)
        case "idle":
            rest = asyncio.run(idle.run(factory, args.chats, args.words, repeats=args.repeats))
            _print(rest, idle.text(rest), as_json=args.json)
        case "parallel":
            at_once = asyncio.run(parallel.run(factory, args.tokens, args.words, args.repeats))
            _print(at_once, parallel.text(at_once), as_json=args.json)
        case "stops":
            halted = asyncio.run(stops.run(factory, args.stops))
            _print(halted, stops.text(halted), as_json=args.json)
        case "typing":
            typed = asyncio.run(typing.run(factory, repeats=args.repeats, speed=args.speed))
            _print(typed, typing.text(typed), as_json=args.json)
        case "restart":
            returned = asyncio.run(restart.run(settings, args.tokens, args.repeats))
            _print(returned, restart.text(returned), as_json=args.json)
        case "startup":
            started = asyncio.run(startup.run(settings, args.blocks, args.repeats))
            _print(started, startup.text(started), as_json=args.json)
        case "engine":
            measured = asyncio.run(engine.run(settings, args.tokens, args.repeats))
            _print(measured, engine.text(measured), as_json=args.json)
        case other:
            raise SamovarError(f"There is no benchmark {other!r}.")
    return 0


def _run_search(args: argparse.Namespace) -> int:
    found = search.run(args.chats, args.messages, args.repeats)
    _print(found, search.text(found), as_json=args.json)
    return 0


def _run_longchat(args: argparse.Namespace) -> int:
    opened = longchat.run(args.messages, min(7, args.chats))
    _print(opened, longchat.text(opened), as_json=args.json)
    return 0


def _add_common(parser: argparse.ArgumentParser, *, context: int | None) -> None:
    """Options of all benchmarks; a context of None is the benchmark's own affair."""
    if context is not None:
        parser.add_argument(
            "--context", type=_count, default=context, help=f"tokens of context (default {context:,})"
        )
    for key, (metavar, explained) in _OPTIONS.items():
        # Absent ones do not hide what stood before the command.
        parser.add_argument(
            f"--{key.replace('_', '-')}", metavar=metavar, default=argparse.SUPPRESS, help=explained
        )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


def _settings(args: argparse.Namespace) -> EngineSettings:
    """Settings of the benchmark's own host: the user's, with what was given. It must not sleep meanwhile."""
    overrides = {key: getattr(args, key, None) for key in _OPTIONS}
    overrides["context"] = getattr(args, "context", None)
    config = Config.load(Paths.from_env(os.environ).config_file, os.environ, overrides)
    return msgspec.structs.replace(config.engine_settings(resolve_model(config)), keep_alive_s=KEEP_ALIVE_S)


def _print(result: msgspec.Struct, text: str, *, as_json: bool) -> None:
    print(msgspec.json.encode(result).decode() if as_json else text, flush=True)
