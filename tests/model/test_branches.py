"""Editing, going back, regenerating, forking, going on: each costs only what is new, with real models.

The chat has about 2,000 tokens. Every way is gone right after the one before it, then after another chat was
looked at (all comes from RAM), then after RAM was emptied as well (all comes from disk).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from samovar.bench.texts import words
from samovar.core import commands, events
from samovar.core.chat import ChatMessage
from samovar.core.request import FinishReason, MismatchReason
from samovar.core.settings import EngineSettings
from samovar.core.snapshot import Tier
from samovar.kv.index import common_prefix
from tests.model.conftest import StartEngine
from tests.model.harness import Engine, Reply, system, user

pytestmark = pytest.mark.model

REPLY_TOKENS: Final = 12
NUM_TURNS: Final = 5
EDITED: Final = 5  # the third question's place among the messages
BACK_TOKENS: Final = 16  # a few words, and what the template puts around them

Away = Callable[[Engine], None]


def stay(_engine: Engine) -> None:
    """The next request finds the context as the last one has left it."""


def look_elsewhere(engine: Engine) -> None:
    engine.focus("elsewhere")
    engine.ask("elsewhere", [user("Hello there.")], max_tokens=4)


def look_elsewhere_and_empty_ram(engine: Engine) -> None:
    look_elsewhere(engine)
    since = engine.mark()
    engine.send(commands.ClearTier(Tier.HOST))
    cleared = engine.wait_for(events.TierCleared, since=since)
    assert cleared.kept_blocks == 0, "all was written"


@dataclass(slots=True)
class Branches:
    """One chat with its branches; what was asked and answered is remembered token for token."""

    engine: Engine
    away: Away = stay
    known: list[tuple[int, ...]] = field(default_factory=list)

    def ask(self, session: str, messages: list[ChatMessage], *, away: Away | None = None) -> Reply:
        (away or self.away)(self.engine)
        self.engine.focus(session)
        reply = self.engine.ask(session, messages, max_tokens=REPLY_TOKENS)
        assert reply.finished.reason in (FinishReason.STOP, FinishReason.LENGTH)
        # The token that was drawn last was never processed.
        processed = (*self.engine.loop.prompts.build(messages), *reply.finished.tokens[:-1])
        self.known.append(processed)
        return reply

    def num_new(self, messages: list[ChatMessage]) -> int:
        """Tokens of a prompt beyond all that was ever in the context, one at least."""
        prompt = self.engine.loop.prompts.build(messages)
        return max(1, len(prompt) - max(common_prefix(prompt, known) for known in self.known))


def settings(model: Path) -> EngineSettings:
    return EngineSettings(str(model), context_tokens=4096, ram_limit="1GiB", disk_limit="1GiB")


@pytest.fixture(params=["smollm2", "gemma3"])
def model(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


def talk(branches: Branches) -> list[ChatMessage]:
    """A chat of some 2,000 tokens that ends in a reply."""
    messages = [system(words(100, seed=0))]
    for turn in range(NUM_TURNS):
        messages.append(user(words(330, seed=turn + 1)))
        messages.append(branches.ask("chat", messages, away=stay).message())
    return messages


@pytest.mark.timeout(900)
def test_every_way_to_branch_processes_only_what_is_new(
    model: Path, start_engine: StartEngine, tmp_path: Path
) -> None:
    branches = Branches(start_engine(settings(model), tmp_path / "disk"))
    chat = talk(branches)
    assert 1700 <= len(branches.known[-1]) <= 2400
    go_every_way(branches, chat, "Go on.")
    branches.away = look_elsewhere
    go_every_way(branches, chat, "And then?")
    branches.away = look_elsewhere_and_empty_ram
    go_every_way(branches, chat, "Why so?")


def go_every_way(branches: Branches, chat: list[ChatMessage], short: str) -> None:
    """Edit, go back, regenerate, fork and go on; `short` is a message that was not sent before."""
    edited = [*chat[:EDITED], user(f"{short} {words(100, seed=77)}")]
    new = branches.num_new(edited)
    edit = branches.ask("chat", edited)
    assert edit.processed <= new
    assert edit.reused >= len(branches.engine.loop.prompts.build(chat[: EDITED - 1]))

    back = branches.ask("chat", [*chat, user(short)])
    assert back.processed <= BACK_TOKENS
    assert back.finished.stats.mismatch is not None
    assert back.finished.stats.mismatch.reason is MismatchReason.MESSAGE_EDITED

    again = [*edited, edit.message(), user(short)]
    assert branches.ask("chat", again).processed <= BACK_TOKENS
    assert branches.ask("chat", chat[:-1]).processed == 1, "regenerated, on the first branch"
    assert branches.ask("chat", edited).processed == 1, "regenerated, on the other branch"

    other_end = [*chat[:-2], user(f"{short} {words(20, seed=78)}")]
    new = branches.num_new(other_end)
    assert new < 60
    assert branches.ask("chat", other_end).processed <= new

    for session, start in ((f"fork {short}", chat), (f"fork in the middle {short}", chat[: EDITED + 2])):
        fork = [*start, user(f"{short} Tell me.")]
        new = branches.num_new(fork)
        assert new <= BACK_TOKENS
        first = branches.ask(session, fork)
        assert first.processed <= new

    more = branches.ask("chat", chat)
    assert more.processed == 1, "the cut reply goes on"
    assert more.finished.begun == chat[-1].tokens
    longer = [*chat[:-1], more.message(chat[-1].content), user(short)]
    assert branches.ask("chat", longer).processed <= BACK_TOKENS


def test_a_reply_longer_than_a_sliding_window_is_regenerated_for_one_token(
    gemma3: Path, start_engine: StartEngine
) -> None:
    engine = start_engine(settings(gemma3))
    engine.focus("chat")
    messages = [user(words(300, seed=3))]
    long = engine.ask("chat", messages, max_tokens=540)
    assert long.finished.stats.generated_tokens == 540
    assert engine.ask("chat", messages).processed == 1


def test_a_stopped_reply_goes_on_for_next_to_nothing(model: Path, start_engine: StartEngine) -> None:
    for away in (stay, look_elsewhere):
        engine = start_engine(settings(model))
        branches = Branches(engine, away)
        messages = [user(words(300, seed=5) + " Write a long story about it.")]
        engine.focus("chat")
        since = engine.mark()
        name = engine.submit("chat", messages, max_tokens=400)
        engine.wait_for(events.TokensGenerated, since=since)
        engine.send(commands.Cancel(name))
        stopped = engine.wait(name)
        assert stopped.finished.reason is FinishReason.CANCELLED
        begun = stopped.message()
        more = branches.ask("chat", [*messages, begun])
        assert more.processed <= 4
        whole = more.message(begun.content)
        assert branches.ask("chat", [*messages, whole, user("Go on.")]).processed <= BACK_TOKENS


def test_going_on_is_what_an_uncut_reply_would_have_been(smollm2: Path, start_engine: StartEngine) -> None:
    engine = start_engine(settings(smollm2))
    messages = [user("Tell me of the sea 🌊, of Øresund, and of harbours.")]
    whole = engine.ask("whole", messages, max_tokens=40)
    engine.focus("cut")
    reply = engine.ask("cut", messages, max_tokens=1)
    text, tokens = reply.message(), list(reply.finished.tokens)
    while len(tokens) < len(whole.finished.tokens):
        reply = engine.ask("cut", [*messages, text], max_tokens=1)
        assert reply.processed <= 2
        tokens += reply.finished.tokens
        if not reply.finished.tokens:
            break  # a part of a character: it begins anew each time
        text = reply.message(text.content)
    assert tokens == list(whole.finished.tokens[: len(tokens)])
    assert whole.text.startswith(text.content)
