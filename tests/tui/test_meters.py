"""Cell map, meter and history."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.app import App, ComposeResult

from samovar.tui.theme import load_themes
from samovar.tui.widgets.cell_map import CellMap, sample
from samovar.tui.widgets.meter import History, Meter, meter_cells


class Meters(App[None]):
    CSS = "CellMap { height: 3; width: 10; } Meter, History { width: 20; }"

    def compose(self) -> ComposeResult:
        yield CellMap()
        yield Meter()
        yield History()

    def on_mount(self) -> None:
        for theme in load_themes()[0].values():
            self.register_theme(theme)
        self.theme = "samovar"


def test_runs_fill_squares_in_order() -> None:
    assert sample([("shared", 2), ("0", 4)], 12, 6) == ["shared", "0", "0", "free", "free", "free"]
    assert sample([("a", 1), ("b", 1000)], 1001, 4) == ["a", "b", "b", "b"]
    assert sample([("a", 1000), ("b", 1)], 1001, 4) == ["a", "a", "a", "b"]
    assert sample([], 0, 2) == ["free", "free"]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 500))), st.integers(0, 2000), st.integers(0, 60)
)
def test_there_is_a_key_for_every_square(runs: list[tuple[str, int]], total: int, num_squares: int) -> None:
    squares = sample(runs, total, num_squares)
    assert len(squares) == num_squares
    if len(runs) <= num_squares:
        assert {key for key, count in runs if count} == set(squares) - {"free"}


@given(st.lists(st.floats(0, 1e9)), st.floats(0, 1e9), st.integers(0, 100))
def test_meter_cells_fit(amounts: list[float], total: float, width: int) -> None:
    cells = meter_cells(amounts, total, width)
    assert all(count >= 0 for count in cells)
    assert sum(cells) <= width


@pytest.mark.asyncio
@pytest.mark.parametrize("theme", ["samovar", "samovar-light", "ansi"])
async def test_drawing(theme: str) -> None:
    app = Meters()
    async with app.run_test(size=(30, 6)) as pilot:
        app.theme = theme
        cells, meter, history = app.query_one(CellMap), app.query_one(Meter), app.query_one(History)
        cells.set_colors({"0": "#e0a458"})
        cells.set_runs([("shared", 10), ("0", 20)], 60)
        meter.set_segments([("green", 3), ("brass", 1)], 8)
        history.set_values([0, 1, 2, 3, 4], highest=4)
        await pilot.pause()
        assert [cells.render_line(y).text for y in range(3)] == ["▀" * 10] * 3
        assert len(list(cells.render_line(0))) == 1
        assert cells.render_line(0) != cells.render_line(1)
        assert meter.render_line(0).text == "━" * 20
        assert [len(segment.text) for segment in meter.render_line(0)] == [8, 2, 10]
        assert history.render_line(0).text == " " * 15 + "▁▃▅▆█"
        meter.set_segments([], 0)
        assert len(list(meter.render_line(0))) == 1
