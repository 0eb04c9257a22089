"""Requests with a JSON schema or a grammar on the fake backend: the path from request to reply."""

import json

import pytest

from samovar.core.request import FinishReason
from tests.engine.fake_backend import Kind
from tests.engine.harness import Engine, user, words

COLOURS = json.dumps({"enum": ["green", "grey", "blue"]})


@pytest.mark.parametrize("kind", Kind)
def test_a_reply_follows_its_schema_and_ends_with_it(kind: Kind) -> None:
    engine = Engine(kind)
    asked = engine.submit("s", [user(words(20))], max_tokens=40, json_schema=COLOURS)
    engine.drain()
    assert asked.finished.reason is FinishReason.STOP
    assert json.loads(asked.finished.reply) in ("green", "grey", "blue")


def test_a_reply_that_is_cut_says_so() -> None:
    engine = Engine()
    asked = engine.submit("s", [user(words(20))], max_tokens=3, json_schema=COLOURS)
    engine.drain()
    assert asked.finished.reason is FinishReason.LENGTH
    assert len(asked.finished.reply) == 3


def test_a_grammar_holds_after_the_request_had_to_stand_aside() -> None:
    engine = Engine(num_cells=100)
    engine.focus("chat")
    digits = engine.submit(
        "side", [user(words(30))], max_tokens=40, side_task=True, grammar='root ::= "0"{30}'
    )
    engine.run_until_started(digits)
    while not digits.text:
        engine.step()
    chat = engine.submit("chat", [user(words(40, 5))], max_tokens=20)
    engine.drain()
    assert digits.request.id in engine.swapped_out
    assert digits.finished.reply == "0" * 30
    engine.check_ended(chat)


@pytest.mark.parametrize(
    ("schema", "grammar", "why"),
    [
        (COLOURS, 'root ::= "a"', "not both"),
        ("{", "", "not JSON"),
        ("", 'root ::= root "a"', "left recursion"),
        ("", "root ::= (", "missing"),
    ],
)
def test_what_cannot_be_followed_fails_with_a_sentence(schema: str, grammar: str, why: str) -> None:
    engine = Engine()
    asked = engine.submit("s", [user(words(20))], json_schema=schema, grammar=grammar)
    engine.drain()
    assert asked.finished.reason is FinishReason.FAILED
    assert why in asked.finished.error
    assert asked.started is None
    engine.check_all_ended()


def test_a_grammar_that_the_model_cannot_go_on_with_fails_where_it_gets_stuck() -> None:
    engine = Engine()
    asked = engine.submit("s", [user(words(20))], grammar='root ::= "ab" "\\u4e00"')
    other = engine.submit("t", [user(words(10))])
    engine.drain()
    assert asked.finished.reason is FinishReason.FAILED
    assert asked.finished.reply == "ab"
    assert asked.finished.error == "no token is allowed"
    engine.check_ended(other)
    assert not engine.loop.requests.running
