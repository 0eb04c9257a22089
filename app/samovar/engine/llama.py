"""llama.cpp through llama-cpp-python's low-level API: the only module that imports it.

Runs in the engine thread (and in probe children). Sources: llama.h as vendored by llama-cpp-python 0.3.36.
"""

import ctypes
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

# Threads that wait for each other inside a step spin, by libgomp's default for long. Beside any other busy
# process they then spin away the very time that the late one needs: beside one, on 2 cores, 600 tokens took
# more than a minute, and with short spins 21 s. Alone, 5 s with either. Read once, when the library loads.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import llama_cpp
import numpy as np
import numpy.typing as npt
from llama_cpp import llama_cpp as C
from llama_cpp.llama_grammar import PRIMITIVE_RULES, BuiltinRule, SchemaConverter

from samovar.core.chat import Sampling
from samovar.core.errors import SamovarError
from samovar.engine.backend import Batch, DecodeResult, ModelTraits
from samovar.engine.gbnf import GrammarError
from samovar.engine.grammar import schema_error
from samovar.kv.family import Family

BUILD: Final[str] = llama_cpp.__version__

GGML_TYPES: Final[dict[str, int]] = {
    "f32": C.GGML_TYPE_F32,
    "f16": C.GGML_TYPE_F16,
    "bf16": 30,  # GGML_TYPE_BF16 in ggml.h; the bindings leave it out
    "q8_0": C.GGML_TYPE_Q8_0,
    "q5_1": C.GGML_TYPE_Q5_1,
    "q5_0": C.GGML_TYPE_Q5_0,
    "q4_1": C.GGML_TYPE_Q4_1,
    "q4_0": C.GGML_TYPE_Q4_0,
    "iq4_nl": C.GGML_TYPE_IQ4_NL,
}

GRAMMAR_S: Final = 5.0
"""A grammar that takes longer over one token will take longer still over the next ones."""

_LOG_WARN, _LOG_ERROR = 3, 4  # enum ggml_log_level in ggml.h; the bindings leave it out
_QUANTIZATION: Final = re.compile(r"[.\-_](?:I?Q\d\w*|B?F16|F32)$", re.IGNORECASE)
_U8 = ctypes.POINTER(ctypes.c_uint8)
_log_lines: list[str] = []


def _on_log(level: int, text: bytes, _data: ctypes.c_void_p) -> None:
    if level in (_LOG_WARN, _LOG_ERROR):
        _log_lines.append(text.decode("utf-8", "replace").strip())
        del _log_lines[:-20]


_log_callback: Any = C.llama_log_callback(_on_log)


def _start_library() -> None:
    C.llama_log_set(_log_callback, ctypes.c_void_p(0))
    C.llama_backend_init()


def last_error() -> str:
    """What llama.cpp complained about, in one line for people: the first cause, not what follows from it."""
    first = next((line for line in _log_lines if "error" in line), _log_lines[-1] if _log_lines else "")
    return first.rpartition("error loading model: ")[2] or "no reason given"


def _cannot_load(path: Path) -> SamovarError:
    return SamovarError(
        f"llama.cpp cannot load {path} ({last_error()}). "
        "Check that it is a complete GGUF file of a model that this build knows."
    )


def model_name(path: Path) -> str:
    """A model's name for people: its file's, without the quantization (`general.name` is often odd)."""
    stem = _QUANTIZATION.sub("", path.stem)
    return stem.replace("-", " ").replace("_", " ").strip() or path.name


def read_metadata(path: Path) -> dict[str, str]:
    """All metadata of a model file but for lists, read without its weights; SamovarError if it has none."""
    _start_library()
    _log_lines.clear()
    params: Any = C.llama_model_default_params()
    params.vocab_only = True
    handle = C.llama_model_load_from_file(str(path).encode(), params)
    if not handle:
        raise _cannot_load(path)
    buffer = ctypes.create_string_buffer(4096)
    found = {}
    for i in range(C.llama_model_meta_count(handle)):
        C.llama_model_meta_key_by_index(handle, i, buffer, len(buffer))
        key = buffer.value.decode("utf-8", "replace")
        C.llama_model_meta_val_str_by_index(handle, i, buffer, len(buffer))
        found[key] = buffer.value.decode("utf-8", "replace")
    C.llama_model_free(handle)
    return found


