"""Files are written whole: under a temporary name first, then renamed into place."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from dreamdojo.errors import ConfigError, DataError

_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def disk_full(path: Path, *, needed: int | None = None) -> Iterator[None]:
    """Turn "no space left" while writing below `path` into an error that a person can act on.

    Args:
        path: what was being written.
        needed: bytes that the write takes, where known.

    Raises:
        DataError: saying how much was needed and how much is free.
    """
    try:
        yield
    except Exception as error:
        # libraries such as safetensors report the system's error as text of their own
        if getattr(error, "errno", None) not in _FULL and "No space left" not in str(error):
            raise
        wanted = "" if needed is None else f"{_megabytes(needed)} of "
        raise DataError(
            f"{path}: expected {wanted}free disk space to write it, found the disk full "
            f"({_free(path)} free). Nothing half-written was left under its final name; free some space or choose "
            "another folder."
        ) from error


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends well, remove it otherwise.

    Raises:
        DataError: if the disk is full. What stood under `path` before is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = partial_path(path)
    try:
        with disk_full(path):
            yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def folder_written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; rename it to `path` when the block ends well, remove it otherwise.

    Raises:
        ConfigError: if `path` exists and is not an empty folder.
        DataError: if the disk is full.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"{path}: expected a new or empty folder to write to, found files. Choose another folder.")
    temporary = partial_path(path)
    temporary.mkdir(parents=True)
    try:
        with disk_full(path):
            yield temporary
        if path.exists():
            path.rmdir()
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write readable JSON, whole, refusing NaN, which is not JSON."""
    with written_whole(path) as temporary:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path, *, of: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        DataError: naming `of`, the thing it should describe, if it is missing or not JSON.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{of}: expected {path}, found no such file. Check the path.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{of}: expected JSON in {path}, found {error}. The file may be cut short.") from error
    if not isinstance(value, dict):
        raise DataError(f"{of}: expected a JSON object in {path}, found a {type(value).__name__}")
    return value


def partial_path(final: Path) -> Path:
    """Where something is built before it is renamed to `final`: its own name for each process."""
    return final.with_name(f".{final.name}.partial-{os.getpid()}")


def locked(path: Path) -> BinaryIO:
    """A file that one process holds until it closes it or ends; nobody is asked to wait.

    Raises:
        DataError: if another process holds it.
    """
    file = path.open("ab")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise DataError(
            f"{path.parent}: expected to be the only one to write here, found another process at it. Wait until it has "
            "finished and run this again."
        ) from error
    return file


def remove_empty_folders(root: Path) -> None:
    """Remove folders below `root` that hold nothing."""
    for folder in sorted((path for path in root.rglob("*") if path.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()


def _free(path: Path) -> str:
    for place in (path, *path.parents):
        if place.exists():
            return _megabytes(shutil.disk_usage(place).free)
    return "an unknown amount"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
