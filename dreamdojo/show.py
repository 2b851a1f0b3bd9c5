"""`dreamdojo show`: look at a dataset in the Rerun viewer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from dreamdojo.commands import Command, console, open_robot
from dreamdojo.training.progress import progress_line


@dataclass(kw_only=True)
class Show(Command):
    """Open an episode in the Rerun viewer: pictures, depth, actions and, of the dojo, true positions, in step."""

    dataset: tyro.conf.Positional[Path]
    """The dataset."""
    episode: int = 0
    """Which episode."""
    rerun: Path | None = None
    """Write FILE.rrd, for `rerun FILE.rrd`."""
    spawn: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Open a viewer instead."""
    cameras: tuple[str, ...] = ()
    """Which cameras; all by default."""
    body: str | None = None
    """Whose recordings they are, where the dataset does not say: gr1, g1, yam or agibot."""

    def run(self) -> None:
        """Log the episode."""
        from dreamdojo.apps.viewer import log_episode, true_marks, viewing

        dataset = open_robot(self.dataset, self.body)
        dataset.episode(self.episode)
        title = f"{self.dataset.name}, episode {self.episode}"
        with viewing(title, file=self.rerun, spawn=self.spawn) as stream, progress_line("show") as report:
            marks = true_marks(dataset, self.episode)
            log_episode(stream, dataset, self.episode, cameras=self.cameras, marks=marks, report=report)
        if self.rerun is not None:
            console.print(f"Look at it with: rerun {self.rerun}")
