"""Predict a recorded episode and lay it beside the recording: the command over `apps.generate`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

import dreamdojo
from dreamdojo.apps.generate import generate
from dreamdojo.commands import ModelCommand, console, open_robot
from dreamdojo.files import write_json
from dreamdojo.training.device import Device
from dreamdojo.training.progress import progress_line


@dataclass(kw_only=True)
class Generate(ModelCommand):
    """Predict a recorded episode from its first frame and its actions; writes videos and `metrics.json`."""

    model: tyro.conf.Positional[Path]
    """A world model's folder (a run's teacher or student, or a converted one), or `nano`, the student that ships."""
    robot: Path
    """The robot's dataset."""
    out: Path
    """Folder for the videos."""
    body: str | None = None
    """Whose it is, where the dataset does not say: gr1, g1, yam or agibot."""
    camera: str | None = None
    """Its camera, where it has several."""
    episode: int = 0
    """Which episode."""
    start: int = 0
    """Frame to start from, at the model's rate."""
    frames: int | None = None
    """Frames to predict; to the end by default."""
    steps: int | None = None
    """Denoising steps; by default those the model was made for."""
    tile: int | None = None
    """Side in pixels of the tiles that a Wan tokenizer works on, to need less memory."""
    seed: int = 0
    """Seed of the noise."""
    device: Device = "auto"
    """Where to compute."""
    threads: int | None = None
    """CPU threads; all cores by default."""

    def run(self) -> None:
        """Predict."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        dataset = open_robot(self.robot, self.body)
        session = dreamdojo.load(
            self.model, embodiment=dataset.embodiment.name, steps=self.steps, device=self.device, tile=self.tile
        )
        with progress_line("predict") as report:
            result = generate(
                session,
                dataset,
                self.episode,
                self.out,
                camera=self.camera,
                start=self.start,
                frames=self.frames,
                seed=self.seed,
                report=report,
            )
        write_json(
            self.out / "metrics.json",
            {
                "model": str(self.model),
                "embodiment": session.embodiment.name,
                "sampler": dataclasses.asdict(session.sampler),
                "tile": self.tile,
                "reference_compatible": session.reference_compatible,
                "episode": self.episode,
                "start": self.start,
                "seed": self.seed,
                **dataclasses.asdict(result),
            },
        )
        asked = "" if self.frames is None or self.frames == result.frames else f" of {self.frames} asked for"
        console.print(
            f"{result.frames} frames{asked} in {result.seconds:.1f} s ({result.frames_per_second:.2f} per second). "
            f"PSNR {result.psnr:.2f} dB, SSIM {result.ssim:.3f} (repeating the first frame: "
            f"{result.psnr_copy:.2f} dB, {result.ssim_copy:.3f}). Look at {self.out / 'truth_prediction.mp4'}"
        )
        if result.depth_error is not None:
            console.print(f"Depth is off by {result.depth_error:.1f} cm (repeating: {result.depth_error_copy:.1f} cm).")
