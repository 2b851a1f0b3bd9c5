"""Sources read the formats that others publish; the fixtures are made here in those very formats."""

import csv
import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from dreamdojo.curation import CurateSettings, curate
from dreamdojo.curation.sources import Ego4D, EgoDex, EpicKitchens, Folder, LeRobotEpisodes
from dreamdojo.curation.sources.epic_kitchens import seconds
from dreamdojo.dataset.read import open_dataset
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.video import VideoCodec, encode
from tests.dataset.toy import write_toy
from tests.video.numbered import numbered, numbers_in

FAST = VideoCodec(preset="veryfast")
EPIC_HEADER = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame,"
    "narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes"
)
EPIC_COLUMNS = EPIC_HEADER.split(",")


def film(path: Path, frames: int, fps: float, first: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    encode(path, numbered(range(first, first + frames), 48, 64), fps, FAST)


def epic_row(video: str, number: int, start: str, stop: str, **changes: str) -> dict[str, str]:
    row = dict.fromkeys(EPIC_COLUMNS, "0")
    row |= {
        "narration_id": f"{video}_{number}",
        "participant_id": video.split("_")[0],
        "video_id": video,
        "narration_timestamp": start,
        "start_timestamp": start,
        "stop_timestamp": stop,
        "narration": f"take cup {number}",
        "verb": "take",
        "noun": "cup",
        "all_nouns": "['cup', 'tap:water']",
        "all_noun_classes": "[13, 0]",
    }
    return row | changes


@pytest.fixture
def epic(tmp_path: Path) -> EpicKitchens:
    film(tmp_path / "P01/videos/P01_01.MP4", 120, 60000 / 1001)
    film(tmp_path / "P02/videos/P02_101.MP4", 100, 50, first=1000)
    film(tmp_path / "P02/videos/P02_999.MP4", 10, 50)
    rows = [
        epic_row("P01_01", 1, "00:00:00.96", "00:00:01.90"),
        epic_row("P01_01", 0, "00:00:00.14", "00:00:00.90"),
        epic_row("P02_101", 0, "00:00:00.50", "00:00:01.50"),
        epic_row("P02_101", 1, "00:00:01.50", "00:00:01.20"),
        epic_row("P03_07", 0, "00:00:00.00", "00:00:01.00", all_nouns="['cup"),
    ]
    with (tmp_path / "EPIC_100_train.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, EPIC_COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return EpicKitchens(videos=str(tmp_path), annotations=[str(tmp_path / "EPIC_100_train.csv")])


def test_epic_kitchens_by_time_with_its_words_and_people(epic: EpicKitchens) -> None:
    listing = epic.listing()
    assert [one.name for one in listing.recordings] == ["P01_01", "P02_101"]
    first = listing.recordings[0]
    assert first.group == "P01" and first.segments is not None
    assert [(s.start, s.end, s.text) for s in first.segments] == [(0.14, 0.9, "take cup 0"), (0.96, 1.9, "take cup 1")]
    assert {one.name: one.reason.split(";")[0] for one in listing.refused} == {
        "P02_101#P02_101_1": "annotation: it stops at 00:00:01.20, not after its start at 00:00:01.50",
        "P03_07": "no video of this id",
    }
    assert listing.others == ("P02_999.MP4",)
    assert seconds("01:02:03.25") == 3723.25
    for wrong in ("12.5", "00:61:00", "a:b:c"):
        with pytest.raises(ValueError):
            seconds(wrong)


def test_epic_kitchens_of_two_rates_becomes_one_dataset(epic: EpicKitchens, tmp_path: Path) -> None:
    settings = CurateSettings(size=32, codec=FAST, workers=0, skip_unreadable=True, min_seconds=0.5, test_fraction=0.5)
    report = curate(epic, tmp_path / "d", settings)
    dataset = open_dataset(tmp_path / "d")
    assert [(one.meta["source"], one.task) for one in dataset.episodes] == [
        ("P01_01", "take cup 0"),
        ("P01_01", "take cup 1"),
        ("P02_101", "take cup 0"),
    ]
    assert dataset.episodes[2].meta["participant"] == "P02" and numbers_in(dataset.frames(2, [0]))[0] == 1025
    assert len({e.meta["split"] for e in dataset.episodes if e.meta["participant"] == "P01"}) == 1
    assert report.dropped_clips == {"annotation": 1, "no video": 1}
    assert [video.path for video in report.videos] == ["P01_01", "P02_101", "P03_07"], "an annotation is no video"


def test_a_csv_of_another_kind_is_refused_by_its_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,start\n1,2\n")
    with pytest.raises(DataError, match="found none named narration_id"):
        EpicKitchens(videos=str(tmp_path), annotations=[str(tmp_path / "a.csv")]).listing()


def test_ego4d_manifest_narrations_and_intervals(tmp_path: Path) -> None:
    for uid in ("aa-1", "bb-2", "cc-3"):
        film(tmp_path / f"v/{uid}.mp4", 30, 30)
    videos = [
        {"video_uid": "aa-1", "duration_sec": 1.0, "fb_participant_id": 5.0, "video_source": "cmu"},
        {"video_uid": "bb-2", "duration_sec": 1.0, "fb_participant_id": None, "video_source": "unict"},
        {"video_uid": "zz-9", "duration_sec": 1.0, "fb_participant_id": 5.0, "video_source": "cmu"},
    ]
    (tmp_path / "ego4d.json").write_text(json.dumps({"videos": videos, "date": "x"}))
    said = [
        {"timestamp_sec": 0.2, "narration_text": "#C C takes a cup", "annotation_uid": "n"},
        {"timestamp_sec": 0.6, "narration_text": "#C C pours"},
        {"timestamp_sec": None, "narration_text": "#C C ?"},
    ]
    (tmp_path / "narration.json").write_text(json.dumps({"aa-1": {"narration_pass_1": {"narrations": said}}}))
    intervals = [{"start_sec": 0.1, "end_sec": 0.9, "label": "wash"}, {"start_sec": 2.0, "end_sec": 1.0}]
    moments = {"videos": [{"video_uid": "bb-2", "clips": [{"clip_uid": "c", "annotations": [{"labels": intervals}]}]}]}
    (tmp_path / "moments.json").write_text(json.dumps(moments))
    files = tuple(str(tmp_path / name) for name in ("narration.json", "moments.json"))
    manifest = str(tmp_path / "ego4d.json")
    listing = Ego4D(videos=str(tmp_path / "v"), manifest=manifest, annotations=files).listing()
    first, second = listing.recordings
    assert (first.name, first.group, second.group) == ("aa-1", "cmu/5.0", "bb-2")
    assert [(s.start, s.end, s.text) for s in first.segments or ()] == [(0.2, 0.6, "takes a cup"), (0.6, 8.6, "pours")]
    assert [(s.start, s.end, s.text) for s in second.segments or ()] == [(0.1, 0.9, "wash")]
    assert [one.name for one in listing.refused] == ["aa-1#narration_pass_1#0", "bb-2#1", "zz-9"]
    assert listing.others == ("cc-3",)
    whole = Ego4D(videos=str(tmp_path / "v"), manifest=manifest).listing()
    assert [one.segments for one in whole.recordings] == [None, None]
    (tmp_path / "uids.json").write_text(json.dumps({"videos": ["aa-1"]}))
    with pytest.raises(DataError, match=r"uids\.json: expected a video_uid in every entry"):
        Ego4D(videos=str(tmp_path / "v"), manifest=manifest, annotations=[str(tmp_path / "uids.json")]).listing()


def test_ego4d_narrations_of_two_passes_keep_their_own_words(tmp_path: Path) -> None:
    film(tmp_path / "v/aa-1.mp4", 30, 30)
    (tmp_path / "ego4d.json").write_text(json.dumps({"videos": [{"video_uid": "aa-1"}]}))
    first = [{"timestamp_sec": 1.0, "narration_text": "takes"}, {"timestamp_sec": 5.5, "narration_text": "pours"}]
    passes = {
        "narration_pass_1": {"narrations": first},
        "narration_pass_2": {"narrations": [{"timestamp_sec": 2.0, "narration_text": "lifts"}]},
    }
    (tmp_path / "narration.json").write_text(json.dumps({"aa-1": passes}))
    files = [str(tmp_path / "narration.json")]
    listing = Ego4D(videos=str(tmp_path / "v"), manifest=str(tmp_path / "ego4d.json"), annotations=files).listing()
    parts = [(part.start, part.end, part.text) for part in listing.recordings[0].segments or ()]
    assert parts == [(1.0, 2.0, "takes"), (2.0, 5.5, "lifts"), (5.5, 13.5, "pours")]


def test_egodex_knows_where_its_hands_are(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    from dreamdojo.curation.sources.egodex import TrackedHands

    film(tmp_path / "part1/fold_towel/0.mp4", 30, 30)
    film(tmp_path / "part1/fold_towel/1.mp4", 30, 30)
    joints = ["camera", *(f"{side}{part}" for side in ("left", "right") for part in egodex_parts()), *egodex_body()]
    assert len(joints) == 69
    with h5py.File(tmp_path / "part1/fold_towel/0.hdf5", "w") as file:
        file.create_dataset("camera/intrinsic", data=np.array([[64.0, 0, 32], [0, 64, 24], [0, 0, 1]], np.float32))
        rng = np.random.default_rng(0)
        for name in joints:
            pose = np.tile(np.eye(4, dtype=np.float32), (30, 1, 1))
            side = -0.1 if name.startswith("left") else 0.1
            pose[:, :3, 3] += (side, 0.05, 0.5) + 0.02 * rng.standard_normal(3)
            if name == "camera":
                pose = np.tile(np.eye(4, dtype=np.float32), (30, 1, 1))
            file.create_dataset(f"transforms/{name}", data=pose)
            file.create_dataset(f"confidences/{name}", data=np.ones(30, np.float32))
        file.attrs["llm_description"], file.attrs["llm_description2"] = "fold a towel", "unfold a towel"
        file.attrs["which_llm_description"] = "2"
    listing = EgoDex(folder=str(tmp_path)).listing()
    (one,) = listing.recordings
    assert one.segments and (one.segments[0].text, one.segments[0].end) == ("unfold a towel", 1.0)
    assert [r.name for r in listing.refused] == ["part1/fold_towel/1.mp4"]
    assert (listing.refused[0].reason, listing.refused[0].kind) == ("no 1.hdf5 beside it", "no poses")
    (tmp_path / "part1/fold_towel/1.hdf5").write_bytes(b"cut short")
    listing = EgoDex(folder=str(tmp_path)).listing()
    assert "1.hdf5" in listing.refused[0].reason and str(tmp_path) not in listing.refused[0].reason
    hands = {hand.side: hand for hand in TrackedHands(str(one.hands), (48, 64)).at(0.5)}
    left, top, right, bottom = hands["left"].box
    assert left < 0.3 < right < 0.5 and top < 0.63 < bottom, "64 * -0.1 / 0.5 + 32 = 19 of 64 pixels; 30 of 48"
    assert hands["right"].box[0] > 0.5


def egodex_parts() -> list[str]:
    fingers = ["IndexFinger", "MiddleFinger", "RingFinger", "LittleFinger"]
    long = [f"{f}{b}" for f in fingers for b in ("Metacarpal", "Knuckle", "IntermediateBase", "IntermediateTip", "Tip")]
    return [*long, *(f"Thumb{b}" for b in ("Knuckle", "IntermediateBase", "IntermediateTip", "Tip")), "Hand", *ARM]


ARM = ("Arm", "Forearm", "Shoulder")


def egodex_body() -> list[str]:
    return ["hip", *(f"spine{n}" for n in range(1, 8)), *(f"neck{n}" for n in range(1, 5))]


def test_lerobot_episodes_lie_in_one_file_and_come_out_one_by_one(tmp_path: Path) -> None:
    write_toy(tmp_path / "toy")
    listing = LeRobotEpisodes(root=str(tmp_path / "toy"), cameras=("head",)).listing()
    toy = open_dataset(tmp_path / "toy")
    assert [one.group for one in listing.recordings] == [f"episode_{n:06d}" for n in range(len(toy.episodes))]
    settings = CurateSettings(size=32, codec=FAST, workers=0, min_seconds=0.5)
    curate(LeRobotEpisodes(root=str(tmp_path / "toy"), cameras=("head",)), tmp_path / "d", settings)
    dataset = open_dataset(tmp_path / "d")
    assert [(e.length, e.task) for e in dataset.episodes] == [(e.length, e.task) for e in toy.episodes]
    for number, episode in enumerate(toy.episodes):
        ours, theirs = (d.frames(number, [0, episode.length - 1]).mean((1, 2, 3)) for d in (dataset, toy_head(toy)))
        np.testing.assert_allclose(ours, theirs, atol=3)


def toy_head(toy):
    class Head:
        def frames(self, number, where):
            return toy.frames(number, where, "head")

    return Head()


def test_remote_folders_are_read_through_fsspec(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
    memory = fsspec.filesystem("memory")
    film(tmp_path / "a.mp4", 30, 30)
    memory.pipe("/bucket/kitchen/a.mp4", (tmp_path / "a.mp4").read_bytes())
    memory.pipe("/bucket/notes.txt", b"Monday")
    listing = Folder("memory://bucket").listing()
    assert [one.name for one in listing.recordings] == ["kitchen/a.mp4"] and listing.others == ("notes.txt",)
    settings = CurateSettings(size=32, codec=FAST, workers=0, skip_unreadable=True)
    with pytest.raises(ConfigError, match="--aspect"):
        curate("memory://bucket", tmp_path / "d", settings)
    curate("memory://bucket", tmp_path / "d", CurateSettings(**{**vars(settings), "aspect": 4 / 3}))
    assert numbers_in(open_dataset(tmp_path / "d").frames(0, range(10))) == list(range(0, 30, 3))
    memory.rm("/bucket", recursive=True)


def test_a_web_server_s_folder_is_read_with_its_subfolders(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="aiohttp is not installed")
    film(tmp_path / "v/P01/a.mp4", 30, 30)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "v"))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            where = f"http://127.0.0.1:{server.server_address[1]}"
            listing = Folder(f"{where}/").listing()
            assert [(one.name, one.video) for one in listing.recordings] == [("P01/a.mp4", f"{where}/P01/a.mp4")]
            settings = CurateSettings(size=32, codec=FAST, workers=0, skip_unreadable=True, aspect=4 / 3)
            assert curate(f"{where}/", tmp_path / "d", settings).num_frames == 10
        finally:
            server.shutdown()
