"""Real frames to start a session from: of a recorded episode, or of a world that draws its own."""

from __future__ import annotations

import torch

from dreamdojo.dataset.read import Dataset
from dreamdojo.dataset.resample import resample
from dreamdojo.rollout.session import CAMERA, Session, observation
from dreamdojo.video import Size, resize
from dreamdojo.video.resize import as_size
from dreamdojo.world import Observation


def recorded_start(session: Session, dataset: Dataset, episode: int, camera: str | None = None) -> Observation:
    """The first frame of an episode, at the session's size and rate."""
    first = resample(dataset, episode, session.fps)
    chosen = [int(first.frame_indices[0])]
    depth = None if session.depth is None else dataset.depth(episode, chosen, camera)[0]
    state = None if first.states is None else first.states[0]
    return observation(dataset.frames(episode, chosen, camera)[0], state, session.size, depth)


def fitted(seen: Observation, size: Size) -> Observation:
    """What another world shows, its frames and depth cropped to a session's shape and resized to it."""
    frames = seen.frames[CAMERA]
    if tuple(frames.shape[-2:]) == as_size(size):
        return seen
    pictures = resize(frames.flatten(0, 1).permute(0, 2, 3, 1).numpy(), size)
    small = torch.from_numpy(pictures).permute(0, 3, 1, 2).unflatten(0, frames.shape[:2])
    depth = None
    if seen.depth is not None:
        metres = torch.from_numpy(resize(seen.depth[CAMERA].flatten(0, 2).numpy(), size, nearest=True))
        depth = {CAMERA: metres[:, None].unflatten(0, frames.shape[:2])}
    return Observation(frames={CAMERA: small}, state=seen.state, depth=depth)
