"""Replies of models that think aloud: what is counted, and what it costs when the template drops it."""

from samovar.core.request import MismatchReason
from samovar.kv.index import common_prefix
from tests.engine.harness import Engine, user, words

DROPS = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n'"
    " + message['content'].split('</think>')[-1] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
OPENS = DROPS.replace("'<|im_start|>assistant\n'", "'<|im_start|>assistant\n<think>\n'")


def only(text: str) -> str:
    """A grammar of one text."""
    return f'root ::= "{text}"'


def test_thinking_is_counted_with_its_tags() -> None:
    engine = Engine(template=DROPS)
    asked = engine.submit("s", [user("x")], max_tokens=None, grammar=only("<think>way</think> goal"))
    engine.drain()
    stats = asked.finished.stats
    assert asked.finished.reply == "<think>way</think> goal"
    assert stats.thinking_tokens == len("<think>way</think>"), "the toy tokenizer has a token for each byte"
    assert stats.generated_tokens == len("<think>way</think> goal")
    assert stats.thinking_ms > 0
    assert asked.started is not None
    assert not asked.started.thinks


def test_an_answer_that_only_looks_like_a_tag_is_no_thinking() -> None:
    engine = Engine(template=DROPS)
    asked = engine.submit("s", [user("x")], max_tokens=None, grammar=only("<thin ice"))
    engine.drain()
    assert asked.finished.stats.thinking_tokens == 0
    assert asked.finished.stats.thinking_ms == 0


def test_a_prompt_that_opens_the_thinking_says_so() -> None:
    engine = Engine(template=OPENS)
    asked = engine.ask("s", engine.talkative([], 10, 8), max_tokens=8)
    assert asked.started is not None
    assert asked.started.thinks
    assert asked.finished.stats.thinking_tokens == 8
    engine.check_all_ended()


def test_a_reply_in_a_form_skips_the_thinking_that_the_prompt_opens() -> None:
    engine = Engine(template=OPENS)
    asked = engine.submit("s", [user("x")], max_tokens=None, grammar=only("42"))
    engine.drain()
    assert asked.started is not None
    assert not asked.started.thinks
    assert asked.finished.reply == "42"
    assert asked.finished.stats.thinking_tokens == 0
    assert asked.finished.stats.prompt_tokens == len(asked.prompt) + len("\n</think>\n\n")


def test_reasoning_that_the_template_drops_is_named_with_its_place() -> None:
    engine = Engine(template=DROPS)
    engine.focus("s")
    first = engine.submit("s", [user(words(20))], max_tokens=None, grammar=only("<think>way</think> goal"))
    engine.drain()
    second = engine.ask("s", [*first.history(), user(words(5, 3))])
    mismatch = second.finished.stats.mismatch
    assert mismatch is not None
    assert mismatch.reason is MismatchReason.REASONING_DROPPED
    assert mismatch.pos == common_prefix(first.prompt, second.prompt) == len(first.prompt)
    assert "".join(mismatch.cached).startswith("<think>way")
    third = engine.ask("s", [*second.history(), user(words(5, 6))])
    assert third.finished.stats.mismatch is not None
    assert third.finished.stats.mismatch.reason is MismatchReason.NEW_MESSAGE


def test_history_that_is_rewritten_elsewhere_is_no_reasoning() -> None:
    engine = Engine(
        template=DROPS.replace("split('</think>')[-1]", "split('</think>')[-1] | replace('goal', 'aim')")
    )
    engine.focus("s")
    first = engine.submit("s", [user(words(20))], max_tokens=None, grammar=only("a goal"))
    engine.drain()
    second = engine.ask("s", [*first.history(), user(words(5, 3))])
    assert second.finished.stats.mismatch is not None
    assert second.finished.stats.mismatch.reason is MismatchReason.TEMPLATE_REWROTE_HISTORY
