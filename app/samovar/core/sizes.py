"""Sizes as people write them."""

import re
from typing import Final

from samovar.core.errors import SamovarError

_UNITS: Final = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Bytes of a size such as `2GiB`, `512 MiB` or `1.5g`; SamovarError if it is none."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise SamovarError(f"{text!r} is no size: write a number with a unit, such as 512MiB or 2GiB.")
    return int(float(found[1]) * _UNITS[found[2].lower()])


def format_size(num_bytes: float) -> str:
    """A size for people: `412 MiB`, `1.2 GiB`."""
    value = float(num_bytes)
    for unit in ("B", "KiB", "MiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
