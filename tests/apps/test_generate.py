"""Predictions of recorded episodes."""

import pytest

from dreamdojo.apps.generate import generate
from dreamdojo.dataset.read import open_dataset
from dreamdojo.errors import ConfigError
from tests.test_chain import record
from tests.tiny import tiny_session


def test_a_start_outside_the_recording_is_refused(tmp_path):
    dataset = open_dataset(record(tmp_path / "robot", robot=True, episodes=1, frames=8))
    for start in (-3, 8):
        with pytest.raises(ConfigError, match=f"after frame {start}"):
            generate(tiny_session(), dataset, 0, tmp_path / "out", start=start)
