"""Each stage against film whose truth is known."""

import numpy as np
import pytest

from dreamdojo.curation.clips import cut_pieces
from dreamdojo.curation.decide import Decision, decide, measure
from dreamdojo.curation.duplicates import DuplicateIndex, DuplicateSettings, signatures
from dreamdojo.curation.hands import HandSettings, contact_evidence
from dreamdojo.curation.observe import Observation, observe, without_hands
from dreamdojo.curation.quality import blur, measure_quality
from dreamdojo.curation.settings import CurateSettings, LookSettings
from dreamdojo.curation.sources import Segment
from dreamdojo.video import Look, resize

cv2 = pytest.importorskip("cv2", reason="the extra `curation` is not installed")

from dreamdojo.curation.motion import measure_motion  # noqa: E402
from tests.curation.films import Film, film  # noqa: E402


def textured(height: int = 96, width: int = 128, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 215, (height // 4, width // 4, 3)).astype(np.uint8)
    return np.ascontiguousarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))


def contact_of(one: Film) -> float:
    looks = [Look(timestamp=t / 10, gap=0.2, frames=one.frames[[t, t + 2]]) for t in range(0, len(one.frames) - 2, 4)]
    settings = CurateSettings(stages=("hands",))
    seen = [observe(look, ("hands",), one.hands_at, settings) for look in looks]
    return measure(seen, settings)["contact"]


def test_pixels_that_move_with_the_camera_do_not_count_and_those_that_move_alone_do() -> None:
    scene = textured(140, 180)
    first, second = scene[10:106, 10:138], scene[13:109, 15:143]
    panned = measure_motion(first, second, gap=0.2)
    assert panned.camera == pytest.approx(np.hypot(5, 3) / 128 / 0.2, rel=0.15) and panned.moving < 0.1
    still, moved = first.copy(), first.copy()
    still[30:60, 40:70], moved[30:60, 45:75] = textured(30, 30, 7)[:30, :30], textured(30, 30, 7)[:30, :30]
    alone = measure_motion(still, moved, gap=0.2)
    assert alone.camera < 0.02 and 0.03 < alone.moving < 0.25
    assert measure_motion(first, first, gap=0.2).moving == 0


def test_a_camera_that_turns_faster_than_can_be_followed_is_told_from_a_calm_one_and_from_darkness() -> None:
    scene, bar = textured(140, 400), CurateSettings().motion.min_explained
    rng = np.random.default_rng(0)

    def explained(shift: int, light: float = 1.0) -> float:
        pair = [scene[10:106, at : at + 128] * light + rng.normal(0, 2, (96, 128, 3)) for at in (20, 20 + shift)]
        first, second = (np.clip(picture, 0, 255).astype(np.uint8) for picture in pair)
        return measure_motion(first, second, gap=0.2).explained

    assert min(explained(shift) for shift in (0, 5, 8)) > 2 * bar
    assert max(explained(shift) for shift in (45, 60, 110, 200)) < bar
    assert explained(5, light=0.15) > 2 * bar, "a dark room is not a turning camera"
    settings = CurateSettings(stages=("motion",))
    row = Decision(clip="a", recording="a", group="a", start=0, end=1)
    scores = measure([Observation(time=0.0, camera=0.0, moving=1.0, explained=explained(60))], settings)
    assert decide(Decision(**{**row.to_json(), "scores": scores}), ("motion",), settings).kind == "camera too fast"


def test_black_white_blurred_and_frozen_pictures_are_told_from_good_ones() -> None:
    one = film(3, "pick_place")
    good = measure_quality(one.frames[[10, 12]])
    assert 0.15 < good.brightness < 0.85 and good.clipped < 0.2 and good.blur < 0.5 and good.change > 0.3
    luma = one.frames[10].astype(np.float32).mean(axis=-1)
    assert blur(cv2.GaussianBlur(luma, (0, 0), 3)) > 0.7 > 0.55 > blur(luma)
    assert measure_quality(one.frames[[10, 10]]).change == 0
    assert measure_quality(np.full((2, 32, 32, 3), 255, np.uint8)).clipped == 1
    assert measure_quality(np.zeros((1, 32, 32, 3), np.uint8)).brightness == 0
    settings = CurateSettings(stages=("quality",))
    row = Decision(clip="a", recording="a", group="a", start=0, end=1)
    for kind, change in {"black": {"brightness": 0.0}, "frozen": {"change": 0.0}, "blurred": {"blur": 0.9}}.items():
        values = {"brightness": 0.5, "clipped": 0.0, "blur": 0.3, "change": 5.0}
        scores = measure([Observation(time=0.0, **{**values, **change})], settings)
        judged = decide(Decision(**{**row.to_json(), "scores": scores}), settings.active, settings)
        assert (judged.kept, judged.stage, judged.kind) == (False, "quality", kind) and kind in judged.reason
    assert decide(Decision(**{**row.to_json(), "scores": measure([Observation(time=0.0, **values)], settings)}),
                  settings.active, settings).kept  # fmt: skip


