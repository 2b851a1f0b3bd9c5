"""One self-contained HTML file from a report: no network, no other files, readable on a phone."""

from __future__ import annotations

import base64
import math
import re
from html import escape
from pathlib import Path

from dreamdojo.evaluation.report.blocks import (
    Bars,
    Block,
    Card,
    Cards,
    Cell,
    Clip,
    ContactSheet,
    CurveGrid,
    Curves,
    DataSheet,
    Histogram,
    Histograms,
    Report,
    Section,
    StageTimes,
    Strip,
    Table,
    Text,
    Verdict,
    VideoGrid,
)
from dreamdojo.evaluation.report.pictures import (
    clip_frames,
    curves_svg,
    grid_columns,
    mp4_uri,
    png_uri,
    strip_picture,
)
from dreamdojo.evaluation.report.style import CSS, SCRIPT
from dreamdojo.files import written_whole
from dreamdojo.metrics import Interval

SIGN_BY_TONE = {"good": "✓", "bad": "✗", "open": "○"}
NOTHING = "–"


def write_report(path: Path | str, report: Report) -> None:
    """Render and write a report, replacing the file only once the new one is whole.

    Raises:
        DataError: if the disk is full.
    """
    with written_whole(Path(path)) as temporary:
        temporary.write_text(render(report), encoding="utf-8")


def render(report: Report) -> str:
    """The report as one HTML document."""
    links = "".join(f'<a href="#{_anchor(s)}">{escape(s.title)}</a>' for s in report.sections)
    facts = "".join(f"<li>{escape(fact)}</li>" for fact in report.facts)
    sections = "\n".join(_section(section) for section in report.sections)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(report.title)}</title>
