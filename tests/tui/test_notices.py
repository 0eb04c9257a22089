"""What is said while something else is going on: progress first, errors and confirmations never together."""

from functools import partial
from pathlib import Path

import msgspec

from samovar.chats.conversation import OPENED_WITHIN_S
from samovar.config import Config
from samovar.core.commands import Evict, Pin, Prefetch, SetDiskLimit
from samovar.core.events import (
    CacheChanged,
    CommandRefused,
    LoadingProgressed,
    PrefillProgressed,
    SwapFinished,
)
from samovar.core.request import RequestStats, TierTokens
from samovar.core.snapshot import CacheSnapshot, PromptRow, Tier, TierUse
from samovar.tui.widgets.session_list import AT_WORK
from samovar.tui.widgets.status_bar import StatusBar
from samovar.tui.widgets.welcome import Welcome
from tests.tui.support import Station, station


def is_said(here: Station, text: str) -> bool:
    return text in here.activity


def drawn(here: Station, line: int) -> str:
    """A line of the list of chats as it is on the screen."""
    return here.sessions.render_line(line).text


async def test_progress_stays_in_view_when_something_is_noticed(tmp_path: Path) -> None:
    async with station(tmp_path, size=(200, 50)) as here:
        await here.send("Read this.")
        await here.until_asked(1)
        request = here.client.requests[0]
        stats = RequestStats(prompt_tokens=2816, reused=TierTokens(context=64))
        here.client.begin(request, stats)
        here.client.push(PrefillProgressed(request.id, request.session, 128, 2752, 120_000.0))
        await here.until(lambda: "reading   128 of 2,752" in here.activity, here.activity)
        here.client.push(SwapFinished(request.session, True, 24, 1, 1.0))
        await here.send("/star")
        await here.until(lambda: "among the favourites" in here.activity, here.activity)
        assert "reading   128 of 2,752" in here.activity
        assert AT_WORK in drawn(here, 0)
        assert "".join(text for text, _ in here.entries[-1].meta).endswith("64 reused, 2,752 to process")

        here.client.say(request, "So")
        await here.until(lambda: "answering" in here.activity)
        assert "".join(text for text, _ in here.entries[-1].meta).endswith("64 reused, 2,752 processed")
        here.client.finish(request, "So")
        await here.until(lambda: here.entries[-1].state == "complete")
        assert AT_WORK not in drawn(here, 0)


async def test_a_ram_limit_is_confirmed_by_the_host_or_given_back(tmp_path: Path) -> None:
    async with station(tmp_path) as here:
        await here.send("/ram banana")
        assert "RAM limit" not in here.activity
        here.client.push(CommandRefused("banana is no size"))
        await here.until(lambda: here.error == "banana is no size")
        assert here.text == "/ram banana"
        assert "RAM limit" not in here.activity

        await here.send("/ram 2GiB")
        assert here.error == ""
        snapshot = CacheSnapshot()
        here.client.push(CacheChanged(snapshot))
        here.client.push(
            CacheChanged(msgspec.structs.replace(snapshot, host=TierUse(limit_bytes=2 << 30, setting="2GiB")))
        )
        await here.until(lambda: "RAM limit: 2GiB" in here.activity)
        assert here.error == ""


async def test_a_disk_limit_beyond_the_disk_says_what_there_is(tmp_path: Path) -> None:
    async with station(tmp_path) as here:

        async def take(setting: str, limit_bytes: int) -> None:
            await here.send(f"/disk {setting}")
            use = TierUse(limit_bytes=limit_bytes, setting=setting, room_bytes=41 << 30)
            here.client.push(CacheChanged(CacheSnapshot(disk=use)))
            await here.until(lambda: f"disk limit: {setting}" in here.activity)

        await take("99TiB", 99 << 40)
        assert "disk limit: 99TiB, more than the disk has room for (41 GiB)" in here.activity
        await take("8GiB", 8 << 30)
        assert "room for" not in here.activity


