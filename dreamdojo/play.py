"""Drive a world model in the browser: the command over `apps.play`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro

from dreamdojo import foundation
from dreamdojo.apps.play import command
from dreamdojo.apps.play.settings import PlaySettings
from dreamdojo.commands import PresetCommand, all_episodes, console
from dreamdojo.errors import ConfigError
from dreamdojo.presets import Preset
from dreamdojo.rollout.session import Backend, load_session
from dreamdojo.stages import Episodes
from dreamdojo.training.device import Device


@dataclass(kw_only=True)
class Play(PresetCommand):
    """Drive a world model in the browser."""

    preset: tyro.conf.Suppress[Preset]  # its settings are those of training
    world: Literal["auto", "dream", "dojo"] = "auto"
    """What to show: the dream, the dojo alone, or (auto) the dream, with the dojo beside it where the body is there."""
    model: Literal["student", "teacher"] = "student"
    """Which model of the run to drive."""
    folder: Path | None = None
    """Instead, a world model's folder, such as a converted one."""
    robot: Path | None = None
    """Dataset whose first frames to start from; dojo scenes by default."""
    body: str | None = None
    """Whose it is, where the dataset does not say: gr1, g1, yam or agibot."""
    camera: str | None = None
    """Its camera, where it has several."""
    starts: int = 6
    """Places to start from."""
    steps: int | None = None
    """Denoising steps per frame; by default those the model was made for."""
    backend: Backend = "auto"
    """What computes: PyTorch, or on a CPU OpenVINO, faster after some seconds; auto takes it where installed."""
    host: str = "127.0.0.1"
    """Address to listen on; only this machine by default."""
    port: int = 8642
    """Port to listen on."""
    allow_remote: bool = False
    """Allow a host that other machines can reach. Whoever reaches the page drives."""

    def run(self) -> None:
        """Serve until Ctrl-C."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        if self.run_folder != Path("runs") / self.preset.name and not self.run_folder.exists():
            raise ConfigError(f"expected the run folder {self.run_folder}, found nothing. Check --run.")
        folder = self.folder
        if folder is None and self.world != "dojo":
            folder = command.find_model(self.run_folder, foundation(self.preset.name), self.model)
        if folder is None and self.world != "dojo":
            raise ConfigError(
                f"no {self.model} in {self.run_folder}, and none ships for preset {self.preset.name}. Make one "
                "(`dreamdojo demo` at nano, `dreamdojo posttrain` gives a teacher: --model teacher), name a model's "
                "folder with --folder, or drive the simulator with --world dojo."
            )
        if folder is not None:
            shipped = (
                "the one that ships: " if self.folder is None and not folder.is_relative_to(self.run_folder) else ""
            )
            console.print(f"Model: {shipped}{folder}")
        play(
            folder,
            all_episodes(self.robot, self.camera, self.body) if self.robot else None,
            with_dojo=self.world != "dream",
            count=self.starts,
            steps=self.steps,
            device=self.device,
            backend=self.backend,
            host=self.host,
            port=self.port,
            allow_remote=self.allow_remote,
        )


def play(
    model: Path | None,
    episodes: Episodes | None,
    *,
    with_dojo: bool = True,
    count: int = 6,
    steps: int | None = None,
    device: Device = "auto",
    backend: Backend = "auto",
    host: str = "127.0.0.1",
    port: int = 8642,
    allow_remote: bool = False,
) -> None:
    """Serve a model (None: the dojo alone) from the first frames of `episodes`, or from dojo scenes."""
    body = episodes.dataset.embodiment.name if episodes else None
    session = None
    if model is not None:
        session = load_session(model, embodiment=body, steps=steps, device=device, backend=backend)
        console.print(str(session))
    settings = PlaySettings(host=host, port=port, allow_remote=allow_remote)
    dojo = None
    if session is None or command.is_dojo_body(session):
        starts, dojo = command.dojo_starts(session.size if session else 64, count, session.depth if session else None)
    elif episodes is None:
        raise ConfigError(f"{session} needs frames to start from: give its dataset with --robot")
    else:
        starts = command.dataset_starts(episodes.dataset, episodes.indices[:count], episodes.camera, session)
    command.serve_worlds(
        session,
        dojo if with_dojo else None,
        starts,
        settings=settings,
        announce=lambda url: console.print(f"Drive at {url}  (Ctrl-C stops)"),
    )
