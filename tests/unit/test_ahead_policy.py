"""When which beginning of a draft is processed ahead."""

import itertools

from samovar.chats.ahead_policy import DEBOUNCE_S, PAUSE_S, AheadPolicy, whole_words

KEY_S = 0.2


def type_text(
    policy: AheadPolicy, text: str, start: float = 0.0, before: str = ""
) -> tuple[list[str], float]:
    """Type `text` key by key, asking when something is due; what was prepared, and the time at the end."""
    prepared, now = [], start
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
    assert policy.due(1.0 + DEBOUNCE_S) == "Could "
    assert policy.due(1.0 + DEBOUNCE_S) is None, "told once"


def test_quick_words_are_prepared_together_and_not_put_off_for_ever() -> None:
    policy = AheadPolicy()
    policy.typed("one ", 0.0)
    policy.typed("one two ", 0.1)
    policy.typed("one two three ", 0.2)
    assert policy.next_due() == DEBOUNCE_S
    assert policy.due(DEBOUNCE_S) == "one two three "


def test_after_a_pause_the_last_word_counts_as_whole() -> None:
    policy = AheadPolicy()
    policy.typed("Why is the sky blue?", 0.0)
    assert policy.due(DEBOUNCE_S) == "Why is the sky "
    assert policy.next_due() == PAUSE_S
    assert policy.due(PAUSE_S) == "Why is the sky blue?"
    assert policy.next_due() is None


def test_a_sentence_is_prepared_in_growing_pieces() -> None:
    policy = AheadPolicy()
    prepared, now = type_text(policy, "Could you explain how a steam engine works")
    assert prepared[0] == "Could "
    assert prepared[-1] == "Could you explain how a steam engine "
    assert all(b.startswith(a) and len(b) >= len(a) + 3 for a, b in itertools.pairwise(prepared))
    assert policy.due(now + PAUSE_S) == "Could you explain how a steam engine works"


def test_what_only_gets_shorter_is_left_alone_until_it_goes_on_differently() -> None:
    policy = AheadPolicy()
    policy.typed("a red apple and ", 0.0)
    assert policy.due(1.0) == "a red apple and "
    assert policy.typed("a red app", 2.0) is None
    assert policy.typed("a red apple and ", 3.0) is None, "typed again as it was"
    assert policy.typed("a red balloon ", 4.0) == 4.0 + DEBOUNCE_S
    assert policy.due(5.0) == "a red balloon "


def test_commands_and_blanks_are_not_prepared() -> None:
    policy = AheadPolicy()
    for text in ("/", "/ren", "/rename a better title ", "   ", "\n\n"):
        assert policy.typed(text, 0.0) is None
        assert policy.due(100.0) is None
    assert policy.typed("/usr/bin is a folder ", 1.0) == 1.0 + DEBOUNCE_S


def test_a_sent_draft_starts_anew() -> None:
    policy = AheadPolicy()
    policy.typed("the same words ", 0.0)
    assert policy.due(1.0) == "the same words "
    policy.begin()
    assert policy.next_due() is None
    policy.typed("the same words ", 2.0)
    assert policy.due(3.0) == "the same words "
