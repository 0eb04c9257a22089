"""`samovar ask`: one question, one reply, on the shared engine; with `-s` as a part of a stored chat."""

import sys
import uuid
from dataclasses import dataclass

import msgspec

from samovar.client.local import LocalClient
from samovar.config import Config, resolve_model
from samovar.core.chat import ChatMessage, Role
from samovar.core.commands import Submit
from samovar.core.errors import SamovarError
from samovar.core.events import HostFailed, LoadingProgressed, RequestFinished, TokensGenerated
from samovar.core.request import FinishReason, Request
from samovar.core.safe_text import clean
from samovar.paths import Paths
from samovar.sessions.store import MessageState, Session, Store

_TITLE_LENGTH = 40
_STATES = {
    FinishReason.CANCELLED: MessageState.STOPPED,
    FinishReason.FAILED: MessageState.FAILED,
    FinishReason.HOST_LOST: MessageState.FAILED,
}


@dataclass(frozen=True, slots=True)
class Question:
    """What the command line asks for; None takes the configured value."""

    text: str
    session: str | None
    system: str | None
    max_tokens: int | None
    temperature: float | None
    seed: int | None
    as_json: bool


async def ask(config: Config, paths: Paths, question: Question) -> int:
    """Ask, print the reply as it comes (or one JSON object), store it; returns the exit code."""
    if not question.text.strip():
        raise SamovarError("There is nothing to ask: give a question, or pipe one in.")
    model = resolve_model(config)
    paths.ensure()
    store = Store.open(paths.database) if question.session else None
    try:
        session, messages = _conversation(store, config, question)
        client = LocalClient.starting(
            config.engine_settings(model),
            run_dir=paths.run_dir,
            cache_dir=paths.cache_dir,
            log_file=paths.log_file,
            name="ask",
        )
        await client.start()
        try:
            request = _request(config, question, session, messages)
            client.send(Submit(request))
            finished = await _reply(client, request, quiet=question.as_json)
        finally:
            await client.close()
        if store is not None and session is not None:
            _store_reply(store, session, finished)
    finally:
        if store is not None:
            store.close()
    return _report(finished, question, request.session)


def _conversation(
    store: Store | None, config: Config, question: Question
) -> tuple[Session | None, list[ChatMessage]]:
    """The stored chat (made if need be, the question stored in it) and the messages to send."""
    if store is None or question.session is None:
        system = question.system if question.system is not None else config.system_prompt
        messages = [ChatMessage(Role.SYSTEM, system)] if system else []
        return None, [*messages, ChatMessage(Role.USER, question.text)]
    session = store.find(question.session)
    if session is None:
        system = question.system if question.system is not None else config.system_prompt
        session = store.create_session(title=question.session, system_prompt=system)
    elif question.system is not None and question.system != session.system_prompt:
        raise SamovarError(
            f"The chat {session.title!r} has a system prompt already. Leave --system out, or use a new chat."
        )
    store.add_message(session.id, Role.USER, question.text)
    messages = [ChatMessage(Role.SYSTEM, session.system_prompt)] if session.system_prompt else []
    for stored in store.path(session.id):
        messages.append(ChatMessage(stored.role, stored.content, stored.tokens, stored.tokenizer))
    return session, messages


def _request(
    config: Config, question: Question, session: Session | None, messages: list[ChatMessage]
) -> Request:
    sampling = config.sampling.sampling()
    if question.temperature is not None:
        sampling = msgspec.structs.replace(sampling, temperature=question.temperature)
    if question.seed is not None:
        sampling = msgspec.structs.replace(sampling, seed=question.seed)
    return Request(
        id=uuid.uuid4().hex,
        session=session.id if session else f"ask-{uuid.uuid4().hex[:12]}",
        messages=tuple(messages),
        title=session.title if session else " ".join(question.text.split())[:_TITLE_LENGTH],
        sampling=sampling,
        max_tokens=question.max_tokens or config.sampling.max_tokens,
    )


async def _reply(client: LocalClient, request: Request, *, quiet: bool) -> RequestFinished:
    """Wait for the request's end; prints text as it comes unless `quiet`."""
    progress = sys.stderr.isatty() and not quiet
    failure = ""
    async for event in client.events():
        match event:
            case LoadingProgressed(stage, fraction) if progress:
                print(f"\r\x1b[K{stage} {100 * fraction:.0f} %", end="", file=sys.stderr, flush=True)
            case TokensGenerated() if event.request_id == request.id and not quiet:
                if progress:
                    print("\r\x1b[K", end="", file=sys.stderr, flush=True)
                    progress = False
                print(_harmless(event.text), end="", flush=True)
            case HostFailed(message):
                failure = message
            case RequestFinished() if event.request_id == request.id:
                if progress:
                    print("\r\x1b[K", end="", file=sys.stderr, flush=True)
                return event
            case _:
                pass
    raise SamovarError(failure or "The engine ended without an answer. Try again.")


def _harmless(text: str) -> str:
    """Text for a terminal: nothing in it can steer the terminal. Piped output stays as it is."""
    return clean(text) if sys.stdout.isatty() else text


def _store_reply(store: Store, session: Session, finished: RequestFinished) -> None:
    reply = store.add_message(session.id, Role.ASSISTANT, finished.reply, state=MessageState.STREAMING)
    store.finish_reply(
        reply.id,
        finished.reply,
        _STATES.get(finished.reason, MessageState.COMPLETE),
        tokens=finished.tokens,
        tokenizer=finished.tokenizer,
        stats=finished.stats,
        error=finished.error,
    )


def _report(finished: RequestFinished, question: Question, session: str) -> int:
    stats = finished.stats
    failed = finished.reason in (FinishReason.FAILED, FinishReason.HOST_LOST)
    if question.as_json:
        report = {
            "session": session,
            "reply": finished.reply,
            "finish_reason": finished.reason.value,
            "prompt_tokens": stats.prompt_tokens,
            "reused_tokens": stats.reused,
            "processed_tokens": stats.processed_tokens,
            "generated_tokens": stats.generated_tokens,
            "restore_ms": stats.restore_ms,
            "first_token_ms": stats.first_token_ms,
            "tokens_per_second": stats.tokens_per_second,
            "mismatch": stats.mismatch,
        }
        if failed:
            report["error"] = finished.error
        print(msgspec.json.encode(report).decode())
    elif finished.reply:
        print()
    if failed:
        print(f"samovar: {finished.error}", file=sys.stderr)
        return 1
    return 0