def test_contact_is_told_from_a_hand_that_only_moves() -> None:
    bar = HandSettings().min_contact
    touching = [one for index in range(5) if (one := film(index, "pick_place")).is_contact]
    free = [one for index in range(5) if len((one := film(index, "pick_place").approach).frames) >= 10]
    assert len(touching) >= 3 and len(free) >= 3
    found, wrong = [contact_of(one) for one in touching], [contact_of(one) for one in free]
    assert sum(evidence > bar for evidence in found) >= len(found) - 1, found
    assert sum(evidence > bar for evidence in wrong) <= 1, wrong
    assert np.median(found) > 5 * np.median(wrong)


def test_no_hand_is_no_contact_and_a_camera_that_moves_is_not_a_hand() -> None:
    scene = textured(140, 180)
    first, second = scene[10:106, 10:138], scene[13:109, 15:143]
    motion = measure_motion(first, second, gap=0.2)
    one = film(0, "pick_place")
    hand = one.hands_at(one.frames[0], 0.0)
    assert contact_evidence(first, second, motion, []) == 0
    assert contact_evidence(first, second, motion, hand) < 0.05


def test_cuts_are_found_to_the_frame_and_a_turning_head_is_no_cut() -> None:
    pytest.importorskip("scenedetect", reason="PySceneDetect is not installed")
    from dreamdojo.curation.shots import ShotSettings, detect_cuts

    first, second = film(3, "pick_place"), film(4, "pick_place")
    film_of_two = np.concatenate((first.frames[:15], second.frames[:12]))
    assert detect_cuts(film_of_two, ShotSettings()) == [15]
    scene = textured(200, 400)
    panned = np.stack([scene[20:116, 6 * t : 6 * t + 128] for t in range(30)])
    assert detect_cuts(panned, ShotSettings()) == []


def test_the_same_film_in_other_clothes_is_a_duplicate_and_another_episode_is_not() -> None:
    one, other = film(3, "pick_place"), film(4, "pick_place")
    index = DuplicateIndex(DuplicateSettings())
    index.add("a.mp4", "a.mp4@0-4", signatures(one.frames[::2]))
    again = np.clip(resize(resize(one.frames, 96), 160).astype(int) + 4, 0, 255).astype(np.uint8)
    assert index.find("b.mkv", signatures(again[::2])) == ("a.mp4@0-4", 1.0)
    _, share = index.find("b.mkv", signatures(again[13::2]))
    assert share > 0.6, "trimmed, and sampled between the frames that were remembered"
    assert index.find("c.mp4", signatures(other.frames[::2]))[1] < 0.2
    assert index.find("a.mp4", signatures(one.frames[::2])) == ("", 0.0), "not of its own recording"


def test_every_second_of_a_recording_is_in_a_piece_or_has_a_reason() -> None:
    settings = CurateSettings(max_seconds=4, min_seconds=1, margin=0.1, context=0.5)
    pieces = cut_pieces(None, 10.0, [6.0, 6.5], settings)
    assert [(round(p.start, 2), round(p.end, 2), bool(p.reason)) for p in pieces] == [
        (0.0, 2.95, False),
        (2.95, 5.9, False),
        (6.1, 6.4, True),
        (6.6, 10.0, False),
    ]
    segments = [
        Segment(start=1, end=3, text="take"),
        Segment(start=2, end=5, text="open"),
        Segment(start=2, end=3),
        Segment(start=20, end=21),
    ]
    pieces = cut_pieces(segments, 10.0, [], settings)
    assert [(p.start, p.end, p.text) for p in pieces if not p.reason] == [(0.5, 3.5, "take"), (3.5, 5.5, "open")]
    assert [p.reason for p in pieces if p.reason] == [
        "lies within the annotation before it",
        "annotated from 20.00 s on, the video ends at 10.00 s",
    ]


def test_moments_are_passed_over_only_where_enough_keyframes_show_no_hand() -> None:
    one = film(0, "pick_place")
    hand = tuple(one.hands_at(one.frames[0], 0.0))
    keyframes = [Observation(time=t, hands=hand if t == 60 else (), keyframe=True) for t in range(0, 100, 4)]
    idle = without_hands(np.array([10.0, 55.0, 99.0, 200.0]), keyframes, LookSettings())
    assert idle.tolist() == [True, False, True, False]
