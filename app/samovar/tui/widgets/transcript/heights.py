"""How high each item of a chat is, and so on which line it begins. Pure.

A Fenwick tree (P. Fenwick, "A New Data Structure for Cumulative Frequency Tables", 1994): cell i of the tree,
counted from 1, holds the sum of the `i & -i` heights that end with height i. A change, a sum and a look-up
each touch as many cells as the number of items has binary digits, so a height that becomes known in a chat of
100,000 messages costs what it costs in one of ten.
"""

from collections.abc import Iterable
from itertools import accumulate


class Heights:
    """Heights in lines, each at least 1."""

    def __init__(self, heights: Iterable[int] = ()) -> None:
        self._heights = list(heights)
        ends = [0, *accumulate(self._heights)]
        self._tree = [end - ends[i & (i - 1)] for i, end in enumerate(ends)]
        self.total = ends[-1]
        """The height of all items together."""

    def __len__(self) -> int:
        return len(self._heights)

    def __getitem__(self, index: int) -> int:
        return self._heights[index]

    def start(self, index: int) -> int:
        """Return the line on which item `index` begins; after the last one the height of all."""
        tree = self._tree
        line = 0
        while index:
            line += tree[index]
            index &= index - 1
        return line

    def find(self, line: int) -> int:
        """Return the item that `line` belongs to; the number of items after the end."""
        tree = self._tree
        found = 0
        step = 1 << len(self._heights).bit_length()
        while step:
            if (there := found + step) < len(tree) and tree[there] <= line:
                line -= tree[there]
                found = there
            step >>= 1
        return found

    def change(self, index: int, delta: int) -> None:
        """Make item `index` higher by `delta` lines."""
        self._heights[index] += delta
        self.total += delta
        tree = self._tree
        cell = index + 1
        while cell < len(tree):
            tree[cell] += delta
            cell += cell & -cell

    def append(self, height: int) -> None:
        """Add an item at the end."""
        cell = len(self._heights) + 1
        self._tree.append(self.total - self.start(cell & (cell - 1)) + height)
        self._heights.append(height)
        self.total += height

    def truncate(self, num_items: int) -> None:
        """Drop the items after the first `num_items`."""
        self.total = self.start(num_items)
        del self._heights[num_items:]
        del self._tree[num_items + 1 :]
