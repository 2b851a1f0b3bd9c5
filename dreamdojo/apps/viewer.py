"""Recordings and predictions in the Rerun viewer: pictures, depth, actions and positions on one time line.

A dataset's episode:   CAMERA/rgb   CAMERA/depth   CAMERA/rgb/hand   CAMERA/rgb/objects   action/FIELD   state/FIELD
An evaluation's clip:  clip N/truth   clip N/METHOD   clip N/METHOD/error   the same with depth   clip N/action/FIELD

Time lines are `frame`, counted from the first one shown, and `time`, in seconds. Needs the extra `rerun`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dreamdojo.dataset.embodiment import Embodiment, Field
from dreamdojo.dataset.read import Dataset
from dreamdojo.errors import ConfigError, MissingDependencyError
from dreamdojo.evaluation.report.pictures import error_frames
from dreamdojo.evaluation.rollouts import EffectorFinder
from dreamdojo.evaluation.world_model import Evaluation
from dreamdojo.files import written_whole
from dreamdojo.training.progress import Report, silent

TRUTH_TABLE = "ground_truth.parquet"
"""As `dojo.truth` names it; that package needs MuJoCo and is only imported where there is a table."""
CHUNK = 64
"""Frames decoded at a time."""
JPEG_QUALITY = 90
DOT = 0.02
"""Radius of a position, in picture widths."""


@runtime_checkable
class Stream(Protocol):
    """What is used of `rerun.RecordingStream`."""

    def set_time(self, timeline: str, **value: Any) -> None:
        """Say when what is logged next was."""
        ...

    def log(self, entity_path: list[str], entity: Any, **options: Any) -> None:
        """Put something at a place, named by its parts."""
        ...


@dataclass(frozen=True, kw_only=True)
class Marks:
    """Positions in the pictures of one camera or panel."""

    positions: Float[np.ndarray, "t n 2"]
    """(u, v) in [0, 1]."""
    shown: Bool[np.ndarray, "t n"]
    """Which of them are in the picture and not hidden."""


def check_viewer(file: Path | None, *, spawn: bool = False) -> None:
    """Refuse what `viewing` would, before anything long is computed.

    Raises:
        ConfigError: if it is not exactly one of a file and a viewer, or the file is not called `.rrd`.
        MissingDependencyError: without rerun.
    """
    if (file is not None) == spawn:
        raise ConfigError(
            "give one of the two, a file to write (--rerun FILE.rrd) or --spawn to open a viewer; got "
            + ("both" if spawn else "neither")
        )
    if file is not None and file.suffix != ".rrd":
        raise ConfigError(f"{file}: expected a name that ends in .rrd, which the viewer opens")
    _rerun()


@contextmanager
def viewing(title: str, *, file: Path | None = None, spawn: bool = False) -> Iterator[Stream]:
    """A stream into a new `.rrd` file, which appears when it is whole, or into a viewer that opens.

    Raises:
        ConfigError: if it is not exactly one of the two, or the file is not called `.rrd`.
        MissingDependencyError: without rerun.
    """
    check_viewer(file, spawn=spawn)
    stream = _rerun().RecordingStream("dreamdojo")
    if file is None:
        stream.spawn()
        stream.send_recording_name(title)
        yield stream
        stream.flush()
        return
    with written_whole(file) as temporary:
        stream.save(temporary)
        stream.send_recording_name(title)
        yield stream
        stream.flush()
        stream.disconnect()


def log_episode(
    stream: Stream,
    dataset: Dataset,
    index: int,
    *,
    cameras: Sequence[str] | None = None,
    marks: Mapping[str, Marks] | None = None,
    report: Report = silent,
) -> None:
    """An episode as recorded: pictures and depth of its cameras (all by default), actions and states.

    `marks` are positions in the first camera, by name. Action t is done between frame t and frame t + 1, and stands at
    frame t.

    Raises:
        DataError: if there is no such episode or camera, or it does not decode.
    """
    rr, body, times = _rerun(), dataset.embodiment, dataset.timestamps(index)
    cameras = [dataset.camera(name) for name in cameras] if cameras else list(dataset.cameras)
    actions = dataset.actions(index) if body.action_dim else None
    states = dataset.states(index) if body.state_dim else None
    for root, fields in (("action", body.action if body.action_dim else ()), ("state", body.state)):
        _name_lines(rr, stream, [root], fields)
    for start in range(0, len(times), CHUNK):
        rows = range(start, min(start + CHUNK, len(times)))
        frames = {name: dataset.frames(index, rows, name) for name in cameras}
        depths = {name: dataset.depth(index, rows, name) for name in cameras if dataset.cameras[name].depth}
        for place, row in enumerate(rows):
            _set_time(stream, row, times[row])
            for name in cameras:
                _picture(rr, stream, [name, "rgb"], frames[name][place])
                if name in depths:
                    _depth(rr, stream, [name, "depth"], depths[name][place])
            for name, each in (marks or {}).items():
                _mark(rr, stream, [cameras[0], "rgb", name], each, row, frames[cameras[0]].shape[1:3])
            if actions is not None:
                _numbers(rr, stream, ["action"], body.action, actions[row])
            if states is not None:
                _numbers(rr, stream, ["state"], body.state, states[row])
        report(rows.stop, len(times), "frames")


def log_clips(
    stream: Stream,
    evaluation: Evaluation,
    body: Embodiment,
    *,
    fps: float,
    marks: Mapping[str, Sequence[Marks]] | None = None,
    report: Report = silent,
) -> None:
    """Every clip: what truly happened, what each method said, where it is wrong, and the actions.

    `marks` are positions in the predicted frames by panel (`truth` or a method), one for each clip.
    """
    rr, plan, count = _rerun(), evaluation.plan, len(evaluation.plan.truth)
    for clip in range(count):
        root, truth = f"clip {clip + 1:02d}", torch.cat([plan.given[clip], plan.truth[clip]])
        panels = {"truth": truth} | {
            name: torch.cat([plan.given[clip], frames[clip]]) for name, frames in evaluation.predictions.items()
        }
        errors = {name: error_frames(frames, truth) for name, frames in panels.items() if name != "truth"}
        depths = _depth_panels(evaluation, clip)
        _name_lines(rr, stream, [root, "action"], body.action)
        for row in range(len(truth)):
            _set_time(stream, row, row / fps)
            for name, frames in panels.items():
                _picture(rr, stream, [root, name], _last(frames[row]))
            for name, frames in errors.items():
                _picture(rr, stream, [root, name, "error"], _last(frames[row]))
            for name, metres in depths.items():
                _depth(rr, stream, [root, name, "depth"], metres[row, 0].numpy())
            for name, each in (marks or {}).items():
                if row >= plan.context:
                    size = tuple(truth.shape[-2:])
                    _mark(rr, stream, [root, name, "positions"], each[clip], row - plan.context, size)
            if row < plan.actions.shape[1]:
                _numbers(rr, stream, [root, "action"], body.action, plan.actions[clip, row].numpy())
        report(clip + 1, count, "clips")


def true_marks(dataset: Dataset, index: int) -> dict[str, Marks]:
    """Where the hand or gripper and the objects are, of an episode of the dojo; nothing of recordings of others."""
    if not (dataset.root / TRUTH_TABLE).exists():
        return {}
    from dreamdojo.dojo.truth import GroundTruth

    truth = GroundTruth.open(dataset.root)
    return {
        "hand": Marks(positions=truth.effector_pixel(index)[:, None], shown=truth.effector_visible(index)[:, None]),
        "objects": Marks(positions=truth.object_pixels(index), shown=truth.objects_visible(index)),
    }


def located_marks(probe: EffectorFinder, evaluation: Evaluation) -> dict[str, list[Marks]]:
    """Where a probe sees the hand or gripper in the frames that came, and in those that each method predicts."""

    def seen(frames: Tensor) -> Marks:
        located = probe.locate(frames)
        return Marks(positions=located.position[:, None].numpy(), shown=located.found[:, None].numpy())

    panels = {"truth": evaluation.plan.truth, **evaluation.predictions}
    return {name: [seen(frames) for frames in clips] for name, clips in panels.items()}


def _depth_panels(evaluation: Evaluation, clip: int) -> dict[str, Tensor]:
    """Panel -> `t 1 h w` metres, given and predicted; none for models of RGB."""
    plan = evaluation.plan
    if not evaluation.depths or plan.given_depth is None or plan.true_depth is None:
        return {}
    shown = {"truth": plan.true_depth, **evaluation.depths}
    return {name: torch.cat([plan.given_depth[clip], metres[clip]]) for name, metres in shown.items()}


def _set_time(stream: Stream, row: int, seconds: float) -> None:
    stream.set_time("frame", sequence=row)
    stream.set_time("time", duration=float(seconds))


def _picture(rr: Any, stream: Stream, place: list[str], picture: np.ndarray) -> None:
    stream.log(place, rr.Image(picture).compress(jpeg_quality=JPEG_QUALITY))


def _depth(rr: Any, stream: Stream, place: list[str], metres: np.ndarray) -> None:
    stream.log(place, rr.DepthImage(metres.astype(np.float32), meter=1.0))


def _mark(rr: Any, stream: Stream, place: list[str], marks: Marks, row: int, size: tuple[int, ...]) -> None:
    height, width = size
    shown = marks.positions[row][marks.shown[row]] * np.array([width, height])
    stream.log(place, rr.Points2D(shown, radii=DOT * width))


def _name_lines(rr: Any, stream: Stream, root: list[str], fields: Sequence[Field]) -> None:
    for each in fields:
        names = [f"{axis} ({each.unit})" for axis in each.axes]
        stream.log([*root, each.name], rr.SeriesLines(names=names), static=True)


def _numbers(rr: Any, stream: Stream, root: list[str], fields: Sequence[Field], row: np.ndarray) -> None:
    start = 0
    for each in fields:
        stream.log([*root, each.name], rr.Scalars(row[start : start + each.size].astype(np.float64)))
        start += each.size


def _last(picture: Tensor) -> np.ndarray:
    """`c h w` -> `h w c`."""
    return picture.permute(1, 2, 0).contiguous().numpy()


def _rerun() -> Any:
    try:
        import rerun  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingDependencyError(
            f'the viewer needs the package rerun-sdk, found {error}: pip install "dreamdojo[rerun]"'
        ) from error
    return rerun
