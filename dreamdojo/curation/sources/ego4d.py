"""Ego4D: its manifest (`ego4d.json` or `manifest.csv`), narrations or other annotations, and `VIDEO_UID.mp4` files.

`narration.json` holds moments: `{UID: {"narration_pass_1": {"narrations": [{"timestamp_sec", "narration_text"}]}}}`;
each narration speaks of the time up to the next, of whichever pass, at most `moment` seconds. Files of the other kind
hold `{"videos": [{"video_uid", "clips" | "annotated_intervals": [...]}]}`, whose parts have a start and an end.
"""

from __future__ import annotations

import csv
import io
import json
import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dreamdojo.curation.sources.epic_kitchens import videos_by_stem
from dreamdojo.curation.sources.recording import Listing, Recording, Refused, Segment, in_order
from dreamdojo.curation.sources.remote import read_text
from dreamdojo.errors import DataError

_STARTS = ("start_sec", "video_start_sec", "action_start_sec", "clip_start_sec")
_ENDS = ("end_sec", "video_end_sec", "action_end_sec", "clip_end_sec")
_WORDS = ("narration_text", "label", "narration", "verb_label", "text")


@dataclass(frozen=True, kw_only=True)
class Ego4D:
    """Videos of Ego4D."""

    videos: str
    """Folder or URL with the videos, named by their uid."""
    manifest: str
    """`ego4d.json` or a `manifest.csv`."""
    annotations: Sequence[str] = ()
    """JSON files; without any, whole videos are taken."""
    moment: float = 8.0
    """Seconds that a narration speaks for at most."""

    def listing(self) -> Listing:
        """One recording per video of the manifest; what one person or device filmed is kept together in the splits.

        Raises:
            DataError: if a file is not of its format.
        """
        refused: list[Refused] = []
        segments: dict[str, list[Segment]] = defaultdict(list)
        for path in self.annotations:
            for uid, name, part in _parts(path, self.moment):
                if part is None:
                    words = "annotation: no start before an end"
                    refused.append(Refused(name=f"{uid}#{name}", reason=words, kind="annotation"))
                else:
                    segments[uid].append(part)
        files, closed = videos_by_stem(self.videos)
        refused += closed
        recordings, known = [], set()
        for entry in _manifest(self.manifest):
            uid = str(entry["video_uid"])
            known.add(uid)
            if uid not in files:
                words = "in the manifest, but there is no video of this uid"
                refused.append(Refused(name=uid, reason=words, kind="no video"))
                continue
            if self.annotations and uid not in segments:
                words = "no annotation speaks of this video"
                refused.append(Refused(name=uid, reason=words, kind="not annotated"))
                continue
            person = entry.get("fb_participant_id")
            source = entry.get("video_source") or ""
            has_person = person not in (None, "") and not (isinstance(person, float) and math.isnan(person))
            recordings.append(
                Recording(
                    name=uid,
                    video=files[uid],
                    group=f"{source}/{person}" if has_person else uid,
                    segments=in_order(segments[uid]) if self.annotations else None,
                    facts={"corpus": "Ego4D", "video_source": str(source)},
                )
            )
        refused += [
            Refused(name=uid, reason="annotated, but not in the manifest", kind="no video")
            for uid in sorted(set(segments) - known)
        ]
        return Listing(
            recordings=tuple(sorted(recordings, key=lambda recording: recording.name)),
            refused=tuple(refused),
            others=tuple(sorted(set(files) - known)),
        )


def _manifest(path: str) -> list[dict[str, Any]]:
    if path.endswith(".csv"):
        entries: Any = list(csv.DictReader(io.StringIO(read_text(path), newline="")))
    else:
        raw = _json(path)
        entries = raw.get("videos") if isinstance(raw, dict) else raw
    if not isinstance(entries, list) or not all(isinstance(e, dict) and e.get("video_uid") for e in entries):
        raise DataError(f"{path}: expected Ego4D's manifest, a list of videos with a video_uid, found something else.")
    return entries


def _parts(path: str, moment: float) -> Iterator[tuple[str, str, Segment | None]]:
    """Video uid, name and segment of every annotation of a file; no segment where its times make no sense."""
    raw = _json(path)
    if not isinstance(raw, dict):
        raise DataError(f"{path}: expected a JSON object of Ego4D's annotations, found a {type(raw).__name__}.")
    if "videos" not in raw or not isinstance(raw["videos"], list):
        narrated = raw.get("videos", raw)
        for uid, passes in narrated.items():
            if isinstance(passes, dict):
                yield from _narrations(str(uid), passes, moment)
        return
    for video in raw["videos"]:
        if not isinstance(video, dict) or not video.get("video_uid"):
            raise DataError(f"{path}: expected a video_uid in every entry of videos, found {str(video)[:80]!r}.")
        uid = str(video["video_uid"])
        for number, part in enumerate(_timed(video)):
            start, end = _number(part, _STARTS), _number(part, _ENDS)
            name = str(part.get("annotation_uid") or part.get("clip_uid") or number)
            words = next((str(part[key]) for key in _WORDS if part.get(key)), "")
            valid = start is not None and end is not None and 0 <= start < end
            yield uid, name, Segment(start=start, end=end, text=words, name=name) if valid else None  # pyright: ignore


def _timed(node: Any) -> Iterator[dict[str, Any]]:
    """The innermost objects with a start and an end."""
    if isinstance(node, list):
        for each in node:
            yield from _timed(each)
    elif isinstance(node, dict):
        inner = [part for value in node.values() if isinstance(value, (list, dict)) for part in _timed(value)]
        if inner:
            yield from inner
        elif _number(node, _STARTS) is not None or _number(node, _ENDS) is not None:
            yield node


def _narrations(uid: str, passes: dict[str, Any], moment: float) -> Iterator[tuple[str, str, Segment | None]]:
    said: list[tuple[str, dict[str, Any]]] = []
    for key, content in passes.items():
        if key.startswith("narration_pass") and isinstance(content, dict):
            own = sorted(content.get("narrations", []), key=lambda n: n.get("timestamp_sec") or 0.0)
            said += [(f"{key}#{number}", one) for number, one in enumerate(own)]
    starts = sorted({t for _, one in said if (t := _number(one, ("timestamp_sec",))) is not None})
    for name, one in said:
        start = _number(one, ("timestamp_sec",))
        if start is None or start < 0:
            yield uid, name, None
        else:
            place = bisect_right(starts, start)
            end = min([start + moment, *starts[place : place + 1]])
            words = str(one.get("narration_text", "")).replace("#C C ", "").replace("#c c ", "").strip()
            yield uid, name, Segment(start=start, end=end, text=words, name=name)


def _number(node: dict[str, Any], keys: Sequence[str]) -> float | None:
    value = next((node[key] for key in keys if key in node), None)
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _json(path: str) -> Any:
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: expected JSON, found {error}. The file may be cut short.") from error
