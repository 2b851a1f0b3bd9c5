"""Drive a dream and the dojo with the same actions: `python examples/drive.py OUT.mp4 [MODEL]`.

OUT.mp4 is a video of the dream beside the dojo, OUT.webp (or .png) a picture of five moments, the dojo above the dream.
MODEL is a teacher's or student's folder, or `nano` for the model that ships.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import dreamdojo
from dreamdojo.apps.play.command import dojo_starts
from dreamdojo.video import VideoCodec, encode, resize


def main(out: str, model: str = "nano", seconds: float = 3.0) -> None:
    session = dreamdojo.load(model, device="cpu")
    starts, dojo = dojo_starts(session.size, 1)
    session.reset(starts[0].observation, seed=0)
    dojo.world.reset(seed=starts[0].seed)

    dreamt, true = [], []
    steps = round(seconds * session.fps)
    for step in range(steps):
        print(f"\r{step + 1}/{steps}", end="", flush=True)
        angle = 2 * np.pi * step / 20
        velocity = [0.15 * np.cos(angle), 0.15 * np.sin(angle), 0.0]  # a circle, m/s
        action = torch.tensor([[[*velocity, 0.0, 1.0]]], dtype=torch.float32)  # x y z, yaw rate, open gripper
        for world, frames in ((session, dreamt), (dojo.world, true)):
            frames.append(world.step(action).frames["head"][0, 0].permute(1, 2, 0).numpy())
    dream, truth = resize(np.stack(dreamt), 256), resize(np.stack(true), 256)  # t h w c
    if Path(out).suffix == ".mp4":
        encode(Path(out), np.concatenate([dream, truth], axis=2), session.fps, VideoCodec())
    else:
        moments = np.linspace(0, steps - 1, 5).round().astype(int)
        rows = [np.concatenate(list(frames[moments]), axis=1) for frames in (truth, dream)]
        Image.fromarray(np.concatenate(rows)).save(out)
    print(f"\nThe dream beside the dojo: {out}")


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    if Path(sys.argv[1]).suffix not in (".mp4", ".webp", ".png") or not Path(sys.argv[1]).parent.is_dir():
        sys.exit(f"{sys.argv[1]}: expected a .mp4, .webp or .png in a folder that is there")
    main(*sys.argv[1:3])
