"""What the user typed into the search field, as a value. Pure; whatever is typed is a query.

    kafka "exact words" -without tag:work tag:"two words" role:me model:gemma title:plan is:favourite
    before:2026-11 after:7d

A word of several parts (`foo_bar`, a word of Chinese) is the phrase of its parts. The word that is being
typed, that is, the last one with nothing after it, also finds longer ones.
"""

import datetime
import re
from typing import Final, Literal

import msgspec

from samovar.core.chat import Role
from samovar.sessions.words import searchable

MAX_CHARS: Final = 2000
MAX_PHRASES: Final = 32
MAX_WORDS: Final = 64  # of one phrase

Mark = Literal["favourite", "archived"]

_FILTERS: Final = ("tag", "before", "after", "role", "model", "title", "is")
_ITEM: Final = re.compile(
    rf'(?P<minus>-?)(?:(?P<filter>{"|".join(_FILTERS)}):)?(?:"(?P<quoted>[^"]*)(?P<closed>"?)|(?P<plain>[^\s"]+)|)',
    re.IGNORECASE,
)
_ROLES: Final = {
    "user": Role.USER,
    "me": Role.USER,
    "you": Role.USER,
    "assistant": Role.ASSISTANT,
    "reply": Role.ASSISTANT,
}
_MARKS: Final[tuple[Mark, ...]] = ("favourite", "archived")
_DAYS: Final = {"d": 1, "w": 7}


class Phrase(msgspec.Struct, frozen=True):
    """Folded words that stand side by side. `is_open`: the last one may go on."""

    words: tuple[str, ...]
    is_open: bool = False

    def fts(self) -> str:
        """The phrase for FTS5. Folded words hold no quotes."""
        return f'"{" ".join(self.words)}"{" *" if self.is_open else ""}'

    def needle(self) -> str:
        """What to look for in a text of `haystack`."""
        return f" {' '.join(self.words)}{'' if self.is_open else ' '}"


class SearchQuery(msgspec.Struct, frozen=True):
    """Every phrase must be there, none of `excluded`; filters of a chat and of a message, all of which hold.

    `before` and `after` are seconds since the epoch; `after` includes its moment. Of several roles or models
    one is enough. `problems` are sentences on what could not be understood and was left out.
    """

    phrases: tuple[Phrase, ...] = ()
    excluded: tuple[Phrase, ...] = ()
    tags: tuple[Phrase, ...] = ()
    titles: tuple[Phrase, ...] = ()
    marks: frozenset[Mark] = frozenset()
    roles: frozenset[Role] = frozenset()
    models: tuple[Phrase, ...] = ()
    before: float | None = None
    after: float | None = None
    problems: tuple[str, ...] = ()

    def fts(self) -> str:
        """The query for FTS5; there is at least one phrase."""
        assert self.phrases
        found = " AND ".join(phrase.fts() for phrase in self.phrases)
        return f"({found}) NOT ({' OR '.join(p.fts() for p in self.excluded)})" if self.excluded else found

    def filters_chats(self) -> bool:
        return bool(self.tags or self.titles or self.marks)

    def filters_times(self) -> bool:
        return self.before is not None or self.after is not None

    def filters_messages(self) -> bool:
        return bool(self.roles or self.models) or self.filters_times()

    def is_empty(self) -> bool:
        """Nothing is asked for: what was typed is blank, or means nothing yet."""
        return not (self.phrases or self.excluded or self.filters_chats() or self.filters_messages())


def haystack(text: str) -> str:
    """The words of a text in which `Phrase.needle` can be looked for."""
    return f" {' '.join(searchable(text).split())} "


def parse(text: str, now: float) -> SearchQuery:
    """Read a query; `now` in seconds since the epoch is what `today` and `7d` count from. Never fails."""
    parser = _Parser(now)
    if len(text) > MAX_CHARS:
        parser.problems.append(f"only the first {MAX_CHARS:,} characters are looked at")
        text = text[:MAX_CHARS]
    for item in _ITEM.finditer(text):
        if item.group():
            parser.add(item, is_last=item.end() == len(text))
    return parser.query()


