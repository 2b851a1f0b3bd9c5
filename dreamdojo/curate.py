"""`dreamdojo curate`: video -> dataset, with `report.html`, and `--explain` for one clip."""

from __future__ import annotations

import dataclasses
import io
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from PIL import Image, ImageDraw

from dreamdojo.commands import Command, console
from dreamdojo.curation.curate import curate, work_folder
from dreamdojo.curation.decide import Decision
from dreamdojo.curation.evidence import Evidence, gather
from dreamdojo.curation.rows import ROWS_PATH, read_rows
from dreamdojo.curation.settings import CurateSettings
from dreamdojo.curation.sources import Ego4D, EgoDex, EpicKitchens, Folder, LeRobotEpisodes, Source
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.evaluation.report import (
    Bar,
    Bars,
    Block,
    Card,
    Cards,
    ContactSheet,
    Histogram,
    Histograms,
    Photo,
    Report,
    Row,
    Section,
    Table,
    Verdict,
    write_report,
)
from dreamdojo.training.progress import progress_line

SourceName = Literal["folder", "epic-kitchens", "ego4d", "egodex", "lerobot"]
REPORT_PATH = Path("curation/report.html")
_FOOTER = "A dropped clip is counted under the first stage that objected. Dashed lines are the thresholds."
_PER_KIND, _BINS = 24, 30


@dataclass(kw_only=True)
class Curate(Command):
    """Turn video into a dataset of clips, with a reason for every clip that is left out."""

    videos: tyro.conf.Positional[str]
    """A folder of videos, one video, a pattern, or a URL of either; of the other sources, their folder."""
    out: Path
    """The dataset to write."""
    source: SourceName = "folder"
    """What lies there."""
    annotations: tuple[str, ...] = ()
    """EPIC-KITCHENS-100's CSVs, or Ego4D's JSON files."""
    manifest: str | None = None
    """Ego4D's manifest."""
    explain: str | None = None
    """Do not curate: show the evidence about this clip, as `decisions.parquet` and the report name it."""
    settings: Annotated[CurateSettings, tyro.conf.arg(name="")] = field(default_factory=CurateSettings)

    def run(self) -> None:
        """Curate, or explain."""
        if self.explain is not None:
            self._explain(self.explain)
            return
        rows, started = self.out / ROWS_PATH, time.time()
        try:
            with progress_line("curate") as report:
                result = curate(
                    self.open_source(), self.out, self.settings, progress=lambda d, n: report(d, n, "videos")
                )
            console.print(str(result))
        except DataError:
            rows = work_folder(self.out) / "decisions.parquet"
            if rows.is_file() and rows.stat().st_mtime >= started:  # not of an earlier run
                page = rows.with_name("report.html")
                write_report(page, curation_report(rows, self.settings, self.out.name))
                console.print(f"{page} shows what became of every clip")
            raise
        page = self.out / REPORT_PATH
        write_report(page, curation_report(rows, self.settings, self.out.name))
        console.print(f"{page} shows what became of every clip")

    def open_source(self) -> Source:
        """What the options name.

        Raises:
            ConfigError: if the source needs annotations or a manifest and none are given, or takes none.
        """
        if self.annotations and self.source not in ("epic-kitchens", "ego4d"):
            raise ConfigError(f"expected --annotations with --source epic-kitchens or ego4d only, not {self.source}")
        if self.manifest is not None and self.source != "ego4d":
            raise ConfigError(f"expected --manifest with --source ego4d only, not {self.source}")
        match self.source:
            case "folder":
                return Folder(self.videos)
            case "epic-kitchens":
                if not self.annotations:
                    raise ConfigError("--source epic-kitchens needs --annotations EPIC_100_train.csv")
                return EpicKitchens(videos=self.videos, annotations=self.annotations)
            case "ego4d":
                if self.manifest is None:
                    raise ConfigError("--source ego4d needs --manifest ego4d.json")
                return Ego4D(videos=self.videos, manifest=self.manifest, annotations=self.annotations)
            case "egodex":
                return EgoDex(folder=self.videos)
            case "lerobot":
                return LeRobotEpisodes(root=self.videos)

    def _explain(self, name: str) -> None:
        path = self.out / ROWS_PATH
        rows, _ = read_rows(path if path.is_file() else work_folder(self.out) / "decisions.parquet")
        row = next((row for row in rows if row.clip == name), None)
        if row is None:
            near = sorted(row.clip for row in rows if name.split("@")[0] in row.clip)[:5]
            raise DataError(f"expected a clip of {self.out}, found none named {name!r}. Close to it: {near}")
        recordings = {one.name: one for one in self.open_source().listing().recordings}
        if row.recording not in recordings:
            raise DataError(f"expected the recording {row.recording} in {self.videos}, found none of this name.")
        safe = "".join(sign if sign.isalnum() or sign in "-_." else "_" for sign in name)
        page = work_folder(self.out) / f"explain-{safe}.html"
        evidence = gather(recordings[row.recording], row, self.settings)
        write_report(page, explanation(row, evidence, self.settings))
        verdict = "kept" if row.kept else f"left out by {row.stage}: {row.reason}"
        console.print(f"{name}: {verdict}\n{page} shows the evidence")


