"""Counters since the host started."""

import msgspec
import pytest

from samovar.core.request import RequestStats, TierTokens
from samovar.core.snapshot import LastRequest, Totals
from samovar.kv.ledger import Ledger, Rate


def test_a_rate_is_weighted_towards_recent_work() -> None:
    rate = Rate()
    assert rate.per_second is None
    rate.add(100, 1.0)
    assert rate.per_second == pytest.approx(100)
    for _ in range(100):
        rate.add(10, 1.0)
    assert rate.per_second == pytest.approx(10, rel=0.1)


def test_requests_are_summed_up() -> None:
    ledger = Ledger()
    cold = RequestStats(prompt_tokens=100, processed_tokens=100, generated_tokens=7)
    warm = RequestStats(
        prompt_tokens=110, reused=TierTokens(context=60, host=40), processed_tokens=10, restore_ms=50
    )
    ledger.finished("s", "title", cold)
    ledger.prefill.add(100, 1.0)
    ledger.finished("s", "title", warm)
    totals = ledger.totals()
    assert totals.saved_ms == pytest.approx(950)
    assert msgspec.structs.replace(totals, saved_ms=0.0) == Totals(
        requests=2,
        hits=1,
        prompt_tokens=210,
        reused_tokens=100,
        processed_tokens=110,
        generated_tokens=7,
    )
    assert totals.hit_ratio == pytest.approx(100 / 210)
    assert ledger.last is not None
    assert ledger.last == LastRequest("s", "title", warm, ledger.last.finished_at)
    assert [request.stats for request in ledger.recent] == [warm, cold]


def test_what_is_new_is_taken_once() -> None:
    ledger = Ledger()
    ledger.finished("s", "", RequestStats(prompt_tokens=20, processed_tokens=20))
    ledger.disk_reads = 3
    assert ledger.take_new() == Totals(requests=1, prompt_tokens=20, processed_tokens=20, disk_reads=3)
    assert ledger.take_new() == Totals()
    ledger.swaps_in = 2
    assert ledger.new_totals() == Totals(swaps_in=2), "before it is taken"
    assert ledger.take_new() == Totals(swaps_in=2)
    assert ledger.new_totals() == Totals()
    assert ledger.totals() + Totals(requests=5) == Totals(
        requests=6, prompt_tokens=20, processed_tokens=20, disk_reads=3, swaps_in=2
    )


def test_a_restore_that_took_longer_than_processing_saves_nothing() -> None:
    ledger = Ledger()
    ledger.prefill.add(100, 1.0)
    ledger.finished("s", "", RequestStats(prompt_tokens=20, reused=TierTokens(host=10), restore_ms=500))
    assert ledger.totals().saved_ms == 0
    assert Totals().hit_ratio == 0
