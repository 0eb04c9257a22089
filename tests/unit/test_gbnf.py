"""Grammars before llama.cpp sees them: what they allow, and which are refused with a sentence."""

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samovar.core.errors import SamovarError
from samovar.engine.gbnf import GrammarError, check_grammar, parse
from samovar.engine.grammar import MAX_DEPTH, check_schema


def allows(grammar: str, text: str) -> bool:
    """Whether a whole text follows a grammar."""
    check_grammar(grammar)
    parsed = parse(grammar)
    return None in parsed.accept_text(parsed.begin(), text)


@pytest.mark.parametrize(
    ("grammar", "good", "bad"),
    [
        ("root ::= [0-9]+", ["1", "407"], ["", "a", "1a"]),
        ('root ::= "a" | "b" c\nc ::= "d"?', ["a", "b", "bd"], ["", "ad", "d"]),
        ('root ::= ("a" | "b"){2,3} "."', ["ab.", "bab."], ["a.", "abab.", "ab"]),
        ("root ::= [^a-c\\n]{2}", ["xy", "é中"], ["xa", "x", "x\n"]),
        ('root ::= "\\x41\\u00e9\\"" # a comment\n', ['Aé"'], ["A"]),
        ('root ::=\n  "a"\n', ["a"], ["b"]),
        ('root ::= (\n  "a" |\n  "b"\n)+', ["ab"], [""]),
        ('root ::= "a"{2,}', ["aa", "aaaa"], ["a"]),
        ('root ::= "(" root ")" | "x"', ["x", "((x))"], ["((x)"]),
        ('root ::= . "-"', ["é-"], ["--- "]),
        ("root ::= [a\\]-]", ["]", "-"], ["b"]),
    ],
)
def test_a_grammar_allows_what_it_says(grammar: str, good: list[str], bad: list[str]) -> None:
    assert all(allows(grammar, text) for text in good)
    assert not any(allows(grammar, text) for text in bad)


_CHAIN = "\n".join(["root ::= r0", *(f"r{i} ::= r{i + 1} | r{i + 1}" for i in range(60)), 'r60 ::= "x"'])


@pytest.mark.parametrize(
    ("grammar", "why"),
    [
        ("", "no rule named root"),
        ("hello there", "::= is expected"),
        ('rot ::= "a"', "no rule named root"),
        ('root ::= "a"\n\nroot2 ::= foo', "line 3 names the rule foo"),
        ('root ::= "a', "it ends within"),
        ("root ::= [a", "it ends within"),
        ("root ::= []", "empty"),
        ('root ::= ("a"', "a ) is missing"),
        ('root ::= "a")', "not expected"),
        ("root ::= *", "nothing to repeat"),
        ('root ::= "" *', "nothing to repeat"),
        ('root ::= "a"{x}', "needs one or two numbers"),
        ('root ::= "a"{3,2}', "less than"),
        ('root ::= "\\q"', "not known"),
        ('root ::= "\\x1"', "hexadecimal"),
        ('root ::= "a\0"', "character 0"),
        ("root ::= <think>", "tokens"),
        ('root ::= "a" !<[7]>', "tokens"),
        ('root ::= root "a" | "b"', "left recursion"),
        # llama.cpp does not see that b can be empty, and would never return.
        ('root ::= a root | "x"\na ::= b\nb ::= ""', "left recursion"),
        ("root ::= (root?)*", "left recursion"),
        ('root ::= "a"{100000}', "repetitions"),
        (f'root ::= "{"a" * 100}"{{2000}}', "too large"),
        ("root ::= " + "(" * 30_000 + '"a"' + ")" * 30_000, "nested"),
        (_CHAIN, "branch too often"),
        ('root ::= s\ns ::= "a" s "b" | "a" s "c" | "x"', "ambiguous"),
        ('root ::= s\ns ::= "a" s s | "a" | ""', "ambiguous"),
        ('root ::= s\ns ::= "abcdefgh" s "x" | "abcdefgh" s "y" | "z"', "ambiguous"),
        ('root ::= ("a"?){2000} "b"', "ambiguous"),
        ('root ::= "' + "a" * 70_000 + '"', "longer than 64 KiB"),
    ],
)
def test_a_grammar_that_could_harm_is_refused(grammar: str, why: str) -> None:
    with pytest.raises(GrammarError, match=re.escape(why)):
        check_grammar(grammar)


@given(st.text(alphabet='ab"()[]|*+?{}0123456789,.^-\\ \n:=<#root', max_size=60))
def test_any_text_is_read_or_refused(rest: str) -> None:
    for text in (rest, f"root ::= {rest}"):
        with contextlib.suppress(GrammarError):
            check_grammar(text)


def nested(depth: int) -> str:
    return '{"items": ' * depth + "{}" + "}" * depth


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ("{", "it is not JSON"),
        ("[]", "must be an object"),
        ("nope", "it is not JSON"),
        (nested(MAX_DEPTH + 2), "nested more than"),
        (nested(5_000), "nested"),
        ('{"type": "string", "pattern": "^a}$"}', "`pattern`"),
        ('{"$ref": "https://example.org/schema.json"}', "outside"),
        ('{"type": "string", "maxLength": 100000}', "`maxLength`"),
        ('{"type": "array", "items": {}, "minItems": -1}', "`minItems`"),
        ('{"type": "string", "minLength": 5, "maxLength": 2}', "larger than"),
        ('{"properties": {"": {}}}', "no name"),
        ('{"enum": ["' + "a" * 70_000 + '"]}', "longer than 64 KiB"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused(schema: str, why: str) -> None:
    with pytest.raises(SamovarError, match=re.escape(why)):
        check_schema(schema)
