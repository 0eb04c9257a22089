"""What changes by itself in a system prompt or a template is found, and what stands still is not."""

import pytest

from samovar.core.lint import prompt_warning, template_warning, volatile_part
from samovar.engine.prompt import CHATML

STABLE = "\nYou are a careful assistant who answers briefly and cites the sources."


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("2026-11-22T06:23:33Z", "the date and the time"),
        ("It is 2026-11-22 06:23 in Vienna.", "the date and the time"),
        ("Sun Nov 22 06:23:33 UTC 2026", "the date and the time"),
        ("Sun, 22 Nov 2026 06:23:33 GMT", "the date and the time"),
        ("Current date: 2026-11-22", "the date or the time"),
        ("Current date and time: 22.11.2026, 6:23", "the date or the time"),
        ("The current date is November 22, 2026.", "the date or the time"),
        ("**Current time:** 06:23", "the date or the time"),
        ("Current time is 6:23 pm", "the date or the time"),
        ("Today is Sunday, 22 November 2026.", "the date or the time"),
        ("Today is Sunday.", "the date or the time"),
        ("Today's date is 11/22/2026.", "the date or the time"),
        ("Today’s date: the 22nd of November", "the date or the time"),
        ("It is now 14:05.", "the date or the time"),
        ("Date: 2026-11-22", "the date or the time"),
        ("- Date: 22 Nov 2026", "the date or the time"),
        ("Timestamp: 2026-11-22", "the date or the time"),
        ("Session 6f1b2c3d-1111-4222-8333-9a8b7c6d5e4f", "an id that is never the same"),
        ("nonce d41d8cd98f00b204e9800998ecf8427e", "an id that is never the same"),
        ("Build 7285ec3a", "an id that is never the same"),
        ("commit: 58fe630", "an id that is never the same"),
        ("request_id=9f8e7d6c5b", "an id that is never the same"),
        ("epoch 1795328613", "the time in seconds"),
        ("timestamp: 1795328613123", "the time in seconds"),
        ("now=1795328613.25", "the time in seconds"),
        ("Request #1041", "a counter"),
        ("This is message number 7 of the day.", "a counter"),
        ("Session ID: 4711", "a counter"),
        ("counter: 12", "a counter"),
    ],
)
def test_what_changes_by_itself_is_found_in_front_of_stable_text(text: str, kind: str) -> None:
    for prompt in (text + STABLE, "You are kind. " + text + STABLE, "You are kind.\n" + text + STABLE):
        if text[0] == "-" or text.startswith(("Date", "Timestamp")):
            prompt = prompt.replace("kind. ", "kind.\n")  # these are lines of their own
        found = volatile_part(prompt)
        assert found is not None, prompt
        assert found.kind == kind
        assert found.stable_characters > 50
    assert volatile_part(STABLE + "\n" + text) is None, "at the end it does no harm"
    assert prompt_warning(STABLE + "\n" + text) == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "You are a historian of the year 1848.",
        "Knowledge cutoff: 2024-06-01. Say so when asked.",
        "Your knowledge ends in October 2023; the model was made on 2024-01-15 in Paris.",
        "The contract of 2023-10-01 is what counts, as of 1 January 2025.",
        "Today is a good day to be brief.",
        "Ask what the current date is before you compute an age.",
        "Write dates as YYYY-MM-DD and times as HH:MM:SS.",
        "The office opens at 9:30 and closes at 17:00 from Monday to Friday.",
        "Answer within 10 minutes, in at most 3 messages of 200 words.",
        "Use at most 3 attempts. In message 1 greet, in message 2 ask.",
        "Version 2.1 of the rules, section 4: request 3 references.",
        "Our phone number is 1795328613, ISBN 1617291234.",
        "The colour is #1e2a3f, the address 0xdeadbeef, the port 8080.",
        "Follow RFC 9110 and ISO 8601. Build 3 variants, run 2 tests.",
        "Run: 3 commands. Session: be kind.",
        "In May 2024 the rules changed; on Sunday the shop is closed.",
        "Decade deadbeefs defaced facade.",
        "Use {{date}} where a date goes.",
    ],
)
def test_what_stands_still_is_not_warned_of(text: str) -> None:
    assert volatile_part(text + STABLE) is None


def test_several_at_the_end_are_the_end() -> None:
    end = "Current date: 2026-11-22\nCurrent time: 06:23\nSession ID: 4711"
    assert volatile_part(STABLE + "\n" + end) is None
    assert volatile_part(end + STABLE) is not None


def test_the_warning_names_it_and_says_where_to_move_it() -> None:
    said = prompt_warning("Today is Sunday." + STABLE)
    assert "“Today is Sunday”" in said
    assert "Put it at the end, or into the first message." in said
    long = prompt_warning("build " + "a1" * 20 + STABLE)
    assert len(long) < 250


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (CHATML, ""),
        ('{%- set date_string = strftime_now("%d %b %Y") %}', "writes the date"),
        ("{{ strftime_now('%Y-%m-%d %H:%M') }}", "writes the time"),
        ("{{ strftime_now( '%c' ) }}", "writes the time"),
        ("{# strftime_now('%H') #}{{ messages[0]['content'] }}", ""),
        ("{%- if strftime_now is defined %}x{% endif %}", ""),
    ],
)
def test_a_template_that_writes_the_date_is_named(template: str, said: str) -> None:
    found = template_warning(template)
    assert said in found
    assert bool(found) == bool(said)


def test_long_prompts_are_looked_through_in_no_time() -> None:
    """With unbounded repetitions some of these took minutes, which the tests' time limit would end."""
    for text in ("current date" + " " * 200_000, "\n" * 200_000, "today " * 40_000, "0a" * 100_000):
        assert prompt_warning(text) == prompt_warning(text[:1000])
