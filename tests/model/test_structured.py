"""Replies that follow a JSON schema or a grammar, by real models; grammars that would kill the process."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from samovar.core import commands
from samovar.core.chat import GREEDY, Sampling
from samovar.core.events import RequestFinished
from samovar.core.request import FinishReason
from samovar.core.settings import EngineSettings
from samovar.engine.gbnf import GrammarError, check_grammar
from tests.model.conftest import StartEngine
from tests.model.harness import Engine, user

TAGS = json.dumps(
    {
        "type": "object",
        "properties": {
            "title": {"type": "string", "maxLength": 12},
            "mood": {"enum": ['so "so"', "back\\slash", "é 😀", "two\nlines"]},
            "tags": {
                "type": "array",
                "items": {"type": "string", "maxLength": 8},
                "minItems": 1,
                "maxItems": 2,
            },
        },
        "required": ["title", "mood", "tags"],
    }
)
MOOD = json.dumps({"enum": ["stormy", "still"]})
QUESTION = [user("Give a title, a mood and tags for a chat about the storms of autumn.")]
WILD = Sampling(temperature=2.0, top_k=0, top_p=1.0, min_p=0.0, seed=7)


@pytest.fixture(params=["smollm2", "gemma3"])
def engine(request: pytest.FixtureRequest, start_engine: StartEngine) -> Engine:
    """An engine on each of two vocabularies: bytes in pairs, and a large one of whole pieces."""
    model: Path = request.getfixturevalue(request.param)
    return start_engine(EngineSettings(str(model), context_tokens=1024, num_slots=3, num_threads=2))


def ask(
    engine: Engine,
    *,
    max_tokens: int = 300,
    sampling: Sampling = GREEDY,
    json_schema: str = "",
    grammar: str = "",
) -> RequestFinished:
    request = engine.submit(
        "s", QUESTION, max_tokens=max_tokens, sampling=sampling, json_schema=json_schema, grammar=grammar
    )
    return engine.wait(request).finished


@pytest.mark.parametrize("sampling", [GREEDY, WILD], ids=["greedy", "wild"])
def test_a_reply_is_what_the_schema_asks_for(engine: Engine, sampling: Sampling) -> None:
    end = ask(engine, sampling=sampling, json_schema=TAGS)
    assert end.reason is FinishReason.STOP, end
    found = json.loads(end.reply)
    assert list(found) == ["title", "mood", "tags"]
    assert len(found["title"]) <= 12
    assert found["mood"] in ('so "so"', "back\\slash", "é 😀", "two\nlines")
    assert 1 <= len(found["tags"]) <= 2
    assert all(isinstance(tag, str) and len(tag) <= 8 for tag in found["tags"])


def test_a_reply_follows_a_grammar(engine: Engine) -> None:
    end = ask(engine, grammar="root ::= [0-9]{4}")
    assert end.reason is FinishReason.STOP
    assert len(end.reply) == 4
    assert end.reply.isdecimal()


def test_characters_of_many_bytes_come_whole(engine: Engine) -> None:
    end = ask(engine, grammar="root ::= [\\u4e00-\\u9fff]{3}", sampling=WILD)
    assert end.reason is FinishReason.STOP
    assert len(end.reply) == 3
    assert all("\u4e00" <= character <= "\u9fff" for character in end.reply)


def test_what_is_cut_or_wrong_ends_in_good_order(engine: Engine) -> None:
    cut = ask(engine, json_schema=TAGS, max_tokens=4)
    assert cut.reason is FinishReason.LENGTH
    for grammar, schema in (("root ::= (", ""), ("", '{"type": "nonsense"}')):
        end = ask(engine, grammar=grammar, json_schema=schema)
        assert end.reason is FinishReason.FAILED
        assert "cannot be used" in end.error
    stuck = ask(engine, grammar='root ::= "ab" "\\x00"')
    assert stuck.reason is FinishReason.FAILED
    assert stuck.reply == "ab"
    plain = ask(engine, max_tokens=3)
    assert plain.reason in (FinishReason.STOP, FinishReason.LENGTH)


def test_a_grammar_goes_on_beside_others_and_after_a_stop(engine: Engine) -> None:
    first = engine.submit("s", QUESTION, max_tokens=40, grammar='root ::= ("ha" " "?){2000}', sampling=WILD)
    second = engine.submit("t", QUESTION, max_tokens=6)
    third = engine.submit("u", QUESTION, json_schema=MOOD, sampling=WILD)
    engine.wait(second)
    engine.send(commands.Cancel(first))
    assert set(engine.wait(first).text) <= set("ha ")
    assert json.loads(engine.wait(third).text)


# ---- hostile grammars, in a process that may die

_CHILD = """
import json, sys
from pathlib import Path
from samovar.core.chat import Sampling
from samovar.core.errors import SamovarError
from samovar.engine.backend import Batch, DecodeResult
from samovar.engine.llama import ContextOptions, LlamaBackend, LlamaModel

options = ContextOptions(num_cells=256, num_slots=1, batch_tokens=64, num_threads=2, flash_attn=False,
                         kv_type_k="f16", kv_type_v="f16")
backend = LlamaBackend(LlamaModel(Path(sys.argv[1]), extra_bufts=False), options)
for seed, grammar in enumerate(json.load(sys.stdin)):
    try:
        backend.check_grammar(grammar)
    except SamovarError:
        continue
    sampling = Sampling(temperature=3.0, top_k=0, top_p=1.0, min_p=0.0, seed=seed)
    sampler = backend.new_sampler(sampling, [], grammar)
    token = 1
    backend.remove(0, 0, -1)
    for pos in range(12):
        batch = Batch()
        row = batch.add(token, pos, 0, True)
        assert backend.decode(batch) is DecodeResult.DONE
        try:
            token = sampler.sample(row)
        except SamovarError:
            break
        if backend.is_end(token):
            break
    sampler.close()
print("alive")
"""


def random_grammar(draw: random.Random) -> str:
    """A grammar of a few rules that refer to each other at random."""

    def expression(depth: int) -> str:
        kind = draw.randrange(9 if depth else 4)
        if kind == 0:
            return draw.choice(['"a"', '"ab"', '" "', '"\\n"', '"é"', '""', '"\\U0001F600"'])
        if kind == 1:
            return draw.choice(["[a-c]", "[^a]", "[ \\n]", "[\\u0080-\\uffff]", ".", "[^\\x00-\\x7f]"])
        if kind in (2, 3):
            return draw.choice(["root", "one", "two"])
        inner = expression(depth - 1)
        if kind == 4:
            return f"({inner}){draw.choice(['*', '+', '?', '{2}', '{0,3}', '{1,}'])}"
        if kind == 5:
            return f"({inner} | {expression(depth - 1)})"
        return f"{inner} {expression(depth - 1)}"

    return "\n".join(f"{name} ::= {expression(4)}" for name in ("root", "one", "two"))


def test_no_grammar_that_is_let_through_ends_or_hangs_the_process(mamba: Path) -> None:
    draw = random.Random(5)
    grammars: list[str] = []
    while len(grammars) < 80:
        grammar = random_grammar(draw)
        try:
            check_grammar(grammar)
        except GrammarError:
            continue
        grammars.append(grammar)
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, str(mamba)],
        input=json.dumps(grammars),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert child.returncode == 0, child.stderr[-2000:]
    assert child.stdout.strip() == "alive"
