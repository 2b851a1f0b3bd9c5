import pytest

from dreamdojo.training import fit


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Types and shapes are checked while tests run, which no compiler sees through."""
    if request.path.name != "test_compiled.py":
        monkeypatch.setattr(fit, "compiler_fault", lambda: "types are checked")
