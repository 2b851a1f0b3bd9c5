"""The pictures behind a decision, measured again."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dreamdojo.curation.decide import Decision
from dreamdojo.curation.observe import Observation, observe
from dreamdojo.curation.record import hand_finder
from dreamdojo.curation.settings import CurateSettings
from dreamdojo.curation.sources.recording import Recording
from dreamdojo.curation.sources.remote import local_file
from dreamdojo.errors import DataError
from dreamdojo.video import look_at, probe

LOOKS = 12
"""Moments of a clip that are shown."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """A look and what was seen in it."""

    picture: np.ndarray
    """`h w 3` uint8, the look's first frame."""
    observation: Observation
    """What was measured."""


def gather(recording: Recording, row: Decision, settings: CurateSettings) -> list[Evidence]:
    """Look at a clip again, closely, with every stage that is on.

    Raises:
        DataError: if the row is not of a clip, or the video does not decode.
    """
    if row.end <= row.start:
        raise DataError(f"{row.clip}: expected a clip with a start and an end, found a row without: {row.reason}")
    found = []
    with tempfile.TemporaryDirectory() as scratch, local_file(recording.video, Path(scratch)) as path:
        info = probe(path)
        finder = hand_finder(recording, info, settings)
        last = max(row.start, row.end - settings.looks.gap - 0.05)
        times = np.linspace(row.start, last, LOOKS)
        for look in look_at(path, times, gap=settings.looks.gap, long_side=settings.looks.long_side):
            seen = observe(look, settings.active, finder, settings)
            found.append(Evidence(picture=look.frames[0], observation=seen))
    return found