def curation_report(path: Path, settings: CurateSettings, name: str) -> Report:
    """What became of every clip: funnel, histograms of the scores, contact sheets by reason.

    Args:
        path: `decisions.parquet`.
        settings: for the thresholds.
        name: of the dataset.
    """
    rows, pictures = read_rows(path)
    kept = [row for row in rows if row.kept]
    seconds = sum(row.end - row.start for row in kept)
    considered = sum(row.end - row.start for row in rows)
    cards = Cards(
        cards=(
            Card(label="Clips kept", value=str(len(kept)), note=f"of {len(rows)} considered"),
            Card(label="Minutes kept", value=f"{seconds / 60:.1f}", note=f"of {considered / 60:.1f} considered"),
            Card(label="Recordings", value=str(len({row.recording for row in rows})), note="each has its own rows"),
        )
    )
    kinds = Counter((row.stage, row.kind) for row in rows)
    sheets: list[Block] = []
    for stage, kind in sorted(kinds):
        own = [row for row in rows if (row.stage, row.kind) == (stage, kind)]
        title = f"{f'{stage}: {kind}' if kind else 'kept'}, {len(own)} in all"
        if shown := [row for row in own if row.clip in pictures]:
            sheets.append(_sheet(shown, pictures, title))
        else:
            lines = tuple(Row(label=row.clip, cells=(row.reason,)) for row in own[:_PER_KIND])
            sheets.append(Table(columns=(title, "reason"), rows=lines))
    sections = [
        Section(title="What is left", lead="", blocks=(cards,)),
        Section(title="Funnel", lead="Each stage sees what the stages above it let through.", blocks=(_funnel(rows),)),
    ]
    if figures := _histograms(rows, settings):
        sections.append(
            Section(title="Scores", lead="Green was kept, red was left out for any reason.", blocks=(figures,))
        )
    sections.append(Section(title="Clips", lead="Names are those that --explain takes.", blocks=tuple(sheets)))
    return Report(
        title=f"Curation of {name}",
        subtitle="Which clips were kept, which were not, and why.",
        facts=(f"stages: {', '.join(settings.active) or 'none'}", f"{settings.fps:g} fps", f"{settings.size} px"),
        sections=tuple(sections),
        footer=_FOOTER,
    )


def _funnel(rows: Sequence[Decision]) -> Bars:
    order = ("source", "check", "cut", "quality", "motion", "hands", "duplicates")
    left = len(rows)
    bars = [Bar(label="considered", count=left)]
    for stage in order:
        lost = Counter(row.kind for row in rows if row.stage == stage)
        if lost:
            left -= sum(lost.values())
            words = ", ".join(f"{count} {kind}" for kind, count in lost.most_common())
            bars.append(Bar(label=f"after {stage}", count=left, note=f"left out: {words}"))
    bars.append(Bar(label="kept", count=left, tone="good"))
    return Bars(bars=tuple(bars))


def _bars(settings: CurateSettings) -> dict[str, float]:
    """The thresholds of the scores that have one."""
    spoiled = dict.fromkeys(("black", "overexposed", "blurred", "frozen"), settings.quality.max_bad)
    return spoiled | {
        "brightness": settings.quality.min_brightness,
        "blur": settings.quality.max_blur,
        "camera": settings.motion.max_camera,
        "explained": settings.motion.min_explained,
        "moving": settings.motion.min_moving,
        "hands": settings.hands.min_present,
        "contact": settings.hands.min_contact,
        "seen_before": settings.duplicates.min_share,
    }


