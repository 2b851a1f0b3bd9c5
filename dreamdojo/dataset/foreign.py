"""The body and the cameras of a dataset that does not declare them, from what its meta does say.

Where its body is known by name, `locate_body` finds that body's columns instead.

Names come from `info.json` (and GR00T's `modality.json`, where there is one), ranges from the statistics. Nothing is
known about units or about what integrates to what, and nothing is claimed: the unit is `unknown`, and every field is
resampled as a target (its last value).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dreamdojo.dataset.depth import is_depth
from dreamdojo.dataset.embodiment import Embodiment, Field
from dreamdojo.dataset.schema import ACTION, DEPTH_SUFFIX, IMAGE_PREFIX, STATE, CameraSpec
from dreamdojo.dataset.stats import FeatureStats
from dreamdojo.errors import DataError
from dreamdojo.files import read_json

UNKNOWN_UNIT = "unknown"
_MODALITY = Path("meta/modality.json")

_ADVICE = (
    "Name the body that made the recordings, or leave --body out: the dataset then speaks for itself, and the model is "
    "post-trained on its robot."
)


def read_modality(root: Path) -> dict[str, Any] | None:
    """GR00T's description of the columns, or None where there is none."""
    return read_json(root / _MODALITY, of=f"dataset {root}") if (root / _MODALITY).is_file() else None


def derive_embodiment(
    root: Path, info: Mapping[str, Any], modality: Mapping[str, Any] | None, stats: FeatureStats
) -> Embodiment:
    """The embodiment of a dataset without `meta/embodiment.json`.

    Raises:
        DataError: if widths, names, parts and statistics contradict each other.
    """
    name = info.get("robot_type") or "unknown"
    action, state = (_fields(root, info, modality, stats, part) for part in ("action", "state"))
    return Embodiment(name=str(name), action=action, state=state)


def locate_body(
    root: Path, info: Mapping[str, Any], modality: Mapping[str, Any] | None, body: Embodiment
) -> Embodiment:
    """`body` with the columns in which a dataset holds its fields: those of `modality.json`, else those it declares.

    Raises:
        DataError: if a column is missing or too narrow, or `modality.json` knows no such field.
    """
    return dataclasses.replace(
        body,
        action=_locate(root, info, modality, body.name, body.action, "action"),
        state=_locate(root, info, modality, body.name, body.state, "state"),
    )


def _locate(
    root: Path,
    info: Mapping[str, Any],
    modality: Mapping[str, Any] | None,
    body: str,
    fields: tuple[Field, ...],
    part: str,
) -> tuple[Field, ...]:
    if not fields:
        return ()
    column = ACTION if part == "action" else STATE
    where = f"dataset {root}, read as {body}"
    listed = ", ".join(f"{field.name} {field.size}" for field in fields)
    if column not in info["features"]:
        raise DataError(
            f"{where}: expected a column {column!r} with {listed}, found the columns {', '.join(info['features'])}. "
            f"{_ADVICE}"
        )
    if modality and part in modality:
        fields = tuple(_at(where, modality[part], column, field) for field in fields)
    width = int(np.prod(info["features"][column]["shape"]))
    sources = [field.source[1] for field in fields if field.source is not None]
    needed = max(sources) if sources else sum(field.size for field in fields)
    if width < needed or (not sources and width != needed):
        raise DataError(
            f"{where}: expected {'at least ' if sources else ''}{needed} numbers in column {column!r} ({listed}), "
            f"found {width}. {_ADVICE}"
        )
    return fields


def _at(where: str, spans: Mapping[str, Any], column: str, field: Field) -> Field:
    """A field with the source that `modality.json` gives it."""
    span = spans.get(field.name)
    if span is None or span.get("original_key", column) != column:
        raise DataError(
            f"{where}: expected {field.name} in column {column!r} of {_MODALITY}, found {', '.join(spans)}. {_ADVICE}"
        )
    if span["end"] - span["start"] != field.size:
        raise DataError(
            f"{where}: expected {field.size} numbers of {field.name} in {_MODALITY}, found columns {span['start']} to "
            f"{span['end']}. {_ADVICE}"
        )
    return dataclasses.replace(field, source=(span["start"], span["end"]))


def camera_name(feature: str) -> str:
    """`observation.images.head` -> `head`; other features keep their name."""
    return feature.removeprefix(IMAGE_PREFIX)


