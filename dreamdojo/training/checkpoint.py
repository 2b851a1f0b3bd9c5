"""A model on disk: `model.safetensors` and `config.json` in one folder; nothing is ever unpickled."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dreamdojo.errors import CheckpointError, ConfigError, DataError
from dreamdojo.files import read_json, write_json, written_whole

FORMAT = "dreamdojo/1"
Model = TypeVar("Model", bound=nn.Module)

_PLAIN: dict[Any, tuple[str, tuple[type, ...]]] = {
    bool: ("true or false", (bool,)),
    int: ("a whole number", (int,)),
    float: ("a number", (int, float)),
    str: ("a text", (str,)),
}
"""Plain kinds of settings, in words, and what may stand for them."""


def save_model(
    folder: Path,
    model: nn.Module,
    *,
    weights: Mapping[str, Tensor] | None = None,
    about: Mapping[str, Any] = {},
    dtype: torch.dtype | None = None,
) -> None:
    """Write a model whose `config` is a dataclass; `weights` replaces its own (e.g. an average), `about` is kept.

    `dtype` stores floating-point weights in another precision. A folder that is written again holds the old model or
    the new one at every moment, or, where their configs differ, for a moment none: weights never meet a foreign config.
    """
    state = dict(model.state_dict() if weights is None else weights)
    if dtype is not None:
        state = {name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}
    with written_whole(folder / "model.safetensors") as path:
        save_file({name: value.detach().contiguous().cpu() for name, value in state.items()}, path)
        raw = _raw_config(type(model), model.config, about)
        if _differs(folder / "config.json", raw):
            (folder / "config.json").unlink()
    write_json(folder / "config.json", raw)


def write_config(folder: Path, model_class: type[nn.Module], config: Any, about: Mapping[str, Any]) -> None:
    """Write `config.json`: what `load_model` builds the model from."""
    write_json(folder / "config.json", _raw_config(model_class, config, about))


def read_about(folder: Path) -> dict[str, Any]:
    """What `save_model` was given to keep beside the weights."""
    return _read_config(folder)["about"]


def read_class(folder: Path) -> str:
    """The name of the class that the folder's weights belong to."""
    return _read_config(folder)["class"]


def read_config(folder: Path, model_class: type[nn.Module]) -> Any:
    """The config of the folder's model, without its weights.

    Raises:
        CheckpointError: if the folder holds another class.
    """
    raw = _read_config(folder)
    if raw["class"] != model_class.__name__:
        raise CheckpointError(f"{folder}: expected a {model_class.__name__}, found a {raw['class']}")
    try:
        return from_plain(typing.get_type_hints(model_class.__init__)["config"], raw["config"])
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{folder}/config.json does not describe a {model_class.__name__}: {error}") from error


def load_model(folder: Path, model_class: type[Model], *, dtype: torch.dtype | None = torch.float32) -> Model:
    """Load a model of `model_class`, ready for inference.

    With `dtype=None` weights stay as they are stored and in the file, which is mapped into memory, so a large model
    takes no more than its pages that are used. Otherwise parameters are copied in that precision, and buffers, which
    are statistics, in float32.

    Raises:
        CheckpointError: if the folder holds another class, another format, or weights that are cut short or do not fit.
    """
    config = read_config(folder, model_class)
    try:
        with torch.device("meta"):  # every weight comes from the file, so none is made first
            model = model_class(config)
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{folder}/config.json does not describe a {model_class.__name__}: {error}") from error
    path, expected = folder / "model.safetensors", model.state_dict()
    weights = _read_weights(path)
    check_fit(path, _shapes(expected), _shapes(weights))
    parameters = dict(model.named_parameters())
    held = {
        name: _held(weights[name], like, dtype if dtype is None or name in parameters else torch.float32)
        for name, like in expected.items()
    }
    model.load_state_dict(held, assign=True)
    left = [name for name, value in (*model.named_parameters(), *model.named_buffers()) if value.is_meta]
    assert not left, f"{left} are not saved with the model, so they cannot be loaded: compute them in forward"
    return model.eval()


def load_weights(model: nn.Module, path: Path, *, only: Collection[str] | None = None) -> None:
    """Fill `model` (or `only` the weights of these names) with the weights in `path`, every one of them and no other.

    Raises:
        CheckpointError: naming the file, and the entries that are missing, foreign or of another shape.
    """
    weights = _read_weights(path)
    expected = {name: value for name, value in model.state_dict().items() if only is None or name in only}
    check_fit(path, _shapes(expected), _shapes(weights))
    fitting = {name: value.to(expected[name].dtype) for name, value in weights.items()}
    model.load_state_dict(fitting, strict=only is None)


