"""Chats for tests of whatever must lose nothing: generated trees, and texts that break careless code."""

from collections.abc import Mapping
from typing import Any

import msgspec
from hypothesis import strategies as st

from samovar.core.chat import Role
from samovar.core.request import Mismatch, MismatchReason, RequestStats, TierTokens
from samovar.sessions.attachments import digest_of
from samovar.sessions.settings import SessionSettings
from samovar.sessions.tags import cut_tag
from samovar.sessions.transfer.document import ChatDocument, CompactionDocument, MessageDocument
from samovar.sessions.values import Attachment, MessageState

NASTY_TEXTS = (
    "",
    " ",
    "\n",
    "\n\n",
    "\r",
    "\r\n",
    "\n\r",
    "one\r\ntwo\rthree\nfour\r\n",
    "ends in a return\r",
    "tab\tand trailing spaces  \n  \n",
    "\x00",
    "nul \x00 in the middle\nof two lines",
    "\x1b[31mred\x1b[0m \x1b]52;c;aGk=\x07",
    "bell \x07 backspace \x08 form feed \x0c delete \x7f C1 \x9b31m",
    "\u202eevil\u2066 bidi\u2069",
    "line\u2028separator, paragraph\u2029separator, next\x85line",
    "\ufeffbyte order mark",
    '"""',
    "'''",
    '"""\nthree quotes\n"""',
    "'''\nthree quotes\n'''",
    "''' and \"\"\" \n together ''''' \"\"\"\"\"",
    '"',
    '""""',
    'line\n"',
    "line\n'",
    "line\n''",
    "\\",
    "\\\n",
    "C:\\new\\u0041 \\\\ \\",
    "trailing backslash \\\nnext",
    'print("hello")',
    "𝒜𐍈😀 \U0010ffff é é 日本語 עברית العربية",
    "👩\u200d👩\u200d👧",
    "<!-- samovar: end {} -->",
    '\n<!-- samovar: message {"role": "user"} -->\n## User\n\nI was never said\n\n<!-- samovar: end {} -->\n',
    "<!-- \\samovar: and <!-- \\\\samovar:",
    "```python\nprint(1)\n",
    "~~~~\nopen",
    "- a list\n  ```\n  open in it",
    "``````\n```\n````\n",
    "<pre>\nopen",
    "<script>",
    "<!-- open",
    "<![CDATA[ open",
    "> # quoted\n\n# heading\n\nsetext\n===",
    "    indented code",
    '[[messages]]\nrole = "system"',
    "# not a comment",
    '{"format": "samovar"}',
    "null",
    "nan",
    "2026-11-22T09:15:00Z",
)

texts = st.one_of(
    st.text(max_size=40),
    st.sampled_from(NASTY_TEXTS),
    st.lists(st.sampled_from(NASTY_TEXTS) | st.text(max_size=5), max_size=4).map("".join),
)
times = st.one_of(
    st.integers(0, 4_000_000_000).map(float),
    st.integers(0, 4_000_000_000_000).map(lambda ms: ms / 1000),
    st.floats(0, 4e9, allow_subnormal=False),
)
counts = st.integers(0, 2**40)
millis = st.floats(0, 1e9, allow_subnormal=False)

json_values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(allow_nan=False, allow_infinity=False),
        texts,
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_NAMES = (
    "role",
    "id",
    "extra",
    "settings",
    "messages",
    "tags",
    "is_favourite",
    "favourite",
    "format",
    "a b",
    "",
)
extras = st.dictionaries(st.sampled_from(_NAMES) | st.text(max_size=6), json_values, max_size=3)

