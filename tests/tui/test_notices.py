"""What is said while something else is going on: progress first, errors and confirmations never together."""

from pathlib import Path

import msgspec

from samovar.config import Config
from samovar.core.events import CacheChanged, CommandRefused, PrefillProgressed, SwapFinished
from samovar.core.request import RequestStats, TierTokens
from samovar.core.snapshot import CacheSnapshot, TierUse
from samovar.tui.widgets.session_list import AT_WORK
from samovar.tui.widgets.welcome import Welcome
from tests.tui.support import Station, station


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
        here.client.push(SwapFinished(request.session, True, 24, 1, 1.0))
        await here.until(lambda: "reading   128 of 2,752" in here.activity, here.activity)
        await here.until(lambda: "24 tokens back" in here.activity, here.activity)
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


async def test_a_refusal_goes_when_the_reply_has_ended(tmp_path: Path) -> None:
    async with station(tmp_path) as here:
        await here.send("one")
        await here.until_asked(1)
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
