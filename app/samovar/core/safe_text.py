"""Makes text that a model, a file or a paste brought harmless before it is drawn.

Pure; used by every widget that shows text which Samovar did not write itself. What comes out contains no
control character but line breaks and tabs, so nothing in it can reach the terminal as a command.
"""

import re

# Bidi controls reorder what the eye reads; the others are invisible carriers or would break a UTF-8 stream.
_DROPPED = "\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u00ad\U000e0000-\U000e0fff"
_NEW_LINE = re.compile("\r\n|[\r\x85\u2028\u2029]")
_UNSAFE = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff{_DROPPED}]")


def _replacement(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    if 0xD800 <= code <= 0xDFFF:
        return "\ufffd"
    return ""


def clean(text: str) -> str:
    """Return `text` with C0 controls as visible pictures (ESC as ␛), C1 and bidi controls dropped."""
    return _UNSAFE.sub(_replacement, _NEW_LINE.sub("\n", text))