def check_fit(path: Path, expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> None:
    """Compare the shapes that a model has with those in a file, by name.

    Raises:
        CheckpointError: naming the file, and the entries that are missing, foreign or of another shape.
    """
    missing = sorted(expected.keys() - found.keys())
    foreign = [f"{name} {tuple(found[name])}" for name in sorted(found.keys() - expected.keys())]
    shapes = [
        f"{name}: expected {tuple(expected[name])}, found {tuple(found[name])}"
        for name in sorted(expected.keys() & found.keys())
        if tuple(expected[name]) != tuple(found[name])
    ]
    if missing or foreign or shapes:
        parts = [
            f"missing {missing[:3]} ({len(missing)} in all)" if missing else "",
            f"foreign {foreign[:3]} ({len(foreign)} in all)" if foreign else "",
            f"other shapes {shapes[:3]} ({len(shapes)} in all)" if shapes else "",
        ]
        raise CheckpointError(f"{path} does not fit this model: {'; '.join(part for part in parts if part)}")


def check_format(path: Path, found: Any, expected: str) -> None:
    """Refuse a file of another format than this version writes.

    Raises:
        CheckpointError: naming both.
    """
    if found != expected:
        raise CheckpointError(
            f"{path}: expected format {expected!r}, found {found!r}. It comes from another program or another version "
            "of this one; open it with that, or make it again."
        )


def config_difference(found: Any, expected: Any) -> str:
    """Which fields of two configs of one class differ, in words for an error."""
    left, right = dataclasses.asdict(found), dataclasses.asdict(expected)
    return ", ".join(f"{name} {left[name]!r} instead of {right[name]!r}" for name in left if left[name] != right[name])


def model_hash(folder: Path) -> str:
    """A short hash of the weights, by which side caches know the model that made them."""
    digest = hashlib.sha256()
    with (folder / "model.safetensors").open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]


def from_plain(kind: Any, value: Any) -> Any:
    """Build dataclasses from the plain values that `dataclasses.asdict` and JSON make of them.

    Raises:
        ConfigError: if a key is unknown or missing.
    """
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints, title = typing.get_type_hints(kind), kind.__name__
        if not isinstance(value, Mapping):
            raise ConfigError(f"{title}: expected its fields, found {value!r}")
        if unknown := sorted(value.keys() - hints.keys()):
            raise ConfigError(f"{kind.__name__} has no field {', '.join(unknown)}; it has: {', '.join(hints)}")
        try:
            return kind(**{name: _named(f"{title}.{name}", hints[name], part) for name, part in value.items()})
        except TypeError as error:
            raise ConfigError(f"{kind.__name__}: {error}") from error
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        options = [option for option in arguments if option is not type(None)]
        return None if value is None else from_plain(_fitting(options, value), value)
    if origin is tuple and isinstance(value, list | tuple):
        parts = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(from_plain(part, item) for part, item in zip(parts, value, strict=True))
    if kind is Path:
        return Path(value)
    if origin is typing.Literal and value not in arguments:
        raise ConfigError(f"expected one of {', '.join(map(repr, arguments))}, found {value!r}")
    if kind in _PLAIN:
        words, allowed = _PLAIN[kind]
        if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
            raise ConfigError(f"expected {words}, found {value!r}")
    return value


def _raw_config(model_class: type[nn.Module], config: Any, about: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "class": model_class.__name__,
        "config": dataclasses.asdict(config),
        "about": dict(about),
    }


def _differs(path: Path, raw: Mapping[str, Any]) -> bool:
    """Whether there is a file that says something else."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) != json.loads(json.dumps(raw))
    except FileNotFoundError:
        return False
    except ValueError:  # not even JSON
        return True


def _fitting(kinds: list[Any], value: Any) -> Any:
    """Of several kinds, the dataclass whose fields are those of `value`, else the first."""
    found = set(value) if isinstance(value, Mapping) else None
    classes = [kind for kind in kinds if dataclasses.is_dataclass(kind)]
    return next((kind for kind in classes if {field.name for field in dataclasses.fields(kind)} == found), kinds[0])


def _named(name: str, kind: Any, value: Any) -> Any:
    try:
        return from_plain(kind, value)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        raw = read_json(folder / "config.json", of=f"checkpoint {folder}")
    except DataError as error:
        raise CheckpointError(f"not a checkpoint folder: {error} Run the stage that makes it first.") from error
    check_format(folder / "config.json", raw.get("format"), FORMAT)
    return raw


def _read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, mapped into memory."""
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: expected a checkpoint, found nothing") from error
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: not a whole safetensors file ({error}). It may be cut short or of another format; copy or train "
            "it again."
        ) from error


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in weights.items()}


def _held(value: Tensor, like: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A stored tensor in the precision asked for and the layout of the model's own, copied only where it must be."""
    if dtype is None and value.stride() == like.stride():
        return value
    kept = dtype is None or not value.is_floating_point()
    own = torch.empty_like(like, dtype=value.dtype if kept else dtype, device="cpu")
    return own.copy_(value)
