"""A reply's thinking told from its answer: however it arrives, and whatever it looks like."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samovar.core.reasoning import (
    KNOWN_TAGS,
    Phase,
    Reasoning,
    Streamed,
    answer_of,
    begins_inside,
    find_tags,
    opens_thinking,
    split_reply,
)


def shown(text: str, *, thinks: bool = False) -> list[tuple[str, str]]:
    parts = split_reply(text, thinks=thinks)
    return [("thinking" if part.is_thinking else "answer", part.text) for part in parts]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        ("plain", [("answer", "plain")]),
        ("<think>way</think>goal", [("thinking", "way"), ("answer", "goal")]),
        ("\n <think>\nway\n</think>\n\ngoal", [("thinking", "way"), ("answer", "\n\ngoal")]),
        ("<think>\n\n</think>\n\ngoal", [("thinking", ""), ("answer", "\n\ngoal")]),
        ("<think>on the way", [("thinking", "on the way")]),
        ("<think>", [("thinking", "")]),
        ("<thi", [("answer", "<thi")]),
        ("<think>a<think>b</think>goal", [("thinking", "a<think>b"), ("answer", "goal")]),
        ("<think>a</think>\n<think>b</think>c", [("thinking", "a"), ("thinking", "b"), ("answer", "c")]),
        ("<think>a</think>b<think>c</think>", [("thinking", "a"), ("answer", "b<think>c</think>")]),
        ("see:\n```\n<think>a</think>\n```", [("answer", "see:\n```\n<think>a</think>\n```")]),
        ("[THINK]way[/THINK]goal", [("thinking", "way"), ("answer", "goal")]),
        ("<seed:think>way</seed:think>goal", [("thinking", "way"), ("answer", "goal")]),
        ("<think>way</thinking>more</think>goal", [("thinking", "way</thinking>more"), ("answer", "goal")]),
        ("</think>goal", [("answer", "</think>goal")]),
    ],
)
def test_thinking_is_what_stands_between_tags_before_the_answer(
    text: str, parts: list[tuple[str, str]]
) -> None:
    assert shown(text) == parts


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("way\n</think>\n\ngoal", [("thinking", "way"), ("answer", "\n\ngoal")]),
        ("way", [("thinking", "way")]),
        ("</think>goal", [("thinking", ""), ("answer", "goal")]),
        ("\n<think>\nway</think>goal", [("thinking", "way"), ("answer", "goal")]),
        ("way [THINK] on</think>goal", [("thinking", "way [THINK] on"), ("answer", "goal")]),
    ],
)
def test_a_prompt_that_opens_the_thinking_leaves_the_closing_tag_to_the_reply(
    text: str, parts: list[tuple[str, str]]
) -> None:
    assert shown(text, thinks=True) == parts


_pieces = st.sampled_from(
    [*[tag for tags in KNOWN_TAGS[:3] for tag in tags], "<", "th", "ink>", "</th", " ", "\n", "a", "```", "é"]
)
_texts = st.lists(_pieces, max_size=14).map("".join)


@given(_texts, st.booleans(), st.data())
def test_any_chunks_give_the_same_parts_and_no_text_is_lost(
    text: str, thinks: bool, data: st.DataObject
) -> None:
    whole = Reasoning(thinks=thinks)
    whole.push(text)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)))
    pieces = Reasoning(thinks=thinks)
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        pieces.push(text[start:end])
    assert pieces.parts == whole.parts
    assert pieces.phase is whole.phase
    places = [(part.start, part.end) for part in whole.parts]
    assert [start for start, _ in places] == [0, *(end for _, end in places)][: len(places)]
    assert (places[-1][1] if places else 0) == len(text)
    for part in whole.parts:
        assert text[part.inner : part.inner + len(part.text)] == part.text
        assert part.start <= part.inner
        assert part.inner + len(part.text) <= part.end
    assert sum(not part.is_thinking for part in whole.parts) <= 1


@given(_texts, st.booleans(), st.data())
def test_what_is_printed_piece_by_piece_is_what_there_is_in_the_end(
    text: str, thinks: bool, data: st.DataObject
) -> None:
    streamed = Streamed(thinks=thinks)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)))
    told = [
        piece
        for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)
        for piece in streamed.push(text[a:b])
    ]
    told += streamed.finish()
    parts = split_reply(text, thinks=thinks)
    assert "".join(piece for is_thinking, piece in told if is_thinking) == "".join(
        part.text for part in parts if part.is_thinking
    )
    answers = "".join(part.text for part in parts if not part.is_thinking)
    printed = "".join(piece for is_thinking, piece in told if not is_thinking)
    assert printed == (answers.lstrip() if parts and parts[0].is_thinking else answers)


def test_a_tag_that_is_split_is_waited_for() -> None:
    reasoning = Reasoning()
    phases = [
        reasoning.push(text) for text in ("\n", "<th", "ink", ">", "way", "</", "think>", "\n\n", "goal")
    ]
    assert phases == [
        *[Phase.OPEN] * 3,
        *[Phase.THINKING] * 3,
        *[Phase.OPEN] * 2,
        Phase.ANSWER,
    ]


def test_the_answer_is_what_is_copied() -> None:
    assert answer_of("<think>way</think>\n\n  goal\n") == "goal\n"
    assert answer_of("  plain ") == "  plain "
    assert answer_of("way</think>goal", thinks=True) == "goal"
    assert answer_of("<think>cut short") == ""


def test_the_tags_are_those_of_the_template() -> None:
    assert find_tags("{{ content.split('</think>')[-1] }}<think>\n") == ("<think>", "</think>")
    assert find_tags("[THINK]{{ x }}[/THINK]") == ("[THINK]", "[/THINK]")
    assert find_tags("{{ messages }}") is None
    assert opens_thinking("assistant\n<think>\n", ("<think>", "</think>"))
    assert not opens_thinking("<think>\n\n</think>\n\n", ("<think>", "</think>"))


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("<think>way", True),
        ("\nway</think>goal", True),
        ("way <think>x</think>", False),
        ("goal", False),
    ],
)
def test_a_text_that_begins_in_thinking_is_known_by_its_tags(text: str, inside: bool) -> None:
    assert begins_inside(text, ("<think>", "</think>")) is inside
