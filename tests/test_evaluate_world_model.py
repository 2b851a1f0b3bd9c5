"""`dreamdojo evaluate world-model` on tiny models and a toy recording."""

import importlib.util
import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from dreamdojo import cli, evaluate_world_model
from dreamdojo.commands import console
from dreamdojo.dataset.read import open_dataset
from dreamdojo.errors import CheckpointError, ConfigError, DataError, MissingDependencyError
from dreamdojo.evaluate_world_model import choose_lpips, find_models, held_out_episodes, open_sessions, plan_recorded
from dreamdojo.evaluation.perceptual import PACKAGE
from dreamdojo.evaluation.rollouts import COPY
from dreamdojo.training.checkpoint import save_model
from dreamdojo.world_model.model import WorldModel
from tests.test_chain import record
from tests.tiny import awake, tiny_tokenizer, tiny_world_model

SAMPLER = {"sampler": {"steps": 1}}
needs_lpips = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None, reason="stlpips-pytorch (the extra perceptual) is not installed"
)
needs_rerun = pytest.mark.skipif(
    importlib.util.find_spec("rerun") is None, reason="rerun-sdk (the extra rerun) is not installed"
)


@pytest.fixture(scope="module")
def robot(tmp_path_factory):
    return record(tmp_path_factory.mktemp("data") / "robot", robot=True, episodes=6)


@pytest.fixture
def run_folder(tmp_path):
    """A run with a teacher and a student of 32 pixels."""
    folder = tmp_path / "run"
    save_model(folder / "tokenizer", tiny_tokenizer())
    for name in ("teacher", "student"):
        model = WorldModel(replace(tiny_world_model().config, size=(32, 32)))
        save_model(folder / name, awake(model), about=SAMPLER)
    return folder


def evaluate(*arguments):
    cli.main(["evaluate", "world-model", *map(str, arguments), "--device", "cpu"])


class MeanColours(nn.Module):
    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return clips.mean(dim=(1, 3, 4))


def test_a_run_becomes_one_table_of_teacher_student_and_the_copied_frame(robot, run_folder, tmp_path):
    torch.jit.script(MeanColours()).save(tmp_path / "colours.pt")
    out = tmp_path / "out"
    settings = ("--clips", 5, "--horizon", 6, "--all-episodes", "--fvd", tmp_path / "colours.pt", "--seed", 3)
    with console.capture() as said:
        evaluate(run_folder, "--robot", robot, "--out", out, *settings)
    results = json.loads((out / "results.json").read_text())
    assert set(results["conditions"]["models"]) == {"teacher", "student"}
    assert (results["conditions"]["seed"], results["conditions"]["horizon"]) == (3, 6)
    rollouts = results["rollouts"]
    assert rollouts["clips"] == 5 and rollouts["horizons"] == [1, 2, 3, 4, 5, 6]
    for metric in ("psnr", "ssim"):
        assert set(rollouts["mean"][metric]) == {"teacher", "student", COPY}
        interval = rollouts["mean"][metric][COPY]["6"]
        assert interval["low"] < interval["mean"] < interval["high"] and interval["count"] == 5
    assert set(results["frechet_video_distance"]) == {"teacher", "student", COPY}
    page = (out / "report.html").read_text()
    assert "SSIM" in page and "Fréchet video distance" in page and "+6" in page
    assert "PSNR (dB): teacher" in said.get() and f"{COPY} " in said.get()


def test_one_model_alone_and_the_same_seed_gives_the_same_numbers(robot, run_folder, tmp_path):
    found = []
    for out in (run_folder / "student" / "evaluation", tmp_path / "again"):
        arguments = () if out.parent == run_folder / "student" else ("--out", out)
        evaluate(
            run_folder / "student", "--robot", robot, "--clips", 2, "--horizon", 2, "--test-fraction", 0.5, *arguments
        )
        found.append(json.loads((out / "results.json").read_text()))
    assert found[0]["rollouts"] == found[1]["rollouts"]
    assert set(found[0]["conditions"]["models"]) == {"student"}


