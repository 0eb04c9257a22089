"""What an engine host is started with."""

import hashlib
from typing import Final

import msgspec

from samovar.core.errors import SamovarError

LOCK_SUFFIX: Final = ".lock"  # beside the socket: held by the host, with its process id as text


class EngineSettings(msgspec.Struct, frozen=True):
    """Settings of one engine host; two front ends with equal settings share one host.

    `context_tokens` of 0 takes the model's own limit, up to 8,192. `num_threads` of 0 takes the physical
    cores. Limits are texts as the user wrote them (`auto`, `2GiB`, `unlimited`, `off`). `keep_alive_s`
    below 0 keeps the host for ever.
    """

    model_path: str
    context_tokens: int = 0
    num_threads: int = 0
    flash_attn: str = "auto"
    kv_type_k: str = "f16"
    kv_type_v: str = "f16"
    ram_limit: str = "auto"
    token_limit: str = "unlimited"
    disk_limit: str = "auto"
    keep_alive_s: float = 1800.0
    num_slots: int = 8
    block_tokens: int = 128
    prefill_chunk: int = 64
    step_budget_ms: float = 300.0
    gpu_layers: int = 0

    @property
    def batch_tokens(self) -> int:
        """Tokens of the largest step: a chunk of one prompt, and one token of every other sequence."""
        return self.prefill_chunk + self.num_slots

    def host_id(self) -> str:
        """Name of the host that serves these settings: 16 hex digits.

        What can be changed while the host runs (limits, keep-alive) is not part of it.
        Raises SamovarError for a model path that is no valid text.
        """
        try:
            self.model_path.encode()
        except UnicodeEncodeError:
            raise SamovarError(
                f"The model's path {self.model_path!r} is no valid UTF-8. Rename the file or its folder."
            ) from None
        fixed = msgspec.structs.replace(self, ram_limit="", token_limit="", disk_limit="", keep_alive_s=0.0)
        return hashlib.blake2b(msgspec.msgpack.encode(fixed), digest_size=8).hexdigest()

    def socket_name(self) -> str:
        """File name of the host's Unix socket inside the run folder."""
        return f"{self.host_id()}.sock"


class HostJob(msgspec.Struct, frozen=True):
    """What the host process reads from its standard input: settings, and the folders it may use."""

    settings: EngineSettings
    run_dir: str
    cache_dir: str
