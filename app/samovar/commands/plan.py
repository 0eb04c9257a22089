"""`samovar cache plan`: what chats take in the context, in RAM and on disk, and what q8_0 would take.

Asks a running engine host, or else a process of the engine's own; it starts no host.
"""

import asyncio
from pathlib import Path
from typing import Final

import msgspec

from samovar.client.child import run_child
from samovar.client.local import LocalClient
from samovar.core.arithmetic import KvShape, Load, Needs, needs
from samovar.core.commands import Describe
from samovar.core.errors import SamovarError
from samovar.core.events import CacheChanged, HostFailed, ModelInfo, Welcome
from samovar.core.kv_types import quantized_fits
from samovar.core.settings import EngineSettings, HostJob
from samovar.core.units import format_size

HOST_PATIENCE_S: Final = 5.0
QUANTIZED: Final = "q8_0"
_MODULE: Final = "samovar.engine.shape"


class Model(msgspec.Struct, frozen=True):
    """What is known of the model. `seen_bytes_per_token` is of the blocks that a running host holds."""

    name: str
    shape: KvShape
    context_tokens: int
    block_tokens: int
    seen_bytes_per_token: float | None = None
    error: str = ""


class Plan(msgspec.Struct, frozen=True):
    """The answer. `needs` are with the KV types that are set, `quantized` with q8_0 (None: impossible)."""

    model: str
    chats: int
    tokens: int
    shared: int
    distinct_tokens: int
    context_tokens: int
    block_tokens: int
    state_bytes: int
    window: int
    seen_bytes_per_token: float | None
    needs: Needs
    quantized: Needs | None


async def print_plan(
    settings: EngineSettings, run_dir: Path, cache_dir: Path, load: Load, *, as_json: bool
) -> int:
    """Print the plan; SamovarError if the model cannot be used, or the load makes no sense."""
    if load.chats < 1 or load.tokens < 1 or not 0 <= load.shared <= load.tokens:
        raise SamovarError("Give at least one chat and one token, and no more shared tokens than a chat has.")
    model = await _running(run_dir / settings.socket_name())
    if model is None:
        model = await _examined(HostJob(settings, str(run_dir), str(cache_dir)))
    plan = make_plan(model, settings, load)
    print(msgspec.json.encode(plan).decode() if as_json else text(plan, model.shape))
    return 0


def make_plan(model: Model, settings: EngineSettings, load: Load) -> Plan:
    """The plan for a model that is known."""

    def with_types(type_k: str, type_v: str) -> Needs:
        return needs(
            model.shape,
            type_k,
            type_v,
            load,
            block_tokens=model.block_tokens,
            num_slots=settings.num_slots,
            batch_tokens=settings.batch_tokens,
        )

    fits = quantized_fits(model.shape.heads)
    return Plan(
        model=model.name,
        chats=load.chats,
        tokens=load.tokens,
        shared=load.shared,
        distinct_tokens=load.distinct_tokens,
        context_tokens=model.context_tokens,
        block_tokens=model.block_tokens,
        state_bytes=model.shape.state_bytes,
        window=model.shape.window,
        seen_bytes_per_token=model.seen_bytes_per_token,
        needs=with_types(settings.kv_type_k, settings.kv_type_v),
        quantized=with_types(QUANTIZED, QUANTIZED) if fits else None,
    )


