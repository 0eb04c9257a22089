"""Commands and events survive the wire, and nothing else does."""

import typing

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samovar.core import commands, events, snapshot
from samovar.core.chat import ChatMessage, Role, Sampling
from samovar.core.request import (
    FinishReason,
    Mismatch,
    MismatchReason,
    Request,
    RequestKind,
    RequestStats,
    TierTokens,
)
from samovar.core.wire import decode_command, decode_event, frame

text = st.text(max_size=20)
ids = st.integers(0, 1 << 31)
tokens = st.lists(ids, max_size=5).map(tuple)
floats = st.floats(allow_nan=False)
messages = st.builds(ChatMessage, st.sampled_from(Role), text, tokens, text)
samplings = st.builds(Sampling, floats, ids, floats, floats, floats, ids, st.none() | ids)
requests = st.builds(
    Request,
    text,
    text,
    st.lists(messages, max_size=4).map(tuple),
    st.sampled_from(RequestKind),
    text,
    samplings,
    st.none() | ids,
    st.lists(text, max_size=3).map(tuple),
    st.booleans(),
)
words = st.lists(text, max_size=3).map(tuple)
mismatches = st.builds(Mismatch, ids, st.sampled_from(MismatchReason), words, words, words)
tiers = st.builds(TierTokens, ids, ids, ids)
stats = st.builds(
    RequestStats,
    ids,
    tiers,
    ids,
    ids,
    floats,
    floats,
    floats,
    st.none() | floats,
    st.none() | floats,
    st.none() | mismatches,
)
uses = st.builds(snapshot.TierUse, ids, st.none() | ids, ids, st.none() | ids, ids, st.booleans(), text)
rows = st.builds(
    snapshot.PromptRow,
    text,
    text,
    ids,
    ids,
    ids,
    ids,
    ids,
    ids,
    st.none() | st.sampled_from(snapshot.Tier),
    ids,
    floats,
)
runs = st.builds(snapshot.CellRun, text, ids)
snapshots = st.builds(
    snapshot.CacheSnapshot,
    model=text,
    context=st.builds(snapshot.ContextUse, ids, ids, ids, st.lists(runs, max_size=3).map(tuple)),
    host=uses,
    prompts=st.lists(rows, max_size=3).map(tuple),
    last=st.none() | st.builds(snapshot.LastRequest, text, text, stats),
)
some_commands = st.one_of(
    st.builds(commands.Submit, requests),
    st.builds(commands.Hello, ids, text),
    st.builds(commands.Focus, st.none() | text),
    st.builds(commands.Rename, text, text),
    *(
        st.builds(kind, text)
        for kind in (commands.Cancel, commands.Forget, commands.SetRamLimit, commands.SetTokenLimit)
    ),
    st.builds(commands.CountTokens, text, words),
    st.builds(commands.SetKeepAlive, floats),
    st.builds(commands.Describe),
    st.builds(commands.StopHost),
)
some_events = st.one_of(
    st.builds(
        events.RequestFinished,
        text,
        text,
        st.sampled_from(FinishReason),
        text,
        tokens,
        text,
        stats,
        text,
        tokens,
    ),
    st.builds(events.TokensCounted, text, st.none() | tokens),
    st.builds(events.RequestStarted, text, text, stats),
    st.builds(events.PrefillProgressed, text, text, ids, ids, st.none() | floats),
    st.builds(events.TokensGenerated, text, text, text, ids),
    st.builds(events.SwapFinished, text, st.booleans(), ids, ids, floats),
    st.builds(events.CacheChanged, snapshots),
    st.builds(events.LoadingProgressed, text, floats),
    st.builds(events.HostStarting),
    st.builds(events.HostStopping),
)


def body(message: commands.Command | events.Event) -> bytes:
    data = frame(message)
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    return data[4:]


@given(some_commands)
def test_commands_come_back_equal(command: commands.Command) -> None:
    assert decode_command(body(command)) == command


@given(some_events)
def test_events_come_back_equal(event: events.Event) -> None:
    assert decode_event(body(event)) == event


def test_every_message_has_a_tag_of_its_own() -> None:
    kinds = [*typing.get_args(commands.Command), *typing.get_args(events.Event)]
    tags = [kind.__struct_config__.tag for kind in kinds]
    assert len(set(tags)) == len(tags)


@given(st.binary(max_size=50))
def test_other_bytes_are_refused(data: bytes) -> None:
    for decode in (decode_command, decode_event):
        try:
            decode(data)
        except msgspec.DecodeError:
            continue


def test_an_event_is_no_command() -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_command(body(events.HostStarting()))
