"""A LeRobot checkpoint acts through our protocol as LeRobot itself would let it (skipped where it is not installed)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PYTHON = Path(os.environ.get("DREAMDOJO_REFEREES", REPOSITORY / ".venv-referees")) / "bin/python"


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON.exists(), reason="LeRobot 0.4.4 is not installed; `make referees` sets it up")
def test_an_act_checkpoint_gives_its_own_actions(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "hf"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(REPOSITORY),
    }
    command = [str(PYTHON), str(Path(__file__).with_name("lerobot_referee.py")), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "lerobot" not in sys.modules, "nothing of it is loaded here"
