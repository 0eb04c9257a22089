"""The same prompt answered several times: what is asked, what is kept, and that the chat stays as it was."""

from pathlib import Path

import pytest

from samovar.chats import changes
from samovar.chats.compare import AnswerPhase, Comparison
from samovar.chats.draft_keeper import unsent_text
from samovar.config import Config
from samovar.core.commands import Cancel
from samovar.core.errors import SamovarError
from samovar.core.events import HostReady, RequestQueued, RequestStarted, WaitReason
from samovar.core.request import FinishReason, Request, RequestKind
from samovar.sessions.store import MessageState
from tests.tui.desk import Desk, until
from tests.tui.fake_client import MODEL, STATS


async def begin(desk: Desk, argument: str = "", personas: Path | None = None) -> Comparison:
    """Compare in the shown chat as `/compare argument` does."""
    chat = desk.chats.shown
    return await desk.chats.comparisons.begin(chat, desk.chats.comparisons.wish(chat, argument, personas))


def asked(comparison: Comparison, desk: Desk) -> list[Request]:
    """The requests of a comparison, in order."""
    by_id = {request.id: request for request in desk.client.side_requests}
    return [by_id[answer.request_id] for answer in comparison.answers]


def finish(
    desk: Desk,
    comparison: Comparison,
    replies: list[str],
    reason: FinishReason = FinishReason.STOP,
    error: str = "",
) -> None:
    """Let the answers end with these texts, an empty one for each that is missing."""
    for request, reply in zip(asked(comparison, desk), replies, strict=True):
        desk.client.finish(request, reply, reason, error=error, tokens=(len(reply), 7))
    desk.hear()


def stored_versions(desk: Desk, chat: str) -> list[str]:
    """The versions of the last message of a chat."""
    last = desk.store.path(chat)[-1]
    return [desk.store.messages.message(one).content for one in desk.store.messages.siblings(last.id)]


async def test_all_answers_are_asked_for_at_once_and_share_the_prompt(desk: Desk) -> None:
    chat = desk.chats.shown
    first = await desk.exchange(chat, "one", "first")
    comparison = await begin(desk, "4")
    requests = asked(comparison, desk)
    assert {request.messages for request in requests} == {first.messages}
    assert [(r.kind, r.store, r.urgent, r.session) for r in requests] == [
        (RequestKind.SIDE_TASK, False, True, chat.id)
    ] * 4
    seeds = [request.sampling.seed for request in requests]
    assert len(set(seeds)) == 4
    assert [answer.variant.label for answer in comparison.answers] == [f"seed {seed}" for seed in seeds]


async def test_the_answer_that_is_kept_becomes_a_version_of_the_reply(desk: Desk) -> None:
    chat = desk.chats.shown
    await desk.exchange(chat, "one", "first")
    comparison = await begin(desk, "temperature 0.2 0.7 1.2")
    assert [request.sampling.temperature for request in asked(comparison, desk)] == [0.2, 0.7, 1.2]
    finish(desk, comparison, ["cold", "mild", "hot"])
    assert desk.shown_texts() == ["one", "first"], "nothing is stored before it is chosen"
    assert await desk.chats.comparisons.keep(comparison, 2) == ""
    assert desk.shown_texts() == ["one", "hot"]
    kept = desk.store.path(chat.id)[-1]
    assert (kept.state, kept.tokens, kept.tokenizer) == (MessageState.COMPLETE, (3, 7), "tok-1")
    assert kept.stats is not None
    assert stored_versions(desk, chat.id) == ["first", "hot"]
    await desk.chats.send(chat, "two")
    assert [message.content for message in desk.client.requests[-1].messages] == ["one", "hot", "two"]


async def test_all_answers_can_be_kept_as_versions(desk: Desk) -> None:
    chat = desk.chats.shown
    await desk.exchange(chat, "one", "first")
    comparison = await begin(desk)
    finish(desk, comparison, ["a", "", "c"])
    assert await desk.chats.comparisons.keep_all(comparison, 0) == ""
    assert desk.shown_texts() == ["one", "a"]
    assert stored_versions(desk, chat.id) == ["first", "a", "c"]


