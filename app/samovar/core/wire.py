"""Framing of commands and events: a 4-byte big-endian length, then msgpack. Values in, bytes out."""

from typing import Final

import msgspec

from samovar.core.commands import Command
from samovar.core.events import Event

PROTOCOL: Final = 5
MAX_FRAME_BYTES: Final = 256 * 1024 * 1024

_encoder = msgspec.msgpack.Encoder()
_command_decoder: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)
_event_decoder: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)


def frame(message: Command | Event) -> bytes:
    """The bytes of one message on the wire."""
    body = _encoder.encode(message)
    return len(body).to_bytes(4, "big") + body


def decode_command(body: bytes) -> Command:
    """A command from a frame's body; raises `msgspec.DecodeError` (or its `ValidationError`)."""
    return _command_decoder.decode(body)


def decode_event(body: bytes) -> Event:
    """An event from a frame's body; raises `msgspec.DecodeError` (or its `ValidationError`)."""
    return _event_decoder.decode(body)