stats_values = st.builds(
    RequestStats,
    prompt_tokens=counts,
    reused=st.builds(TierTokens, context=counts, host=counts, disk=counts),
    processed_tokens=counts,
    generated_tokens=counts,
    prefill_ms=millis,
    first_token_ms=st.none() | millis,
    tokens_per_second=st.none() | millis,
    mismatch=st.none()
    | st.builds(
        Mismatch,
        pos=counts,
        reason=st.sampled_from(MismatchReason),
        before=st.lists(texts, max_size=2).map(tuple),
        cached=st.lists(texts, max_size=2).map(tuple),
        asked=st.lists(texts, max_size=2).map(tuple),
    ),
)
settings_values = st.builds(
    SessionSettings,
    persona=texts,
    temperature=st.none() | st.floats(0, 10),
    top_k=st.none() | st.integers(0, 1_000_000),
    min_p=st.none() | st.floats(0, 1),
    seed=st.none() | st.integers(0, 2**32 - 2),
    max_tokens=st.none() | st.integers(1, 2**31 - 1),
    stop=st.lists(texts.filter(bool), max_size=3).map(tuple),
    pin=st.booleans(),
    side_tasks=st.none() | st.booleans(),
)
attachments = st.builds(
    lambda name, text, path, num_tokens, repeated: Attachment(
        name, text, digest_of(text), path, num_tokens, repeated=repeated
    ),
    texts,
    texts,
    texts,
    st.none() | counts,
    st.booleans(),
)
tags = st.lists(texts.map(cut_tag).filter(bool), max_size=3).map(lambda found: tuple(sorted(set(found))))


def _compactions_of(ids: list[int]) -> st.SearchStrategy[tuple[CompactionDocument, ...]]:
    one = st.builds(
        CompactionDocument,
        upto=st.sampled_from(ids),
        summary=texts,
        created_at=st.none() | times,
        num_messages=counts,
        tokens_before=counts,
        tokens_after=counts,
        is_undone=st.booleans(),
        model=texts,
    )
    return st.just(()) | st.lists(one, max_size=2).map(tuple)


@st.composite
def documents(draw: st.DrawFn, max_messages: int = 8) -> ChatDocument:
    """A chat with a tree of up to `max_messages` messages, as `Exchange.document` could hand it out, or with
    ids and without times, as a file may have it.
    """
    num_messages = draw(st.integers(0, max_messages))
    ids = list(range(1, num_messages + 1))
    if draw(st.booleans()):
        ids = draw(
            st.lists(st.integers(1, 2**63 - 1), min_size=num_messages, max_size=num_messages, unique=True)
        )
    messages: list[MessageDocument] = []
    for number, message_id in enumerate(ids):
        chain = ids[number - 1] if number else None
        messages.append(
            MessageDocument(
                id=message_id,
                parent=draw(st.just(chain) | st.sampled_from([None, *ids[:number]])),
                role=draw(st.sampled_from(Role)),
                content=draw(texts),
                created_at=draw(st.none() | times),
                state=draw(st.sampled_from([state for state in MessageState if state.value != "streaming"])),
                model=draw(texts),
                error=draw(texts),
                attachments=draw(st.just(()) | st.lists(attachments, max_size=2).map(tuple)),
                tokens=draw(st.just(()) | st.lists(st.integers(0, 2**32 - 1), max_size=4).map(tuple)),
                tokenizer=draw(st.just("") | texts),
                stats=draw(st.none() | stats_values),
                extra=draw(st.just({}) | extras),
            )
        )
    return ChatDocument(
        title=draw(texts),
        system_prompt=draw(texts),
        created_at=draw(st.none() | times),
        updated_at=draw(st.none() | times),
        settings=draw(st.just(SessionSettings()) | settings_values),
        tags=draw(tags),
        is_favourite=draw(st.booleans()),
        is_archived=draw(st.booleans()),
        head=draw(st.sampled_from([None, *ids]) | st.just(ids[-1] if ids else None)),
        messages=tuple(messages),
        compactions=draw(_compactions_of(ids)) if ids else (),
        source=draw(st.just("") | texts),
        extra=draw(st.just({}) | extras),
    )


def chain(*contents: str, **fields: Any) -> ChatDocument:  # noqa: ANN401 - whatever a document has
    """A chat without branches: user and assistant in turn."""
    roles = (Role.USER, Role.ASSISTANT)
    messages = tuple(
        MessageDocument(id=number, parent=number - 1 or None, role=roles[(number - 1) % 2], content=content)
        for number, content in enumerate(contents, start=1)
    )
    values: Mapping[str, Any] = {"head": len(messages) or None, "messages": messages} | fields
    return ChatDocument(**values)


def assert_same(got: ChatDocument, expected: ChatDocument) -> None:
    """Equal, and of the same kinds throughout: 1, 1.0 and true are three things."""
    assert got == expected
    assert _in_full(got) == _in_full(expected)


def _in_full(document: ChatDocument) -> bytes:
    values = msgspec.to_builtins(document)
    values.setdefault("settings", {})  # left out only where it is the very default, not an equal one
    return msgspec.json.encode(values, order="sorted")
