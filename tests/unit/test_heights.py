"""Heights of the messages of a chat, against plain sums."""

from hypothesis import given
from hypothesis import strategies as st

from samovar.tui.widgets.transcript.heights import Heights

height = st.integers(1, 50)


@given(
    st.lists(height, max_size=40),
    st.lists(
        st.tuples(st.sampled_from(["append", "change", "truncate"]), st.integers(0, 60), height), max_size=30
    ),
)
def test_every_line_belongs_to_the_item_that_sums_say(
    heights: list[int], steps: list[tuple[str, int, int]]
) -> None:
    tree, plain = Heights(heights), list(heights)
    for what, index, lines in steps:
        if what == "append":
            tree.append(lines)
            plain.append(lines)
        elif what == "truncate":
            tree.truncate(min(index, len(plain)))
            del plain[index:]
        elif plain:
            index %= len(plain)
            tree.change(index, lines - plain[index])
            plain[index] = lines
        owners = [index for index, lines in enumerate(plain) for _ in range(lines)]
        assert tree.total == len(owners)
        assert len(tree) == len(plain)
        assert [tree[index] for index in range(len(plain))] == plain
        assert [tree.start(index) for index in range(len(plain) + 1)] == [
            sum(plain[:index]) for index in range(len(plain) + 1)
        ]
        assert [tree.find(line) for line in range(len(owners) + 2)] == [*owners, len(plain), len(plain)]