async def test_a_new_text_is_stored_only_with_its_answer(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("the sky is old")
    chat = desk.chats.shown
    await desk.exchange(chat, "one", "first")
    text = f"why is the sky blue, see @{tmp_path}/notes.md"
    comparison = await begin(desk, f"2 {text}")
    assert all("the sky is old" in request.messages[-1].content for request in asked(comparison, desk))
    finish(desk, comparison, ["air", "light"])
    assert [message.content for message in desk.store.path(chat.id)] == ["one", "first"]
    assert await desk.chats.comparisons.keep(comparison, 0) == ""
    assert desk.shown_texts() == ["one", "first", text, "air"]
    assert desk.store.path(chat.id)[2].attachments[0].name == "notes.md"


async def test_a_comparison_can_begin_a_chat(desk: Desk) -> None:
    chat = desk.chats.shown
    chat.tags = ("work",)
    comparison = await begin(desk, "2 hello there")
    finish(desk, comparison, ["hi", "good day"])
    assert not chat.in_store
    assert await desk.chats.comparisons.keep(comparison, 1) == ""
    assert [message.content for message in desk.store.path(chat.id)] == ["hello there", "good day"]
    assert (chat.title, desk.store.session(chat.id).tags) == ("hello there", ("work",))


async def test_discarding_cancels_what_runs_and_leaves_the_chat_as_it_was(desk: Desk) -> None:
    chat = desk.chats.shown
    await desk.exchange(chat, "one", "first")
    before = desk.store.path(chat.id)
    comparison = await begin(desk)
    requests = asked(comparison, desk)
    desk.client.begin(requests[0])
    desk.client.say(requests[0], "half")
    desk.hear()
    desk.chats.comparisons.discard(comparison)
    assert [cancel.request_id for cancel in desk.client.of(Cancel)] == [request.id for request in requests]
    finish(desk, comparison, ["half", "", ""], FinishReason.CANCELLED)
    assert (desk.store.path(chat.id), chat.path) == (before, before)
    assert (await begin(desk)).is_running, "the next one may begin"


async def test_a_stopped_answer_keeps_what_has_arrived(desk: Desk) -> None:
    chat = desk.chats.shown
    await desk.exchange(chat, "one", "first")
    comparison = await begin(desk, "2")
    refused = await desk.chats.comparisons.keep(comparison, 0)
    assert "still being written" in refused
    assert desk.chats.comparisons.stop(comparison)
    finish(desk, comparison, ["half", ""], FinishReason.CANCELLED)
    assert not desk.chats.comparisons.stop(comparison)
    assert "no text" in await desk.chats.comparisons.keep(comparison, 1)
    assert await desk.chats.comparisons.keep(comparison, 0) == ""
    assert desk.store.path(chat.id)[-1].state is MessageState.STOPPED


async def test_each_answer_tells_how_far_it_is(desk: Desk) -> None:
    await desk.exchange(desk.chats.shown, "one", "first")
    comparison = await begin(desk, "3")
    first, second, third = asked(comparison, desk)
    desk.client.begin(first)
    desk.client.say(first, "a", "b")
    desk.client.push(RequestQueued(second.id, second.session, 1, 1, 4000.0, WaitReason.ROOM))
    desk.client.finish(third, "", FinishReason.FAILED, error="The context is too small for this.")
    desk.hear()
    writing, waiting, failed = comparison.answers
    assert (writing.phase, writing.text, writing.num_tokens) == (AnswerPhase.WRITING, "ab", 2)
    assert (waiting.phase, waiting.position, waiting.estimate_ms) == (AnswerPhase.WAITING, 1, 4000.0)
    assert failed.message is not None
    assert failed.message.error == "The context is too small for this."
    grown = [change for change in desk.told if isinstance(change, changes.ComparisonGrew)]
    assert [(change.place, change.text) for change in grown] == [(0, "a"), (0, "b")]


async def test_what_had_arrived_when_the_engine_died_can_be_kept(desk: Desk) -> None:
    await desk.exchange(desk.chats.shown, "one", "first")
    comparison = await begin(desk, "2")
    request = asked(comparison, desk)[0]
    desk.client.begin(request)
    desk.client.say(request, "half a ", "sentence")
    finish(desk, comparison, ["", ""], FinishReason.HOST_LOST)
    assert await desk.chats.comparisons.keep(comparison, 0) == ""
    assert desk.shown_texts() == ["one", "half a sentence"]


async def test_another_windows_turn_stays_beside_what_is_kept(desk: Desk, other: Desk) -> None:
    chat = desk.chats.shown
    await desk.exchange(chat, "one", "first")
    comparison = await begin(desk, "2")
    await other.chats.load()
    other.chats.show(chat.id)
    await until(lambda: other.chats.shown.path)
    await other.exchange(other.chats.shown, "two", "second")
    finish(desk, comparison, ["a", "b"])
    assert await desk.chats.comparisons.keep(comparison, 0) == ""
    assert desk.shown_texts() == ["one", "a"]
    assert stored_versions(desk, chat.id) == ["first", "a"]
    assert await desk.chats.branches.step(chat, (chat.path or [])[-1].id, -1) == ""
    assert desk.shown_texts() == ["one", "first", "two", "second"]


async def test_a_chat_that_is_deleted_in_another_window_refuses_what_is_kept(desk: Desk) -> None:
    chat = desk.chats.shown
    await desk.exchange(chat, "one", "first")
    comparison = await begin(desk, "2")
    finish(desk, comparison, ["a", "b"])
    desk.store.delete(chat.id)
    assert "deleted" in await desk.chats.comparisons.keep(comparison, 0)
    assert comparison.answers[0].text == "a", "it can still be copied"


async def test_deleting_the_chat_ends_its_comparison(desk: Desk) -> None:
    chat = desk.chats.shown
    await desk.exchange(chat, "one", "first")
    comparison = await begin(desk, "2")
    desk.chats.delete(chat.id)
    assert len(desk.client.of(Cancel)) == 2
    assert "over" in await desk.chats.comparisons.keep(comparison, 0)


async def test_a_chat_that_is_busy_or_empty_is_not_compared(desk: Desk) -> None:
    with pytest.raises(SamovarError, match="no message to answer"):
        await begin(desk)
    await desk.chats.send(desk.chats.shown, "one")
    with pytest.raises(SamovarError, match="still being written"):
        await begin(desk)
    await desk.reply(desk.chats.shown, "first")
    await begin(desk)
    with pytest.raises(SamovarError, match="already"):
        await begin(desk)


async def test_a_reply_that_brought_nothing_gives_way(desk: Desk) -> None:
    chat = desk.chats.shown
    await desk.chats.send(chat, "one")
    await desk.reply(chat, "", FinishReason.FAILED)
    comparison = await begin(desk, "2")
    finish(desk, comparison, ["a", "b"])
    assert await desk.chats.comparisons.keep(comparison, 1) == ""
    assert stored_versions(desk, chat.id) == ["b"]


async def test_personas_answer_with_their_own_prompt_and_settings(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "editor.toml").write_text('system_prompt = "Correct."\ntemperature = 0.1\n')
    (tmp_path / "critic.toml").write_text('system_prompt = "Doubt."\n')
    chat = desk.chats.shown
    await desk.exchange(chat, "one", "first")
    comparison = await begin(desk, "persona editor critic - and why", tmp_path)
    assert not comparison.wish.shares_all
    assert comparison.wish.text == "and why"
    requests = asked(comparison, desk)
    assert [request.messages[0].content for request in requests] == ["Correct.", "Doubt.", "one"]
    assert requests[0].sampling.temperature == 0.1
    finish(desk, comparison, ["a", "b", "c"])
    await desk.chats.comparisons.keep(comparison, 0)
    assert chat.system_prompt == "", "the chat keeps its own"


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("9", "2 to 6 answers"),
        ("1", "2 to 6 answers"),
        ("temperature 0.5", "2 to 6 values"),
        ("temperature 0.5 99", "temperature must be"),
        ("seed one two", "2 to 6 values"),
        ("persona nobody", "2 to 6 personas"),
    ],
)
async def test_what_cannot_be_compared_says_what_can(
    desk: Desk, tmp_path: Path, argument: str, said: str
) -> None:
    with pytest.raises(SamovarError, match=said):
        await begin(desk, argument, tmp_path)
    assert not desk.client.side_requests


