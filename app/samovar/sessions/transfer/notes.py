"""What a reading could not take over as it was: told to the user, never dropped in silence."""

from collections import Counter


class Notes:
    """Remarks of one import, each with how often it holds."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, what: str) -> None:
        """Count one more case, such as `images are left out, their names are kept`."""
        self._counts[what] += 1

    def lines(self) -> tuple[str, ...]:
        """Each remark once, with its number of cases where there are several: `… (3 times)`."""
        return tuple(what if num == 1 else f"{what} ({num} times)" for what, num in self._counts.items())
