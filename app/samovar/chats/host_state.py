"""What is known of the engine host, as a value that events move on. Pure."""

import enum

import msgspec

from samovar.core.events import (
    Event,
    HostFailed,
    HostLost,
    HostReady,
    HostStarting,
    HostStopping,
    LoadingProgressed,
    ModelInfo,
    Refused,
    RequestStarted,
    Welcome,
)


class HostPhase(enum.Enum):
    """Whether the host can serve."""

    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    LOST = "lost"
    STOPPED = "stopped"
    FAILED = "failed"


class HostState(msgspec.Struct, frozen=True):
    """`stage` and `fraction` (0 to 1, None if unknown) are of loading; `model` is the last one known."""

    phase: HostPhase = HostPhase.STARTING
    stage: str = "starting the engine"
    fraction: float | None = None
    model: ModelInfo | None = None
    error: str = ""

    def after(self, event: Event) -> "HostState":
        """The state once `event` has happened; the same object where it changes nothing."""
        match event:
            case HostStarting():
                stage = "restarting the engine" if self.model else "starting the engine"
                return HostState(HostPhase.STARTING, stage, model=self.model)
            case LoadingProgressed(stage, fraction):
                return HostState(HostPhase.LOADING, stage, fraction, self.model)
            case HostReady(model):
                return HostState(HostPhase.READY, "", None, model)
            case Welcome(model=ModelInfo() as model):
                return HostState(HostPhase.READY, "", None, model)
            case RequestStarted() if self.phase is HostPhase.LOADING:  # it has been woken
                return HostState(HostPhase.READY, "", None, self.model)
            case HostLost(message):
                return HostState(HostPhase.LOST, "restarting the engine", None, self.model, message)
            case HostStopping():
                stage = "the engine is stopped; the next message starts it"
                return HostState(HostPhase.STOPPED, stage, model=self.model)
            case HostFailed(message) | Refused(message):
                return HostState(HostPhase.FAILED, "", None, self.model, message)
            case _:
                return self

    @property
    def thinks(self) -> bool:
        """Whether the model is one that reasons before it answers."""
        return self.model is not None and self.model.thinking is not None

    @property
    def doing(self) -> str:
        """What it is at, in a few words: `loading the model 40 %`; empty when it is ready."""
        if self.phase is HostPhase.READY:
            return ""
        if self.phase is HostPhase.FAILED:
            return "the engine cannot run"
        return self.stage if self.fraction is None else f"{self.stage} {round(self.fraction * 100):2} %"
