"""Everything that curation can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from dreamdojo.curation.duplicates import DuplicateSettings
from dreamdojo.curation.hands import HandSettings
from dreamdojo.curation.motion import MotionSettings
from dreamdojo.curation.quality import QualitySettings
from dreamdojo.curation.shots import ShotSettings
from dreamdojo.errors import ConfigError
from dreamdojo.video import VideoCodec

StageName = Literal["shots", "quality", "motion", "hands", "duplicates"]
STAGES: tuple[StageName, ...] = ("shots", "quality", "motion", "hands", "duplicates")
"""In the order in which they are asked; the first that objects gives the reason."""


@dataclass(frozen=True, kw_only=True)
class LookSettings:
    """How much of a video is decoded to judge it."""

    every: float = 2.0
    """Seconds between two looks."""
    gap: float = 0.2
    """Seconds between the two frames of a look."""
    long_side: int = 320
    """Pixels of the longer side of the pictures that are judged; larger ones are made smaller."""
    per_clip: int = 6
    """Looks at a clip, at least."""
    keyframes: float = 2.0
    """Seconds between the keyframes that are asked first whether there is a hand; 0 asks none."""
    enough_keyframes: int = 3
    """So many keyframes around a moment, none with a hand, and it is not looked at any closer."""
    around: float = 12.0
    """Seconds before and after a moment whose keyframes speak for it."""


@dataclass(frozen=True, kw_only=True)
class CurateSettings:
    """What the clips should look like, and which clips are kept."""

    embodiment: str = "human"
    """Name of the body that is seen."""
    size: int = 128
    """Pixels of the short side; rounded to even."""
    aspect: float | None = None
    """Width over height; the most common one of the videos where not given. Remote videos need it."""
    fps: float = 10.0
    """Frames per second of the clips."""
    max_seconds: float = 20.0
    """Length of a clip at most."""
    min_seconds: float = 1.0
    """Shorter clips are left out and counted."""
    margin: float = 0.1
    """Seconds left out on both sides of a cut."""
    context: float = 0.0
    """Seconds added on both sides of an annotated part."""
    task: str = ""
    """What is being done in the videos, in words, where their source does not say."""
    codec: VideoCodec = field(default_factory=VideoCodec)
    """How the clips are stored."""
    skip_unreadable: bool = False
    """Leave out files that do not decode, and list them with the reason, instead of stopping at the first. Always so
    with `stages`."""
    stages: tuple[StageName | Literal["all"], ...] = ()
    """Which stages judge the clips; none keeps everything that decodes."""
    looks: LookSettings = field(default_factory=LookSettings)
    """How much is decoded to judge."""
    shots: ShotSettings = field(default_factory=ShotSettings)
    """Cuts."""
    quality: QualitySettings = field(default_factory=QualitySettings)
    """Exposure, sharpness, frozen pictures."""
    motion: MotionSettings = field(default_factory=MotionSettings)
    """What moves besides the camera."""
    hands: HandSettings = field(default_factory=HandSettings)
    """Hands at work."""
    duplicates: DuplicateSettings = field(default_factory=DuplicateSettings)
    """The same film again."""
    max_pixels: int = 7680 * 4320
    """Larger pictures are refused."""
    test_fraction: float = 0.0
    """Share of the recordings' groups whose clips are marked as the test split; 0 marks nothing."""
    seed: int = 0
    """Of the split."""
    engine: Literal["local", "ray"] = "local"
    """Who runs the workers: this machine, or a Ray cluster that shares the output folder (`dreamdojo[ray]`)."""
    workers: int | None = None
    """Processes; one per core where not given. 0 works in this process, where a crash is a crash."""
    patience: float = 20.0
    """A worker is stopped after a minute and so many times its video's length."""
    keep_work: bool = True
    """Keep `OUT.work`: with it, videos that are added later are the only ones that are worked on."""

    def __post_init__(self) -> None:
        if self.size < 2 or not self.fps > 0:
            raise ConfigError(f"expected size >= 2 and fps > 0, got size={self.size}, fps={self.fps}")
        if not 0 < self.min_seconds <= self.max_seconds or self.max_seconds * self.fps < 2:
            raise ConfigError(
                f"expected 0 < min_seconds <= max_seconds and clips of at least 2 frames, got "
                f"min_seconds={self.min_seconds}, max_seconds={self.max_seconds}, fps={self.fps}"
            )
        if not 0 <= self.test_fraction < 1:
            raise ConfigError(f"expected test_fraction from 0 to below 1, got {self.test_fraction}")
        looks = self.looks
        if not (looks.every > 0 and looks.gap > 0 and looks.per_clip > 0 and looks.keyframes >= 0):
            raise ConfigError(f"expected looks with every, gap and per_clip above 0, got {looks}")

    @property
    def active(self) -> tuple[StageName, ...]:
        """The stages that judge, in their order."""
        return STAGES if "all" in self.stages else tuple(stage for stage in STAGES if stage in self.stages)

    @property
    def goes_on(self) -> bool:
        """Whether a video that cannot be used is a row of the report, not the end of the run."""
        return self.skip_unreadable or bool(self.active)
