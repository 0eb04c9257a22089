"""What a request's front end is told on the way: that it has begun, and why no more was reused; its text; how
much of its prompt has been read. Engine thread."""

from collections.abc import Callable, Sequence
from typing import Final

from samovar.core import events
from samovar.core.reasoning import begins_inside
from samovar.core.request import Mismatch
from samovar.engine.backend import Backend
from samovar.engine.prompt import PromptBuilder
from samovar.engine.records import Records
from samovar.engine.running import Running
from samovar.kv.explain import Previous, explain
from samovar.kv.host_tier import HostTier
from samovar.kv.index import common_prefix
from samovar.kv.ledger import Ledger

PROGRESS_S: Final = 0.1
TEXT_S: Final = 0.03
"""Tokens that come faster than this share an event: each wakes other threads, on the cores that decode."""

Emit = Callable[[str | None, events.Event], None]


class Telling:
    """Sends a request's events but for its first and its last one."""

    def __init__(
        self,
        backend: Backend,
        prompts: PromptBuilder,
        block_tokens: int,
        host: HostTier,
        ledger: Ledger,
        records: Records,
        emit: Emit,
    ) -> None:
        self._backend = backend
        self._prompts = prompts
        self._block_tokens = block_tokens
        self._host = host
        self._ledger = ledger
        self._records = records
        self._emit = emit

    def tell_start(self, running: Running) -> None:
        """A request's first step comes next."""
        self._explain(running)
        request = running.request
        started = events.RequestStarted(request.id, request.session, running.stats(), running.thinks)
        self._emit(running.client, started)

    def _explain(self, running: Running) -> None:
        """Find out why no more was reused, and remember the prompt as the session's last one."""
        request, prompt = running.request, running.prompt
        record = self._records.get(request.session)
        previous = record.previous if record else None
        common = common_prefix(prompt, previous.tokens) if previous else 0
        found = explain(
            prompt,
            request.messages,
            running.reused.total,
            previous,
            common,
            cache_off=self._host.limits.off,
            other_model=any(
                m.tokens and m.tokenizer != self._backend.traits.tokenizer for m in request.messages
            ),
            grain=1 if self._backend.traits.family.can_trim else self._block_tokens,
            is_reasoning=self._is_reasoning,
        )
        if found is not None:
            words = self._words
            running.mismatch = Mismatch(
                found.pos, found.reason, words(found.before), words(found.cached), words(found.asked)
            )
        if record is not None and request.store:
            record.hits += running.reused.total > 0
            self._records.remember(request.session, Previous(request.messages, prompt))

    def _is_reasoning(self, tokens: Sequence[int]) -> bool:
        """Whether tokens begin with reasoning, or in the middle of it."""
        tags = self._prompts.thinking
        return tags is not None and begins_inside(self._prompts.text_of(tokens), tags)

    def _words(self, tokens: tuple[int, ...]) -> tuple[str, ...]:
        return tuple(self._spell(token) for token in tokens)

    def _spell(self, token: int) -> str:
        text = self._backend.piece(token).decode("utf-8", "replace")
        return text or self._prompts.control_text(token)

    def send_text(self, running: Running, now: float) -> None:
        """Send what was generated since the last time."""
        running.t_sent = now
        if running.unsent_tokens or running.unsent_text:
            request = running.request
            self._emit(
                running.client,
                events.TokensGenerated(
                    request.id, request.session, running.unsent_text, running.unsent_tokens
                ),
            )
            running.unsent_text, running.unsent_tokens = "", 0

    def tell_progress(self, running: Running, now: float) -> None:
        """Tell how much of a prompt has been read, now and then."""
        if now - running.t_progress < PROGRESS_S:
            return
        running.t_progress = now
        rate = self._ledger.prefill.per_second
        total = len(running.prompt) - running.reused.total
        self._emit(
            running.client,
            events.PrefillProgressed(
                running.request.id,
                running.request.session,
                min(running.processed, total),
                total,
                1000 * running.todo / rate if rate else None,
            ),
        )