def text(plan: Plan, shape: KvShape) -> str:
    """The plan for people."""
    now, quantized = plan.needs, plan.quantized
    lines = [f"{plan.model}: {_kib(now.bytes_per_token)} a token, {_types(now)}", *_arithmetic(now, shape)]
    if plan.seen_bytes_per_token:
        lines.append(f"  blocks in the cache hold {_kib(plan.seen_bytes_per_token)} a token")
    if plan.state_bytes:
        size = format_size(plan.state_bytes)
        lines.append(f"  and {size} of state in each block of {plan.block_tokens:,} tokens")
    if plan.window:
        lines.append(
            f"  layers with {_kib(_window_bytes(now, shape))} of it see {plan.window:,} tokens alone"
        )
    shared = f", {plan.shared:,} of them the same in all" if plan.shared else ""
    chats = "1 chat" if plan.chats == 1 else f"{plan.chats:,} chats"
    lines += ["", f"{chats} of {plan.tokens:,} tokens{shared}", ""]
    columns = [now]
    if quantized is not None and (quantized.kv_type_k, quantized.kv_type_v) != (now.kv_type_k, now.kv_type_v):
        columns.append(quantized)
    heads = [c.kv_type_k if c.kv_type_k == c.kv_type_v else f"{c.kv_type_k}/{c.kv_type_v}" for c in columns]
    lines.append(f"{'':<12}" + "".join(f"{head:>12}" for head in heads))
    for name, sizes, remark in (
        ("context", [c.context_bytes for c in columns], "  with the one chat that is open"),
        ("together", [c.together_bytes for c in columns], "  if all stayed in the context"),
        ("RAM", [c.ram_bytes for c in columns], ""),
        ("disk", [c.disk_bytes for c in columns], ""),
    ):
        lines.append(f"{name:<12}" + "".join(f"{format_size(size):>12}" for size in sizes) + remark)
    if plan.tokens > plan.context_tokens:
        lines += ["", f"A chat of {plan.tokens:,} tokens does not fit the context ({plan.context_tokens:,})."]
    if quantized is None:
        lines += ["", f"{QUANTIZED} is not possible: the model's heads do not divide into blocks of 32."]
    elif len(columns) > 1:
        lines += ["", f'For {QUANTIZED}: kv_type_k = kv_type_v = "{QUANTIZED}" (and flash_attn not "off").']
    return "\n".join(lines)


def _arithmetic(now: Needs, shape: KvShape) -> list[str]:
    heads = shape.heads
    if not heads.numbers_per_token or heads.numbers_per_token != shape.numbers:
        return []
    kv_heads = f"{heads.kv_heads} KV head{'s' if heads.kv_heads > 1 else ''}"
    sizes = f"{heads.key_sizes[0]} + {heads.value_sizes[0]}"
    per_number = now.bytes_per_token / shape.numbers
    return [f"  {heads.num_layers} layers × {kv_heads} × ({sizes}) numbers × {per_number:g} bytes"]


def _window_bytes(now: Needs, shape: KvShape) -> float:
    return now.bytes_per_token * shape.window_numbers / shape.numbers if shape.numbers else 0.0


def _kib(num_bytes: float) -> str:
    return f"{num_bytes / 1024:.1f} KiB"


def _types(now: Needs) -> str:
    if now.kv_type_k == now.kv_type_v:
        return f"keys and values in {now.kv_type_k}"
    return f"keys in {now.kv_type_k}, values in {now.kv_type_v}"


async def _running(socket: Path) -> Model | None:
    """What the host behind this socket knows; None if there is none, or it is still loading."""
    client = LocalClient(socket, "plan")
    await client.start()
    info: ModelInfo | None = None
    try:
        client.send(Describe())
        async with asyncio.timeout(HOST_PATIENCE_S):
            async for event in client.events():
                match event:
                    case Welcome(model=None) | HostFailed():
                        return None
                    case Welcome():
                        info = event.model
                    case CacheChanged(snapshot) if info is not None and info.shape is not None:
                        seen = snapshot.bytes_per_token or None
                        return Model(info.name, info.shape, info.context_tokens, info.block_tokens, seen)
                    case _:
                        pass
    except TimeoutError:
        pass  # it is busy: the same is known without it
    finally:
        await client.close()
    return None


async def _examined(job: HostJob) -> Model:
    """What a process of the engine's finds out or remembers; SamovarError if the model cannot be used."""
    answer = await run_child(("-m", _MODULE), job, "The process that looks at the model failed")
    model = msgspec.json.decode(answer, type=Model)
    if model.error:
        raise SamovarError(model.error)
    return model