class ContextOptions:
    """Settings of one llama context; sizes in tokens."""

    def __init__(
        self,
        *,
        num_cells: int,
        num_slots: int,
        batch_tokens: int,
        num_threads: int,
        flash_attn: bool,
        kv_type_k: str,
        kv_type_v: str,
    ) -> None:
        self.num_cells = num_cells
        self.num_slots = num_slots
        self.batch_tokens = batch_tokens
        self.num_threads = num_threads
        self.flash_attn = flash_attn
        self.kv_type_k = kv_type_k
        self.kv_type_v = kv_type_v


class LlamaModel:
    """Weights and vocabulary, without a context."""

    def __init__(
        self,
        path: Path,
        *,
        extra_bufts: bool,
        gpu_layers: int = 0,
        on_progress: Callable[[float], None] | None = None,
    ) -> None:
        self.path = path
        self._extra_bufts = extra_bufts
        self._gpu_layers = gpu_layers
        self.handle: Any = None
        self.vocab: Any = None
        self.open(on_progress)
        if not C.llama_model_has_decoder(self.handle) or not self.vocab:
            raise SamovarError(f"{path} is not a text generation model; choose one that can chat.")
        self.vocab_size: int = C.llama_vocab_n_tokens(self.vocab)
        self.trained_context: int = C.llama_model_n_ctx_train(self.handle)
        recurrent = C.llama_model_is_recurrent(self.handle)
        hybrid = C.llama_model_is_hybrid(self.handle)
        window: int = C.llama_model_n_swa(self.handle)
        self.family: Family = Family(
            can_trim=not (recurrent or hybrid),
            can_share=not (recurrent or hybrid or window),
            window=window,
            whole_state=bool(recurrent and not hybrid),
        )
        self.family_name: str = (
            "hybrid" if hybrid else "recurrent" if recurrent else "sliding window" if window else "dense"
        )

    def open(self, on_progress: Callable[[float], None] | None = None) -> None:
        """Load the file: the first time, or again after `close`. SamovarError if llama.cpp refuses it."""
        assert not self.handle
        _start_library()
        _log_lines.clear()
        params: Any = C.llama_model_default_params()
        params.use_extra_bufts = self._extra_bufts
        params.n_gpu_layers = self._gpu_layers

        last_percent = -1

        def report(fraction: float, _data: ctypes.c_void_p) -> bool:
            nonlocal last_percent
            if on_progress is not None and int(100 * fraction) > last_percent:
                last_percent = int(100 * fraction)
                on_progress(fraction)
            return True

        progress_callback: Any = C.llama_progress_callback(report)
        params.progress_callback = progress_callback
        handle = C.llama_model_load_from_file(str(self.path).encode(), params)
        if not handle:
            raise _cannot_load(self.path)
        self.handle = handle
        self.vocab = C.llama_model_get_vocab(handle)

    def close(self) -> None:
        if self.handle:
            C.llama_model_free(self.handle)
            self.handle = self.vocab = None

    def template(self) -> str | None:
        text = C.llama_model_chat_template(self.handle, None)
        return text.decode("utf-8", "replace") if text else None

    def tokenize(self, text: str) -> list[int]:
        assert self.vocab, "the model sleeps"
        data = text.encode("utf-8", "replace")
        room = len(data) + 16
        while True:
            ids = (ctypes.c_int32 * room)()
            count = C.llama_tokenize(self.vocab, data, len(data), ids, room, False, False)
            if count >= 0:
                return list(ids[:count])
            room = -count

    def piece(self, token: int) -> bytes:
        assert self.vocab, "the model sleeps"
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = C.llama_token_to_piece(self.vocab, token, buffer, size, 0, False)
            if length >= 0:
                return buffer.raw[:length]
            size = -length

    def is_end(self, token: int) -> bool:
        assert self.vocab, "the model sleeps"
        return bool(C.llama_vocab_is_eog(self.vocab, token))

    def control_tokens(self) -> dict[str, int]:
        """Text and id of each control token."""
        is_control, text = C.llama_vocab_is_control, C.llama_vocab_get_text
        found = {}
        for token in range(self.vocab_size):
            if is_control(self.vocab, token):
                spelled = text(self.vocab, token).decode("utf-8", "replace")
                if spelled:
                    found[spelled] = token
        return found

    def tokenizer_id(self) -> str:
        """Id of the vocabulary: equal ids mean that token ids mean the same. 16 hex digits."""
        digest = hashlib.blake2b(digest_size=8)
        digest.update(f"{self.vocab_size} {C.llama_vocab_type(self.vocab)}".encode())
        text = C.llama_vocab_get_text
        for token in range(0, self.vocab_size, 7):
            digest.update(text(self.vocab, token) + b"\0")
        return digest.hexdigest()


