"""Who runs and who waits, as the panel and the composer say it."""

import pytest

from samovar.chats.chat import Chat, Reply
from samovar.chats.host_state import HostPhase, HostState
from samovar.core.events import RequestQueued, WaitReason
from samovar.core.figures import ordinal
from samovar.core.request import RequestKind
from samovar.core.snapshot import ActivePhase, ActiveRequest, CacheSnapshot
from samovar.tui.activity import activity
from samovar.tui.widgets.running_text import MAX_ROWS, running_lines

READ = ActiveRequest("1", "a", "Tea", RequestKind.CHAT, ActivePhase.WRITING, generated=12, is_first=True)


def waiting(place: int, kind: RequestKind = RequestKind.SIDE_TASK) -> ActiveRequest:
    return ActiveRequest(str(1 + place), "b", f"task {place}", kind, ActivePhase.QUEUED, place)


def test_where_it_is_tight_the_first_of_them_stands_for_all() -> None:
    text = running_lines(CacheSnapshot(active=(waiting(1), READ, waiting(2))), {}, 60, 1).plain.splitlines()
    assert text[0].startswith("NOW    1 run · 2 wait")
    assert text[1].startswith("■ Tea")
    assert text[2] == "  and 2 more"


def lines(*active: ActiveRequest, share: float | None = None, width: int = 38) -> list[str]:
    text = running_lines(CacheSnapshot(active=active, others_share=share), {}, width).plain
    return text.split("\n") if text else []


def test_a_chat_that_is_alone_needs_no_word() -> None:
    assert lines() == lines(READ) == lines(READ, waiting(1, RequestKind.PREPARE)) == []


def test_who_waits_is_told_why() -> None:
    told = lines(waiting(2), READ, waiting(1), share=0.12)
    assert told[0].startswith("NOW    1 run · 2 wait")
    assert told[0].endswith("others get 12 %")
    assert [line.split()[1] for line in told[1:4]] == ["Tea", "task", "task"]
    assert told[2].endswith("waits, 1st")
    assert told[4:] == ["the chat you read goes first"]
    wide = lines(READ, waiting(1), waiting(2), width=60)
    assert wide[-1] == "2 side tasks wait: the chat you read goes first"
    assert "1 request waits:" in lines(READ, waiting(1, RequestKind.CHAT), width=60)[-1]


def test_without_a_chat_that_goes_first_nobody_is_said_to_wait_for_it() -> None:
    assert not any("the chat you read" in line for line in lines(waiting(1), waiting(2)))


def test_many_take_no_more_lines_than_some() -> None:
    told = lines(READ, *(waiting(place) for place in range(1, 21)), width=60)
    assert len(told) == MAX_ROWS + 3
    assert told[-2] == "  and 18 more"
    assert all(len(line) <= 60 for line in told)


@pytest.mark.parametrize(
    ("number", "text"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (22, "22nd")]
)
def test_places_are_counted_as_people_do(number: int, text: str) -> None:
    assert ordinal(number) == text


def test_a_reply_that_waits_says_for_what_and_how_long() -> None:
    chat = Chat.fresh("", 0.0)
    chat.reply = Reply("r", None, 0.0)
    host = HostState(HostPhase.READY, "")
    assert activity(host, chat, "", "", 0.0).plain == "waiting for its turn"
    chat.reply.waits = RequestQueued("r", chat.id, 2, 3, 8000.0, WaitReason.PREFIX)
    told = activity(host, chat, "", "", 0.0).plain
    assert told == "waiting: 2nd in the queue, about 8.0 s · the same beginning is being processed"
    chat.reply.waits = RequestQueued("r", chat.id, 1, 1, None, WaitReason.ROOM)
    assert activity(host, chat, "", "", 0.0).plain == "waiting: next · there is no room in the context yet"
