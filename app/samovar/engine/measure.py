"""What the engine costs beside llama.cpp itself: ratios, measured in one process on one machine.

Run as `python -m samovar.engine.measure`, with a `MeasureJob` as JSON on standard input; it answers with a
`Measured` as one line of JSON. The bare decode loop stands in a second context with the same settings and
runs in the engine's own thread, in turn with the engine: each thread that decodes has an OpenMP team of its
own, and libgomp stops spinning at its barriers once the teams together have more threads than there are
cores (`gomp_throttled_spin_count_var`), which halves the speed of both.
"""

import queue
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from samovar.core import commands, events
from samovar.core.chat import GREEDY, ChatMessage, Role
from samovar.core.errors import SamovarError
from samovar.core.request import Request
from samovar.core.settings import EngineSettings
from samovar.core.wire import frame
from samovar.engine.backend import Batch, DecodeResult
from samovar.engine.llama import LlamaBackend
from samovar.engine.loop import EngineLoop, Envelope
from samovar.engine.start import available_bytes, load

_SPARE_TOKENS: Final = 256
_TIMEOUT_S: Final = 1800.0
_CLIENT: Final = "measure"


class MeasureJob(msgspec.Struct, frozen=True):
    """`tokens` is the depth for capture and restore, `decode_depth` and `decode_tokens` are for decoding."""

    settings: EngineSettings
    cache_dir: str
    tokens: int = 4096
    decode_depth: int = 512
    decode_tokens: int = 96
    repeats: int = 5


class Measured(msgspec.Struct, frozen=True):
    """Times are milliseconds, rates tokens a second; the decode ratio is the median over pairs."""

    model: str = ""
    tokens: int = 0
    prefill_ms: float = 0.0
    capture_ms: float = 0.0
    capture_share: float = 0.0
    restore_ms: float = 0.0
    restore_speedup: float = 0.0
    host_decode: float = 0.0
    bare_decode: float = 0.0
    decode_ratio: float = 0.0
    error: str = ""


class _Engine:
    """The engine loop in its thread; events are framed as for a socket, then handed to this thread."""

    def __init__(self, backend: LlamaBackend, settings: EngineSettings, fingerprint: str, block: int) -> None:
        self._events: queue.SimpleQueue[tuple[str | None, events.Event]] = queue.SimpleQueue()
        self.loop = EngineLoop(backend, settings, fingerprint, self._emit, available_bytes, block)
        self._between: queue.SimpleQueue[Callable[[], float]] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[float] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()
        self._count = 0

    def _run(self) -> None:
        while not self.loop.stopping:
            self.loop.serve_once(wait=True)
            while not self._between.empty():
                self._results.put(self._between.get()())

    def in_thread(self, work: Callable[[], float]) -> float:
        """Run `work` in the engine's thread while the engine has nothing to do."""
        self._between.put(work)
        self.send(commands.Describe())  # wakes the thread up
        return self._results.get(timeout=_TIMEOUT_S)

    def _emit(self, client: str | None, event: events.Event) -> None:
        frame(event)
        self._events.put((client, event))

    def send(self, command: commands.Command) -> None:
        self.loop.post(Envelope(_CLIENT, command))

    def ask(self, session: str, text: str, max_tokens: int) -> events.RequestFinished:
        self._count += 1
        messages = (ChatMessage(Role.USER, text),)
        request = Request(f"r{self._count}", session, messages, sampling=GREEDY, max_tokens=max_tokens)
        self.send(commands.Submit(request))
        while True:
            _, event = self._events.get(timeout=_TIMEOUT_S)
            if isinstance(event, events.RequestFinished):
                if event.error:
                    raise SamovarError(event.error)
                return event

    def focus(self, session: str | None) -> events.SwapFinished | None:
        """Change the focus; the swap into the context, if there was one."""
        self.send(commands.Focus(session))
        self.send(commands.Describe())  # its answer alone is addressed to this client
        swap = None
        while True:
            client, event = self._events.get(timeout=_TIMEOUT_S)
            if isinstance(event, events.SwapFinished) and event.into_context:
                swap = event
            elif isinstance(event, events.CacheChanged) and client == _CLIENT:
                return swap

    def stop(self) -> None:
        self.send(commands.StopHost())
        self._thread.join(60)


