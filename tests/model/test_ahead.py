"""Work ahead with real models: replies stay the same, and after Enter little is left to do."""

from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from samovar.bench.texts import words
from samovar.core import events
from samovar.core.chat import ChatMessage
from samovar.core.request import FinishReason, RequestKind
from samovar.core.settings import EngineSettings
from samovar.engine.llama import LlamaModel
from samovar.engine.prompt import PromptBuilder
from tests.model.conftest import StartEngine
from tests.model.harness import Engine, Reply, system, user
from tests.model.test_exactness import CASES, assert_same_reply

pytestmark = pytest.mark.model

MESSAGE: Final = "Which of these would you look at first, and why would you leave the others for later?"
BOUNDS: Final = {name: case.bound for name, case in CASES.items()}
MAX_AFTER_ENTER: Final = 16  # the last word, the end of the turn, the header of the reply
MAX_WASTED: Final = 2 * MAX_AFTER_ENTER
TRIMMED: Final = ("dense", "sliding window")


def engine_settings(model: Path) -> EngineSettings:
    return EngineSettings(str(model), context_tokens=1024, ram_limit="1GiB")


@pytest.fixture(params=["smollm2", "gemma3", "lfm2", "mamba"])
def model(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


def prepare(
    engine: Engine, messages: list[ChatMessage], draft: str, *, complete: bool = False
) -> events.RequestFinished:
    name = engine.submit("s", [*messages, user(draft)], kind=RequestKind.PREPARE, complete=complete)
    return engine.wait(name).finished


def second_turn(engine: Engine, *, ahead: bool) -> Reply:
    """The reply to a message that was typed with a correction in the middle."""
    messages = [system("You answer in a few words."), user(words(120, seed=1))]
    engine.focus("s")
    messages.append(engine.ask("s", messages).message())
    if ahead:
        drafts = [MESSAGE[: pos + 1] for pos, key in enumerate(MESSAGE) if key == " "]
        for draft in ["", *drafts[:8], f"{drafts[4]}better not ", *drafts[5:]]:
            assert prepare(engine, messages, draft).reason is FinishReason.STOP
    return engine.ask("s", [*messages, user(MESSAGE)])


def test_a_message_that_was_typed_gets_the_reply_that_it_gets_at_once(
    model: Path, start_engine: StartEngine
) -> None:
    plain = second_turn(start_engine(engine_settings(model)), ahead=False)
    engine = start_engine(engine_settings(model))
    typed = second_turn(engine, ahead=True)
    assert_same_reply(plain, typed, BOUNDS[engine.info.family])
    assert typed.processed <= MAX_AFTER_ENTER < plain.processed
    totals = engine.snapshot().totals
    assert totals.ahead_used_tokens == typed.finished.stats.ahead_tokens > 0
    assert totals.ahead_tokens == totals.ahead_used_tokens + totals.ahead_wasted_tokens
    assert totals.requests == 2


def test_a_message_taken_for_complete_leaves_one_token_and_costs_little_where_it_was_not(
    model: Path, start_engine: StartEngine
) -> None:
    plain = second_turn(start_engine(engine_settings(model)), ahead=False)
    engine = start_engine(engine_settings(model))
    messages = [system("You answer in a few words."), user(words(120, seed=1))]
    engine.focus("s")
    messages.append(engine.ask("s", messages).message())
    drafts = [MESSAGE[: pos + 1] for pos, key in enumerate(MESSAGE) if key == " "]
    for number, draft in enumerate(drafts):
        complete = number == len(drafts) // 2
        assert prepare(engine, messages, draft, complete=complete).reason is FinishReason.STOP
    assert prepare(engine, messages, MESSAGE, complete=True).reason is FinishReason.STOP
    typed = engine.ask("s", [*messages, user(MESSAGE)])
    assert_same_reply(plain, typed, BOUNDS[engine.info.family])
    can_trim = engine.info.family in TRIMMED
    assert typed.processed == 1 if can_trim else typed.processed <= MAX_AFTER_ENTER
    totals = engine.snapshot().totals
    assert totals.ahead_tokens == totals.ahead_used_tokens + totals.ahead_wasted_tokens
    assert totals.ahead_wasted_tokens <= MAX_WASTED


def builder(model: LlamaModel, template: str | None) -> PromptBuilder:
    return PromptBuilder(
        template=template,
        tokenize=model.tokenize,
        piece=model.piece,
        control_tokens=model.control_tokens(),
        bos=None,
        eos=None,
        add_bos=False,
        tokenizer="test",
    )


texts = st.text(st.sampled_from("abcdeéß 🌊\n.,;'-12(){}_<|>"), max_size=30)


@given(begun=texts, more=texts)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def check_growth(prompts: PromptBuilder, begun: str, more: str) -> None:
    stable = prompts.stable_prefix([user(f"{begun} ")])
    grown = prompts.build([user(f"{begun} {more}")])
    missed = next((i for i, (a, b) in enumerate(zip(stable, grown, strict=False)) if a != b), len(stable))
    assert len(stable) - missed <= 3, "rare joins cost a few tokens"


@pytest.mark.parametrize("name", ["smollm2", "gemma3"])
def test_whatever_follows_a_draft_its_stable_tokens_stay(name: str, request: pytest.FixtureRequest) -> None:
    model = LlamaModel(request.getfixturevalue(name), extra_bufts=False)
    try:
        check_growth(builder(model, model.template()))
    finally:
        model.close()


def test_common_text_is_stable_word_by_word(smollm2: Path) -> None:
    model = LlamaModel(smollm2, extra_bufts=False)
    try:
        prompts = builder(model, model.template())
        message = words(60, seed=3)
        whole = prompts.build([user(message)])
        for pos in (pos for pos, key in enumerate(message) if key == " "):
            stable = prompts.stable_prefix([user(message[: pos + 1])])
            assert stable == whole[: len(stable)]
            assert prompts.text_of(stable).endswith(message[:pos])
    finally:
        model.close()
