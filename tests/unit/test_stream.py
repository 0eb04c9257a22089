"""Text that is shown while a reply grows: whole characters, no stop string, the same however bytes arrive."""

from hypothesis import given
from hypothesis import strategies as st

from samovar.engine.stream import TextStream

texts = st.text(alphabet="abcé😀\n", max_size=30)
stops = st.lists(st.text(alphabet="abcé", min_size=1, max_size=4), max_size=3).map(tuple)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """`data` in pieces, cut at `places`; pieces may be empty."""
    ends = [*sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def feed(stream: TextStream, pieces: list[bytes]) -> list[str]:
    """What is shown after each piece, until it stops."""
    shown = []
    for piece in pieces:
        shown.append(stream.push(piece))
        if stream.stopped:
            break
    return shown


def cut_at_stop(text: str, stop: tuple[str, ...]) -> str:
    """Naive: characters come one by one."""
    for end in range(len(text) + 1):
        for string in sorted(stop, key=len, reverse=True):
            if text[:end].endswith(string):
                return text[: end - len(string)]
    return text


@given(texts, stops, st.lists(st.integers(0, 200), max_size=10))
def test_any_chunking_gives_the_same_text(text: str, stop: tuple[str, ...], places: list[int]) -> None:
    stream = TextStream(stop)
    shown = "".join(feed(stream, cut(text.encode(), places)))
    expected = cut_at_stop(text, stop)
    assert expected.startswith(shown)
    assert "\ufffd" not in shown
    assert shown + stream.finish() == expected == stream.text
    assert stream.stopped == (expected != text)


@given(texts, stops, st.lists(st.integers(0, 200), max_size=10))
def test_nothing_shown_could_become_a_stop_string(
    text: str, stop: tuple[str, ...], places: list[int]
) -> None:
    stream = TextStream(stop)
    shown = ""
    for piece in cut(text.encode(), places):
        shown += stream.push(piece)
        if stream.stopped:
            break
        starts = [string[:n] for string in stop for n in range(1, len(string) + 1)]
        possible = [len(stream.text) - len(start) for start in starts if stream.text.endswith(start)]
        assert len(shown) <= min(possible, default=len(stream.text))


@given(
    st.lists(st.sampled_from([b"a", b"bc", b"\xf0\x9f", b"\x98\x80", b"\xc3", b"\xa9", b""]), max_size=20),
    stops,
)
def test_tokens_spell_a_beginning_of_the_text(pieces: list[bytes], stop: tuple[str, ...]) -> None:
    stream = TextStream(stop)
    feed(stream, pieces)
    stream.finish()
    count = stream.num_tokens_spelled()
    spelled = b"".join(pieces[:count]).decode("utf-8", "replace")
    assert stream.text.startswith(spelled)
    if not stream.stopped and not b"".join(pieces).decode("utf-8", "replace").endswith("\ufffd"):
        assert spelled == stream.text


def test_a_split_character_is_shown_when_it_is_whole() -> None:
    stream = TextStream()
    assert feed(stream, [b"a", b"\xf0\x9f", b"\x98", b"\x80"]) == ["a", "", "", "😀"]
    assert stream.num_tokens_spelled() == 4


def test_a_character_that_never_comes_whole_is_left_out() -> None:
    stream = TextStream()
    feed(stream, [b"a", b"\xf0\x9f"])
    assert stream.finish() == ""
    assert stream.text == "a"
    assert stream.num_tokens_spelled() == 1


def test_the_stop_string_that_ends_first_counts() -> None:
    for stop in (("cd", "bcdx"), ("bcdx", "cd")):
        stream = TextStream(stop)
        assert stream.push(b"abcdxyz") == "ab"
        assert stream.stopped


# ---- a reply that is gone on with


@given(texts, texts, st.lists(st.integers(0, 200), max_size=10))
def test_what_was_there_before_changes_nothing_without_a_stop_string(
    before: str, text: str, places: list[int]
) -> None:
    stream = TextStream((), before)
    shown = "".join(feed(stream, cut(text.encode(), places)))
    assert shown + stream.finish() == text == stream.text


def cut_behind(before: str, text: str, stop: tuple[str, ...]) -> str:
    """Naive: characters come one by one, and only one that is new can end a stop string."""
    for end in range(1, len(text) + 1):
        for string in sorted(stop, key=len, reverse=True):
            if (before + text[:end]).endswith(string):
                return text[: max(0, end - len(string))]
    return text


@given(texts, texts, stops, st.lists(st.integers(0, 200), max_size=10))
def test_a_stop_string_may_begin_in_what_was_there_before(
    before: str, text: str, stop: tuple[str, ...], places: list[int]
) -> None:
    stream = TextStream(stop, before)
    shown = "".join(feed(stream, cut(text.encode(), places)))
    expected = cut_behind(before, text, stop)
    assert expected.startswith(shown)
    assert shown + stream.finish() == expected == stream.text


def test_a_stop_string_that_is_whole_before_does_not_count() -> None:
    stream = TextStream(("##", "#!"), "a ##")
    assert feed(stream, [b" b", b" c"]) == [" b", " c"]
    assert not stream.stopped


def test_tokens_of_a_stop_string_that_began_before_spell_nothing() -> None:
    stream = TextStream(("###",), "a ##")
    assert stream.push(b"#") == ""
    assert (stream.stopped, stream.text, stream.num_tokens_spelled()) == (True, "", 0)