class _BareLoop:
    """Greedy decoding and nothing else."""

    def __init__(self, backend: LlamaBackend, prompt: Sequence[int], chunk: int) -> None:
        self._backend = backend
        self._prompt = prompt
        self._chunk = chunk

    def prefill(self) -> float:
        """Process the prompt but for its last token; its seconds."""
        begun, last = time.perf_counter(), len(self._prompt) - 1
        for start in range(0, last, self._chunk):
            self._decode(self._prompt[start : min(start + self._chunk, last)], start)
        return time.perf_counter() - begun

    def rate(self, num_tokens: int) -> float:
        """Tokens a second after the first one."""
        sampler = self._backend.new_sampler(GREEDY, [])
        token, start = self._prompt[-1], 0.0
        first = len(self._prompt) - 1
        for pos in range(first, first + num_tokens):
            self._decode([token], pos)
            token = sampler.sample(0)
            if pos == first:
                start = time.perf_counter()
        elapsed = time.perf_counter() - start
        sampler.close()
        self._backend.remove(0, first, -1)
        return (num_tokens - 1) / elapsed

    def _decode(self, tokens: Sequence[int], pos: int) -> None:
        batch = Batch()
        for offset, token in enumerate(tokens):
            batch.add(token, pos + offset, 0, offset == len(tokens) - 1)
        result = self._backend.decode(batch)
        assert result is DecodeResult.DONE, result


def measure(job: MeasureJob) -> Measured:
    """Run all measurements; raises SamovarError."""
    settings = msgspec.structs.replace(
        job.settings, context_tokens=job.tokens + _SPARE_TOKENS, ram_limit="unlimited"
    )
    loaded = load(settings, Path(job.cache_dir), _ignore)
    bare_loaded = load(settings, Path(job.cache_dir), _ignore)
    engine = _Engine(loaded.backend, settings, loaded.info.fingerprint, loaded.block_tokens)
    build = engine.loop.prompts.build

    def text_of(num_tokens: int) -> str:
        """Text whose prompt has nearly `num_tokens`, and whose answer is long."""
        text, number = "Tell me a long story about a teapot. ", 0
        while len(build([ChatMessage(Role.USER, text)])) < num_tokens - 16:
            number += 1
            text += f"Line {number} of a long letter about the weather. "
        return text

    # The first request warms the caches of the machine up.
    engine.ask("warm-up", text_of(256), 8)
    short = text_of(job.decode_depth)
    bare = _BareLoop(bare_loaded.backend, build([ChatMessage(Role.USER, short)]), settings.prefill_chunk)
    engine.in_thread(bare.prefill)
    engine.focus("short")
    engine.ask("short", short, 1)
    host_rates, bare_rates = [], []
    num_tokens = job.decode_tokens
    for number in range(4 * job.repeats):
        # In pairs that change their order, so that a drift of the machine's speed meets both alike.
        for turn in (0, 1) if number % 2 else (1, 0):
            if turn:
                bare_rates.append(engine.in_thread(lambda: bare.rate(num_tokens)))
                continue
            finished = engine.ask("short", short, num_tokens)
            if finished.stats.generated_tokens < num_tokens:
                raise SamovarError(
                    f"The model ended its reply after {finished.stats.generated_tokens} tokens, "
                    f"{num_tokens} are needed to measure decoding. Try another model."
                )
            if finished.stats.tokens_per_second is not None:
                host_rates.append(finished.stats.tokens_per_second)

    engine.focus("long")
    captured_before = engine.loop.mover.capture_s
    long = engine.ask("long", text_of(job.tokens), 1)
    capture_ms = 1000 * (engine.loop.mover.capture_s - captured_before)
    prefill_ms = long.stats.prefill_ms - capture_ms
    restores, restored = [], 0
    for _ in range(job.repeats):
        engine.focus(None)
        swap = engine.focus("long")
        assert swap is not None
        restores.append(swap.ms)
        restored = swap.num_tokens
    engine.stop()
    restore_ms = statistics.median(restores)
    host, plain = statistics.median(host_rates), statistics.median(bare_rates)
    processed = long.stats.processed_tokens
    return Measured(
        model=loaded.info.name,
        tokens=restored,
        prefill_ms=prefill_ms,
        capture_ms=capture_ms,
        capture_share=capture_ms / prefill_ms,
        restore_ms=restore_ms,
        restore_speedup=prefill_ms / processed * restored / restore_ms,
        host_decode=host,
        bare_decode=plain,
        decode_ratio=statistics.median(h / b for h, b in zip(host_rates, bare_rates, strict=True)),
    )


def _ignore(_stage: str, _fraction: float) -> None:
    pass


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=MeasureJob)
    try:
        measured = measure(job)
    except SamovarError as error:
        measured = Measured(error=str(error))
    sys.stdout.buffer.write(msgspec.json.encode(measured) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