async def test_a_refusal_goes_when_the_reply_has_ended(tmp_path: Path) -> None:
    async with station(tmp_path) as here:
        await here.send("one")
        await here.until_asked(1)
        await here.send("/edit")
        await here.send("two")
        await here.until(lambda: "still being written" in here.error)
        here.client.finish(here.client.requests[0], "one")
        await here.until(lambda: here.error == "")
        assert here.text == "two"


async def test_a_system_prompt_that_changes_by_itself_is_warned_of(tmp_path: Path) -> None:
    async with station(tmp_path) as here:
        await here.send("/system Today is Sunday. Be brief, be kind, and cite your sources.")
        await here.until(lambda: "“Today is Sunday”" in here.error)
        await here.send("/system Be brief, be kind, and cite your sources.")
        await here.until(lambda: not here.error)


async def test_a_configured_system_prompt_that_changes_by_itself_is_warned_of_at_start(
    tmp_path: Path,
) -> None:
    config = Config(system_prompt="Today is Sunday. Be brief, be kind, and cite your sources.", max_fps=60)
    async with station(tmp_path, config=config) as here:
        welcome = here.screen.query_one(Welcome)
        await here.until(lambda: "“Today is Sunday”" in str(welcome.render()))


async def test_a_system_prompt_is_shown_as_one(tmp_path: Path) -> None:
    async with station(tmp_path) as here:
        await here.send("/system")
        await here.until(lambda: "no system prompt" in here.activity)
        await here.send("/system Be brief.")
        await here.send("/system")
        await here.until(lambda: "system prompt: Be brief." in here.activity)


async def test_the_way_back_from_disk_is_said(tmp_path: Path) -> None:
    async with station(tmp_path, chats=2, size=(220, 50)) as here:
        for from_disk, told in (
            (3041, "3,041 tokens back in the context in 25 ms, from disk"),
            (1024, "in 25 ms, 1,024 of them from disk"),
        ):
            await here.pilot.press("ctrl+down")
            shown = here.app.conversations.shown.id
            here.client.push(SwapFinished(shown, True, 3041, 1, 25.0, disk_tokens=from_disk))
            await here.until(partial(is_said, here, told), told)


async def test_the_way_back_covers_no_answer_and_is_no_news_later(tmp_path: Path) -> None:
    now = [1_000.0]
    async with station(tmp_path, chats=2, clock=lambda: now[0]) as here:
        await here.pilot.press("alt+2")
        shown = here.app.conversations.shown.id
        await here.send("/star")
        await here.until(lambda: "among the favourites" in here.activity)
        here.client.push(SwapFinished(shown, True, 3041, 1, 25.0))
        here.client.push(CommandRefused("that is too much", "evict"))
        await here.until(lambda: here.error == "that is too much")
        here.client.push(SwapFinished(shown, True, 3041, 1, 25.0))
        await here.send("/star")
        await here.until(lambda: "no favourite" in here.activity)
        assert "back in the context" not in here.activity

        await here.pilot.press("ctrl+down")
        shown = here.app.conversations.shown.id
        now[0] += 2 * OPENED_WITHIN_S
        here.client.push(SwapFinished(shown, True, 3041, 1, 25.0))
        here.client.push(CacheChanged(CacheSnapshot(asleep=True, wake_ms=1200.0)))
        await here.until(lambda: "asleep" in here.activity)


async def test_what_is_said_of_a_task_ends_with_it(tmp_path: Path) -> None:
    async with station(tmp_path, chats=1) as here:
        await here.pilot.press("ctrl+down")
        await here.until(lambda: here.app.conversations.shown.path)
        await here.send("/keywords")
        await here.until(lambda: "keywords is under way" in here.activity)
        here.client.finish(here.client.side_requests[-1], '{"tags": ["tea", "kyoto"]}')
        await here.until(lambda: "tags added: tea, kyoto" in here.activity, here.activity)
        await here.send("/title")
        await here.until(lambda: "title is under way" in here.activity)
        here.client.finish(here.client.side_requests[-1], "{}")
        await here.until(lambda: "title: the model gave no answer" in here.error)
        assert "under way" not in here.activity


