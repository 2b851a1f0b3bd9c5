"""The command: a report by reason, the evidence of one clip, and plain words about what is not installed."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreamdojo.cli import main
from dreamdojo.curate import Curate, draw
from dreamdojo.curation import CurateSettings, curate, record
from dreamdojo.curation.evidence import Evidence
from dreamdojo.curation.hands import Hand, HandSettings
from dreamdojo.curation.observe import Observation
from dreamdojo.curation.rows import ROWS_PATH, read_rows
from dreamdojo.dataset.write import CameraSpec
from dreamdojo.errors import ConfigError, DataError, MissingDependencyError
from dreamdojo.video import VideoCodec, encode

FAST = VideoCodec(preset="veryfast")
NO_CONTACT = HandSettings(require_contact=False)
SHARED = Path(__file__).resolve().parents[2].parent / "shared/data"


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """A film of a moving square, and a black one."""
    folder = tmp_path / "videos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    frames = np.repeat(rng.integers(60, 200, (1, 48, 64, 3), dtype=np.uint8), 40, axis=0)
    for number, frame in enumerate(frames):
        frame[10:30, number : number + 20] = 230
    encode(folder / "square.mp4", frames, 10, FAST)
    encode(folder / "black.mp4", np.zeros_like(frames), 10, FAST)
    return folder


def test_the_report_shows_what_was_kept_and_why_the_rest_was_not(tmp_path: Path, videos: Path) -> None:
    options = ["--stages", "quality", "--size", "32", "--workers", "0", "--codec.preset", "veryfast"]
    main(["curate", str(videos), "--out", str(tmp_path / "d"), *options])
    page = (tmp_path / "d/curation/report.html").read_text()
    for words in ("quality: black, 1 in all", "kept, 1 in all", "square.mp4@0.00-4.00", "mean brightness", "<svg"):
        assert words in page
    assert str(tmp_path) not in page
    rows, pictures = read_rows(tmp_path / "d" / ROWS_PATH)
    assert {(row.clip, row.kind) for row in rows} == {("square.mp4@0.00-4.00", ""), ("black.mp4@0.00-4.00", "black")}
    assert set(pictures) == {row.clip for row in rows}
    main(["curate", str(videos), "--out", str(tmp_path / "d"), *options, "--explain", "black.mp4@0.00-4.00"])
    page = (tmp_path / "d.work/explain-black.mp4_0.00-4.00.html").read_text()
    assert "Left out by quality: black in 100%" in page and "threshold" in page and page.count("data:image/jpeg") == 12


def test_where_nothing_is_kept_the_report_is_there_all_the_same(tmp_path: Path, videos: Path) -> None:
    (videos / "square.mp4").unlink()
    with pytest.raises(SystemExit):
        main(["curate", str(videos), "--out", str(tmp_path / "d"), "--stages", "quality", "--workers", "0"])
    page = tmp_path / "d.work/report.html"
    assert "quality: black" in page.read_text() and not (tmp_path / "d").exists()
    page.unlink()
    with pytest.raises(SystemExit):
        main(["curate", str(videos / "away"), "--out", str(tmp_path / "d"), "--stages", "quality", "--workers", "0"])
    assert not page.exists(), "a run that never looked at a video does not show another's clips"


def test_hands_decide_and_keyframes_spare_the_looks(
    tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cv2", reason="the extra `curation` is not installed")
    hand = Hand(box=(0.1, 0.1, 0.9, 0.9))
    finder = {"square.mp4": lambda picture, time: [hand], "black.mp4": lambda picture, time: []}
    monkeypatch.setattr(record, "hand_finder", lambda recording, info, settings: finder[recording.name])
    settings = CurateSettings(size=32, codec=FAST, workers=0, stages=("hands",), min_seconds=2, hands=NO_CONTACT)
    curate(videos, tmp_path / "d", settings)
    rows = {row.recording: row for row in read_rows(tmp_path / "d" / ROWS_PATH)[0]}
    assert rows["square.mp4"].kept and rows["square.mp4"].scores["hands"] == 1
    assert (rows["black.mp4"].stage, rows["black.mp4"].kind) == ("hands", "no hands")


def test_hand_boxes_are_drawn_on_the_evidence() -> None:
    picture = np.zeros((60, 80, 3), np.uint8)
    landmarks = np.full((21, 2), 0.5, np.float32)
    seen = Observation(time=1.0, hands=(Hand(box=(0.25, 0.25, 0.75, 0.75), score=0.9, landmarks=landmarks),))
    with Image.open(io.BytesIO(draw(Evidence(picture=picture, observation=seen)))) as drawn:
        pixels = np.asarray(drawn).astype(int)
    edge = pixels[15, 20:60].mean(axis=0)
    assert edge[0] > 150 and edge[0] > 1.5 * edge[2], "the upper edge is red"
    assert pixels[30, 40, 1] > 100 and pixels[5, 5].max() < 30


def test_what_is_not_installed_is_named_with_the_way_to_it(
    tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("cv2", "scenedetect", "ray", "h5py", "ai_edge_litert"):
        monkeypatch.setitem(sys.modules, module, None)
    plain = CurateSettings(size=32, codec=FAST, workers=0)
    assert curate(videos, tmp_path / "plain", plain).num_clips == 2, "nothing of them is needed without stages"
    for stage in ("motion", "shots", "hands"):
        with pytest.raises(MissingDependencyError, match=r'pip install "dreamdojo\[curation\]"'):
            curate(videos, tmp_path / "d", CurateSettings(**{**vars(plain), "stages": (stage,)}))
    with pytest.raises(MissingDependencyError, match=r"dreamdojo\[ray\]"):
        curate(videos, tmp_path / "d", CurateSettings(**{**vars(plain), "engine": "ray", "min_seconds": 2}))


def test_sources_that_lack_their_files_say_which(tmp_path: Path) -> None:
    for source, words in (("epic-kitchens", "--annotations"), ("ego4d", "--manifest")):
        with pytest.raises(ConfigError, match=words):
            Curate(videos=str(tmp_path), out=tmp_path / "d", source=source).open_source()  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="not folder"):
        Curate(videos=str(tmp_path), out=tmp_path / "d", annotations=("a.csv",)).open_source()
    with pytest.raises(ConfigError, match="--manifest with --source ego4d only"):
        Curate(videos=str(tmp_path), out=tmp_path / "d", manifest="ego4d.json").open_source()
    with pytest.raises(DataError, match=r"decisions\.parquet.*found no file\. Curate first"):
        Curate(videos=str(tmp_path), out=tmp_path / "d", explain="a.mp4@0.00-1.00").run()


@pytest.mark.skipif(not (SHARED / "hand_photos").is_dir(), reason="the photos (shared/data) are not here")
def test_the_detector_finds_people_s_hands_and_none_on_robots(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
    from dreamdojo.curation.palm import HandDetector

    find = HandDetector()
    found = 0
    for path in sorted((SHARED / "hand_photos").glob("*.jpg")):
        with Image.open(path) as photo:
            photo.thumbnail((320, 320))
            hands = find(np.asarray(photo.convert("RGB")))
        found += bool(hands)
        assert all(0 <= h.box[0] < h.box[2] <= 1 and 0 <= h.box[1] < h.box[3] <= 1 for h in hands)
    assert found == 4, "also the hand on a trumpet that the picture's edge cuts"
    films = sorted(SHARED.glob("g1*/videos/*/*/*.mp4"))[:2]
    settings = CurateSettings(size=32, codec=FAST, workers=0, stages=("hands",))
    for number, path in enumerate(films):
        one = record.Recording(name=path.name, video=str(path), group="g")
        job = record.Job(
            recording=one, spec=CameraSpec(height=32, width=42), settings=settings, folder=tmp_path / str(number)
        )
        rows = record.curate_recording(job, lambda seconds: None).rows
        assert rows and not any(row.kept for row in rows) and {row.kind for row in rows} == {"no hands"}
