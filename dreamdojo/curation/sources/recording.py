"""What every source speaks of: recordings, and the parts of them that someone has put words to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from dreamdojo.dataset.episode import MetaValue


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A part of a recording."""

    start: float
    """Seconds since the first frame of the file."""
    end: float
    """Seconds since the first frame of the file."""
    text: str = ""
    """What is being done."""
    name: str = ""
    """By which its source knows it, e.g. a narration's id."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One video file, or a part of one."""

    name: str
    """Unique in its source, and the same on every machine."""
    video: str
    """Path or URL of the file."""
    group: str
    """Recordings of one group are all in the train split or all in the test split: one person, one sitting."""
    segments: tuple[Segment, ...] | None = None
    """The parts to take, in the order of their starts; the whole file where None."""
    facts: Mapping[str, MetaValue] = field(default_factory=dict)
    """What else the source states; it goes into the episodes' meta."""
    hands: str | None = None
    """An EgoDex file whose tracked joints say where the hands are; a detector is not asked then."""


@dataclass(frozen=True, kw_only=True)
class Refused:
    """Something a source names that cannot be used."""

    name: str
    """Of the recording or the annotation."""
    reason: str
    """In words."""
    kind: Literal["annotation", "not annotated", "no video", "no poses", "cannot be read"]
    """What it lacks; an annotation is no file, everything else is counted as one."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Everything a source names."""

    recordings: tuple[Recording, ...]
    """In the order of their names."""
    refused: tuple[Refused, ...] = ()
    """What it names and cannot be used; each becomes a row of the report."""
    others: tuple[str, ...] = ()
    """Files beside the videos that were not opened."""


@runtime_checkable
class Source(Protocol):
    """A corpus of video."""

    def listing(self) -> Listing:
        """What there is, without opening a video.

        Raises:
            DataError: if the source itself cannot be read.
        """
        ...


def in_order(segments: list[Segment]) -> tuple[Segment, ...]:
    """Segments by their starts."""
    return tuple(sorted(segments, key=lambda segment: (segment.start, segment.end, segment.name)))
