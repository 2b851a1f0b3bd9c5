"""Drive a dream and the dojo with the same actions, into one video: `python examples/drive.py OUT.mp4 [MODEL]`.

MODEL is a teacher's or student's folder, or `nano` for the model that ships.
"""

import sys
from pathlib import Path

import numpy as np
import torch

import dreamdojo
from dreamdojo.apps.play.command import dojo_starts
from dreamdojo.video import VideoCodec, encode, resize


def main(out: str, model: str = "nano", seconds: float = 3.0) -> None:
    session = dreamdojo.load(model, device="cpu")
    starts, dojo = dojo_starts(session.size, 1)
    session.reset(starts[0].observation, seed=0)
    dojo.world.reset(seed=starts[0].seed)

    pictures = []
    steps = round(seconds * session.fps)
    for step in range(steps):
        print(f"\r{step + 1}/{steps}", end="", flush=True)
        angle = 2 * np.pi * step / 20
        velocity = [0.15 * np.cos(angle), 0.15 * np.sin(angle), 0.0]  # a circle, m/s
        action = torch.tensor([[[*velocity, 0.0, 1.0]]], dtype=torch.float32)  # x y z, yaw rate, open gripper
        both = [world.step(action).frames["head"][0, 0].permute(1, 2, 0).numpy() for world in (session, dojo.world)]
        pictures.append(np.concatenate([resize(both[0][None], 256)[0], resize(both[1][None], 256)[0]], axis=1))
    encode(Path(out), np.stack(pictures), session.fps, VideoCodec())
    print(f"\nThe dream beside the dojo: {out}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(*sys.argv[1:3])
