"""An engine in this process: the loop in a thread, its events in a list, the logits of every draw kept."""

import functools
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import numpy as np
import numpy.typing as npt
from llama_cpp import llama_cpp as C

from samovar.core import commands, events
from samovar.core.chat import GREEDY, ChatMessage, Role, Sampling
from samovar.core.request import Request, RequestKind
from samovar.core.settings import EngineSettings
from samovar.core.snapshot import CacheSnapshot
from samovar.engine.backend import Batch, DecodeResult, Sampler
from samovar.engine.llama import LlamaBackend
from samovar.engine.loop import EngineLoop, Envelope
from samovar.engine.sleep import Sleep
from samovar.engine.start import available_bytes, disk_folder, load
from samovar.engine.swapper import Swapper

DEADLINE_S: Final = 240.0
CLIENT: Final = "test"

Logits = npt.NDArray[np.float32]
E = TypeVar("E", bound=events.Event)


@dataclass(slots=True)
class Trace:
    """The logits that each token of one reply was drawn from."""

    logits: list[Logits] = field(default_factory=list)


class RecordingSampler:
    """A sampler that keeps what it saw."""

    def __init__(self, sampler: Sampler, backend: LlamaBackend, trace: Trace) -> None:
        self._sampler = sampler
        self._backend = backend
        self._trace = trace

    def sample(self, row: int) -> int:
        self._trace.logits.append(read_logits(self._backend, row))
        return self._sampler.sample(row)

    def close(self) -> None:
        self._sampler.close()


class RecordingBackend:
    """llama.cpp with records of logits and a hook before each decode. See `engine.backend.Backend`."""

    def __init__(self, backend: LlamaBackend) -> None:
        self.real = backend
        self.traits = backend.traits
        self.tokenize = backend.tokenize
        self.piece = backend.piece
        self.is_end = backend.is_end
        self.remove = backend.remove
        self.copy = backend.copy
        self.shift = backend.shift
        self.oldest_pos = backend.oldest_pos
        self.state_size = backend.state_size
        self.save = backend.save
        self.load = backend.load
        self.interrupt = backend.interrupt
        self.clear_interrupt = backend.clear_interrupt
        self.schema_grammar = backend.schema_grammar
        self.check_grammar = backend.check_grammar
        self.unload = backend.unload
        self.reload = backend.reload
        self.close = backend.close
        self.last_trace = Trace()
        self.before_decode: Callable[[Batch], None] = lambda _batch: None

    def new_sampler(self, sampling: Sampling, history: list[int], grammar: str = "") -> Sampler:
        self.last_trace = Trace()
        sampler = self.real.new_sampler(sampling, history, grammar)
        return RecordingSampler(sampler, self.real, self.last_trace)

    def decode(self, batch: Batch) -> DecodeResult:
        self.before_decode(batch)
        return self.real.decode(batch)


def read_logits(backend: LlamaBackend, row: int) -> Logits:
    """A copy of the logits of one row of the last batch."""
    pointer = C.llama_get_logits_ith(backend._ctx, row)
    return np.ctypeslib.as_array(pointer, shape=(backend.traits.vocab_size,)).copy()


@dataclass(frozen=True, slots=True)
class Reply:
    """One answered request with the logits behind each of its tokens."""

    finished: events.RequestFinished
    trace: Trace

    @property
    def text(self) -> str:
        return self.finished.reply

    @property
    def tokens(self) -> list[int]:
        """What greedy sampling chose, the end of turn included."""
        return [int(logits.argmax()) for logits in self.trace.logits]

    @property
    def processed(self) -> int:
        return self.finished.stats.processed_tokens

    @property
    def reused(self) -> int:
        return self.finished.stats.reused.total

    def message(self, begun: str = "") -> ChatMessage:
        """The reply as part of a later prompt, with the text that it went on with."""
        finished = self.finished
        tokens = finished.begun + finished.tokens
        return ChatMessage(Role.ASSISTANT, begun + finished.reply, tokens, finished.tokenizer)