<style>{CSS}</style>
</head>
<body>
<header class="top">
<h1>{escape(report.title)}</h1>
<p class="subtitle">{escape(report.subtitle)}</p>
<ul class="facts">{facts}</ul>
<nav>{links}</nav>
</header>
<main>
{sections}
</main>
<footer>{escape(report.footer)}</footer>
<script>{SCRIPT}</script>
</body>
</html>
"""


def number(value: float, *, decimals: int, signed: bool = False) -> str:
    """A number for people: fixed decimals, a true minus sign, a dash where there is none."""
    if not math.isfinite(value):
        return NOTHING
    return f"{value:{'+' if signed else ''}z.{decimals}f}".replace("-", "−")


def duration(seconds: float) -> str:
    """Seconds for people, e.g. `48 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _section(section: Section) -> str:
    blocks = "\n".join(_block(block) for block in section.blocks)
    lead = f'<p class="lead">{escape(section.lead)}</p>' if section.lead else ""
    return f'<section id="{_anchor(section)}">\n<h2>{escape(section.title)}</h2>\n{lead}\n{blocks}\n</section>'


def _anchor(section: Section) -> str:
    return re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-")


def _block(block: Block) -> str:
    match block:
        case Verdict():
            sign = SIGN_BY_TONE[block.tone]
            return f'<div class="verdict {block.tone}"><b>{sign}</b><span>{escape(block.text)}</span></div>'
        case Cards():
            return f'<div class="cards">{"".join(_card(card) for card in block.cards)}</div>'
        case Text():
            return f'<p class="text">{escape(block.text)}</p>'
        case Table():
            return _table(block)
        case Curves():
            return f'<div class="figures">{_curves(block)}</div>'
        case CurveGrid():
            return f'<div class="figures">{"".join(_curves(figure) for figure in block.figures)}</div>'
        case VideoGrid():
            clips = "".join(_clip(clip, fps=block.fps) for clip in block.clips)
            return f'<figure><div class="clips">{clips}</div>{_caption(block.caption)}</figure>'
        case Strip():
            return _strip(block)
        case DataSheet():
            items = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in block.items.items())
            return f"<dl>{items}</dl>"
        case StageTimes():
            return _stage_times(block)
        case Bars():
            return _bars(block)
        case Histograms():
            return f'<div class="figures">{"".join(_histogram(figure) for figure in block.figures)}</div>'
        case ContactSheet():
            return _contact_sheet(block)


def _bars(bars: Bars) -> str:
    longest = max((bar.count for bar in bars.bars), default=1) or 1
    rows = "".join(
        f'<li class="{f"is-{bar.tone}" if bar.tone else ""}"><span>{escape(bar.label)}</span>'
        f'<i><u style="width:{100 * bar.count / longest:.1f}%"></u></i>'
        f"<b>{bar.count:g}</b><em>{escape(bar.note)}</em></li>"
        for bar in bars.bars
    )
    return f'<figure><ul class="bars">{rows}</ul>{_caption(bars.caption)}</figure>'


def _histogram(figure: Histogram) -> str:
    """Stacked counts as SVG, with the threshold as a line."""
    width, height, foot = 400.0, 150.0, 20.0
    tallest = max((a + b for a, b in zip(figure.kept, figure.dropped, strict=True)), default=1) or 1
    step, low, high = width / max(len(figure.kept), 1), figure.edges[0], figure.edges[-1]
    parts = []
    for number, (kept, dropped) in enumerate(zip(figure.kept, figure.dropped, strict=True)):
        bottom = height
        for count, colour in ((kept, "var(--good)"), (dropped, "var(--bad)")):
            tall = count / tallest * (height - 4)
            bottom -= tall
            parts.append(
                f'<rect x="{number * step + 0.5:.1f}" y="{bottom:.1f}" width="{step - 1:.1f}" height="{tall:.1f}" '
                f'fill="{colour}" opacity="0.75"/>'
            )
    line = ""
    if figure.bar is not None and low <= figure.bar <= high and high > low:
        x = width * (figure.bar - low) / (high - low)
        line = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height}" stroke="var(--ink)" stroke-dasharray="4 3"/>'
    ticks = "".join(
        f'<text x="{x}" y="{height + 15}" text-anchor="{anchor}" font-size="12" fill="var(--ink-2)">{value:.3g}</text>'
        for x, anchor, value in ((0, "start", low), (width, "end", high))
    )
    svg = f'<svg viewBox="0 0 {width} {height + foot}" role="img">{"".join(parts)}{line}{ticks}</svg>'
    return f'<figure class="figure"><div class="caption">{escape(figure.title)}</div>{svg}</figure>'


def _contact_sheet(sheet: ContactSheet) -> str:
    photos = "".join(
        f'<div class="photo"><img loading="lazy" alt="{escape(photo.title)}" '
        f'src="data:image/jpeg;base64,{base64.b64encode(photo.jpeg).decode()}">'
        f"<b>{escape(photo.title)}</b><span>{escape(photo.note)}</span></div>"
        for photo in sheet.photos
    )
    kind = "sheet wide" if sheet.wide else "sheet"
    heading = f"<h3>{escape(sheet.title)}</h3>" if sheet.title else ""
    return f'<figure>{heading}<div class="{kind}">{photos}</div></figure>'


def _caption(text: str) -> str:
    return f"<figcaption>{escape(text)}</figcaption>" if text else ""


def _card(card: Card) -> str:
    tone = f" is-{card.tone}" if card.tone else ""
    note = f'<div class="note">{escape(card.note)}</div>' if card.note else ""
    return (
        f'<div class="card{tone}"><div class="label">{escape(card.label)}</div>'
        f'<div class="value">{escape(card.value)}</div>{note}</div>'
    )


def _table(table: Table) -> str:
    heads = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    ends = [
        abs(end)
        for row in table.rows
        for cell in row.cells
        if isinstance(cell, Interval)
        for end in (cell.low, cell.high, cell.mean)
        if math.isfinite(end)
    ]
    reach = max(ends, default=1.0) or 1.0
    rows = "".join(
        f'<tr{" class=quiet" if row.quiet else ""}><th scope="row">{escape(row.label)}</th>'
        + "".join(_cell(cell, table, reach) for cell in row.cells)
        + "</tr>"
        for row in table.rows
    )
    opening = f'<table style="--columns: {len(table.columns)}">'
    body = f'<div class="scroll">{opening}<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    return f"<figure>{body}{_caption(table.caption)}</figure>"


def _cell(cell: Cell, table: Table, reach: float) -> str:
    if cell is None:
        return f"<td>{NOTHING}</td>"
    if isinstance(cell, str):
        return f'<td><span class="words">{escape(cell)}</span></td>'
    unit = f" {escape(table.unit)}" if table.unit else ""
    if isinstance(cell, Interval):
        if not math.isfinite(cell.mean):
            return f"<td>{NOTHING}</td>"
        mean = number(cell.mean, decimals=table.decimals, signed=table.differences)
        low, high = (number(end, decimals=table.decimals, signed=table.differences) for end in (cell.low, cell.high))
        tone, whisker = "", ""
        if table.differences:
            good, bad = (
                (cell.above_zero, cell.below_zero)
                if table.better == "higher"
                else (cell.below_zero, cell.above_zero)
                if table.better == "lower"
                else (False, False)
            )
            tone = ' class="is-good"' if good else ' class="is-bad"' if bad else ""
            colour = "var(--good)" if good else "var(--bad)" if bad else "var(--ink-3)"
            whisker = _whisker(cell, reach=reach, colour=colour)
        return (
            f'<td{tone} title="{cell.count} clips or episodes"><span class="number">{mean}{unit}</span>'
            f'<span class="range">[{low}, {high}]</span>{whisker}</td>'
        )
    return f"<td>{number(cell, decimals=table.decimals, signed=table.differences)}{unit}</td>"


def _whisker(interval: Interval, *, reach: float, colour: str) -> str:
    """A mean and its interval on a line through zero, to the scale of the whole table."""
    if not math.isfinite(interval.low):
        return ""
    mean, low, high = (46 + 43 * x / reach for x in (interval.mean, interval.low, interval.high))
    return (
        '<svg viewBox="0 0 92 12" aria-hidden="true"><line x1="46" x2="46" y1="0" y2="12" stroke="var(--rule)"/>'
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="6" y2="6" stroke="{colour}" stroke-width="2"/>'
        f'<circle cx="{mean:.1f}" cy="6" r="3.2" fill="{colour}"/></svg>'
    )


def _curves(curves: Curves) -> str:
    return f'<figure class="figure">{curves_svg(curves)}{_caption(curves.caption)}</figure>'


def _clip(clip: Clip, *, fps: float) -> str:
    frames = clip_frames(clip)
    columns = grid_columns(len(clip.panels))
    rows = math.ceil(len(clip.panels) / columns)
    labels = "".join(
        f'<span style="left:{100 * (i % columns) / columns:g}%;top:{100 * (i // columns) / rows:g}%">'
        f"{escape(panel.label)}</span>"
        for i, panel in enumerate(clip.panels)
    )
    length = len(frames)
    return (
        f'<div class="clip" data-fps="{fps:g}" data-frames="{length}" data-context="{clip.context}">'
        f'<div class="title">{escape(clip.title)}<span class="now"></span></div>'
        f'<div class="screen"><video muted loop playsinline preload="auto" poster="{png_uri(frames[-1])}" '
        f'src="{mp4_uri(frames, fps=fps)}"></video>{labels}</div>'
        f'<div class="time"><i></i><u style="left:{100 * clip.context / length:.1f}%"></u></div></div>'
    )


def _strip(strip: Strip) -> str:
    heads = "".join(f"<span>{escape(column)}</span>" for column in strip.columns)
    names = "".join(f"<span>{escape(panel.label)}</span>" for panel in strip.clip.panels)
    return (
        f'<figure><div class="strip"><div class="heads">{heads}</div><div class="names">{names}</div>'
        f'<img src="{png_uri(strip_picture(strip))}" alt="{escape(strip.clip.title)}"></div>'
        f"{_caption(strip.caption)}</figure>"
    )


def _stage_times(times: StageTimes) -> str:
    total = sum(times.seconds.values())
    shade = [
        f"color-mix(in oklab, var(--line-1) {100 - 80 * i / max(len(times.seconds) - 1, 1):.0f}%, var(--line-2))"
        for i in range(len(times.seconds))
    ]
    bar = "".join(
        f'<i style="flex:{max(seconds, 1e-3):.3f};background:{colour}" title="{escape(name)}"></i>'
        for (name, seconds), colour in zip(times.seconds.items(), shade, strict=True)
    )
    items = "".join(
        f'<li><i style="background:{colour}"></i>{escape(name)}<span>{duration(seconds)}</span></li>'
        for (name, seconds), colour in zip(times.seconds.items(), shade, strict=True)
    )
    caption = f"{duration(total)} in all. {times.note}".strip()
    return f'<figure><div class="bar">{bar}</div><ul class="stages">{items}</ul>{_caption(caption)}</figure>'