def find_cameras(
    root: Path, info: Mapping[str, Any], modality: Mapping[str, Any] | None
) -> tuple[dict[str, CameraSpec], dict[str, str], dict[str, str]]:
    """Cameras by name, and the features of their pictures and of their depth, by camera.

    Where there is a `modality.json`, its list of videos counts: `info.json` may name cameras that were left out.

    Raises:
        DataError: if a camera is stored in a way we do not read.
    """
    listed = modality and {value.get("original_key", key) for key, value in modality.get("video", {}).items()}
    pictures: dict[str, str] = {}
    depths: dict[str, str] = {}
    for key, feature in info["features"].items():
        if feature["dtype"] not in ("video", "image") or (listed and key not in listed):
            continue
        if feature["dtype"] == "image":
            raise DataError(
                f"dataset {root}: camera {camera_name(key)} is stored as single images inside Parquet, expected "
                "video. Re-create the dataset with videos, as LeRobot does by default."
            )
        if is_depth(feature):
            depths[camera_name(key).removesuffix(DEPTH_SUFFIX)] = key
        else:
            pictures[camera_name(key)] = key
    cameras = {
        name: CameraSpec(**_sides(root, key, info["features"][key]), depth=name in depths)
        for name, key in pictures.items()
    }
    return cameras, pictures, depths


def _sides(root: Path, key: str, feature: Mapping[str, Any]) -> dict[str, int]:
    shape, names = feature["shape"], feature.get("names")
    if isinstance(names, list) and {"height", "width"} <= set(names):
        return {side: int(shape[names.index(side)]) for side in ("height", "width")}
    if len(shape) == 3:
        height, width = shape[1:] if shape[0] in (1, 3) else shape[:2]
        return {"height": int(height), "width": int(width)}
    raise DataError(f"dataset {root}: expected height, width and channels as the shape of {key}, found {shape}")


def _fields(
    root: Path,
    info: Mapping[str, Any],
    modality: Mapping[str, Any] | None,
    stats: FeatureStats,
    part: str,
) -> tuple[Field, ...]:
    column = ACTION if part == "action" else STATE
    feature = info["features"].get(column)
    if feature is None:
        return ()
    width = int(np.prod(feature["shape"]))
    axes = _axis_names(feature.get("names"), width)
    if len(axes) != width:
        raise DataError(f"dataset {root}: expected {width} names of {column}, found {len(axes)}: {axes}")
    if column not in stats or stats[column]["min"].size != width:
        raise DataError(f"dataset {root}: expected min and max of the {width} numbers of {column} in the statistics")
    low, high = (np.ravel(stats[column][key]).astype(float) for key in ("min", "max"))
    fields, position = [], 0
    for name, start, end in _spans(modality, part, column, width):
        if start != position:
            raise DataError(f"dataset {root}: expected {part} part {name} of {_MODALITY} at {position}, found {start}")
        fields.append(
            Field(
                name=name,
                axes=tuple(axes[start:end]),
                unit=UNKNOWN_UNIT,
                low=tuple(low[start:end].tolist()),
                high=tuple(high[start:end].tolist()),
            )
        )
        position = end
    if position != width:
        raise DataError(f"dataset {root}: expected {_MODALITY} to cover {width} {part} numbers, it covers {position}")
    return tuple(fields)


def _spans(modality: Mapping[str, Any] | None, part: str, column: str, width: int) -> list[tuple[str, int, int]]:
    if not modality or part not in modality:
        return [(column.rsplit(".", 1)[-1], 0, width)]
    own = {name: span for name, span in modality[part].items() if span.get("original_key", column) == column}
    return sorted(((name, span["start"], span["end"]) for name, span in own.items()), key=lambda item: item[1])


def _axis_names(names: Any, width: int) -> list[str]:
    """LeRobot writes a list, a list in a list, `{"motors": [...]}` or `{name: position}`."""
    if isinstance(names, dict):
        lists = [value for value in names.values() if isinstance(value, list)]
        return _axis_names(lists[0], width) if lists else sorted(names, key=names.__getitem__)
    if isinstance(names, list) and len(names) == 1 and isinstance(names[0], list):
        return _axis_names(names[0], width)
    if isinstance(names, list) and len(names) == width:
        return [str(name) for name in names]
    return [str(position) for position in range(width)] if not names or len(names) == 1 else [str(n) for n in names]
