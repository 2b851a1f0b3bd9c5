"""What curation did with every input file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dreamdojo.video import VideoInfo

REPORT_NAME = "curation.json"


@dataclass(frozen=True, kw_only=True)
class CuratedVideo:
    """What became of one input file."""

    path: str
    """Relative to the folder that all inputs share."""
    kept: bool
    """Whether any of it is in the dataset."""
    reason: str
    """Why it was left out; empty where it was kept."""
    num_clips: int = 0
    """Clips in the dataset."""
    num_frames: int = 0
    """Frames in the dataset."""
    num_short: int = 0
    """Clips left out because they are shorter than `min_seconds`."""
    num_pauses: int = 0
    """Pauses of the recording at which it was cut."""
    enlarged: bool = False
    """Whether the source was smaller than the clips."""
    info: VideoInfo | None = None
    """The source, where it could be read."""


@dataclass(frozen=True, kw_only=True)
class CurationReport:
    """What became of every input file."""

    root: Path
    """The dataset."""
    height: int
    """Pixels of a clip."""
    width: int
    """Pixels of a clip."""
    fps: float
    """Frames per second of the clips."""
    videos: tuple[CuratedVideo, ...]
    """Every input file, in the order of the dataset."""
    other_files: tuple[str, ...]
    """Files beside the videos that were not opened, such as those not named like videos."""
    dropped_clips: dict[str, int] = field(default_factory=dict)
    """Why clips were left out, and how many of them."""
    identity: str = ""
    """Changes with the videos and the settings."""

    def __str__(self) -> str:
        """One line for a person."""
        dropped = ", ".join(f"{count} {kind}" for kind, count in self.dropped_clips.items())
        return (
            f"{len(self.kept)} of {len(self.videos)} videos kept: {self.num_clips} clips, {self.num_frames} frames -> "
            f"{self.root}; curation.json there says why for each"
            + (f". Left out: {dropped}" if dropped else "")
            + (f". Other files, not opened: {len(self.other_files)}" if self.other_files else "")
        )

    @property
    def kept(self) -> list[CuratedVideo]:
        """Files of which something is in the dataset."""
        return [video for video in self.videos if video.kept]

    @property
    def dropped(self) -> list[CuratedVideo]:
        """Files of which nothing is in the dataset; each says why."""
        return [video for video in self.videos if not video.kept]

    @property
    def num_clips(self) -> int:
        """Clips in the dataset."""
        return sum(video.num_clips for video in self.videos)

    @property
    def num_frames(self) -> int:
        """Frames in the dataset."""
        return sum(video.num_frames for video in self.videos)

    @classmethod
    def from_dict(cls, root: Path, raw: dict[str, Any]) -> CurationReport:
        """The inverse of `to_dict`."""
        names = {each.name for each in dataclasses.fields(cls)} - {"root", "videos", "other_files"}
        videos = tuple(
            CuratedVideo(**{**video, "info": None if video["info"] is None else VideoInfo(**video["info"])})
            for video in raw["videos"]
        )
        stated = {name: raw[name] for name in names if name in raw}
        return cls(root=root, videos=videos, other_files=tuple(raw["other_files"]), **stated)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, for `curation.json`; no path of this machine."""
        raw = dataclasses.asdict(self)
        del raw["root"]
        totals = {"num_kept": len(self.kept), "num_dropped": len(self.dropped)}
        return {**totals, "num_clips": self.num_clips, "num_frames": self.num_frames, **raw}
