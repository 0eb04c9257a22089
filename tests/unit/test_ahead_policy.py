"""When which beginning of a draft is processed ahead."""

import itertools

import pytest

from samovar.chats.ahead_policy import (
    DEBOUNCE_S,
    GUESS_CHARACTERS,
    PAUSE_S,
    SENTENCE_S,
    AheadPolicy,
    Beginning,
    whole_words,
)

KEY_S = 0.2


def type_text(
    policy: AheadPolicy, text: str, start: float = 0.0, before: str = ""
) -> tuple[list[Beginning], float]:
    """Type `text` key by key, asking when something is due; what was prepared, and the time at the end."""
    prepared, now = list[Beginning](), start
    for end in range(1, len(text) + 1):
        now += KEY_S
        due = policy.next_due()
        if due is not None and due <= now and (found := policy.due(due)) is not None:
            prepared.append(found)
        policy.typed(before + text[:end], now)
    return prepared, now


def test_whole_words_end_with_the_space_behind_them() -> None:
    assert whole_words("") == whole_words("wor") == whole_words("  ") == ""
    assert whole_words("two words") == "two "
    assert whole_words("two words ") == "two words "
    assert whole_words("two words   th") == "two words "
    assert whole_words("a line\n\nmore") == "a line\n"


def test_a_word_is_prepared_a_moment_after_it_ends() -> None:
    policy = AheadPolicy()
    assert policy.typed("Could", 0.9) == 0.9 + PAUSE_S
    assert policy.typed("Could ", 1.0) == 1.0 + DEBOUNCE_S
    assert policy.typed("Could yo", 1.2) == 1.0 + DEBOUNCE_S, "typing on does not put it off"
    assert policy.due(1.0 + DEBOUNCE_S - 0.01) is None
    assert policy.due(1.0 + DEBOUNCE_S) == Beginning("Could ")
    assert policy.due(1.0 + DEBOUNCE_S) is None, "told once"


def test_quick_words_are_prepared_together_and_not_put_off_for_ever() -> None:
    policy = AheadPolicy()
    policy.typed("one ", 0.0)
    policy.typed("one two ", 0.1)
    policy.typed("one two three ", 0.2)
    assert policy.next_due() == DEBOUNCE_S
    assert policy.due(DEBOUNCE_S) == Beginning("one two three ")


def test_after_a_pause_the_last_word_counts_as_whole_and_the_message_as_complete() -> None:
    policy = AheadPolicy()
    policy.typed("Why is the sky blue", 0.0)
    assert policy.due(DEBOUNCE_S) == Beginning("Why is the sky ")
    assert policy.next_due() == PAUSE_S
    assert policy.due(PAUSE_S) == Beginning("Why is the sky blue", complete=True)
    assert policy.next_due() is None


@pytest.mark.parametrize(
    "end", ["?", ".", "!", "...", "\u2026", '."', "?)", "!\u201d", "\u3002", "\uff1f\u300d"]
)
def test_where_a_sentence_ends_the_message_may_be_complete_at_once(end: str) -> None:
    policy = AheadPolicy()
    text = f"Why is the sky blue{end}"
    assert policy.typed(text, 2.0) == 2.0 + SENTENCE_S
    assert policy.due(2.0 + SENTENCE_S) == Beginning(text, complete=True)
    assert policy.next_due() is None
    policy.typed(f"{text} And", 3.0)
    assert policy.due(3.0 + DEBOUNCE_S) is None, "one character is not worth a step"
    policy.typed(f"{text} And why ", 4.0)
    assert policy.due(4.0 + DEBOUNCE_S) == Beginning(f"{text} And why ")


@pytest.mark.parametrize("text", ["a word, ", "so: ", "1.5", "file.txt", "(see", '"', "sky?x"])
def test_what_does_not_end_a_sentence_waits_for_a_pause(text: str) -> None:
    policy = AheadPolicy()
    policy.typed(text, 0.0)
    found = policy.due(PAUSE_S - 0.01)
    assert found is None or not found.complete
    assert policy.due(PAUSE_S) == Beginning(text, complete=True)


def test_what_was_prepared_to_its_end_as_a_beginning_may_still_be_complete() -> None:
    policy = AheadPolicy()
    policy.typed("two words ", 0.0)
    assert policy.due(DEBOUNCE_S) == Beginning("two words ")
    assert policy.due(PAUSE_S) == Beginning("two words ", complete=True)
    assert policy.next_due() is None


def test_a_message_is_not_taken_for_complete_too_often() -> None:
    policy, text, now = AheadPolicy(), "", 0.0
    guesses = []
    for _ in range(100):
        now, text = now + 10 * PAUSE_S, f"{text}No. "
        policy.typed(text[:-1], now)
        found = policy.due(now + PAUSE_S)
        assert found is not None, "it is prepared, whatever it is taken for"
        if found.complete:
            guesses.append(len(found.text))
        policy.typed(text, now + PAUSE_S)
    assert guesses[0] == 3
    assert all(b - a >= GUESS_CHARACTERS for a, b in itertools.pairwise(guesses))
    assert len(guesses) == 1 + (len(text) - 1) // GUESS_CHARACTERS
    policy.begin()
    policy.typed("Yes.", now)
    assert policy.due(now + SENTENCE_S) == Beginning("Yes.", complete=True)


def test_a_sentence_is_prepared_in_growing_pieces() -> None:
    policy, whole = AheadPolicy(), "Could you explain how a steam engine works"
    prepared, now = type_text(policy, whole)
    assert not any(beginning.complete for beginning in prepared)
    texts = [beginning.text for beginning in prepared]
    assert texts[0] == "Could "
    assert texts[-1] == "Could you explain how a steam engine "
    assert all(b.startswith(a) and len(b) >= len(a) + 3 for a, b in itertools.pairwise(texts))
    assert policy.due(now + PAUSE_S) == Beginning(whole, complete=True)


def test_what_only_gets_shorter_is_left_alone_until_it_goes_on_differently() -> None:
    policy = AheadPolicy()
    policy.typed("a red apple and ", 0.0)
    assert policy.due(DEBOUNCE_S) == Beginning("a red apple and ")
    assert policy.typed("a red app", 2.0) is None
    assert policy.typed("a red apple and ", 3.0) == 3.0 + PAUSE_S, "typed again as it was: is it complete?"
    assert policy.typed("a red balloon ", 4.0) == 4.0 + DEBOUNCE_S
    assert policy.due(4.0 + DEBOUNCE_S) == Beginning("a red balloon ")


def test_commands_and_blanks_are_not_prepared() -> None:
    policy = AheadPolicy()
    for text in ("/", "/ren", "/rename a better title ", "   ", "\n\n"):
        assert policy.typed(text, 0.0) is None
        assert policy.due(100.0) is None
    assert policy.typed("/usr/bin is a folder ", 1.0) == 1.0 + DEBOUNCE_S


def test_a_sent_draft_starts_anew() -> None:
    policy = AheadPolicy()
    policy.typed("the same words ", 0.0)
    assert policy.due(DEBOUNCE_S) == Beginning("the same words ")
    policy.begin()
    assert policy.next_due() is None
    policy.typed("the same words ", 2.0)
    assert policy.due(2.0 + DEBOUNCE_S) == Beginning("the same words ")
