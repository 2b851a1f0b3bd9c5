"""The bodies of the published DreamDojo system, and its window: what its network was shown of a recording.

The ranges, columns, slots, strides and camera names in `published_bodies.json` are data values of the Apache-2.0
release (NVIDIA/DreamDojo). Units are not stated there, and none are claimed here.

    dataset = open_dataset("recordings/gr1", embodiment=find_body("gr1"))
    window = published_window(dataset, find_body("gr1"), episode=0, start=40)

A robot's window has 14 steps, `stride` source frames apart: the first is only the base of the first actions, the other
13 are seen. Row t of the actions is the command given at seen frame t, so it leads to seen frame t + 1.

    columns of the wide action      0  gr1     58  g1     101  yam     147  agibot     169..220  reserved
                                  352..384  latent action: ones for human video, zeros for robots

`reference_compatible` reproduces what the published loader does wrong: the state over the first action row; frames
taken by the raw timestamp, so one late where a recorder counts from the end of a frame; and plain video resized in
bytes without anti-aliasing. Its fault of splitting train and test by window is not offered: `published_starts` takes
episodes, and `split_episodes` gives them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Float32, UInt8
from torch.nn.functional import interpolate

from dreamdojo.dataset.actions import overwrite_first_row, place_in_slot, relative_actions
from dreamdojo.dataset.embodiment import Embodiment, Field
from dreamdojo.dataset.foreign import UNKNOWN_UNIT
from dreamdojo.dataset.read import Dataset
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.files import read_json
from dreamdojo.nn.patches import to_pairs

ACTION_WIDTH = 384
"""Columns of the wide action."""
LATENT_ACTION_SLOT = slice(352, 384)
"""Columns of the latent action in the wide action."""
RESERVED_SLOT = slice(169, 220)
"""Columns for robots that the published system does not know."""
ACTIONS_PER_LATENT = 4
"""Actions of a chunk."""
NUM_FRAMES = 13
"""Seen frames of a window."""
HEIGHT, WIDTH = 480, 640
LAM_HEIGHT, LAM_WIDTH = 240, 320


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the published loader samples the recordings of a body."""

    camera: str | None
    """Name of the camera; None takes the only one."""
    stride: int
    """Source frames from one step to the next, whatever their rate."""
    native_rate: float | None
    """Source frames per second of the published recordings, where it is stated."""
    human: bool
    """Whether the recordings are human video: their latent actions count, and no other action is given."""


PLAIN_VIDEO = Sampling(camera=None, stride=1, native_rate=None, human=True)
"""Human video without a body: 13 consecutive frames, and no step before them."""


@dataclass(frozen=True, kw_only=True)
class PublishedWindow:
    """One sample of the published system."""

    frames: UInt8[np.ndarray, "13 3 480 640"]
    """Seen frames."""
    actions: Float32[np.ndarray, "12 384"]
    """Row t leads from seen frame t to t + 1; the latent slot holds the switch, 1 or 0, that multiplies its values."""
    lam_pairs: Float32[np.ndarray, "12 2 3 240 320"]
    """Neighbouring seen frames in [0, 1], for the latent action model."""
    state: Float32[np.ndarray, " s"] | None
    """Normalised state at `start`, the step before the first seen frame; None for plain video."""


def _field(raw: Mapping[str, Any]) -> Field:
    return Field(
        name=raw["name"],
        axes=tuple(str(number) for number in range(len(raw["low"]))),
        unit=UNKNOWN_UNIT,
        low=tuple(raw["low"]),
        high=tuple(raw["high"]),
        resampling="first",
        source=(raw["source"][0], raw["source"][1]),
    )


_RAW = read_json(Path(__file__).with_name("published_bodies.json"), of="the published bodies")["bodies"]

PUBLISHED_BODIES: Mapping[str, Embodiment] = {
    name: Embodiment(
        name=name,
        action=tuple(_field(each) for each in raw["action"]),
        state=tuple(_field(each) for each in raw["state"]),
        relative=True,
        slot=raw["slot"],
    )
    for name, raw in _RAW.items()
}
"""The published bodies by name; `gr1_human` is in-house human video whose joints were estimated."""

PUBLISHED_SAMPLING: Mapping[str, Sampling] = {
    name: Sampling(**{each.name: raw[each.name] for each in dataclasses.fields(Sampling)}) for name, raw in _RAW.items()
}
"""How each of them is sampled."""


