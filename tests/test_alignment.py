"""Alignment as a stage and a command, and what it gives the adapter in front of the world model."""

import io
import json
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from dreamdojo import cli, commands, foundation, stages
from dreamdojo.commands import all_episodes, train_and_test
from dreamdojo.dataset.read import open_dataset
from dreamdojo.errors import CheckpointError, ConfigError, DataError
from dreamdojo.latent_action.align import Alignment
from dreamdojo.latent_action.model import LatentActionModel
from dreamdojo.presets import NANO, PRESETS
from dreamdojo.training.checkpoint import load_model
from dreamdojo.world_model.model import ActionAdapter, WorldModel
from tests.test_chain import record, toy_preset, toy_run


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    return record(folder / "human", robot=False, episodes=3), record(folder / "robot", robot=True, episodes=8, seed=1)


@pytest.fixture(scope="module")
def started(tmp_path_factory, recordings):
    run = toy_run(tmp_path_factory.mktemp("run"), 1)
    human, robot = (all_episodes(path) for path in recordings)
    stages.tokenizer_stage(run, [human, robot])
    stages.latent_action_stage(run, human)
    stages.pretrain_stage(run, human)
    return run


@pytest.mark.parametrize("k", [1, 4])
def test_the_stage_writes_an_alignment_that_loads_and_an_answer(tmp_path, recordings, started, k):
    run = replace(started, folder=tmp_path, preset=toy_preset(k))
    (tmp_path / "latent_action").symlink_to(started.folder / "latent_action")
    robot, held_out = train_and_test(open_dataset(recordings[1]), test_fraction=0.4, minutes=None)
    fit, curve = stages.align_stage(run, robot, held_out, kind="ridge")
    loaded = load_model(tmp_path / "alignment", Alignment)
    assert loaded.config.chunk == k and loaded.config.embodiment.name == "pusher"
    assert torch.equal(loaded.action_map.linear.weight, fit.alignment.action_map.linear.weight)
    written = json.loads((tmp_path / "alignment" / "alignment.json").read_text())
    assert written["answer"] == curve.sufficiency().text
    assert len(written["fit"]["action_r2"]) == 1 + 2 * k


def test_the_command_answers_in_one_sentence_and_writes_a_report(recordings, started, monkeypatch):
    monkeypatch.setitem(PRESETS, "toy", replace(toy_preset(1), name="toy"))
    printed = io.StringIO()
    monkeypatch.setattr(commands, "console", Console(file=printed))
    arguments = ["--robot", str(recordings[1]), "--run", str(started.folder), "--kind", "ridge", "--workers", "1"]
    cli.main(["latent-action", "align", "toy", *arguments])
    said = " ".join(printed.getvalue().split())
    answer = json.loads((started.folder / "alignment" / "alignment.json").read_text())["answer"]
    assert answer in said and "velocity.x: R²" in said
    assert answer.split(",")[0] in (started.folder / "alignment" / "report.html").read_text()


def test_human_video_cannot_be_aligned(recordings, started):
    human = all_episodes(recordings[0])
    with pytest.raises(DataError, match="'action' column, found none"):
        stages.align_stage(started, human, human)


def adapter_at_start(run, robot, monkeypatch, adapter):
    """The adapter of the robot when training begins."""
    seen = {}

    def train(model, *arguments, **options):
        seen["adapter"], seen["about"] = model.adapter("pusher"), options["about"]
        return model

    monkeypatch.setattr("dreamdojo.stages.world_model.train_world_model", train)
    stages.posttrain_stage(run, robot, None, adapter=adapter)
    assert isinstance(seen["adapter"], ActionAdapter) and seen["about"]["adapter"] == adapter
    return seen["adapter"]


def test_an_aligned_adapter_starts_as_the_ridge_and_a_fresh_one_does_not(recordings, started, monkeypatch):
    robot = all_episodes(recordings[1])
    model = load_model(started.folder / "pretrained", WorldModel)
    weight, bias = stages.align_adapter(started, model, robot, robot.dataset.embodiment)
    aligned = adapter_at_start(started, robot, monkeypatch, "aligned")
    torch.testing.assert_close(aligned.linear.weight, weight)
    torch.testing.assert_close(aligned.linear.bias, bias)
    fresh = adapter_at_start(started, robot, monkeypatch, "fresh")
    assert not torch.allclose(fresh.linear.weight, weight) and not fresh.linear.bias.any()


def test_a_finished_teacher_is_not_taken_for_another_ablation_row(recordings, started):
    robot = all_episodes(recordings[1])
    stages.posttrain_stage(started, robot, None, adapter="fresh")
    with pytest.raises(CheckpointError, match="adapter=fresh; adapter=aligned was asked for"):
        stages.posttrain_stage(started, robot, None)


def test_a_run_without_latent_actions_takes_those_that_ship_and_keeps_its_own(tmp_path):
    run = replace(toy_run(tmp_path, 1), preset=NANO)
    commands.adopt_shipped_latent_action(run)
    weights = tmp_path / "latent_action" / "model.safetensors"
    own, shipped = (
        load_model(path, LatentActionModel) for path in (weights.parent, foundation("nano") / "latent_action")
    )
    torch.testing.assert_close(own.state_dict(), shipped.state_dict())
    assert not (tmp_path / "tokenizer").exists() and not weights.parent.is_symlink()
    weights.write_bytes(b"my own")
    commands.adopt_shipped_latent_action(run)
    assert weights.read_bytes() == b"my own"


def test_features_of_a_tokenizer_that_is_not_there_are_refused_before_any_frame_is_read(tmp_path, recordings):
    run = toy_run(tmp_path, 1)
    training = replace(run.preset.latent_action_training, feature_weight=0.1)
    run = replace(run, preset=replace(run.preset, latent_action_training=training))
    with pytest.raises(ConfigError, match="train-tokenizer"):
        stages.latent_action_stage(run, all_episodes(recordings[0]))
    assert not (tmp_path / "cache").exists()
