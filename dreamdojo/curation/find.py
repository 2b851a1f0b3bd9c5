"""Finding the video files that a person means by a folder, a pattern or a list."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dreamdojo.errors import DataError

VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".3gp")
)
"""Names by which files in a folder count as videos; files named one by one may have any."""


@dataclass(frozen=True, kw_only=True)
class FoundVideos:
    """Input files, and what they are called in reports."""

    paths: tuple[Path, ...]
    """In the order of their names."""
    names: dict[Path, str]
    """Path relative to the folder that all of them share, so that no report holds a path of this machine."""
    others: tuple[str, ...]
    """Files of a searched folder that are not named like videos."""


def find_videos(videos: Path | str | Sequence[Path]) -> FoundVideos:
    """The files behind a folder (with its subfolders), a pattern such as `clips/*.mp4`, or a list of files.

    Raises:
        DataError: if there are none, or a named file does not exist.
    """
    others: list[Path] = []
    if not isinstance(videos, (str, Path)):
        paths = sorted(Path(path) for path in videos)
    elif (folder := Path(videos)).is_dir():
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        paths = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES]
        others = [path for path in files if path.suffix.lower() not in VIDEO_SUFFIXES]
    elif any(sign in str(videos) for sign in "*?["):
        pattern = Path(videos)
        fixed = list(pattern.parts[: _first_wild(pattern)])
        base = Path(*fixed) if fixed else Path()
        paths = sorted(path for path in base.glob(str(Path(*pattern.parts[len(fixed) :]))) if path.is_file())
    else:
        paths = [folder]
    if missing := [path for path in paths if not path.is_file()]:
        raise DataError(f"expected a video file, a folder or a pattern, found nothing at {missing[0]}. Check the path.")
    if not paths:
        raise DataError(
            f"expected video files in {videos}, found none among {len(others)} files. "
            f"Names of videos end in {', '.join(sorted(VIDEO_SUFFIXES))}."
        )
    shared = Path(videos) if isinstance(videos, (str, Path)) and Path(videos).is_dir() else None
    base = shared.resolve() if shared else Path(os.path.commonpath([path.resolve().parent for path in paths]))
    return FoundVideos(
        paths=tuple(paths),
        names={path: path.resolve().relative_to(base).as_posix() for path in paths},
        others=tuple(path.resolve().relative_to(base).as_posix() for path in others),
    )


def _first_wild(pattern: Path) -> int:
    return next(i for i, part in enumerate(pattern.parts) if any(sign in part for sign in "*?["))
