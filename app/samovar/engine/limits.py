"""RAM and token limits as the user writes them: `auto`, a number, `unlimited`, `off`."""

import re
from typing import Final

from samovar.core.errors import SamovarError
from samovar.core.units import parse_size

AUTO_SHARE: Final = 0.25
AUTO_FLOOR_BYTES: Final = 64 * 1024 * 1024
DISK_SHARE: Final = 0.2
DISK_CEILING_BYTES: Final = 64 * 1024 * 1024 * 1024


def ram_limit(text: str, available_bytes: int) -> tuple[int | None, bool]:
    """(bytes or None for no limit, off) for a RAM limit; `auto` is a quarter of what is available."""
    match text.strip().lower():
        case "auto":
            return max(AUTO_FLOOR_BYTES, int(available_bytes * AUTO_SHARE)), False
        case "unlimited":
            return None, False
        case "off" | "0":
            return 0, True
        case other:
            return parse_size(other), False


def token_limit(text: str) -> tuple[int | None, bool]:
    """(tokens or None for no limit, off) for a token limit; `auto` is no limit, since bytes bound it."""
    match text.strip().lower():
        case "auto" | "unlimited":
            return None, False
        case "off" | "0":
            return 0, True
        case other:
            digits = other.replace(",", "").replace("_", "")
            if not re.fullmatch(r"\d{1,18}", digits, flags=re.ASCII):
                raise SamovarError(
                    f'"{text}" is no token limit: write a number such as 100000, "unlimited" or "off".'
                )
            return int(digits), False


def is_off(text: str) -> bool:
    """Whether a limit says that a tier is not used at all."""
    return text.strip().lower() in ("off", "0")


def disk_limit(text: str, free_bytes: int, own_bytes: int) -> int:
    """Bytes for a disk limit, 0 for `off`; `auto` is a fifth of what would be free, 64 GiB at most."""
    match text.strip().lower():
        case "auto":
            return min(DISK_CEILING_BYTES, int((free_bytes + own_bytes) * DISK_SHARE))
        case "off" | "0":
            return 0
        case other:
            try:
                return parse_size(other)
            except SamovarError:
                raise SamovarError(
                    f'"{text}" is no disk limit: write a size such as "8GiB", `auto` or `off`.'
                ) from None