class LlamaBackend:
    """A model with its context. The scratch sequence is the last one."""

    def __init__(self, model: LlamaModel, options: ContextOptions) -> None:
        self._model = model
        self._options = options
        # libc's strlen on a two-byte buffer: "false" while the first byte is 0, "true" once it is not.
        # A native function, since a Python one would take the interpreter lock at every graph node.
        self._flag = ctypes.create_string_buffer(2)
        strlen = ctypes.cast(ctypes.CDLL(None).strlen, ctypes.c_void_p).value
        assert strlen is not None
        self._abort_callback: Any = C.ggml_abort_callback(strlen)
        self._open_context()
        bos, eos = C.llama_vocab_bos(model.vocab), C.llama_vocab_eos(model.vocab)
        self.traits = ModelTraits(
            name=model_name(model.path),
            family=model.family,
            family_name=model.family_name,
            num_cells=C.llama_n_ctx(self._ctx),
            trained_context=model.trained_context,
            vocab_size=model.vocab_size,
            template=model.template(),
            bos=bos if bos >= 0 else None,
            eos=eos if eos >= 0 else None,
            add_bos=bool(C.llama_vocab_get_add_bos(model.vocab)),
            control_tokens=model.control_tokens(),
            tokenizer=model.tokenizer_id(),
            can_shift=(
                model.family.can_trim
                and model.family.window == 0
                and bool(C.llama_memory_can_shift(self._memory))
            ),
        )
        self.tokenize = model.tokenize
        self.piece = model.piece
        self.is_end = model.is_end

    def _open_context(self) -> None:
        options = self._options
        params: Any = C.llama_context_default_params()
        params.n_ctx = options.num_cells
        params.n_batch = params.n_ubatch = options.batch_tokens
        params.n_seq_max = options.num_slots + 1
        params.kv_unified = True
        params.swa_full = False  # layers with a window keep what their windows need, not the whole context
        params.n_threads = params.n_threads_batch = options.num_threads
        params.flash_attn_type = 1 if options.flash_attn else 0
        params.type_k, params.type_v = GGML_TYPES[options.kv_type_k], GGML_TYPES[options.kv_type_v]
        params.no_perf = True
        self._ctx: Any = C.llama_init_from_model(self._model.handle, params)
        if not self._ctx:
            raise SamovarError(
                f"llama.cpp cannot make a context of {options.num_cells:,} tokens "
                f"({last_error()}). Choose a smaller `context` or another KV type."
            )
        self._memory: Any = C.llama_get_memory(self._ctx)
        self._batch: Any = C.llama_batch_init(options.batch_tokens, 0, 1)
        C.llama_set_abort_callback(self._ctx, self._abort_callback, ctypes.addressof(self._flag))

    def new_sampler(
        self, sampling: Sampling, history: list[int], grammar: str = ""
    ) -> "LlamaSampler | GrammarSampler":
        sampler = LlamaSampler(self._ctx, self._model, sampling, history)
        if not grammar:
            return sampler
        control = [token for token in self.traits.control_tokens.values() if not self.is_end(token)]
        return GrammarSampler(self._ctx, self._model, sampler, grammar, control)

    def schema_grammar(self, schema: str) -> str:
        make: Any = _Schemas
        converter = make(prop_order={}, allow_fetch=False, dotall=False, raw_pattern=False)
        try:
            converter.visit(converter.resolve_refs(json.loads(schema), ""), "")
        # It takes a schema's structure for granted, so whatever is odd about one shows as any of these.
        except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise schema_error(f"it is not one that can be turned into a grammar ({error})") from error
        return str(converter.format_grammar())

    def check_grammar(self, grammar: str) -> None:
        C.llama_sampler_free(_native_grammar(self._model, grammar))

    def decode(self, batch: Batch) -> DecodeResult:
        raw, count = self._batch, len(batch)
        assert 0 < count <= self._options.batch_tokens
        for row in range(count):
            raw.token[row] = batch.tokens[row]
            raw.pos[row] = batch.positions[row]
            raw.n_seq_id[row] = 1
            raw.seq_id[row][0] = batch.sequences[row]
            raw.logits[row] = batch.logits[row]
        raw.n_tokens = count
        result = C.llama_decode(self._ctx, raw)
        if result == 0:
            # Outputs may still be computed; an abort would otherwise show as wrong logits.
            C.llama_synchronize(self._ctx)
            return DecodeResult.DONE
        return {1: DecodeResult.NO_ROOM, 2: DecodeResult.ABORTED}.get(result, DecodeResult.FAILED)

    def remove(self, seq: int, p0: int, p1: int) -> bool:
        return bool(C.llama_memory_seq_rm(self._memory, seq, p0, p1))

    def shift(self, seq: int, p0: int, p1: int) -> None:
        C.llama_memory_seq_rm(self._memory, seq, p0, p1)
        C.llama_memory_seq_add(self._memory, seq, p1, -1, p0 - p1)

    def copy(self, source: int, target: int, p0: int, p1: int) -> None:
        C.llama_memory_seq_cp(self._memory, source, target, p0, p1)

    def oldest_pos(self, seq: int) -> int:
        return int(C.llama_memory_seq_pos_min(self._memory, seq))

    def state_size(self, seq: int) -> int:
        return int(C.llama_state_seq_get_size(self._ctx, seq))

    def window_state_size(self, seq: int) -> int:
        """Bytes of `state_size` that are of layers with a sliding window, where there are such layers."""
        return int(C.llama_state_seq_get_size_ext(self._ctx, seq, C.LLAMA_STATE_SEQ_FLAGS_SWA_ONLY))

    def save(self, seq: int, address: int, size: int) -> int:
        return int(C.llama_state_seq_get_data(self._ctx, ctypes.cast(address, _U8), size, seq))

    def load(self, seq: int, address: int, size: int) -> int:
        return int(C.llama_state_seq_set_data(self._ctx, ctypes.cast(address, _U8), size, seq))

    def interrupt(self) -> None:
        self._flag[0] = b"\x01"

    def clear_interrupt(self) -> None:
        self._flag[0] = b"\x00"

    def unload(self) -> None:
        self.close()
        # What was made of many small pieces (the vocabulary) otherwise stays with this process.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)

    def reload(self, on_progress: Callable[[float], None]) -> None:
        self._model.open(on_progress)
        try:
            self._open_context()
        except SamovarError:
            self._model.close()
            raise

    def close(self) -> None:
        if self._ctx:
            C.llama_batch_free(self._batch)
            C.llama_free(self._ctx)
            self._ctx = self._memory = None
            self._model.close()


