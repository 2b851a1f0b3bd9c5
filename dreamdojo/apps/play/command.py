"""What `dreamdojo play` puts on the page: a dream from a checkpoint, the dojo beside it, and places to start from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from dreamdojo.apps.play.server import serve
from dreamdojo.apps.play.settings import PlaySettings, PlayWorld, Start
from dreamdojo.dataset.read import Dataset
from dreamdojo.rollout.session import CAMERA, Session
from dreamdojo.rollout.starts import fitted, recorded_start
from dreamdojo.tokenizer.depth import DepthCoding
from dreamdojo.video import Size
from dreamdojo.world import Observation


def dataset_starts(dataset: Dataset, episodes: tuple[int, ...], camera: str | None, session: Session) -> list[Start]:
    """The first frame of each episode."""
    starts = []
    for number, index in enumerate(episodes):
        seen = recorded_start(session, dataset, index, camera)
        starts.append(Start(name=f"Episode {index}", thumbnail=_thumbnail(seen), observation=seen, seed=number))
    return starts


def dojo_starts(
    size: Size, count: int, depth: DepthCoding | None = None, *, difficulty: str = "gentle"
) -> tuple[list[Start], PlayWorld]:
    """Scenes of the `demo` split, which nothing is trained on, at `size` pixels, and the dojo behind them.

    With `depth` they carry it, and the dojo shows it beside its picture, in the colours of that range.

    Raises:
        MissingDependencyError: if MuJoCo or the system's GL library is missing.
    """
    from dreamdojo.dojo.splits import seed_of
    from dreamdojo.dojo.world import DojoWorld

    dojo = DojoWorld(depth=depth is not None, difficulty=difficulty)
    starts = []
    for index in range(count):
        seed = seed_of("demo", index)
        seen = dojo.reset(seed=seed)
        given = fitted(seen, size)
        starts.append(Start(name=f"Scene {index + 1}", thumbnail=_thumbnail(given), observation=given, seed=seed))
    return starts, PlayWorld(world=dojo, from_observation=False, label="Dojo (truth)", depth_span=depth_span(depth))


def serve_worlds(
    session: Session | None,
    dojo: PlayWorld | None,
    starts: list[Start],
    *,
    settings: PlaySettings,
    announce: Callable[[str], None],
) -> None:
    """Serve the dream, the dojo, or both side by side, until Ctrl-C."""
    worlds = {}
    if session is not None:
        worlds["dream"] = PlayWorld(
            world=session, from_observation=True, label="Dream", depth_span=depth_span(session.depth)
        )
    if dojo is not None:
        worlds["dojo"] = dojo
    serve(worlds, starts, settings, announce=announce)


def is_dojo_body(session: Session) -> bool:
    """Whether the session's body lives in the dojo, so that the two can be driven side by side."""
    return session.embodiment.name.startswith("dojo_arm/")


def find_model(run_folder: Path, shipped: Path | None, which: str) -> Path | None:
    """The checkpoint to play: of the run if it has one, else the shipped one; None where there is neither."""
    for folder in (run_folder / which, *([shipped / which] if shipped else [])):
        if (folder / "model.safetensors").exists():
            return folder
    return None


def depth_span(depth: DepthCoding | None) -> tuple[float, float] | None:
    """What a page colours of a model's depth, metres; None for a model of RGB alone."""
    return None if depth is None else (depth.near, depth.far)


def _thumbnail(seen: Observation) -> np.ndarray:
    return seen.frames[CAMERA][0, 0].permute(1, 2, 0).contiguous().numpy()
