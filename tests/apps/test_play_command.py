"""What `dreamdojo play` starts from: a run's checkpoint, a robot's first frames, the dojo's scenes."""

import pytest
import torch

from dreamdojo.apps.play import command
from dreamdojo.apps.play.settings import PlaySettings, PlayWorld
from dreamdojo.dataset.read import open_dataset
from dreamdojo.errors import ConfigError
from dreamdojo.play import Play
from dreamdojo.presets import NANO
from dreamdojo.rollout.session import observation
from dreamdojo.training.checkpoint import save_model
from tests.test_chain import record
from tests.tiny import tiny_session, tiny_tokenizer, tiny_world_model


def test_a_session_starts_from_the_first_frames_of_a_robots_episodes(tmp_path):
    dataset = open_dataset(record(tmp_path / "robot", robot=True, episodes=2, frames=12))
    session = tiny_session()
    starts = command.dataset_starts(dataset, (0, 1), None, session)
    assert [start.name for start in starts] == ["Episode 0", "Episode 1"]
    for start in starts:
        assert start.thumbnail.shape == (16, 16, 3)
        session.reset(start.observation, seed=start.seed)
        assert session.step(torch.zeros(1, 1, 2)).state_source == "integrator"


def test_dojo_scenes_start_the_dream_and_the_dojo_alike():
    starts, dojo = command.dojo_starts(64, 2)
    assert isinstance(dojo, PlayWorld) and not dojo.from_observation
    seen = dojo.world.reset(seed=starts[1].seed)
    picture = observation(seen.frames["head"][0, 0].permute(1, 2, 0).numpy(), None, 64)
    assert torch.equal(picture.frames["head"], starts[1].observation.frames["head"])
    dojo.world.close()


def test_a_run_goes_before_the_model_that_ships(tmp_path):
    assert command.find_model(tmp_path / "run", None, "student") is None
    save_model(tmp_path / "shipped" / "student", tiny_world_model())
    assert command.find_model(tmp_path / "run", tmp_path / "shipped", "student") == tmp_path / "shipped" / "student"
    save_model(tmp_path / "run" / "student", tiny_world_model())
    assert command.find_model(tmp_path / "run", tmp_path / "shipped", "student") == tmp_path / "run" / "student"


def test_play_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("dreamdojo.play.foundation", lambda name: None)
    with pytest.raises(ConfigError, match="`dreamdojo demo` at nano"):
        Play(preset=NANO, run_folder=tmp_path).run()
    with pytest.raises(ConfigError, match="Check --run"):
        Play(preset=NANO, run_folder=tmp_path / "nothing").run()


def test_a_foreign_robot_needs_frames_to_start_from(tmp_path):
    save_model(tmp_path / "student", tiny_world_model(), about={"sampler": {"steps": 1, "shift": 5.0}})
    save_model(tmp_path / "tokenizer", tiny_tokenizer())
    with pytest.raises(ConfigError, match="give its dataset with --robot"):
        Play(preset=NANO, run_folder=tmp_path, device="cpu", backend="torch").run()


def test_the_page_is_served_with_the_dream_alone(tmp_path, monkeypatch):
    served = {}
    monkeypatch.setattr(command, "serve", lambda worlds, starts, settings, announce: served.update(worlds))
    command.serve_worlds(tiny_session(), None, [], settings=PlaySettings(), announce=print)
    assert list(served) == ["dream"] and served["dream"].from_observation
