"""Finds what changes by itself in front of stable text: it makes a cache start again from there. Pure.

A system prompt opens every prompt of a chat. Where it holds the time or an id of this run, all that follows
is new whenever that changes. The patterns would rather miss something than warn of a date that stands still.
Prompts are of any length, so white space is made single first and every other repetition is bounded.
"""

import re
from typing import Final

import msgspec

STABLE_CHARACTERS: Final = 24
"""So much text behind what changes is worth a word; less is as good as its end."""

_CLOCK: Final = r"\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?(?:\s?[ap]\.?m\b)?"
_WEEKDAY: Final = r"(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?"
_MONTH: Final = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sep(?:t(?:ember)?)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_DAY: Final = (
    rf"(?:\d{{4}}[-/.]\d{{1,2}}[-/.]\d{{1,2}}|\d{{1,2}}[-/.]\d{{1,2}}[-/.]\d{{2,4}}"
    rf"|(?:{_WEEKDAY}\b,?\s)?(?:the\s)?\d{{1,2}}(?:st|nd|rd|th)?\s(?:of\s)?{_MONTH}\b(?:,?\s\d{{4}})?"
    rf"|(?:{_WEEKDAY}\b,?\s)?{_MONTH}\b\.?\s\d{{1,2}}(?:st|nd|rd|th)?(?:,?\s\d{{4}})?|{_WEEKDAY}\b)"
)
_MOMENT: Final = rf"(?:{_DAY}(?:[ T,]+(?:at\s)?{_CLOCK})?|{_CLOCK})"
_HEX: Final = r"(?=[0-9a-f]*\d)(?=\d*[a-f])[0-9a-f]"
_THING: Final = r"(?:request|session|conversation|message|turn|run|visit|attempt|trace|build|commit|revision)"

_DATE_TIME: Final = "the date and the time"
_DATE: Final = "the date or the time"
_ID: Final = "an id that is never the same"
_SECONDS: Final = "the time in seconds"
_COUNTER: Final = "a counter"
_SOURCES: Final = (
    # 2026-11-22T06:23Z
    (_DATE_TIME, r"\b\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?"),
    # Sun Nov 22 06:23:33 UTC 2026; Sun, 22 Nov 2026 06:23:33 GMT
    (
        _DATE_TIME,
        rf"\b{_WEEKDAY}\b,?\s(?:{_MONTH}\s\d{{1,2}}|\d{{1,2}}\s{_MONTH}(?:\s\d{{4}})?),?\s{_CLOCK}",
    ),
    # Current date: …, today is Sunday, it is now 6:23
    (
        _DATE,
        r"\b(?:(?:the\s)?current\s(?:local\s)?(?:date|time|day|datetime)(?:\s?(?:and|&|/)\s?(?:date|time))?"
        r"|(?:the\s)?(?:date|time)\s(?:today|now)|today[’']?s\sdate|today|(?:it|the\stime)\sis\snow"
        r"|right\snow)(?:\s?\([^)\n]{0,20}\))?\s?(?:is|[:=])?\s?[\"'`*_]{0,4}\s?"
        rf"{_MOMENT}",
    ),
    # a line of its own: Date: 2026-11-22
    (
        _DATE,
        r"(?m:^)[ >*#\[-]{0,9}(?:date|time|datetime|date/time|now|timestamp|generated(?:\s(?:at|on))?)"
        rf"\*{{0,2}} ?[:=]\*{{0,2}} ?[\"'`]?{_MOMENT}",
    ),
    (_ID, r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"),
    (_ID, rf"\b{_HEX}{{32,}}\b"),
    (
        _ID,
        rf"\b(?:{_THING}|version|sha|hash|nonce)(?:[ _-]?(?:id|hash|sha|no))?\s?(?:is\s?)?[:=#]?\s?[\"'`(]?"
        rf"{_HEX}{{7,40}}\b",
    ),
    (
        _SECONDS,
        r"\b(?:epoch|unix(?:\stime)?|timestamp|time|now|ts)\W{0,3}(?:is\W{0,2})?"
        r"1[5-9]\d{8}(?:\d{3})?(?:\.\d+)?\b",
    ),
    (
        _COUNTER,
        rf"\b{_THING}(?:\s(?:id|no\.?|number|count))?\s?"
        r"(?:#|(?:id|no\.?|number|count)\s?(?:is|[:=#])?)\s?\d+\b",
    ),
    (_COUNTER, r"\bcounter\s?(?:is|[:=])\s?\d+\b"),
)
_PATTERNS: Final = tuple((kind, re.compile(source, re.IGNORECASE)) for kind, source in _SOURCES)
_WHITE: Final = re.compile(r"\s+")
_STRFTIME: Final = re.compile(r"strftime_now\s*\(\s*([\"'])(.*?)\1")
_COMMENT: Final = re.compile(r"\{#.*?#\}", re.DOTALL)
_OF_DAY: Final = re.compile(r"%-?[HIMSfpcXTRrs]")


class Finding(msgspec.Struct, frozen=True):
    """Something that changes by itself: what it is, its text, and the stable characters behind it."""

    kind: str
    text: str
    stable_characters: int


def volatile_part(prompt: str) -> Finding | None:
    """The first thing in a system prompt that changes by itself and has stable text behind it."""
    prompt = _WHITE.sub(lambda run: "\n" if "\n" in run[0] else " ", prompt)
    hits = [
        (match.start(), match.end(), kind)
        for kind, pattern in _PATTERNS
        for match in pattern.finditer(prompt)
    ]
    found = sorted(hits, key=lambda hit: (hit[0], -hit[1]))
    if not found:
        return None
    start, end, kind = found[0]
    rest, pos = 0, end
    for next_start, next_end, _ in found[1:]:
        rest += _weight(prompt[pos:next_start])
        pos = max(pos, next_end)
    rest += _weight(prompt[pos:])
    return Finding(kind, prompt[start:end].strip(), rest) if rest >= STABLE_CHARACTERS else None


def prompt_warning(prompt: str) -> str:
    """A sentence for whoever wrote this system prompt; empty if there is nothing to say."""
    found = volatile_part(prompt)
    if found is None:
        return ""
    shown = found.text if len(found.text) <= 40 else found.text[:39] + "…"
    return (
        f"The system prompt has {found.kind} (“{shown}”) in front of other text: whenever it changes, all "
        "that follows is processed again. Put it at the end, or into the first message."
    )


def template_warning(template: str) -> str:
    """A sentence about a chat template that writes the date or the time by itself; empty if it does not."""
    formats = [found[2] for found in _STRFTIME.finditer(_COMMENT.sub("", template))]
    if not formats:
        return ""
    if any(_OF_DAY.search(form) for form in formats):
        what, when = "the time", "Whenever it changes"
    else:
        what, when = "the date", "Once a day"
    return (
        f"This model's chat template writes {what} into every prompt (strftime_now). {when}, all that "
        f"follows is processed again. A GGUF without it, and {what} at the end of the system prompt or in "
        "the first message, would keep the cache."
    )


def _weight(text: str) -> int:
    """Letters and digits: what is between two things that change is often only punctuation."""
    return sum(map(str.isalnum, text))
