"""One generation, from what is asked to what it cost."""

import enum

import msgspec

from samovar.core.chat import ChatMessage, Sampling


class RequestKind(enum.Enum):
    """What a request is for; the scheduler and the cache treat the kinds differently."""

    CHAT = "chat"
    SIDE_TASK = "side_task"
    PREPARE = "prepare"  # work ahead: the prompt is processed as far as it is certain, nothing is generated


class FinishReason(enum.Enum):
    """Why a request ended. Every request ends with exactly one of these."""

    STOP = "stop"  # the model ended its turn, or a stop string came
    LENGTH = "length"  # max_tokens reached
    CONTEXT_FULL = "context_full"  # no room for another token
    CANCELLED = "cancelled"
    FAILED = "failed"  # refused or broken; `error` says why
    HOST_LOST = "host_lost"  # the engine host died; what had arrived stays


class Request(msgspec.Struct, frozen=True):
    """One generation: what to answer, how, and on whose behalf.

    `session` groups requests whose prompts grow from one another. `store` says whether the tokens that
    only this request has are kept in the cache.

    Where the last message is a reply, the model goes on with it: its turn is left open behind the text as
    it stands, every space included. An empty reply in the last place asks for a new one. `max_tokens` counts
    new tokens, and what comes back (`RequestFinished.reply` and `tokens`) is new as well.

    Of a `PREPARE`, the last message is the user's and may grow: tokens that depend on its end are left out.
    With `complete` it may be all there: where tokens can be taken back, all of the prompt but one token is
    processed. It runs while nothing else does, gives way within a step, and ends as STOP when all is in the
    context, or as CANCELLED when another `PREPARE` of its session or a `CHAT` takes its place.

    `urgent` says that somebody waits for a side task: it is served like the focused chat. `json_schema` (JSON
    text) or `grammar` (GBNF) restrict what may be generated; at most one of them is given. With `may_shift` a
    prompt that is the session's last one without some turns behind its beginning may be served by moving the
    rest's positions, which is quick and not exact.
    """

    id: str
    session: str
    messages: tuple[ChatMessage, ...]
    kind: RequestKind = RequestKind.CHAT
    title: str = ""
    sampling: Sampling = Sampling()
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    store: bool = True
    urgent: bool = False
    json_schema: str = ""
    grammar: str = ""
    may_shift: bool = False
    complete: bool = False


class TierTokens(msgspec.Struct, frozen=True):
    """Prompt tokens served by each tier."""

    context: int = 0
    host: int = 0
    disk: int = 0

    @property
    def total(self) -> int:
        return self.context + self.host + self.disk


class MismatchReason(enum.Enum):
    """Why a prompt was not served from the cache from some position on."""

    NEW_MESSAGE = "new message"
    NEW_CHAT = "never seen"
    MESSAGE_EDITED = "message edited"
    SYSTEM_PROMPT_CHANGED = "system prompt changed"
    TEMPLATE_REWROTE_HISTORY = "template rewrote history"
    REASONING_DROPPED = "template drops reasoning"
    TURNS_LEFT_OUT = "oldest turns left out"
    TURNS_SUMMARIZED = "oldest turns summarized"
    MODEL_CHANGED = "other model or settings"
    EVICTED = "evicted"
    CACHE_OFF = "cache is off"


class Mismatch(msgspec.Struct, frozen=True):
    """The first position that had to be processed, and why.

    `before` is the text of up to ten tokens that lead to `pos`; `cached` and `asked` are up to ten
    tokens on either side from `pos` on (`cached` is empty when there was nothing to compare with).
    """

    pos: int
    reason: MismatchReason
    before: tuple[str, ...] = ()
    cached: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()


class RequestStats(msgspec.Struct, frozen=True):
    """What a request cost. Times are milliseconds; `first_token_ms` counts from the arrival at the host.

    `processed_tokens` are prompt tokens run through the model, more than once after some swaps. `mismatch`
    is None when all of the prompt but its last token was reused. `ahead_tokens` of the reused ones had been
    processed ahead. `thinking_tokens` of the generated ones are reasoning, which took `thinking_ms`.
    """

    prompt_tokens: int = 0
    reused: TierTokens = TierTokens()
    processed_tokens: int = 0
    generated_tokens: int = 0
    queued_ms: float = 0.0
    restore_ms: float = 0.0
    prefill_ms: float = 0.0
    first_token_ms: float | None = None
    tokens_per_second: float | None = None
    mismatch: Mismatch | None = None
    ahead_tokens: int = 0
    thinking_tokens: int = 0
    thinking_ms: float = 0.0
