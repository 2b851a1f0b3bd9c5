"""Numerical fixtures made from the published code; tests that use them skip by name where they are absent."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

ORACLE = Path(__file__).parents[2] / "shared" / "oracle"


def load_oracle(name: str) -> dict:
    path = ORACLE / f"{name}.safetensors"
    if not path.exists():
        pytest.skip(f"fixture {name} is not here")
    return load_file(path)


def weights(oracle: dict, prefix: str = "state.") -> dict:
    return {k.removeprefix(prefix): v for k, v in oracle.items() if k.startswith(prefix)}
