"""The host dies, front ends live: everything that was asked ends once, and the next question is answered."""

import time
import uuid
from typing import Final

import psutil
import pytest

from samovar.core.chat import GREEDY, ChatMessage, Role
from samovar.core.commands import Focus, Submit
from samovar.core.events import HostLost, HostReady, RequestFinished, TokensGenerated
from samovar.core.request import FinishReason, Request
from tests.crash.conftest import FrontEnd, Site, hosts, kill

pytestmark = [pytest.mark.model, pytest.mark.timeout(900)]

NUM_KILLS: Final = 5


def question(text: str, *, session: str = "chat", max_tokens: int = 400) -> Request:
    return Request(
        id=uuid.uuid4().hex,
        session=session,
        messages=(ChatMessage(Role.USER, text),),
        sampling=GREEDY,
        max_tokens=max_tokens,
    )


async def end_of(front_end: FrontEnd, request: Request) -> RequestFinished:
    return await front_end.wait_for(RequestFinished, lambda event: event.request_id == request.id)


async def killed_in_reply(front_end: FrontEnd, request: Request) -> float:
    """Submit, kill the host once some text is there; returns when."""
    front_end.send(Submit(request))
    await front_end.wait_for(
        TokensGenerated, lambda event: event.request_id == request.id and bool(event.text)
    )
    assert front_end.client.host_pid is not None
    moment = time.monotonic()
    kill(front_end.client.host_pid)
    return moment


async def test_killed_in_reply_again_and_again(site: Site) -> None:
    async with site.front_end() as front_end:
        front_end.send(Focus("chat"))
        for number in range(NUM_KILLS):
            since = len(front_end.events)
            request = question(f"Write a long story about the number {number}.")
            killed = await killed_in_reply(front_end, request)
            lost = await front_end.wait_for(HostLost, since=since)
            assert front_end.time_of(lost) - killed < 1.0
            ended = [event for event in front_end.of(RequestFinished) if event.request_id == request.id]
            assert [event.reason for event in ended] == [FinishReason.HOST_LOST]
            told = [event.text for event in front_end.of(TokensGenerated) if event.request_id == request.id]
            assert ended[0].reply == "".join(told) != ""

            again = question("Say hello.", max_tokens=4)
            front_end.send(Submit(again))
            answered = await end_of(front_end, again)
            assert answered.reason in (FinishReason.LENGTH, FinishReason.STOP)
        ids = [event.request_id for event in front_end.of(RequestFinished)]
        assert len(ids) == len(set(ids)) == 2 * NUM_KILLS


async def test_killed_while_idle(site: Site) -> None:
    async with site.front_end() as front_end:
        await front_end.wait_for(HostReady)
        first = front_end.client.host_pid
        assert first is not None
        kill(first)
        lost = await front_end.wait_for(HostLost)
        await front_end.wait_for(HostReady, since=front_end.events.index(lost))
        assert front_end.client.host_pid != first
        assert front_end.of(RequestFinished) == []


async def test_all_front_ends_of_a_killed_host_go_on_with_one_new_host(site: Site) -> None:
    async with site.front_end("one") as one, site.front_end("two") as two:
        await one.wait_for(HostReady)
        await two.wait_for(HostReady)
        assert one.client.host_pid == two.client.host_pid
        requests = [question("Write a story.", session="1"), question("Write a poem.", session="2")]
        for front_end, request in zip((one, two), requests, strict=True):
            front_end.send(Submit(request))
        await two.wait_for(TokensGenerated)
        await killed_in_reply(one, question("Write a song.", session="3"))
        for front_end, request in zip((one, two), requests, strict=True):
            ended = await end_of(front_end, request)
            assert ended.reason is FinishReason.HOST_LOST
            again = question("Say hello.", max_tokens=4)
            front_end.send(Submit(again))
            answered = await end_of(front_end, again)
            assert answered.reason in (FinishReason.LENGTH, FinishReason.STOP)
        assert one.client.host_pid == two.client.host_pid
        assert [process.pid for process in hosts()] == [one.client.host_pid]


async def test_host_leaves_with_its_last_front_end(site: Site) -> None:
    async with site.front_end("one") as one:
        async with site.front_end("two") as two:
            await one.wait_for(HostReady)
            await two.wait_for(HostReady)
        request = question("Say hello.", max_tokens=4)
        one.send(Submit(request))
        assert (await one.wait_for(RequestFinished)).reason is not FinishReason.HOST_LOST
        pid = one.client.host_pid
        assert pid is not None
    gone, _ = psutil.wait_procs(hosts(), timeout=30)
    assert [process.pid for process in gone] in ([pid], [])
    assert hosts() == []
    assert not site.socket.exists()