@needs_lpips
def test_lpips_is_in_the_table_where_its_weights_are(robot, run_folder, tmp_path):
    settings = ("--clips", 2, "--horizon", 2, "--lpips", "--test-fraction", 0.5)
    evaluate(run_folder / "teacher", "--robot", robot, "--out", tmp_path, *settings)
    means = json.loads((tmp_path / "results.json").read_text())["rollouts"]["mean"]["lpips"]
    assert set(means) == {"teacher", COPY} and means[COPY]["1"]["mean"] >= 0
    assert "ST-LPIPS" in (tmp_path / "report.html").read_text()


def test_without_the_extra_lpips_is_left_out_in_one_line_or_refused_when_asked_for(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with console.capture() as said:
        assert choose_lpips(False, torch.device("cpu"), (64, 64)) is None
    assert said.get().startswith("LPIPS is left out. LPIPS needs the weights") and said.get().count("\n") == 1
    with pytest.raises(MissingDependencyError, match=r"dreamdojo\[perceptual\]"):
        choose_lpips(True, torch.device("cpu"), (64, 64))
    with pytest.raises(DataError, match="at least 24 x 24 pixels, got 16x64"):
        choose_lpips(True, torch.device("cpu"), (16, 64))


def test_models_are_found_and_what_is_none_is_named(run_folder, tmp_path):
    assert list(find_models(run_folder)[1]) == ["teacher", "student"]
    assert find_models(run_folder / "teacher")[1] == {"teacher": run_folder / "teacher"}
    with pytest.raises(CheckpointError, match="expected a WorldModel, found a Tokenizer"):
        find_models(run_folder / "tokenizer")
    with pytest.raises(CheckpointError, match=r"teacher or student in it, found nothing\. Train one"):
        find_models(tmp_path / "nowhere")


def test_the_held_out_episodes_are_those_that_posttraining_leaves_out(robot):
    dataset = open_dataset(robot)
    few = held_out_episodes(dataset, test_fraction=0.3, camera=None, everything=False)
    assert len(few.indices) == 2
    assert len(held_out_episodes(dataset, test_fraction=0.3, camera=None, everything=True).indices) == 6


def test_recordings_for_training_are_not_judged_on(robot):
    dataset = open_dataset(robot)
    for episode in (declared := open_dataset(robot)).episodes:
        episode.meta["split"] = "train"
    with pytest.raises(ConfigError, match="its episodes are for training"):
        held_out_episodes(declared, test_fraction=0.5, camera=None, everything=True)
    assert held_out_episodes(dataset, test_fraction=0.5, camera=None, everything=True).indices


def test_video_without_actions_is_refused_by_that_name(run_folder, tmp_path):
    film = open_dataset(record(tmp_path / "human", robot=False, episodes=1))
    with pytest.raises(ConfigError, match="has no actions"):
        open_sessions(find_models(run_folder)[1], film, device="cpu", steps=None, tile=None)


def test_probes_learn_from_other_recordings(robot, run_folder, capsys):
    with pytest.raises(SystemExit):
        evaluate(run_folder, "--robot", robot, "--all-episodes", "--probes", robot)
    assert "probes learn from other recordings" in capsys.readouterr().err.replace("\n", " ")


def test_clips_of_few_episodes_are_said_to_be_alike(robot, run_folder, tmp_path):
    for clips, said in ((6, False), (8, True)):
        out = tmp_path / str(clips)
        evaluate(run_folder, "--robot", robot, "--all-episodes", "--clips", clips, "--horizon", 4, "--out", out)
        assert ("clips of one episode are alike" in (out / "report.html").read_text()) == said


def test_clips_are_the_recorded_frames_and_whole_steps_of_the_models(robot, run_folder):
    dataset = open_dataset(robot)
    episodes = held_out_episodes(dataset, test_fraction=0.5, camera=None, everything=False)
    sessions = open_sessions({"teacher": run_folder / "teacher"}, dataset, device="cpu", steps=None, tile=None)
    plan = plan_recorded(episodes, sessions, clips=3, horizon=4, seed=1)
    for clip, (number, start) in enumerate(zip(plan.recording, plan.start, strict=True)):
        index = episodes.indices[number]
        frames = torch.from_numpy(dataset.frames(index, range(start, start + 9), size=32)).permute(0, 3, 1, 2)
        assert torch.equal(torch.cat([plan.given[clip], plan.truth[clip]]), frames)
        torch.testing.assert_close(plan.actions[clip], torch.from_numpy(dataset.actions(index)[start : start + 8]))
        states = torch.from_numpy(dataset.states(index)[start : start + 5])
        assert plan.given_states is not None
        torch.testing.assert_close(plan.given_states[clip], states)
    save_model(run_folder / "four" / "tokenizer", tiny_tokenizer(4))
    save_model(run_folder / "four" / "teacher", tiny_world_model(4), about=SAMPLER)
    slower = open_sessions({"four": run_folder / "four" / "teacher"}, dataset, device="cpu", steps=None, tile=None)
    assert (plan_recorded(episodes, slower).context, plan_recorded(episodes, slower).horizon) == (5, 16)
    with pytest.raises(ConfigError, match="predict 4 frames at once: expected a multiple of it as horizon, got 6"):
        plan_recorded(episodes, slower, horizon=6)
    with pytest.raises(ConfigError, match="models beside each other must see the same frames"):
        both = {"teacher": run_folder / "teacher", "four": run_folder / "four" / "teacher"}
        open_sessions(both, dataset, device="cpu", steps=None, tile=None)


@needs_rerun
def test_clips_open_in_the_viewer(robot, run_folder, tmp_path):
    from rerun.chunk import RrdReader

    file = tmp_path / "clips.rrd"
    settings = ("--clips", 2, "--horizon", 3, "--test-fraction", 0.5, "--rerun", file)
    evaluate(run_folder, "--robot", robot, "--out", tmp_path, *settings)
    rows: dict[str, int] = {}
    for chunk in RrdReader(file).stream():
        if not chunk.is_static:
            rows[chunk.entity_path] = rows.get(chunk.entity_path, 0) + chunk.num_rows
    places = {place for place in rows if place.startswith("/clip")}
    names = ("truth", "teacher", "student", "teacher/error", "student/error", "action/velocity")
    assert places == {rf"/clip\ {clip:02d}/{name}" for clip in (1, 2) for name in names}
    assert rows[r"/clip\ 01/truth"] == 8 and rows[r"/clip\ 01/action/velocity"] == 7


def test_the_old_spelling_says_what_the_command_is_called_now(capsys):
    with pytest.raises(SystemExit):
        cli.main(["evaluate", "nano", "--run", "runs/nano"])
    assert "Perhaps you meant evaluate world-model" in capsys.readouterr().err


def test_probes_want_the_datasets_rate(robot, run_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluate_world_model.Session, "fps", 7.0)
    with pytest.raises(SystemExit):
        evaluate(
            run_folder,
            "--robot",
            robot,
            "--out",
            tmp_path,
            "--probes",
            robot,
            "--clips",
            2,
            "--horizon",
            2,
            "--all-episodes",
        )
    assert "known at its 10 fps only, the model predicts 7" in " ".join(capsys.readouterr().err.split())


def test_a_clip_file_that_cannot_be_written_is_refused_before_anything_is_computed(robot, run_folder, tmp_path, capsys):
    with pytest.raises(SystemExit):
        evaluate(run_folder, "--robot", robot, "--out", tmp_path / "out", "--rerun", tmp_path / "clips.mp4")
    assert "expected a name that ends in .rrd" in capsys.readouterr().err and not (tmp_path / "out").exists()
