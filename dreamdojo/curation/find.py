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
    others: tuple[str, ...] = ()
    """Files of a searched folder that are not named like videos."""
    closed: tuple[tuple[str, str], ...] = ()
    """Folders that could not be searched, and why."""


def files_below(folder: Path) -> tuple[list[Path], list[tuple[str, str]]]:
    """The files of a folder and its subfolders, links followed, and the subfolders that cannot be listed, with reasons.

    A link to what does not exist counts as a file: whoever opens it will say so. A link back to a folder that is being
    searched leads nowhere new.
    """
    files: list[Path] = []
    closed: list[tuple[str, str]] = []

    def walk(inside: Path, above: frozenset[Path]) -> None:
        place = inside.resolve()
        if place in above:
            return
        try:
            entries = [(path, path.is_dir()) for path in inside.iterdir()]
        except OSError as error:
            words = f"expected a folder that can be listed, found {error.strerror}"
            closed.append((inside.relative_to(folder).as_posix(), words))
            return
        for path, is_folder in entries:
            if is_folder:
                walk(path, above | {place})
            elif path.is_file() or path.is_symlink():
                files.append(path)

    walk(folder, frozenset())
    return sorted(files), sorted(closed)


def find_videos(videos: Path | str | Sequence[Path]) -> FoundVideos:
    """The files behind a folder (with its subfolders), a pattern such as `clips/*.mp4`, or a list of files.

    Raises:
        DataError: if there are none, or a named file does not exist.
    """
    others: list[Path] = []
    closed: list[tuple[str, str]] = []
    if not isinstance(videos, (str, Path)):
        paths = sorted(Path(path) for path in videos)
    elif (folder := Path(videos)).is_dir():
        files, closed = files_below(folder)
        paths = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES]
        others = [path for path in files if path.suffix.lower() not in VIDEO_SUFFIXES]
    elif any(sign in str(videos) for sign in "*?["):
        pattern = Path(videos)
        fixed = list(pattern.parts[: _first_wild(pattern)])
        base = Path(*fixed) if fixed else Path()
        paths = sorted(path for path in base.glob(str(Path(*pattern.parts[len(fixed) :]))) if path.is_file())
    else:
        paths = [folder]
    if missing := [path for path in paths if not (path.is_file() or path.is_symlink())]:
        raise DataError(f"expected a video file, a folder or a pattern, found nothing at {missing[0]}. Check the path.")
    if not paths:
        also = f" and {len(closed)} folders that cannot be listed ({closed[0][1]})" if closed else ""
        raise DataError(
            f"expected video files in {videos}, found none among {len(others)} files{also}. "
            f"Names of videos end in {', '.join(sorted(VIDEO_SUFFIXES))}."
        )
    places = {path: _place(path) for path in [*paths, *others]}
    base = (
        _place(Path(videos))
        if isinstance(videos, (str, Path)) and Path(videos).is_dir()
        else Path(os.path.commonpath([places[path].parent for path in paths]))
    )
    names = {path: _as_text(place.relative_to(base).as_posix()) for path, place in places.items()}
    return FoundVideos(
        paths=tuple(paths),
        names={path: names[path] for path in paths},
        others=tuple(names[path] for path in others),
        closed=tuple((_as_text(name), words) for name, words in closed),
    )


def _place(path: Path) -> Path:
    """Where a path is as it is named, not where links lead to."""
    return Path(os.path.normpath(path.absolute()))


def _as_text(name: str) -> str:
    """A name that UTF-8 knows: bytes of another encoding are spelled out."""
    return name.encode("utf-8", "backslashreplace").decode()


def _first_wild(pattern: Path) -> int:
    return next(i for i, part in enumerate(pattern.parts) if any(sign in part for sign in "*?["))
