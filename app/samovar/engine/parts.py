"""What the engine thread has one of, as one value for those who serve requests with it."""

from dataclasses import dataclass

from samovar.engine.backend import Backend
from samovar.engine.control import CacheControl
from samovar.engine.mover import Mover
from samovar.engine.residency import Residency
from samovar.engine.slots import Slots
from samovar.kv.host_tier import HostTier
from samovar.kv.index import PrefixIndex
from samovar.kv.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Parts:
    """The context and its sequences, the cache beside it, and who moves what between them."""

    backend: Backend
    block_tokens: int
    slots: Slots
    index: PrefixIndex
    host: HostTier
    mover: Mover
    ledger: Ledger
    residency: Residency
    control: CacheControl
