"""A greedy reply is the same however its prompt came into the context.

Two kinds of comparison:

- Where every token was processed in a batch of the same shape, the logits must be equal bit for bit: then
  capture, restore, sharing and stopping have changed nothing at all.
- Where shapes differ (a reply generated token by token, against the same text processed in chunks), the
  kernels of llama.cpp add in another order, and the rounding of 8-bit activations enlarges that. The first
  test measures this effect without any cache; the others may not go beyond the same bound, and replies may
  part only where the two best logits are closer than that.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import pytest

from samovar.bench.texts import words
from samovar.core import commands
from samovar.core.chat import ChatMessage
from samovar.core.events import TokensGenerated
from samovar.core.request import FinishReason
from samovar.core.settings import EngineSettings
from samovar.engine.backend import Batch, DecodeResult
from samovar.engine.llama import LlamaBackend
from samovar.engine.start import load
from tests.model.conftest import StartEngine
from tests.model.harness import Engine, Logits, Reply, read_logits, system, user

pytestmark = pytest.mark.model


@dataclass(frozen=True, slots=True)
class Case:
    """A model with a KV type. `bound` is how far batch shapes alone may move a logit.

    Measured on AVX-512 cores with llama.cpp as of llama-cpp-python 0.3.36: SmolLM2 0.99, Gemma 3 1.74,
    the hybrid 0.0002; SmolLM2 with q8_0 and the recurrent model exactly 0.
    """

    model: str
    kv_type: str
    bound: float
    own_words: int


CASES: Final = {
    "dense": Case("smollm2", "f16", 2.0, 120),
    "dense, q8_0": Case("smollm2", "q8_0", 2.0, 120),
    "sliding window": Case("gemma3", "f16", 3.5, 400),
    "hybrid": Case("lfm2", "f16", 0.01, 300),
    "recurrent": Case("mamba", "f16", 0.01, 300),
}


@dataclass(frozen=True, slots=True)
class Setting:
    case: Case
    engine: EngineSettings


@pytest.fixture(params=list(CASES.values()), ids=list(CASES))
def setting(request: pytest.FixtureRequest) -> Setting:
    case: Case = request.param
    path: Path = request.getfixturevalue(case.model)
    engine = EngineSettings(
        str(path),
        context_tokens=2048,
        kv_type_k=case.kv_type,
        kv_type_v=case.kv_type,
        ram_limit="1GiB",
        step_budget_ms=1e9,  # whole chunks on a slow machine too: equal shapes are what is compared
    )
    return Setting(case, engine)


class ColdReplies:
    """What engines that held nothing have answered, for the whole run: none is asked the same twice."""

    def __init__(self, probe_dir: Path) -> None:
        self._probe_dir = probe_dir
        self._replies: dict[tuple[EngineSettings, tuple[ChatMessage, ...]], Reply] = {}

    def ask(self, settings: EngineSettings, messages: Sequence[ChatMessage]) -> Reply:
        asked = (settings, tuple(messages))
        if asked not in self._replies:
            with Engine(settings, self._probe_dir) as engine:
                reply = engine.ask("cold", messages)
            assert reply.reused == 0
            self._replies[asked] = reply
        return self._replies[asked]


@pytest.fixture(scope="session")
def cold_replies(probe_dir: Path) -> ColdReplies:
    return ColdReplies(probe_dir)


@dataclass(frozen=True, slots=True)
class Prompts:
    """One chat: an opening, a question behind its reply, that question edited, the opening edited."""

    opening: tuple[ChatMessage, ...]
    question: tuple[ChatMessage, ...]
    edited_last: tuple[ChatMessage, ...]
    edited_early: tuple[ChatMessage, ...]


def prompts_behind(reply: Reply, own_words: int) -> Prompts:
    opening = opening_of(own_words)
    question = user(f"Tell me more about {words(5, seed=3)}")
    return Prompts(
        opening,
        (*opening, reply.message(), question),
        (*opening, reply.message(), user(f"What else? {words(4, seed=4)}")),
        (opening[0], user(words(own_words // 2, seed=9)), reply.message(), question),
    )


def opening_of(own_words: int) -> tuple[ChatMessage, ...]:
    return system(words(220, seed=0)), user(words(own_words, seed=1))


def first_parting(a: Reply, b: Reply) -> int | None:
    """Index of the first token at which two replies differ."""
    pairs = zip(a.tokens, b.tokens, strict=False)
    return next((index for index, (one, other) in enumerate(pairs) if one != other), None)


def worst_move(a: Reply, b: Reply) -> float:
    """The largest difference of a logit, up to and including the first token that differs."""
    parting = first_parting(a, b)
    steps = min(len(a.tokens), len(b.tokens)) if parting is None else parting + 1
    assert steps > 0
    return max(largest(x - y) for x, y in zip(a.trace.logits[:steps], b.trace.logits[:steps], strict=True))


def largest(values: Logits) -> float:
    return float(np.abs(values).max())


def assert_identical(expected: Reply, got: Reply) -> None:
    assert worst_move(expected, got) == 0.0
    assert got.tokens == expected.tokens
    assert got.text == expected.text


def assert_same_reply(expected: Reply, got: Reply, bound: float) -> None:
    """Equal up to the effect of batch shapes."""
    assert worst_move(expected, got) <= bound
    parting = first_parting(expected, got)
    if parting is None:
        assert got.text == expected.text
        return
    best = np.sort(expected.trace.logits[parting])
    assert best[-1] - best[-2] <= bound, f"token {parting} differs although the model was sure of it"


def test_bound_covers_effect_of_batch_shapes_alone(setting: Setting, probe_dir: Path) -> None:
    backend = load(setting.engine, probe_dir, lambda _stage, _fraction: None).backend
    try:
        prompt = backend.tokenize(words(300, seed=5))[:260]
        reply = backend.tokenize(words(12, seed=6))[:12]
        reference = _logits_behind(backend, prompt, reply, chunks=[64] * 4 + [4])
        again = _logits_behind(backend, prompt, reply, chunks=[64] * 4 + [4])
        assert largest(again - reference) == 0.0, "equal shapes give equal logits"
        for chunks in ([64] * 3 + [53] + [1] * 15, [1] * 260, [13] * 20):
            moved = _logits_behind(backend, prompt, reply, chunks)
            assert largest(moved - reference) <= setting.case.bound
    finally:
        backend.close()


def _logits_behind(
    backend: LlamaBackend, prompt: Sequence[int], reply: Sequence[int], chunks: Sequence[int]
) -> Logits:
    """Logits at the end of `prompt`, processed in these chunks, and behind each token of `reply`."""
    assert sum(chunks) == len(prompt)
    backend.remove(0, -1, -1)
    tokens, pos, rows = [*prompt, *reply], 0, []
    for count in (*chunks, *[1] * len(reply)):
        batch = Batch()
        for offset in range(count):
            batch.add(tokens[pos + offset], pos + offset, 0, offset == count - 1)
        assert backend.decode(batch) is DecodeResult.DONE
        pos += count
        if pos >= len(prompt):
            rows.append(read_logits(backend, count - 1))
    return np.array(rows)


def test_restored_and_forked_are_identical_to_never_having_left(
    setting: Setting, start_engine: StartEngine
) -> None:
    check_restored_and_forked(setting, start_engine)


def test_restored_is_identical_where_the_cells_of_windows_are_recycled(
    gemma3: Path, start_engine: StartEngine
) -> None:
    case = Case("gemma3", "f16", 3.5, 1200)
    engine = EngineSettings(
        str(gemma3), context_tokens=4096, num_slots=1, ram_limit="1GiB", step_budget_ms=1e9
    )
    opening = check_restored_and_forked(Setting(case, engine), start_engine)
    # Two windows of 512, and a step: every turn is longer than its layers with a window can hold.
    assert opening.finished.stats.prompt_tokens > 1280


def check_restored_and_forked(setting: Setting, start_engine: StartEngine) -> Reply:
    """Returns the first reply."""
    stayed = start_engine(setting.engine)
    stayed.focus("a")
    opening = stayed.ask("a", opening_of(setting.case.own_words))
    prompts = prompts_behind(opening, setting.case.own_words)
    question = stayed.ask("a", prompts.question)
    edited = stayed.ask("a", prompts.edited_last)

    left = start_engine(setting.engine)
    left.focus("a")
    assert_identical(opening, left.ask("a", prompts.opening))
    left.focus("b")
    left.ask("b", [prompts.opening[0], user("Hello")])
    left.focus("a")
    restored = left.ask("a", prompts.question)
    assert restored.processed <= 40
    assert_identical(question, restored)

    left.focus("c")
    forked = left.ask("c", prompts.edited_last)
    assert forked.finished.stats.reused.context == 0
    assert forked.processed <= 40
    assert_identical(edited, forked)
    return opening


def test_replies_equal_cold_ones(
    setting: Setting, start_engine: StartEngine, cold_replies: ColdReplies
) -> None:
    bound = setting.case.bound
    warm = start_engine(setting.engine)
    warm.focus("a")
    opening = warm.ask("a", opening_of(setting.case.own_words))
    prompts = prompts_behind(opening, setting.case.own_words)

    def cold(messages: Sequence[ChatMessage]) -> Reply:
        return cold_replies.ask(setting.engine, messages)

    assert_identical(cold(prompts.opening), opening)
    question, edited_last = cold(prompts.question), cold(prompts.edited_last)
    assert_same_reply(question, warm.ask("a", prompts.question), bound)
    assert_same_reply(edited_last, warm.ask("a", prompts.edited_last), bound)
    assert_same_reply(cold(prompts.edited_early), warm.ask("a", prompts.edited_early), bound)
    back = warm.ask("a", prompts.question)
    assert back.processed <= 40
    assert_same_reply(question, back, bound)
    warm.focus("b")
    assert_same_reply(edited_last, warm.ask("b", prompts.edited_last), bound)


@pytest.mark.parametrize("decode", [1, 2, 4])
def test_stopped_in_prefill_and_asked_again(
    setting: Setting, start_engine: StartEngine, cold_replies: ColdReplies, decode: int
) -> None:
    messages = opening_of(setting.case.own_words)
    expected = cold_replies.ask(setting.engine, messages)
    engine = start_engine(setting.engine)
    engine.focus("a")
    with _stopping(engine, decode):
        stopped = engine.ask("a", messages)
    assert stopped.finished.reason is FinishReason.CANCELLED
    assert stopped.processed == 64 * (decode - 1)
    again = engine.ask("a", messages)
    assert again.reused <= stopped.processed
    assert_identical(expected, again)


@contextmanager
def _stopping(engine: Engine, decode: int) -> Iterator[None]:
    """The next request is stopped inside the given decode, by the flag that aborts it."""
    seen = 0

    def stop(_batch: Batch) -> None:
        nonlocal seen
        seen += 1
        if seen == decode:
            engine.send(commands.Cancel(engine.last_submitted))
            engine.backend.interrupt()

    engine.backend.before_decode = stop
    try:
        yield
    finally:
        engine.backend.before_decode = lambda _batch: None


def test_stopped_in_reply_and_asked_on(
    setting: Setting, start_engine: StartEngine, cold_replies: ColdReplies
) -> None:
    messages = opening_of(setting.case.own_words)
    num_chunks = -(-cold_replies.ask(setting.engine, messages).finished.stats.prompt_tokens // 64)
    engine = start_engine(setting.engine)
    engine.focus("a")
    with _stopping(engine, num_chunks + 3):
        stopped = engine.ask("a", messages)
    assert stopped.finished.reason is FinishReason.CANCELLED
    assert len(stopped.finished.tokens) == 3
    on = (*messages, stopped.message(), user("And then?"))
    cold = cold_replies.ask(setting.engine, on)
    assert_same_reply(cold, engine.ask("a", on), setting.case.bound)


def test_interleaved_with_three_others(
    setting: Setting, start_engine: StartEngine, cold_replies: ColdReplies
) -> None:
    opening = cold_replies.ask(setting.engine, opening_of(setting.case.own_words))
    prompts = prompts_behind(opening, setting.case.own_words)
    cold = cold_replies.ask(setting.engine, prompts.question)

    engine = start_engine(setting.engine)
    engine.focus("a")
    engine.ask("a", prompts.opening)
    others = [engine.submit(f"other {i}", [user(words(60, seed=20 + i))], max_tokens=40) for i in range(3)]
    engine.wait_for(TokensGenerated, lambda event: event.request_id == others[0])
    warm = engine.ask("a", prompts.question)
    for other in others:
        assert engine.wait(other).finished.reason in (FinishReason.LENGTH, FinishReason.STOP)
    assert_same_reply(cold, warm, setting.case.bound)

    engine.focus(None)
    for request in [engine.submit(name, prompts.question) for name in ("d", "e", "f", "g")]:
        assert_same_reply(cold, engine.wait(request), setting.case.bound)


def test_eight_at_once_equal_those_alone(setting: Setting, start_engine: StartEngine) -> None:
    engine = start_engine(msgspec.structs.replace(setting.engine, ram_limit="off"))
    chats = {f"chat {i}": (user(words(24, seed=30 + i)),) for i in range(8)}
    alone = {name: engine.ask(name, messages, max_tokens=24) for name, messages in chats.items()}

    widths: list[int] = []
    engine.backend.before_decode = lambda batch: widths.append(
        len(set(batch.sequences)) if len(set(batch.sequences)) == len(batch) else 0
    )
    together = [engine.submit(name, messages, max_tokens=24) for name, messages in chats.items()]
    for (name, expected), request in zip(alone.items(), together, strict=True):
        got = engine.wait(request)
        assert expected.reused == 0, name
        assert got.reused <= 24, "what the template puts before every chat may be shared"
        assert_same_reply(expected, got, setting.case.bound)
    assert widths.count(8) >= 8, "they did run in one batch, a token of each"
