"""`dreamdojo latent-action report` on small dojo recordings, with and without their ground truth."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from dreamdojo import cli
from dreamdojo.commands import all_episodes
from dreamdojo.dojo.simulate import SimulateSettings, simulate
from dreamdojo.dojo.truth import FILE_NAME, GroundTruth
from dreamdojo.errors import DataError
from dreamdojo.evaluation.health.recordings import gather, open_truth, true_motion
from dreamdojo.judge import require_episodes
from dreamdojo.latent_action.model import LatentActionConfig, LatentActionModel
from dreamdojo.presets import NANO
from dreamdojo.stages import Run
from dreamdojo.training.checkpoint import save_model
from tests.tiny import CPU, awake

FEW = ["--oracle-pairs", "4", "--oracle-steps", "2", "--device", "cpu", "--workers", "1"]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for body in ("human", "arm"):
        settings = SimulateSettings(body=body, episodes=7, frames=10, size=64, truth="poses")
        simulate(settings, folder / body, workers=1)
    return folder / "human", folder / "arm"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    config = LatentActionConfig(
        dim=16, latent_dim=4, num_heads=2, encoder_blocks=1, decoder_blocks=1, patch_size=8, early_fusion=True
    )
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, awake(LatentActionModel(config)))
    return folder


def report(*arguments):
    cli.main(["latent-action", "report", "nano", *map(str, arguments), *FEW])


def test_the_report_is_written_with_a_verdict_and_what_it_stands_on(tmp_path, recordings, model):
    human, robot = recordings
    report(
        "--run", tmp_path, "--model", model, "--human", human, "--robot", robot, "--ood", human, "--out", tmp_path / "o"
    )
    found = json.loads((tmp_path / "o" / "report.json").read_text())
    assert found["verdict"]["state"] in ("Collapsed", "Leaky", "Weak")  # it was never trained
    assert [each["name"] for each in found["sets"]] == ["human", "robot", "unlike video"]
    assert found["degrees_of_freedom"] == 5 and len(found["transfer"]) == 4
    assert "effector_velocity.x" in found["sets"][1]["actions"]["linear"]["r2"]
    assert (tmp_path / "o" / "report.html").stat().st_size > 50_000


def test_without_ground_truth_the_rest_is_measured_and_said_to_be_the_rest(tmp_path, recordings, model, monkeypatch):
    monkeypatch.setattr("dreamdojo.evaluation.health.recordings.open_truth", lambda dataset: None)
    (tmp_path / "latent_action").symlink_to(model)
    report("--run", tmp_path, "--human", recordings[0], "--robot", recordings[1])
    found = json.loads((tmp_path / "latent_action_report" / "report.json").read_text())
    assert found["sets"][0]["motion"] is None and found["sets"][1]["actions"] is not None
    assert found["transfer"] == [] and "Not judged:" in found["verdict"]["text"]


def test_too_few_episodes_are_refused_by_name_before_anything_is_computed(tmp_path, recordings):
    few = replace(all_episodes(recordings[0]), indices=(0, 1, 2, 3, 4, 5))
    with pytest.raises(DataError, match=f"{few.dataset.root}: expected at least 7 episodes.*found 6"):
        require_episodes(few)
    require_episodes(all_episodes(recordings[0]))


def test_motion_is_that_of_the_kept_frames(recordings):
    dataset = all_episodes(recordings[0]).dataset
    truth = GroundTruth.open(dataset.root)
    kept = np.array([0, 3, 4])
    place = truth.effector_position(2)
    np.testing.assert_allclose(true_motion(truth, 2, kept)[:, :3], [place[3] - place[0], place[4] - place[3]])
    np.testing.assert_allclose(true_motion(truth, 2).sum(axis=0)[:3], place[-1] - place[0], atol=1e-6)
    assert open_truth(dataset) is not None and (dataset.root / FILE_NAME).exists()


def test_frames_of_another_rate_are_refused(tmp_path, recordings, model):
    episodes = all_episodes(recordings[0])
    run = Run(folder=tmp_path, preset=NANO, compute=CPU, workers=1)
    loaded = LatentActionModel.from_pretrained(model)
    with pytest.raises(DataError, match="expected 5 frames at 5 per second, found 10"):
        gather("human", episodes.dataset, episodes.indices, run.frames(episodes), loaded, rate=5.0)


def test_a_command_of_two_words_is_found_and_half_of_one_is_explained(capsys):
    with pytest.raises(SystemExit):
        cli.main(["latent-action", "reprot"])
    assert "Perhaps you meant" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["latent-action", "report", "nano", "--help"])
    assert "dreamdojo latent-action report nano" in capsys.readouterr().out
