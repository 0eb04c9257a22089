"""What a front end tells the engine host: imperatives, tagged for the wire."""

import msgspec

from samovar.core.request import Request


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """First command on a connection. A host of another protocol refuses it."""

    protocol: int
    client: str


class Submit(msgspec.Struct, frozen=True, tag="submit"):
    request: Request


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    request_id: str


class Focus(msgspec.Struct, frozen=True, tag="focus"):
    """The user now looks at this session (None: at none); its blocks come into the context."""

    session: str | None


class Rename(msgspec.Struct, frozen=True, tag="rename"):
    """A session's title changed; the table of prompts shows it."""

    session: str
    title: str


class Forget(msgspec.Struct, frozen=True, tag="forget"):
    """Drop what only this session has cached (a deleted chat)."""

    session: str


class SetRamLimit(msgspec.Struct, frozen=True, tag="set_ram_limit"):
    limit: str


class SetTokenLimit(msgspec.Struct, frozen=True, tag="set_token_limit"):
    limit: str


class SetKeepAlive(msgspec.Struct, frozen=True, tag="set_keep_alive"):
    """How long the host outlives its last front end; below 0 for ever."""

    seconds: float


class Describe(msgspec.Struct, frozen=True, tag="describe"):
    """Ask for a `CacheChanged` at once."""


class StopHost(msgspec.Struct, frozen=True, tag="stop_host"):
    """End the host in good order, whoever else is connected."""


Command = (
    Hello
    | Submit
    | Cancel
    | Focus
    | Rename
    | Forget
    | SetRamLimit
    | SetTokenLimit
    | SetKeepAlive
    | Describe
    | StopHost
)
