"""Sizes and durations as people write them. Pure functions; any process."""

import re

from samovar.core.errors import SamovarError

_SIZE_UNITS = {
    "": 1,
    "b": 1,
    **{f"{letter}{suffix}": 1024**power for power, letter in enumerate("kmgt", 1) for suffix in ("", "ib")},
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)},
}
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MAX_SIZE = 1 << 60
_MAX_DURATION_S = 10 * 365 * 86400.0

FOREVER = -1.0


def parse_size(text: str) -> int:
    """Bytes in a size such as `2GiB`, `1.5 G`, `500MB` or `4096`; raises SamovarError."""
    match = re.fullmatch(r"\s*(\d{1,20}(?:\.\d{1,20})?)\s*([A-Za-z]*)\s*", text, flags=re.ASCII)
    unit = _SIZE_UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise SamovarError(f'"{text}" is not a size; write for example "2GiB" or "512MiB".')
    size = int(float(match[1]) * unit)
    if size > _MAX_SIZE:
        raise SamovarError(f'"{text}" is more than any machine has; write for example "2GiB".')
    return size


def format_size(num_bytes: float) -> str:
    """A size with three digits or so and a binary unit: `88 KiB`, `1.5 GiB`."""
    size = float(num_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1023.5:
            return f"{size:.0f} {unit}" if unit == "B" or abs(size) >= 9.95 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def parse_duration(text: str) -> float:
    """Seconds in a duration such as `90s`, `30m`, `1h30m` or `0`; `FOREVER` for `-1`; raises SamovarError."""
    compact = re.sub(r"\s+", "", text)
    if compact == "-1":
        return FOREVER
    parts = re.findall(r"(\d{1,12}(?:\.\d{1,12})?)([smhd])", compact, flags=re.ASCII)
    if re.fullmatch(r"\d{1,12}(\.\d{1,12})?", compact, flags=re.ASCII):
        parts = [(compact, "")]
    elif "".join(number + unit for number, unit in parts) != compact or not parts:
        raise SamovarError(
            f'"{text}" is not a duration; write for example "30m", "90s", "0" or "-1" (for ever).'
        )
    return min(sum(float(number) * _SECONDS[unit] for number, unit in parts), _MAX_DURATION_S)
