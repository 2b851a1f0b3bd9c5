"""The report is one valid file that holds everything it was given, and its words say no more than its numbers."""

import base64
import errno
import re
from html.parser import HTMLParser
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from dreamdojo.errors import ConfigError, DataError
from dreamdojo.evaluation.linear_probe import LinearProbe, ProbedDimension
from dreamdojo.evaluation.predict import Recording, plan_clips
from dreamdojo.evaluation.report import (
    Card,
    Cards,
    Clip,
    Curves,
    DataSheet,
    Panel,
    Report,
    Row,
    Section,
    StageTimes,
    Strip,
    Table,
    Text,
    Verdict,
    VideoGrid,
    duration,
    error_frames,
    number,
    render,
    strip_picture,
    write_report,
)
from dreamdojo.evaluation.report.pictures import clip_frames
from dreamdojo.evaluation.rollouts import COPY, Clips, score_rollouts
from dreamdojo.evaluation.sections import (
    against_copy_section,
    clips_section,
    controllability_section,
    latent_action_section,
    picture_section,
    position_section,
)
from dreamdojo.evaluation.world_model import Evaluation, build_report
from dreamdojo.metrics import Interval

VOID = {"meta", "img", "line", "circle", "path", "use", "br"}


class Balanced(HTMLParser):
    """Fails where a tag is closed that was not opened, or the other way round."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.ids += [value for key, value in attrs if key == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parsed(page):
    parser = Balanced()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def clip(title="Episode 7", length=6):
    frames = torch.randint(256, (length, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = ("truth", "teacher", "student", "error")
    return Clip(title=title, context=2, panels=tuple(Panel(label=name, frames=frames) for name in labels))


def interval(mean, reach=0.5):
    return Interval(mean=mean, low=mean - reach, high=mean + reach, count=9)


def everything():
    blocks = (
        Cards(cards=(Card(label="speed", value="42 fps", note="two cores"),)),
        Verdict(tone="bad", text="blurry <b>"),
        Text(text="a paragraph & more"),
        Table(columns=("dB", "+1"), rows=(Row(label="student", cells=(interval(2.0),)),), differences=True),
        Curves(x=(1.0, 2.0), lines={"student": (interval(1), interval(2))}, x_label="frames", y_label="PSNR"),
        VideoGrid(clips=(clip(),), fps=10.0),
        Strip(clip=clip(), frames=(1, 3), columns=("given", "+2")),
        DataSheet(items={"robot": "5 minutes"}),
        StageTimes(seconds={"simulate": 61.0, "train": 3.0}),
    )
    sections = (Section(title="In short", lead="Look.", blocks=blocks), Section(title="Empty", lead="", blocks=()))
    return Report(title="A world", subtitle="small", facts=("nano",), sections=sections)


def test_the_page_is_valid_and_holds_every_block():
    parser = parsed(render(everything()))
    text = " ".join(parser.text)
    expected = ("A world", "In short", "42 fps", "blurry <b>", "a paragraph & more", "+2.00", "Episode 7", "5 minutes")
    for words in (*expected, "1 min 01 s", "truth", "PSNR", "given"):
        assert words in text
    assert {"in-short", "empty"} <= set(parser.ids)
    assert len(parser.ids) == len(set(parser.ids))


def test_the_page_needs_nothing_from_outside():
    page = render(everything())
    assert not re.findall(r'(?:src|href|poster)="(?!data:|#)[^"]*"', page)
    assert "url(http" not in page and "@import" not in page


def test_the_video_in_the_page_decodes(tmp_path):
    encoded = re.search(r"data:video/mp4;base64,([^\"]+)", render(everything())).group(1)
    (tmp_path / "clip.mp4").write_bytes(base64.b64decode(encoded))
    with av.open(str(tmp_path / "clip.mp4")) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 6 + 8  # it rests for 0.8 s at 10 frames per second
    assert (frames[0].width, frames[0].height) == (512, 512)


def test_panels_stand_two_by_two_and_every_pixel_is_enlarged():
    frames = torch.stack([torch.full((3, 32, 32), 10 * i, dtype=torch.uint8) for i in range(2)])
    panels = tuple(Panel(label=str(i), frames=frames + 50 * i) for i in range(3))
    picture = clip_frames(Clip(title="c", panels=panels, context=1))
    assert picture.shape == (2, 512, 512, 3)
    assert [picture[1, v, u, 0] for v, u in ((0, 0), (0, 511), (511, 0), (511, 511))] == [10, 60, 110, 0]


def test_a_strip_has_a_row_per_panel_and_a_column_per_moment():
    assert strip_picture(Strip(clip=clip(), frames=(0, 2, 5), columns=("a", "b", "c"))).shape == (4 * 32, 3 * 32, 3)
    with pytest.raises(DataError, match="frame 6"):
        strip_picture(Strip(clip=clip(), frames=(6,), columns=("a",)))


def test_panels_of_different_length_are_refused():
    panels = (*clip().panels, Panel(label="late", frames=clip(length=5).panels[0].frames))
    with pytest.raises(DataError, match="one shape"):
        clip_frames(Clip(title="c", panels=panels, context=1))


def test_a_table_refuses_a_row_that_does_not_fit():
    with pytest.raises(ConfigError, match="2 cells under 1 columns"):
        Table(columns=("", "+1"), rows=(Row(label="x", cells=(1.0, 2.0)),))


@pytest.mark.parametrize(
    ("mean", "better", "tone"),
    [(2.0, "higher", "is-good"), (-2.0, "higher", "is-bad"), (-2.0, "lower", "is-good"), (0.2, "higher", None)],
)
def test_a_difference_is_coloured_only_if_its_interval_excludes_zero(mean, better, tone):
    row = Row(label="x", cells=(interval(mean),))
    table = Table(columns=("", "+1"), rows=(row,), differences=True, better=better)
    section = Section(title="t", lead="", blocks=(table,))
    page = render(Report(title="t", subtitle="", facts=(), sections=(section,)))
    assert re.findall(r'<td class="(is-\w+)"', page) == ([tone] if tone else [])


def test_equal_frames_have_a_black_error():
    frames = clip().panels[0].frames
    assert error_frames(frames, frames).max() <= 4
    assert error_frames(255 - frames, frames).float().mean() > 50


def test_numbers_are_written_for_people():
    assert (number(-1.25, decimals=1), number(0.5, decimals=2, signed=True)) == ("−1.2", "+0.50")
    assert number(float("nan"), decimals=1) == "–"
    assert [duration(s) for s in (48, 185, 7800)] == ["48 s", "3 min 05 s", "2 h 10 min"]


def test_writing_replaces_the_file_as_a_whole(tmp_path):
    path = tmp_path / "run" / "report.html"
    write_report(path, everything())
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]


def test_a_report_that_cannot_be_written_leaves_the_old_one_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def full(file, *_, **__):
        file.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(DataError, match="disk full"):
        patch.setattr(Path, "write_text", full)
        write_report(path, everything())
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.fixture(scope="module")
def scores():
    random = torch.Generator().manual_seed(0)
    start = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8, generator=random)
    truth = torch.stack([start.roll(step, dims=-1) for step in range(1, 9)], dim=1)
    copied = start[:, None].expand_as(truth).contiguous()
    return score_rollouts(
        Clips(last_context=start, truth=truth),
        {"student": truth, "lazy": copied},
        other_actions={"student": copied, "lazy": copied},
        horizons=range(1, 9),
    )


def test_nothing_is_said_of_a_clip_in_which_nothing_moves():
    start = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    still = start[:, None].repeat(1, 2, 1, 1, 1)
    recordings = [Recording(frames=torch.cat([s[:1], s]).numpy(), actions=np.zeros((2, 1))) for s in still]
    plan = plan_clips(recordings, context=1, horizon=2, seed=0, least_clips=4)
    scores = score_rollouts(
        Clips(last_context=start, truth=still), {"student": still}, other_actions={"student": still}, horizons=(1, 2)
    )
    nothing = {"predictions": {"student": still}, "fps": {}, "tokenizer_psnr": 20.0, "latent_action": None}
    page = build_report(
        Evaluation(plan=plan, scores=scores, **nothing), title="", subtitle="", facts=(), data_sheet={},
        stage_seconds={}, rate=10.0, shown=1,
    )  # fmt: skip
    cards, verdict, _ = page.sections[0].blocks
    assert verdict.tone == "open" and "Too little moves at frame 2" in verdict.text
    assert [(card.value, card.tone) for card in cards.cards[:2]] == [("– dB", "open")] * 2


def test_sections_claim_what_the_intervals_show_and_nothing_else(scores):
    horizons = (4, 8)
    student, lazy = picture_section(scores, horizons=horizons).blocks[:2]
    assert student.tone == "good" and "beats copying" in student.text
    assert lazy.tone == "open" and lazy.text.startswith("Not shown that lazy differs")
    obeys, deaf = controllability_section(scores, horizons=horizons).blocks[:2]
    assert obeys.tone == "good" and deaf.tone == "open"


def test_the_sections_of_a_run_make_a_valid_page(scores):
    dimension = ProbedDimension(name="x", r2=interval(0.7, 0.1), null_mean=0.0, null_high=0.1, strength=0.1)
    blind = ProbedDimension(name="yaw", r2=interval(0.0, 0.1), null_mean=0.0, null_high=0.1, strength=10.0)
    probe = LinearProbe(dimensions=(dimension, blind), train_episodes=20, held_out_episodes=8, permutations=20)
    latent = latent_action_section(probe)
    assert "tells x:" in latent.blocks[0].text
    sections = (
        clips_section([clip()], fps=10.0, horizons=(1, 4)),
        picture_section(scores, horizons=(4, 8)),
        against_copy_section(scores, horizons=(4, 8)),
        controllability_section(scores, horizons=(4, 8)),
        position_section(scores, horizons=(4, 8)),
        latent,
    )
    parser = parsed(render(Report(title="t", subtitle="", facts=(), sections=sections)))
    text = " ".join(parser.text)
    for section in sections:
        assert section.title in text
    assert COPY in text and "not measured" in text