class _Parser:
    """Takes the items of a query one after the other."""

    def __init__(self, now: float) -> None:
        self._now = now
        self._phrases: dict[Phrase, None] = {}
        self._excluded: dict[Phrase, None] = {}
        self._named: dict[str, list[Phrase]] = {"tag": [], "title": [], "model": []}
        self._marks: set[Mark] = set()
        self._roles: set[Role] = set()
        self._before: float | None = None
        self._after: float | None = None
        self.problems: list[str] = []

    def query(self) -> SearchQuery:
        return SearchQuery(
            phrases=tuple(self._phrases),
            excluded=tuple(self._excluded),
            tags=tuple(self._named["tag"]),
            titles=tuple(self._named["title"]),
            marks=frozenset(self._marks),
            roles=frozenset(self._roles),
            models=tuple(self._named["model"]),
            before=self._before,
            after=self._after,
            problems=tuple(dict.fromkeys(self.problems)),
        )

    def add(self, item: re.Match[str], *, is_last: bool) -> None:
        value = item["plain"] or item["quoted"] or ""
        is_open = is_last and not item["closed"] and not value[-1:].isspace()
        if item["filter"] is None:
            self._add_words(value, is_open=is_open, is_excluded=bool(item["minus"]))
        elif item["minus"]:
            self.problems.append(f"a filter cannot be excluded: {item.group()}")
        elif value.strip():
            self._add_filter(item["filter"].lower(), value.strip(), is_open=is_open)

    def _add_words(self, value: str, *, is_open: bool, is_excluded: bool) -> None:
        phrase = _phrase(value, is_open=is_open and not is_excluded)
        if phrase is None:
            return
        if len(self._phrases) + len(self._excluded) >= MAX_PHRASES:
            self.problems.append(f"only the first {MAX_PHRASES} words are looked for")
        elif is_excluded:
            self._excluded[phrase] = None
        else:
            self._phrases[phrase] = None

    def _add_filter(self, name: str, value: str, *, is_open: bool) -> None:
        match name:
            case "before" | "after":
                moment = _moment(value.lower(), self._now)
                if moment is None:
                    self.problems.append(
                        f"{name}: takes 2026, 2026-11, 2026-11-01, today, yesterday, 7d or 2w, not {value}"
                    )
                elif name == "before":
                    self._before = moment if self._before is None else min(moment, self._before)
                else:
                    self._after = moment if self._after is None else max(moment, self._after)
            case "role":
                roles = {_ROLES[role] for role in _ROLES if role.startswith(value.lower())}
                self._roles |= roles
                if not roles:
                    self.problems.append(f"role: takes me, you, user, reply or assistant, not {value}")
            case "is":
                marks = {mark for mark in _MARKS if mark.startswith(value.lower())}
                self._marks |= marks
                if not marks:
                    self.problems.append(f"is: takes favourite or archived, not {value}")
            case _:
                # Models carry their version in their name: `qwen` is to find Qwen3.
                phrase = _phrase(value, is_open=is_open or name == "model")
                if phrase is not None:
                    self._named[name].append(phrase)
                else:
                    self.problems.append(f"{name}: needs a word, not {value}")


def _phrase(value: str, *, is_open: bool) -> Phrase | None:
    text = searchable(value)
    words = tuple(text.split()[:MAX_WORDS])
    # `foo_` and a word of Chinese end in whole words.
    return Phrase(words, is_open=is_open and not text.endswith(" ")) if words else None


def _moment(value: str, now: float) -> float | None:
    """The first moment of a day, month or year in local time; None if it is none."""
    try:
        today = datetime.datetime.fromtimestamp(now).date()
        if value in ("today", "yesterday"):
            day = today - datetime.timedelta(days=int(value == "yesterday"))
        elif ago := re.fullmatch(r"([0-9]{1,5})([dw])", value):
            return now - 86_400 * int(ago[1]) * _DAYS[ago[2]]
        elif date := re.fullmatch(r"([0-9]{4})(?:-([0-9]{1,2})(?:-([0-9]{1,2}))?)?", value):
            day = datetime.date(int(date[1]), int(date[2] or 1), int(date[3] or 1))
        else:
            return None
        return datetime.datetime.combine(day, datetime.time()).timestamp()
    except (ValueError, OverflowError, OSError):  # no such day, or beyond what the system can count
        return None
