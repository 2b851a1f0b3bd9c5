"""EPIC-KITCHENS-100: its annotation CSVs, and `VIDEO_ID.MP4` files anywhere below a folder.

The columns are those of `EPIC_100_train.csv`; times are `HH:MM:SS.ff`. Times are followed, not frame numbers, since
videos of 50 and of 59.94 frames per second are mixed.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dreamdojo.curation.find import VIDEO_SUFFIXES, files_below
from dreamdojo.curation.sources.recording import Listing, Recording, Refused, Segment, in_order
from dreamdojo.curation.sources.remote import is_remote, list_files, read_text
from dreamdojo.errors import DataError

_NEEDED = ("narration_id", "participant_id", "video_id", "start_timestamp", "stop_timestamp", "narration")


@dataclass(frozen=True, kw_only=True)
class EpicKitchens:
    """Narrated actions of EPIC-KITCHENS-100."""

    videos: str
    """Folder or URL with the videos, in any subfolders."""
    annotations: Sequence[str]
    """CSV files."""

    def listing(self) -> Listing:
        """One recording per video; people are kept apart in the splits.

        Raises:
            DataError: if a CSV cannot be read or lacks a column.
        """
        segments: dict[str, list[Segment]] = defaultdict(list)
        people: dict[str, str] = {}
        refused: list[Refused] = []
        for path in self.annotations:
            for row in _rows(path):
                name = f"{row['video_id']}#{row['narration_id']}"
                try:
                    segment = _segment(row)
                except ValueError as error:
                    refused.append(Refused(name=name, reason=f"annotation: {error}", kind="annotation"))
                    continue
                segments[row["video_id"]].append(segment)
                people[row["video_id"]] = row["participant_id"]
        files, closed = videos_by_stem(self.videos)
        refused += closed
        recordings = []
        for video, parts in sorted(segments.items()):
            if video not in files:
                words = f"no video of this id; {len(parts)} narrations name it"
                refused.append(Refused(name=video, reason=words, kind="no video"))
                continue
            person = people[video]
            recordings.append(
                Recording(
                    name=video,
                    video=files[video],
                    group=person,
                    segments=in_order(parts),
                    facts={"corpus": "EPIC-KITCHENS-100", "participant": person},
                )
            )
        return Listing(
            recordings=tuple(recordings),
            refused=tuple(refused),
            others=tuple(sorted(Path(path).name for stem, path in files.items() if stem not in segments)),
        )


def videos_by_stem(folder: str) -> tuple[dict[str, str], list[Refused]]:
    """File name without its ending -> path, of all videos below a folder; and the folders that cannot be listed.

    Raises:
        DataError: if there are none, or two have one name.
    """
    closed: list[Refused] = []
    if is_remote(folder):
        paths = list_files(folder)[1]
    else:
        files, shut = files_below(Path(folder))
        paths = [str(path) for path in files]
        closed = [Refused(name=name, reason=words, kind="cannot be read") for name, words in shut]
    videos: dict[str, str] = {}
    for path in paths:
        stem, dot, suffix = path.replace("\\", "/").rsplit("/", 1)[-1].rpartition(".")
        if f"{dot}{suffix}".lower() not in VIDEO_SUFFIXES:
            continue
        if stem in videos:
            raise DataError(f"{folder}: expected one video named {stem}, found {videos[stem]} and {path}. Remove one.")
        videos[stem] = path
    if not videos:
        raise DataError(f"{folder}: expected videos below it, found none. Check the path.")
    return videos, closed


def seconds(text: str) -> float:
    """`HH:MM:SS.ff` -> seconds.

    Raises:
        ValueError: if it is no such time.
    """
    parts = text.strip().split(":")
    if len(parts) != 3:
        raise ValueError(f"expected a time like 00:01:02.34, found {text!r}")
    hours, minutes, rest = int(parts[0]), int(parts[1]), float(parts[2])
    if hours < 0 or not (0 <= minutes < 60 and 0 <= rest < 60):
        raise ValueError(f"expected a time like 00:01:02.34, found {text!r}")
    return 3600.0 * hours + 60.0 * minutes + rest


def _segment(row: dict[str, str]) -> Segment:
    start, end = seconds(row["start_timestamp"]), seconds(row["stop_timestamp"])
    if end <= start:
        raise ValueError(f"it stops at {row['stop_timestamp']}, not after its start at {row['start_timestamp']}")
    return Segment(start=start, end=end, text=row["narration"], name=row["narration_id"])


def _rows(path: str) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    missing = [column for column in _NEEDED if column not in (reader.fieldnames or [])]
    if missing:
        raise DataError(
            f"{path}: expected the columns of EPIC-KITCHENS-100's annotations, found none named {', '.join(missing)}. "
            "Give EPIC_100_train.csv or EPIC_100_validation.csv."
        )
    return [{key: value or "" for key, value in row.items() if key} for row in reader]
