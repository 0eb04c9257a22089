"""Models of every family, written once into the environment's cache, and an engine for each test."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from samovar.core.settings import EngineSettings
from tests.model import tiny_models
from tests.model.harness import Engine

CACHE = Path(__file__).parents[2] / ".venv" / "test-models"


def tiny(kind: str, source: Path) -> Path:
    """A tiny model's file; its name changes with the code that writes it and the vocabulary's source."""
    digest = hashlib.blake2b(Path(tiny_models.__file__).read_bytes(), digest_size=6)
    digest.update(f"{source.name} {source.stat().st_size}".encode())
    path = CACHE / f"{kind}-{digest.hexdigest()}.gguf"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        tiny_models.write(source, kind, unfinished)
        unfinished.replace(path)
    return path


@pytest.fixture(scope="session")
def lfm2(smollm2: Path) -> Path:
    """A tiny hybrid: attention and short convolution."""
    return tiny("lfm2", smollm2)


@pytest.fixture(scope="session")
def narrow(smollm2: Path) -> Path:
    """The tiny hybrid with heads that no quantized KV type can hold."""
    return tiny("lfm2-narrow", smollm2)


@pytest.fixture(scope="session")
def mamba(smollm2: Path) -> Path:
    """A tiny recurrent model."""
    return tiny("mamba", smollm2)


@pytest.fixture(scope="session")
def probe_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the answers about this machine are remembered for the whole run."""
    return tmp_path_factory.mktemp("probe")


class StartEngine(Protocol):
    """Starts an engine with nothing cached but what `disk` holds."""

    def __call__(self, settings: EngineSettings, disk: Path | None = None) -> Engine: ...


@pytest.fixture
def start_engine(probe_dir: Path) -> Iterator[StartEngine]:
    """Starts engines and stops them after the test."""
    with ExitStack() as engines:

        def start(settings: EngineSettings, disk: Path | None = None) -> Engine:
            return engines.enter_context(Engine(settings, probe_dir, disk))

        yield start