class LlamaSampler:
    """llama.cpp's native samplers, chained: penalties, top-k, top-p, min-p, temperature, draw."""

    def __init__(self, ctx: object, model: LlamaModel, sampling: Sampling, history: list[int]) -> None:
        self._ctx = ctx
        self._chain: Any = C.llama_sampler_chain_init(C.llama_sampler_chain_default_params())

        def add(sampler: object) -> None:
            C.llama_sampler_chain_add(self._chain, sampler)

        if sampling.repeat_penalty != 1.0 and sampling.repeat_last_n > 0:
            add(
                C.llama_sampler_init_penalties(
                    model.vocab_size, sampling.repeat_last_n, sampling.repeat_penalty, 0.0, 0.0
                )
            )
        if sampling.temperature <= 0:
            add(C.llama_sampler_init_greedy())
        else:
            if sampling.top_k > 0:
                add(C.llama_sampler_init_top_k(sampling.top_k))
            if sampling.top_p < 1:
                add(C.llama_sampler_init_top_p(sampling.top_p, 1))
            if sampling.min_p > 0:
                add(C.llama_sampler_init_min_p(sampling.min_p, 1))
            add(C.llama_sampler_init_temp(sampling.temperature))
            seed = secrets.randbits(32) if sampling.seed is None else sampling.seed & 0xFFFFFFFF
            add(C.llama_sampler_init_dist(seed))
        if sampling.repeat_penalty != 1.0:
            for token in history[-sampling.repeat_last_n :]:
                C.llama_sampler_accept(self._chain, token)

    def sample(self, row: int) -> int:
        return int(C.llama_sampler_sample(self._chain, self._ctx, row))

    def choose(self, candidates: "Candidates") -> int:
        """The token that the chain takes out of `candidates`, which it changes; nothing is remembered."""
        C.llama_sampler_apply(self._chain, candidates.pointer)
        return candidates.selected

    def accept(self, token: int) -> None:
        """Remember a token as the one that was taken."""
        C.llama_sampler_accept(self._chain, token)

    def close(self) -> None:
        if self._chain:
            C.llama_sampler_free(self._chain)
            self._chain = None