@pytest.mark.parametrize(
    ("argument", "count", "text"),
    [
        ("", 3, ""),
        ("2", 2, ""),
        ("why is it so", 3, "why is it so"),
        ("2 temperature 3 days ago", 2, "temperature 3 days ago"),
        ("seed 1 2 why", 2, "why"),
    ],
)
def test_a_number_values_and_a_text_can_be_given(desk: Desk, argument: str, count: int, text: str) -> None:
    wish = desk.chats.comparisons.wish(desk.chats.shown, argument, None)
    assert (len(wish.variants), wish.text) == (count, text)


async def test_other_seeds_say_nothing_where_sampling_is_greedy(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "greedy.db", Config())
    chat = desk.chats.shown
    chat.settings = chat.settings.with_text("temperature", "0")
    with pytest.raises(SamovarError, match="every seed gives the same answer"):
        desk.chats.comparisons.wish(chat, "3", None)
    await desk.close()


async def test_a_new_text_is_no_less_safe_than_a_message_on_its_way(desk: Desk) -> None:
    chat = desk.chats.shown
    await desk.exchange(chat, "one", "first")
    comparison = await begin(desk, "2 why is the sky blue")
    assert unsent_text(chat) == "why is the sky blue", "what is stored for the case of a crash"
    chat.draft = "typed since"
    desk.chats.comparisons.discard(comparison)
    assert chat.draft == "why is the sky blue\ntyped since"
    assert changes.DraftChanged(chat.id) in desk.told
    comparison = await begin(desk, "2 again")
    finish(desk, comparison, ["a", "b"])
    assert await desk.chats.comparisons.keep(comparison, 0) == ""
    assert chat.draft == "why is the sky blue\ntyped since", "what is kept is no draft any more"
    assert unsent_text(chat) == chat.draft


async def test_a_kept_answer_is_a_first_reply_like_any_other(desk: Desk) -> None:
    desk.chats.handle(HostReady(MODEL))
    comparison = await begin(desk, "2 where to drink tea")
    finish(desk, comparison, ["In Kyoto.", "At home."])
    assert not desk.chats.tasks.runs
    assert await desk.chats.comparisons.keep(comparison, 0) == ""
    assert [run.spec.name for run in desk.chats.tasks.runs] == ["title"]


async def test_an_answer_that_is_all_thinking_has_failed(desk: Desk) -> None:
    await desk.exchange(desk.chats.shown, "one", "first")
    comparison = await begin(desk, "3")
    request = asked(comparison, desk)[1]
    desk.client.push(RequestStarted(request.id, request.session, STATS, thinks=True))
    desk.hear()
    finish(desk, comparison, ["<think>Well.", "Well, well.", "<think>Well.</think>Light."])
    first, second, third = (answer.message for answer in comparison.answers)
    assert first is not None
    assert second is not None
    assert third is not None
    assert "only thought" in first.error
    assert [one.state for one in (first, second)] == [MessageState.FAILED] * 2
    assert (third.state, third.content) == (MessageState.COMPLETE, "<think>Well.</think>Light.")
