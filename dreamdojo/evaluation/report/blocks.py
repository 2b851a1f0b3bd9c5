"""What a report is made of: plain records, without a word of HTML.

A report is a title, some facts, and sections; a section is a heading, one sentence that says what to look for, and
blocks. Whoever evaluates fills these in; `render` turns them into one file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import UInt8
from torch import Tensor

from dreamdojo.errors import ConfigError
from dreamdojo.metrics import Interval

Tone = Literal["good", "bad", "open"]
"""What a result says: as hoped, against it, or nothing either way."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A finding in words."""

    tone: Tone
    text: str


@dataclass(frozen=True, kw_only=True)
class Card:
    """One headline number."""

    label: str
    value: str
    note: str = ""
    """What the number stands beside: its interval, its baseline."""
    tone: Tone | None = None


@dataclass(frozen=True, kw_only=True)
class Cards:
    """Headline numbers side by side."""

    cards: tuple[Card, ...]


@dataclass(frozen=True, kw_only=True)
class Text:
    """A paragraph."""

    text: str


Cell = str | float | Interval | None
"""What a table cell may hold; None is a number that does not exist."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A table row."""

    label: str
    cells: tuple[Cell, ...]
    quiet: bool = False
    """A baseline or a bound, set back behind the rows that matter."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Numbers with their intervals.

    With `differences`, intervals are drawn as whiskers around zero and coloured by `better`: an interval that contains
    zero stays grey, whatever its mean.
    """

    columns: tuple[str, ...]
    """Column heads, the first one above the row labels."""
    rows: tuple[Row, ...]
    caption: str = ""
    decimals: int = 2
    unit: str = ""
    differences: bool = False
    better: Literal["higher", "lower", "none"] = "higher"

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.cells) != len(self.columns) - 1:
                raise ConfigError(
                    f"table row {row.label!r} has {len(row.cells)} cells under {len(self.columns) - 1} columns"
                )


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Means with 95 % bands over a common axis."""

    x: tuple[float, ...]
    lines: dict[str, tuple[Interval, ...]]
    """Name -> one interval per `x`."""
    x_label: str
    y_label: str
    caption: str = ""
    quiet: tuple[str, ...] = ()
    """Lines that are baselines or bounds: grey and dashed."""


@dataclass(frozen=True, kw_only=True)
class CurveGrid:
    """Several small figures side by side."""

    figures: tuple[Curves, ...]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One of the pictures that play side by side."""

    label: str
    frames: UInt8[Tensor, "t c h w"]


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Several views of the same moments, in step with each other."""

    title: str
    panels: tuple[Panel, ...]
    context: int
    """How many frames at the start were given to the models."""


@dataclass(frozen=True, kw_only=True)
class VideoGrid:
    """Clips that play in a loop, every panel of a clip in one file so that none can run ahead."""

    clips: tuple[Clip, ...]
    fps: float
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Strip:
    """The same clip on paper: one row per panel, one column per moment."""

    clip: Clip
    frames: tuple[int, ...]
    """Frame numbers from the start of the clip."""
    columns: tuple[str, ...]
    """What to call them."""
    caption: str = ""

    def __post_init__(self) -> None:
        if len(self.frames) != len(self.columns):
            raise ConfigError(f"a strip of {len(self.frames)} frames has {len(self.columns)} column names")


@dataclass(frozen=True, kw_only=True)
class DataSheet:
    """What the numbers were made from and with."""

    items: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class StageTimes:
    """How long each stage took."""

    seconds: dict[str, float]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A count."""

    label: str
    count: float
    note: str = ""
    tone: Tone | None = None


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Counts under each other, to one scale."""

    bars: tuple[Bar, ...]
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """How many have which value; what was kept stands below what was dropped."""

    title: str
    edges: tuple[float, ...]
    """Rising; one more than there are counts."""
    kept: tuple[int, ...]
    dropped: tuple[int, ...]
    bar: float | None = None
    """The threshold, where there is one."""

    def __post_init__(self) -> None:
        if not len(self.edges) == len(self.kept) + 1 == len(self.dropped) + 1:
            raise ConfigError(f"histogram {self.title!r}: {len(self.edges)} edges for {len(self.kept)} counts")


@dataclass(frozen=True, kw_only=True)
class Histograms:
    """Several of them side by side."""

    figures: tuple[Histogram, ...]


@dataclass(frozen=True, kw_only=True)
class Photo:
    """A picture with words under it."""

    title: str
    note: str
    jpeg: bytes


@dataclass(frozen=True, kw_only=True)
class ContactSheet:
    """Pictures in rows."""

    photos: tuple[Photo, ...]
    title: str = ""
    wide: bool = False
    """Larger pictures, for looking at details."""


Block = (
    Bars
    | Histograms
    | ContactSheet
    | Verdict
    | Cards
    | Text
    | Table
    | Curves
    | CurveGrid
    | VideoGrid
    | Strip
    | DataSheet
    | StageTimes
)


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading, what to look for, and what is to be seen."""

    title: str
    lead: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """A whole report."""

    title: str
    subtitle: str
    facts: tuple[str, ...]
    """Short remarks under the title: preset, machine, commit, date."""
    sections: tuple[Section, ...]
    footer: str = (
        "Brackets are 95 % intervals over clips or episodes, which are the unit everywhere. A difference whose "
        "interval contains zero is not claimed. “–” means that no clip has such a number."
    )
    """How to read it."""
