"""A LeRobot dataset's pictures as video: one recording per episode and camera, its words as the segment's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dreamdojo.curation.sources.recording import Listing, Recording, Segment
from dreamdojo.dataset.read import open_dataset


@dataclass(frozen=True, kw_only=True)
class LeRobotEpisodes:
    """Episodes of a LeRobot dataset (v2.0, v2.1 or v3.0). Actions and states are left behind."""

    root: str
    """The dataset."""
    cameras: tuple[str, ...] = ()
    """Which cameras; all where empty."""

    def listing(self) -> Listing:
        """Episodes; several of them may lie in one file.

        Raises:
            DataError: if it is not a readable dataset, or a camera does not exist.
        """
        dataset = open_dataset(Path(self.root))
        recordings = []
        for camera in self.cameras or tuple(dataset.cameras):
            for episode in dataset.episodes:
                path, start = dataset.video_of(episode.index, camera)
                name = f"{camera}/episode_{episode.index:06d}"
                end = start + episode.length / dataset.fps
                recordings.append(
                    Recording(
                        name=name,
                        video=str(path),
                        group=f"episode_{episode.index:06d}",
                        segments=(Segment(start=start, end=end, text=episode.task, name=name),),
                        facts={"corpus": Path(self.root).resolve().name, "source_episode": episode.index},
                    )
                )
        return Listing(recordings=tuple(recordings))