def find_body(name: str) -> Embodiment:
    """A published body by name.

    Raises:
        ConfigError: if there is none of that name.
    """
    if name not in PUBLISHED_BODIES:
        raise ConfigError(f"expected one of the published bodies {', '.join(PUBLISHED_BODIES)}, got {name!r}")
    return PUBLISHED_BODIES[name]


def in_reserved_slot(body: Embodiment) -> Embodiment:
    """A further robot for converted weights: its relative actions go to the columns that no published body uses.

    Raises:
        ConfigError: if its actions are wider than they are.
    """
    room = RESERVED_SLOT.stop - RESERVED_SLOT.start
    if body.action_dim > room:
        raise ConfigError(
            f"embodiment {body.name}: expected at most {room} numbers per action, the reserved columns "
            f"{RESERVED_SLOT.start} to {RESERVED_SLOT.stop}, got {body.action_dim}. Leave fields out, or give the body "
            "an adapter of its own."
        )
    return dataclasses.replace(body, relative=True, slot=RESERVED_SLOT.start)


def published_starts(
    dataset: Dataset, body: Embodiment | None, episodes: Sequence[int], *, stride: int | None = None
) -> list[tuple[int, int]]:
    """Episode and start of every window that lies within one of `episodes`, as the published loader counts them.

    Raises:
        ConfigError: if the body is not a published one and no stride is given.
        DataError: if no episode is long enough.
    """
    span = _sampling(body, None, stride).stride * (_lead(body) + NUM_FRAMES - 1) + 1
    lengths = {index: dataset.episode(index).length for index in episodes}
    starts = [(index, start) for index, length in lengths.items() for start in range(length - span + 1)]
    if not starts:
        raise DataError(
            f"dataset {dataset.root}: expected at least one episode of {span} frames, the longest of {len(lengths)} "
            f"has {max(lengths.values(), default=0)}. Record longer episodes, or choose a smaller stride."
        )
    return starts


def published_window(
    dataset: Dataset,
    body: Embodiment | None,
    episode: int,
    start: int,
    *,
    camera: str | None = None,
    stride: int | None = None,
    reference_compatible: bool = False,
) -> PublishedWindow:
    """One window of an episode as the published network is given it.

    Args:
        dataset: the recordings.
        body: whose they are; None, or a body without actions, for plain human video.
        episode: the episode's number.
        start: source frame of the first step (for plain video the first seen frame). Steps before or after the episode
            repeat its first or last frame, action and state: all published fields are absolute.
        camera: the camera; the published one, or the only one, where not given.
        stride: source frames per step; the published one where not given.
        reference_compatible: reproduce the published faults named at the top of this module.

    Raises:
        ConfigError: if the body has no slot, or is not a published one and no stride is given.
        DataError: if the window lies outside the episode, or the dataset does not hold what the body declares.
    """
    sampling, lead = _sampling(body, camera, stride), _lead(body)
    length = dataset.episode(episode).length
    steps = start + sampling.stride * np.arange(lead + NUM_FRAMES)
    if steps[-1] < 0 or steps[0] >= length:
        raise DataError(
            f"dataset {dataset.root}, episode {episode}: expected a window that overlaps its frames 0 to {length - 1}, "
            f"got frames {steps[0]} to {steps[-1]}"
        )
    rows = steps.clip(0, length - 1)
    shown = _nearest_to_raw_time(dataset, episode, rows[lead:]) if reference_compatible else rows[lead:]
    taken = dataset.frames(episode, shown, _camera(dataset, camera, sampling))
    frames = published_pictures(taken, in_bytes=reference_compatible and not lead)

    state = None
    if body is not None and lead:
        state = body.normalize_state(dataset.states(episode, body=body)[rows[0]])
    if sampling.human:
        actions = human_actions(NUM_FRAMES - 1)
    else:
        assert body is not None, "what is not human video has a body"
        actions = _robot_actions(body, dataset.actions(episode, body=body)[rows[:NUM_FRAMES]])
    if reference_compatible and state is not None:
        actions = overwrite_first_row(actions, state)
    return PublishedWindow(frames=frames, actions=actions, lam_pairs=lam_pairs(frames), state=state)


def human_actions(rows: int) -> Float32[np.ndarray, "t 384"]:
    """What human video has instead of actions: ones in the latent slot, which its latent actions then multiply."""
    actions = np.zeros((rows, ACTION_WIDTH), dtype=np.float32)
    actions[:, LATENT_ACTION_SLOT] = 1
    return actions