async def test_resting_on_a_chat_fetches_it_from_disk(tmp_path: Path) -> None:
    async with station(tmp_path, chats=3) as here:
        hot, cold, unknown = (row.id for row in here.sessions.rows[1:])
        rows = (
            PromptRow(hot, "", 9, 0, 9, 9, 1, 0, Tier.HOST, 0, 0.0),
            PromptRow(cold, "", 9, 0, 0, 9, 1, 0, Tier.DISK, 0, 0.0),
        )
        snapshot = CacheSnapshot(prompts=rows, disk=TierUse(limit_bytes=1 << 30))
        here.client.push(CacheChanged(snapshot))
        await here.until(lambda: "◔" in drawn(here, 2), drawn(here, 2))
        await here.pilot.press("f2", "down", "down")  # over the hot one, which needs nothing
        await here.until(lambda: here.client.of(Prefetch) == [Prefetch(cold)])
        await here.pilot.press("down")
        await here.until(lambda: here.client.of(Prefetch)[-1] == Prefetch(unknown))
        await here.pilot.press("up", "up", "enter")
        await here.until(lambda: here.app.conversations.shown.id == hot)
        assert Prefetch(hot) not in here.client.of(Prefetch)


async def test_a_sleeping_model_says_what_waking_costs_and_a_message_wakes_it(tmp_path: Path) -> None:
    async with station(tmp_path, size=(160, 48)) as here:
        here.client.push(CacheChanged(CacheSnapshot(asleep=True, wake_ms=1200.0)))
        await here.until(lambda: "asleep, waking costs about 1.2 s" in here.activity)
        assert "asleep" in str(here.screen.query_one(StatusBar).render())
        await here.send("Wake up.")
        await here.until_asked(1)
        here.client.push(LoadingProgressed("loading the model", 0.4))
        await here.until(lambda: "loading the model 40 % · the reply begins then" in here.activity)
        request = here.client.requests[0]
        here.client.push(CacheChanged(CacheSnapshot()))
        here.client.begin(request)
        here.client.say(request, "So")
        await here.until(lambda: "answering" in here.activity, here.activity)
        here.client.finish(request, "So")
        await here.until(lambda: here.entries[-1].state == "complete")
        await here.until(lambda: "asleep" not in here.activity)


async def test_commands_of_the_cache_work_on_the_shown_chat(tmp_path: Path) -> None:
    async with station(tmp_path) as here:
        await here.send("/pin")
        await here.until(lambda: "nothing of this chat is in the cache yet" in here.error)
        shown = here.app.conversations.shown.id
        row = PromptRow(shown, "teas", 9, 9, 9, 9, 1, 0, Tier.CONTEXT, 0, 0.0)
        here.client.push(CacheChanged(CacheSnapshot(prompts=(row,))))
        await here.until(lambda: here.app.conversations.snapshot.prompts)
        await here.send("/pin")
        await here.send("/unpin")
        assert here.client.of(Pin) == [Pin(shown, True), Pin(shown, False)]
        await here.send("/evict")
        assert here.client.of(Evict) == [Evict(shown)]
        here.client.push(CacheChanged(CacheSnapshot()))
        await here.until(lambda: "the prompt has left context and RAM" in here.activity)
        await here.send("/disk 9GiB")
        assert here.client.of(SetDiskLimit) == [SetDiskLimit("9GiB")]
        here.client.push(CommandRefused("there is less than that"))
        await here.until(lambda: here.error == "there is less than that")
        assert here.text == "/disk 9GiB"


async def test_a_refused_deed_is_not_taken_for_a_limit(tmp_path: Path) -> None:
    async with station(tmp_path) as here:
        await here.send("/ram 2GiB")
        here.client.push(CommandRefused("nothing to evict", "evict"))
        await here.until(lambda: here.error == "nothing to evict")
        assert here.text == ""
        here.client.push(CommandRefused("that is too much", "set_ram_limit"))
        await here.until(lambda: here.error == "that is too much")
        assert here.text == "/ram 2GiB"
