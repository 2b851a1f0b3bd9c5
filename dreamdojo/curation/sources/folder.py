"""A folder, a pattern or a list of video files."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dreamdojo.curation.find import VIDEO_SUFFIXES, find_videos
from dreamdojo.curation.sources.recording import Listing, Recording, Refused
from dreamdojo.curation.sources.remote import is_remote, list_files
from dreamdojo.errors import DataError


@dataclass(frozen=True)
class Folder:
    """Videos named by a folder (with its subfolders), a pattern such as `clips/*.mp4`, a URL of either, or a list."""

    videos: Path | str | Sequence[Path]
    """Where they are."""

    def listing(self) -> Listing:
        """Every video is a recording of its own."""
        if isinstance(self.videos, str) and is_remote(self.videos):
            return self._remote(self.videos)
        found = find_videos(self.videos)
        return Listing(
            recordings=tuple(
                Recording(name=found.names[path], video=str(path), group=found.names[path]) for path in found.paths
            ),
            refused=tuple(Refused(name=name, reason=words, kind="cannot be read") for name, words in found.closed),
            others=found.others,
        )

    @staticmethod
    def _remote(where: str) -> Listing:
        base, files = list_files(where)
        names = {path: path[len(base) :].lstrip("/") if path.startswith(base) else path for path in files}
        videos = [path for path in files if posixpath.splitext(path)[1].lower() in VIDEO_SUFFIXES or path == where]
        if not videos:
            raise DataError(f"expected video files in {where}, found none among {len(files)} files.")
        return Listing(
            recordings=tuple(Recording(name=names[path], video=path, group=names[path]) for path in videos),
            others=tuple(names[path] for path in files if path not in videos),
        )
