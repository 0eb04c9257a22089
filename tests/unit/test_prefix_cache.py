"""Prefix index, HOST tier and eviction against a naive model: a dict of whole prefixes."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from samovar.core.arithmetic import BLOCK_OVERHEAD_BYTES, TOKEN_OVERHEAD_BYTES
from samovar.kv.block import Block, child_key, root_key
from samovar.kv.eviction import choose_victims
from samovar.kv.host_tier import (
    HostTier,
    Limits,
    held_bytes,
)
from samovar.kv.index import PrefixIndex, common_prefix

SIZE = 4
Tokens = tuple[int, ...]
tokens_lists = st.lists(st.integers(1, 2), min_size=1, max_size=14).map(tuple)
limits_values = st.builds(
    Limits,
    max_bytes=st.none() | st.integers(0, 8).map(lambda pages: pages * 4096),
    max_tokens=st.none() | st.integers(0, 30),
)


@dataclass
class Entry:
    """What the naive model knows of a stored block, which it names by its whole prefix."""

    start: int
    num_bytes: int
    last_used: int = 0
    users: int = 0
    pins: int = 0


class CacheMachine(RuleBasedStateMachine):
    """Stores, forks, uses, pins and evicts at random; the dict tells what must come out."""

    partial: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.index = PrefixIndex(root_key("fingerprint"), SIZE, partial=self.partial)
        self.host = HostTier(Limits())
        self.model: dict[Tokens, Entry] = {}
        self.clock = 0

    @initialize(limits=limits_values)
    def start(self, limits: Limits) -> None:
        self.host.limits = limits

    # ---- the naive model

    def naive_match(self, prompt: Tokens) -> int:
        if self.partial:
            return max((common_prefix(prefix, prompt) for prefix in self.model), default=0)
        return max((len(prefix) for prefix in self.model if prompt[: len(prefix)] == prefix), default=0)

    def children(self, prefix: Tokens) -> list[Tokens]:
        return [
            p for p, entry in self.model.items() if entry.start == len(prefix) and p[: len(prefix)] == prefix
        ]

    def naive_victims(self, need_bytes: int, need_tokens: int) -> list[Tokens] | None:
        gone: list[Tokens] = []
        while need_bytes > 0 or need_tokens > 0:
            leaves = [
                prefix
                for prefix, entry in self.model.items()
                if prefix not in gone
                and not entry.users
                and not entry.pins
                and all(child in gone for child in self.children(prefix))
            ]
            if not leaves:
                return None
            oldest = min(leaves, key=lambda prefix: self.model[prefix].last_used)
            gone.append(oldest)
            need_bytes -= self.model[oldest].num_bytes
            need_tokens -= len(oldest) - self.model[oldest].start
        return gone

    def use(self, prefix: Tokens) -> None:
        self.clock += 1
        while prefix:
            self.model[prefix].last_used = self.clock
            prefix = prefix[: self.model[prefix].start]

    # ---- what is done to both

    def block(self, prefix: Tokens) -> Block:
        found = self.index.match(prefix).blocks[-1]
        assert prefix_of(found) == prefix
        return found

    def drop(self, prefix: Tokens) -> None:
        block = self.block(prefix)
        freed = self.host.drop(block.key)
        assert freed == self.model.pop(prefix).num_bytes
        self.index.remove(block)

    def make_room(self, num_bytes: int, num_tokens: int) -> bool:
        if not self.host.could_ever_hold(num_bytes, num_tokens):
            return False
        over = self.host.excess(num_bytes, num_tokens)
        victims = choose_victims(self.index, *over)
        expected = self.naive_victims(*over)
        assert (victims is None) == (expected is None)
        if victims is None or expected is None:
            return False
        assert [prefix_of(block) for block in victims] == expected
        for prefix in expected:
            self.drop(prefix)
        return True

    @rule(
        base=tokens_lists,
        cut=st.integers(0, 14),
        more=tokens_lists,
        tail=st.booleans(),
        size=st.integers(1, 9000),
    )
    def store(self, base: Tokens, cut: int, more: Tokens, tail: bool, size: int) -> None:
        """Store a sequence block by block, as it grows."""
        tokens = base[:cut] + more
        held: list[Tokens] = []
        for p0 in range(0, len(tokens), SIZE):
            prefix = tokens[: p0 + SIZE]
            if len(prefix) < p0 + SIZE and not tail:
                break
            if not self.store_block(prefix, p0, size):
                break
            held.append(prefix)
            self.block(prefix).users += 1
            self.model[prefix].users += 1
        for prefix in held:
            self.block(prefix).users -= 1
            self.model[prefix].users -= 1

    def store_block(self, prefix: Tokens, p0: int, size: int) -> bool:
        parent = self.block(prefix[:p0]) if p0 else None
        new = prefix[p0:]
        if prefix in self.model:
            self.index.touch([self.block(prefix)])
            self.use(prefix)
            return True
        covered = self.partial and any(child[: len(prefix)] == prefix for child in self.children(prefix[:p0]))
        assert self.index.covered(parent, new) == covered
        if covered or not self.make_room(held_bytes(size, len(new)), len(new)):
            return False
        key = self.index.key_of(parent, new)
        blob = self.host.try_reserve(size, len(new))
        assert blob is not None
        self.host.put(key, blob)
        needless = {prefix_of(block) for block in self.index.superseded(parent, new)}
        assert needless == {
            child
            for child in self.children(prefix[:p0])
            if self.partial and prefix[: len(child)] == child and not self.is_kept(child)
        }
        self.index.add(parent, new, blob.held)
        self.model[prefix] = Entry(p0, blob.held)
        self.use(prefix)
        for old in needless:
            self.drop(old)
        return True

    def is_kept(self, prefix: Tokens) -> bool:
        entry = self.model[prefix]
        return bool(entry.users or entry.pins or self.children(prefix))

    @rule(data=st.data(), change=st.sampled_from([-1, 1]), pin=st.booleans())
    def use_or_pin(self, data: st.DataObject, change: int, pin: bool) -> None:
        assume(self.model)
        prefix = data.draw(st.sampled_from(sorted(self.model)))
        entry, block = self.model[prefix], self.block(prefix)
        if pin:
            assume(entry.pins + change >= 0)
            entry.pins += change
            block.pins += change
        else:
            assume(entry.users + change >= 0)
            entry.users += change
            block.users += change

    @rule(data=st.data())
    def touch(self, data: st.DataObject) -> None:
        assume(self.model)
        prefix = data.draw(st.sampled_from(sorted(self.model)))
        self.index.touch([self.block(prefix)])
        self.use(prefix)

    @rule(limits=limits_values)
    def change_limits(self, limits: Limits) -> None:
        """Smaller limits evict at once; what is in use is let go before."""
        for prefix, entry in self.model.items():
            block = self.block(prefix)
            entry.users = entry.pins = block.users = block.pins = 0
        self.host.limits = limits
        assert self.make_room(0, 0)

    @rule(prompt=tokens_lists, limit=st.none() | st.integers(0, 14))
    def match(self, prompt: Tokens, limit: int | None) -> None:
        found = self.index.match(prompt, limit)
        asked = prompt if limit is None else prompt[:limit]
        assert found.num_tokens == self.naive_match(asked)
        assert found.num_tokens <= len(asked)
        spelled: list[int] = []
        for block in found.blocks:
            assert block.start == len(spelled)
            spelled += block.tokens
        assert tuple(spelled[: found.num_tokens]) == asked[: found.num_tokens]
        assert not found.blocks or found.blocks[-1].start < found.num_tokens
        whole = self.index.chain(asked)
        assert whole == tuple(block for block in found.blocks if block.end <= found.num_tokens)

    # ---- what always holds

    @invariant()
    def structure(self) -> None:
        self.index.check()
        assert {prefix_of(block) for block in self.index} == set(self.model)
        for prefix, entry in self.model.items():
            assert not entry.start or prefix[: entry.start] in self.model, "parents exist while children do"

    @invariant()
    def budget(self) -> None:
        assert len(self.host) == len(self.index) == len(self.model)
        assert self.host.num_bytes == sum(entry.num_bytes for entry in self.model.values())
        assert self.host.num_tokens == sum(len(p) - entry.start for p, entry in self.model.items())
        assert self.host.excess() == (0, 0)
        for block in self.index:
            blob = self.host.get(block.key)
            assert blob is not None
            assert blob.held == block.num_bytes >= blob.size


def prefix_of(block: Block) -> Tokens:
    before = prefix_of(block.parent) if block.parent else ()
    return before + block.tokens


@pytest.mark.parametrize("partial", [True, False])
def test_the_cache_does_what_the_naive_model_does(partial: bool) -> None:
    machine = type("Machine", (CacheMachine,), {"partial": partial})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=100, stateful_step_count=30, deadline=None)
    )


@given(tokens_lists, tokens_lists, st.text(max_size=5), st.text(max_size=5))
def test_equal_keys_mean_equal_prefixes_under_one_fingerprint(
    a: Tokens, b: Tokens, one: str, other: str
) -> None:
    assert (child_key(root_key(one), a) == child_key(root_key(other), b)) == ((a, one) == (b, other))


@given(tokens_lists)
def test_the_key_of_a_block_depends_on_where_it_is_cut(tokens: Tokens) -> None:
    assume(len(tokens) > 1)
    root = root_key("")
    assert child_key(child_key(root, tokens[:1]), tokens[1:]) != child_key(root, tokens)


@given(tokens_lists, tokens_lists)
def test_common_prefix_is_the_longest(a: Tokens, b: Tokens) -> None:
    length = common_prefix(a, b)
    assert a[:length] == b[:length]
    assert length == min(len(a), len(b)) or a[length] != b[length]


def test_a_blob_counts_whole_pages_and_what_the_index_takes_also_before_it_is_filled() -> None:
    held = 8192 + BLOCK_OVERHEAD_BYTES + 3 * TOKEN_OVERHEAD_BYTES
    host = HostTier(Limits(max_bytes=held))
    blob = host.try_reserve(5000, 3)
    assert blob is not None
    assert host.num_bytes == blob.held == held
    assert not host.could_ever_hold(held + 1, 1)
    with pytest.raises(AssertionError, match="never exceeded"):
        host.try_reserve(1, 1)
    host.put(b"key", blob)
    assert host.drop(b"key") == held
    assert (host.num_bytes, host.num_tokens, len(host)) == (0, 0, 0)


def test_a_tier_that_is_off_holds_nothing() -> None:
    assert not HostTier(Limits(off=True)).could_ever_hold(1, 1)