class Engine:
    """A loaded model and its loop, as a context manager; with a `disk` folder it has a disk tier too."""

    def __init__(self, settings: EngineSettings, cache_dir: Path, disk: Path | None = None) -> None:
        loaded = load(settings, cache_dir, lambda _stage, _fraction: None)
        self.info = loaded.info
        self.block_tokens = loaded.block_tokens
        self.backend = RecordingBackend(loaded.backend)
        self.loop = EngineLoop(
            self.backend,
            settings,
            loaded.info.fingerprint,
            self._on_event,
            available_bytes,
            loaded.block_tokens,
            functools.partial(Swapper, disk_folder(disk, loaded), settings.disk_limit) if disk else None,
            sleep=Sleep(
                self.backend,
                settings.keep_alive_s,
                tell=lambda event: self._on_event(None, event),
                ready=events.HostReady(loaded.info),
                check=loaded.check_reload,
                wake_ms=loaded.load_ms,
            ),
        )
        self.last_submitted = ""
        self._events: list[events.Event] = []
        self._traces: dict[str, Trace] = {}
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self.loop.run, name="engine", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.send(commands.StopHost())
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()
        self.backend.close()

    def send(self, command: commands.Command) -> None:
        self.loop.post(Envelope(CLIENT, command))

    def mark(self) -> int:
        """The number of events so far, for `wait_for`."""
        with self._news:
            return len(self._events)

    def wait_for(self, kind: type[E], wanted: Callable[[E], bool] = lambda _event: True, since: int = 0) -> E:
        """The first event of a kind from the `since`th on that `wanted` accepts."""
        deadline = time.monotonic() + DEADLINE_S
        pos = since
        with self._news:
            while True:
                for event in self._events[pos:]:
                    pos += 1
                    if isinstance(event, kind) and wanted(event):
                        return event
                if not self._thread.is_alive():
                    raise AssertionError("the engine thread has ended")
                if not self._news.wait(deadline - time.monotonic()):
                    raise AssertionError(f"no {kind.__name__} within {DEADLINE_S} s")

    def submit(
        self,
        session: str,
        messages: Sequence[ChatMessage],
        *,
        max_tokens: int = 16,
        kind: RequestKind = RequestKind.CHAT,
        sampling: Sampling = GREEDY,
        store: bool = True,
        json_schema: str = "",
        grammar: str = "",
        may_shift: bool = False,
        complete: bool = False,
    ) -> str:
        """Send a request; returns its id."""
        request = Request(
            id=uuid.uuid4().hex,
            session=session,
            messages=tuple(messages),
            kind=kind,
            title=session,
            sampling=sampling,
            max_tokens=max_tokens,
            store=store,
            json_schema=json_schema,
            grammar=grammar,
            may_shift=may_shift,
            complete=complete,
        )
        self.last_submitted = request.id
        self.send(commands.Submit(request))
        return request.id

    def wait(self, request_id: str) -> Reply:
        """The end of a request."""
        finished = self.wait_for(events.RequestFinished, lambda event: event.request_id == request_id)
        return Reply(finished, self._traces.get(request_id, Trace()))

    def ask(self, session: str, messages: Sequence[ChatMessage], *, max_tokens: int = 16) -> Reply:
        return self.wait(self.submit(session, messages, max_tokens=max_tokens))

    def focus(self, session: str | None) -> None:
        """Change the focus and wait until it has taken effect."""
        since = self.mark()
        self.send(commands.Focus(session))
        self.wait_for(events.CacheChanged, since=since)

    def snapshot(self) -> CacheSnapshot:
        since = self.mark()
        self.send(commands.Describe())
        return self.wait_for(events.CacheChanged, since=since).snapshot

    def _on_event(self, _client: str | None, event: events.Event) -> None:
        with self._news:
            if isinstance(event, events.RequestStarted):
                # The sampler is made right before this event, by the same thread.
                self._traces.setdefault(event.request_id, self.backend.last_trace)
            self._events.append(event)
            self._news.notify_all()


def user(text: str) -> ChatMessage:
    return ChatMessage(Role.USER, text)


def system(text: str) -> ChatMessage:
    return ChatMessage(Role.SYSTEM, text)
