"""What the user is told about a model once it is loaded."""

import dataclasses

from samovar.engine.probe import ProbeResult
from samovar.engine.prompt import CHATML
from samovar.engine.start import _notes
from tests.engine.fake_backend import FakeBackend, Kind

FOUND = ProbeResult(True, 1024.0, 0, 400)


def test_a_template_that_writes_the_date_is_a_note() -> None:
    traits = FakeBackend(Kind.DENSE).traits
    assert _notes(FOUND, traits) == ()
    dated = dataclasses.replace(traits, template="{{ strftime_now('%d %b %Y') }}" + CHATML)
    (note,) = _notes(FOUND, dated)
    assert "strftime_now" in note
    (missing,) = _notes(FOUND, dataclasses.replace(traits, template=None))
    assert "no chat template" in missing