def published_pictures(
    frames: UInt8[np.ndarray, "t h w 3"], *, in_bytes: bool = False
) -> UInt8[np.ndarray, "t 3 480 640"]:
    """Pictures cropped at their centre to 4:3 and resized, bilinear with anti-aliasing, in [0, 1], then truncated.

    `in_bytes` resizes bytes without anti-aliasing, as the published loader of plain video does.
    """
    height, width = frames.shape[1:3]
    cropped_height, cropped_width = min(height, width * HEIGHT // WIDTH), min(width, height * WIDTH // HEIGHT)
    top, left = (height - cropped_height) // 2, (width - cropped_width) // 2
    cropped = frames[:, top : top + cropped_height, left : left + cropped_width]
    out = np.empty((len(frames), 3, HEIGHT, WIDTH), dtype=np.uint8)
    for place, frame in enumerate(cropped):
        picture = torch.from_numpy(rearrange(frame, "h w c -> 1 c h w").copy())
        if in_bytes:
            resized = interpolate(picture, size=(HEIGHT, WIDTH), mode="bilinear", align_corners=False)
        else:
            resized = 255 * interpolate(
                picture.float() / 255, size=(HEIGHT, WIDTH), mode="bilinear", antialias=True, align_corners=False
            )
        out[place] = resized.to(torch.uint8)[0].numpy()
    return out


def lam_pairs(frames: UInt8[np.ndarray, "t 3 480 640"]) -> Float32[np.ndarray, "p 2 3 240 320"]:
    """Neighbouring frames at half the size in [0, 1], bilinear without anti-aliasing, for the latent action model."""
    small = interpolate(
        torch.from_numpy(frames).float(), size=(LAM_HEIGHT, LAM_WIDTH), mode="bilinear", align_corners=False
    )
    return to_pairs((small / 255)[None]).numpy()


def _robot_actions(body: Embodiment, values: Float[np.ndarray, "13 a"]) -> Float32[np.ndarray, "12 384"]:
    """Actions of the steps 0 to 12 in the body's units -> those of the 12 steps after step 0."""
    if body.slot is None:
        raise ConfigError(
            f"embodiment {body.name}: expected a slot in the wide action, got none. Declare one with in_reserved_slot."
        )
    normal = body.normalize_action(values)
    rows = relative_actions(normal[1:], normal[0], ACTIONS_PER_LATENT) if body.relative else normal[1:]
    return place_in_slot(rows, body.slot, ACTION_WIDTH)


def _lead(body: Embodiment | None) -> int:
    """Steps before the first seen frame."""
    return 0 if body is None or not body.action_dim else 1


def _sampling(body: Embodiment | None, camera: str | None, stride: int | None) -> Sampling:
    if body is None or not _lead(body):
        sampling = PLAIN_VIDEO
    elif body.name in PUBLISHED_SAMPLING:
        sampling = PUBLISHED_SAMPLING[body.name]
    elif stride is not None:
        sampling = Sampling(camera=None, stride=stride, native_rate=None, human=False)
    else:
        raise ConfigError(
            f"embodiment {body.name} is none of the published {', '.join(PUBLISHED_BODIES)}: give its stride, the "
            "source frames per step (2 takes 20 frames per second to the 10 of the published GR-1)"
        )
    sampling = dataclasses.replace(sampling, camera=camera or sampling.camera, stride=stride or sampling.stride)
    if sampling.stride < 1:
        raise ConfigError(f"expected a stride of at least 1 source frame per step, got {sampling.stride}")
    return sampling


def _camera(dataset: Dataset, asked: str | None, sampling: Sampling) -> str:
    """The camera asked for, else the published one, else the only one."""
    only = asked is None and sampling.camera not in dataset.cameras and len(dataset.cameras) == 1
    return dataset.camera(None if only else sampling.camera)


def _nearest_to_raw_time(dataset: Dataset, episode: int, rows: np.ndarray) -> np.ndarray:
    """Frames nearest to the `timestamp` of `rows`, as they are, in a film that starts at 0."""
    raw = dataset.column("timestamp", episode).astype(np.float64)
    film = np.arange(len(raw)) / dataset.fps
    times = raw if raw.any() else film
    return np.abs(film - times[rows, None]).argmin(axis=1)