def _histograms(rows: Sequence[Decision], settings: CurateSettings) -> Histograms | None:
    bars = _bars(settings)
    words = {
        "brightness": "mean brightness",
        "blur": "blur, 0 sharp to 1 blurred",
        "camera": "camera, picture widths per second",
        "explained": "share of the texture found again a moment later, beyond chance",
        "moving": "share of the picture that moves on its own",
        "hands": "share of looks with a hand",
        "contact": "contact evidence, in areas of the hand",
        "seen_before": "share of frames seen in another recording",
    }
    figures = []
    for score, title in words.items():
        values = [(row.scores[score], row.kept) for row in rows if score in row.scores]
        if not values:
            continue
        top = max(max(value for value, _ in values), bars[score] * 1.05, 1e-6)
        edges = np.linspace(0, top, _BINS + 1)
        counts = [np.histogram([v for v, k in values if k == side], edges)[0] for side in (True, False)]
        figures.append(
            Histogram(
                title=title,
                edges=tuple(edges.tolist()),
                kept=tuple(counts[0].tolist()),
                dropped=tuple(counts[1].tolist()),
                bar=bars[score],
            )
        )
    return Histograms(figures=tuple(figures)) if figures else None


def _sheet(rows: Sequence[Decision], pictures: dict[str, bytes], title: str) -> ContactSheet:
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _PER_KIND)).round().astype(int))
    photos = tuple(
        Photo(title=rows[place].clip, note=rows[place].reason or rows[place].text, jpeg=pictures[rows[place].clip])
        for place in chosen
    )
    return ContactSheet(photos=photos, title=title)


def explanation(row: Decision, evidence: Sequence[Evidence], settings: CurateSettings) -> Report:
    """The looks at one clip, hand boxes drawn, and its scores beside the thresholds."""
    tone = "good" if row.kept else "bad"
    verdict = Verdict(tone=tone, text="Kept." if row.kept else f"Left out by {row.stage}: {row.reason}.")
    bars = _bars(settings)
    scores = tuple(Row(label=name, cells=(value, bars.get(name))) for name, value in sorted(row.scores.items()))
    blocks: list[Block] = [verdict]
    if scores:
        blocks.append(Table(columns=("score", "value", "threshold"), rows=scores, decimals=4))
    photos = tuple(Photo(title=f"{one.observation.time:.2f} s", note=_words(one), jpeg=draw(one)) for one in evidence)
    looked = Section(
        title="Looks",
        lead="Boxes are hands with their certainty; what was measured stands below.",
        blocks=(ContactSheet(photos=photos, wide=True),),
    )
    return Report(
        title=row.clip,
        subtitle=row.text or "The evidence about one clip.",
        facts=(f"{row.end - row.start:.1f} s", f"stages: {', '.join(settings.active) or 'none'}"),
        sections=(Section(title="Decision", lead="", blocks=tuple(blocks)), looked),
        footer="The looks are closer than those that decided; the scores in the table are those that did.",
    )


def _words(one: Evidence) -> str:
    raw = {key: value for key, value in dataclasses.asdict(one.observation).items() if isinstance(value, float)}
    raw.pop("time")
    hands = one.observation.hands
    seen = "" if hands is None else f"{len(hands)} hands, "
    return seen + ", ".join(f"{key} {value:.3g}" for key, value in raw.items())


def draw(one: Evidence) -> bytes:
    """The picture of a look with its hand boxes, as a JPEG."""
    picture = Image.fromarray(one.picture)
    pen = ImageDraw.Draw(picture)
    for hand in one.observation.hands or ():
        left, top, right, bottom = hand.box
        box = (left * picture.width, top * picture.height, right * picture.width, bottom * picture.height)
        pen.rectangle(box, outline=(255, 64, 64), width=2)
        words = f"{hand.side} {hand.score:.2f}".strip()
        pen.rectangle(pen.textbbox((box[0] + 2, box[1] + 1), words), fill=(0, 0, 0))  # legible on any picture
        pen.text((box[0] + 2, box[1] + 1), words, fill=(255, 255, 255))
        for x, y in hand.landmarks if hand.landmarks is not None else ():
            place = (x * picture.width, y * picture.height)
            pen.ellipse((place[0] - 1.5, place[1] - 1.5, place[0] + 1.5, place[1] + 1.5), fill=(90, 255, 120))
    buffer = io.BytesIO()
    picture.save(buffer, format="jpeg", quality=88)
    return buffer.getvalue()