class Candidates:
    """Tokens with their logits, in memory that native samplers change. For one use."""

    _TYPE: Final = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data

    def __init__(self, tokens: npt.NDArray[np.int32], logits: npt.NDArray[np.float32]) -> None:
        self.array = np.zeros(len(tokens), self._TYPE)
        self.array["id"] = tokens
        self.array["logit"] = logits
        self._raw: Any = C.llama_token_data_array(
            data=self.array.ctypes.data_as(C.llama_token_data_p),
            size=len(tokens),
            selected=-1,
            sorted=False,
        )
        self.pointer: Any = ctypes.byref(self._raw)

    @property
    def selected(self) -> int:
        """The chosen token."""
        assert 0 <= self._raw.selected < self._raw.size
        return int(self.array["id"][self._raw.selected])


class GrammarSampler:
    """A sampler that is held to a grammar.

    Most tokens that a model wants are allowed, and to ask about one is cheap: so one is drawn from all, and
    only if the grammar refuses it another one from those that the grammar leaves. llama.cpp ends the process
    when it is to accept a token that its grammar does not allow; none comes so far. Control tokens are no
    part of a reply's text, so they are never allowed; those that end a turn are, where it is complete.
    """

    def __init__(
        self, ctx: object, model: LlamaModel, sampler: LlamaSampler, grammar: str, control: list[int]
    ) -> None:
        self._ctx = ctx
        self._sampler = sampler
        self._is_end = model.is_end
        self._control = np.array(control, np.int32)
        self._is_control = frozenset(control)
        self._tokens = np.arange(model.vocab_size, dtype=np.int32)
        self._grammar: Any = _native_grammar(model, grammar)

    def sample(self, row: int) -> int:
        start = time.perf_counter()
        pointer = C.llama_get_logits_ith(self._ctx, row)
        logits = np.ctypeslib.as_array(pointer, shape=(len(self._tokens),))
        token = self._sampler.choose(Candidates(self._tokens, logits))
        if not self._allows(token):
            candidates = Candidates(self._tokens, logits)
            candidates.array["logit"][self._control] = -np.inf
            C.llama_sampler_apply(self._grammar, candidates.pointer)
            left = candidates.array[np.isfinite(candidates.array["logit"])]
            if not len(left):
                raise GrammarError("this model has no token that it allows next")
            token = self._sampler.choose(Candidates(left["id"], left["logit"]))
        self._sampler.accept(token)
        if not self._is_end(token):
            C.llama_sampler_accept(self._grammar, token)
        if time.perf_counter() - start > GRAMMAR_S:
            raise GrammarError(f"it took more than {GRAMMAR_S:.0f} s to find a token that it allows")
        return token

    def _allows(self, token: int) -> bool:
        if token in self._is_control:
            return False
        candidate = Candidates(np.array([token], np.int32), np.ones(1, np.float32))
        C.llama_sampler_apply(self._grammar, candidate.pointer)
        return bool(np.isfinite(candidate.array["logit"][0]))

    def close(self) -> None:
        self._sampler.close()
        if self._grammar:
            C.llama_sampler_free(self._grammar)
            self._grammar = None


class _Schemas(SchemaConverter):
    """llama-cpp-python's converter, with two of its rules set right: what it lets through must be JSON.

    Its texts are those of JSON, whose backslashes mean something to a grammar too; and a string in JSON holds
    no control character.
    """

    _CHARACTER: Final = BuiltinRule(
        r'[^"\\\x00-\x1f\x7f] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4})', PRIMITIVE_RULES["char"].deps
    )

    def _format_literal(self, literal: str) -> str:
        text = json.dumps(json.loads(literal), ensure_ascii=False)
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    def _add_primitive(self, name: str, rule: BuiltinRule) -> str:
        return str(super()._add_primitive(name, self._CHARACTER if name == "char" else rule))


def _native_grammar(model: LlamaModel, grammar: str) -> object:
    """llama.cpp's sampler of a grammar that was found to be harmless; GrammarError if it refuses it."""
    sampler = C.llama_sampler_init_grammar(model.vocab, grammar.encode("utf-8", "replace"), b"root")
    if not sampler:
        raise GrammarError("llama.cpp refuses it; repeat less, or simplify it")
    return sampler
