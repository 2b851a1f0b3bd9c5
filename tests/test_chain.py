"""The whole chain at toy size: a square that a robot moves, seen by a small camera, at 1 and 4 actions per latent."""

import json
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamdojo import cli, foundation, stages
from dreamdojo.commands import all_episodes, train_and_test
from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.dataset.read import open_dataset
from dreamdojo.dataset.write import CameraSpec, DatasetWriter, encode_episode
from dreamdojo.demo import latent_actions_for
from dreamdojo.errors import CheckpointError, DataError
from dreamdojo.judge import judge
from dreamdojo.presets import NANO, NANO128
from dreamdojo.rollout.session import load_session
from dreamdojo.student.self_forcing import SelfForcing
from dreamdojo.training.checkpoint import read_about
from dreamdojo.training.fit import FitConfig
from dreamdojo.world import Observation
from dreamdojo.world_model.sample import SamplerConfig
from tests.tiny import CPU, PUSHER

SIZE = 32


def toy_preset(k, steps=12):
    fit = FitConfig(steps=steps, batch_size=8, learning_rate=2e-3, warmup_steps=2, save_every=5, log_every=1)
    return replace(
        NANO,
        size=(SIZE, SIZE),
        tokenizer=replace(NANO.tokenizer, width=8, temporal_factor=k, blocks=1),
        tokenizer_training=replace(NANO.tokenizer_training, fit=fit),
        latent_action=replace(NANO.latent_action, dim=64, latent_dim=4, encoder_blocks=1, decoder_blocks=1),
        latent_action_training=replace(NANO.latent_action_training, fit=fit),
        world_model=replace(
            NANO.world_model,
            dim=32,
            num_heads=2,
            num_blocks=1,
            action_dim=4,
            actions_per_latent=k,
            window=3,
            convolution_width=8,
        ),
        pretraining=replace(NANO.pretraining, fit=fit, latent_frames=3),
        posttraining=replace(NANO.posttraining, fit=fit, latent_frames=3),
        student=replace(
            NANO.student,
            fit=replace(fit, steps=4),
            self_forcing=SelfForcing(fit=replace(fit, steps=5), shortest=3, longest=5, window=3),
        ),
    )


def record(root, *, robot, episodes, frames=40, seed=0):
    """A coloured square that moves by its velocity, 10 frames a second."""
    random = np.random.default_rng(seed)
    body = PUSHER if robot else Embodiment(name="human")
    cameras = {"head": CameraSpec(height=SIZE, width=SIZE)}
    with DatasetWriter(root, fps=10, embodiment=body, cameras=cameras) as writer:
        for index in range(episodes):
            velocity = np.repeat(random.uniform(-0.5, 0.5, (frames // 4, 2)), 4, axis=0).astype(np.float32)
            position = np.clip(np.cumsum(velocity, axis=0) / 10, -0.9, 0.9).astype(np.float32)
            video = np.full((frames, SIZE, SIZE, 3), random.integers(40, 90), np.uint8)
            colour = random.integers(120, 255, 3)
            for picture, (x, y) in zip(video, position, strict=True):
                row, column = (int((v + 1) / 2 * (SIZE - 8)) for v in (y, x))
                picture[row : row + 8, column : column + 8] = colour
            columns = {"action": velocity, "observation.state": position} if robot else {}
            writer.add(
                encode_episode(
                    scratch=writer.scratch,
                    index=index,
                    fps=10,
                    cameras=cameras,
                    frames={"head": video},
                    columns=columns,
                    task="push",
                )
            )
    return root


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    return record(folder / "human", robot=False, episodes=4), record(folder / "robot", robot=True, episodes=8, seed=1)


def toy_run(folder, k, **changes):
    return stages.Run(folder=Path(folder), preset=replace(toy_preset(k), **changes), compute=CPU, workers=1)


def train_all(run, human, robot):
    stages.tokenizer_stage(run, [human, robot])
    stages.latent_action_stage(run, human)
    stages.pretrain_stage(run, human)
    stages.posttrain_stage(run, robot, human)
    stages.student_stage(run, robot)


@pytest.fixture(scope="module", params=[1, 4])
def trained(request, tmp_path_factory, recordings):
    """A finished run, and what it learned from and has not seen."""
    human = all_episodes(recordings[0])
    robot, held_out = train_and_test(open_dataset(recordings[1]), test_fraction=0.4, minutes=None)
    run = toy_run(tmp_path_factory.mktemp("trained"), request.param)
    train_all(run, human, robot)
    return run, human, robot, held_out


def test_video_becomes_a_world_model_that_can_be_driven_and_judged(trained):
    run, _, robot, held_out = trained
    assert not set(robot.indices) & set(held_out.indices)
    k = run.preset.world_model.actions_per_latent
    session = load_session(run.folder / "student", device="cpu")
    assert session.actions_per_step == k
    first = torch.from_numpy(run.frames(robot)[0][:1].copy()).permute(0, 3, 1, 2)[None]
    session.reset(Observation(frames={"head": first}, state=torch.zeros(1, 1, 2)))
    prediction = session.step(torch.zeros(1, k, 2))
    assert prediction.frames["head"].shape == (1, k, 3, SIZE, SIZE)

    found = judge(run, held_out, None)
    assert found.scores.clips == len(held_out.indices)
    assert {"teacher", "student"} == set(found.fps)
    json.dumps(found.to_json(), allow_nan=False)


class StopsInEveryStage:
    """Ctrl-C after some steps of each stage, once each."""

    def __init__(self):
        self.stopped = []

    @contextmanager
    def __call__(self, title):
        def report(done, total, words):
            if title not in self.stopped and 1 < done < total:
                self.stopped.append(title)
                raise KeyboardInterrupt

        yield report


@pytest.mark.parametrize("trained", [1], indirect=True)
def test_a_run_that_is_stopped_in_every_stage_and_goes_on_has_the_same_weights(tmp_path, trained):
    whole, human, robot, _ = trained
    progress = StopsInEveryStage()
    parts = stages.Run(folder=tmp_path, preset=toy_preset(1), compute=CPU, workers=1, progress=progress)
    finished = False
    while not finished:
        with suppress(KeyboardInterrupt):
            train_all(parts, human, robot)
            finished = True
    assert {"tokenizer", "latent actions", "pre-train", "post-train", "student"} <= set(progress.stopped)
    for stage in ("tokenizer", "latent_action", "pretrained", "teacher", "student"):
        weights = [(run.folder / stage / "model.safetensors").read_bytes() for run in (whole, parts)]
        assert weights[0] == weights[1]


def test_a_robot_without_actions_is_refused_by_name(tmp_path, recordings):
    run = toy_run(tmp_path, 1)
    human = all_episodes(recordings[0])
    stages.tokenizer_stage(run, [human])
    with pytest.raises(DataError, match=r"human.*'action' column, found none"):
        stages.robot_source(run, human)


def test_stages_in_the_wrong_order_say_what_is_missing(tmp_path, recordings):
    with pytest.raises(CheckpointError, match="tokenizer"):
        toy_run(tmp_path, 1).latents(all_episodes(recordings[0]))


def test_a_foundation_is_sampled_as_the_preset_that_adopts_it_says(tmp_path, recordings):
    human = all_episodes(recordings[0])
    made = toy_run(tmp_path / "foundation", 1)
    stages.tokenizer_stage(made, [human])
    stages.latent_action_stage(made, human)
    stages.pretrain_stage(made, human)
    student = made.preset.student
    sampler = replace(student.teacher, steps=3, shift=7.0)
    run = toy_run(tmp_path / "run", 1, student=replace(student, teacher=sampler))
    stages.adopt_foundation(run, made.folder)
    assert read_about(made.folder / "pretrained")["sampler"]["shift"] == student.teacher.shift != 7.0
    assert SamplerConfig(**read_about(run.folder / "pretrained")["sampler"]) == sampler  # pyright: ignore

    other = replace(run.preset, world_model=replace(run.preset.world_model, dim=64))
    with pytest.raises(CheckpointError, match="another world model than preset nano: dim"):
        stages.adopt_foundation(replace(run, preset=other), made.folder)


def test_post_training_adds_the_reference_frame_that_a_foundation_lacks(tmp_path, recordings):
    human, robot = (all_episodes(path) for path in recordings)
    without = replace(toy_preset(1, steps=2).world_model, reference_latent=False)
    made = toy_run(tmp_path / "foundation", 1, world_model=without)
    stages.tokenizer_stage(made, [human])
    stages.latent_action_stage(made, human)
    assert not stages.pretrain_stage(made, human).config.dit.reference_latent
    run = toy_run(tmp_path / "run", 1)
    stages.adopt_foundation(run, made.folder)
    assert stages.posttrain_stage(run, robot, human).config.dit == run.preset.world_model
    assert load_session(run.folder / "teacher", device="cpu").embodiment.name == robot.dataset.embodiment.name


@pytest.mark.skipif(foundation("nano") is None, reason="no weights ship")
def test_latent_actions_that_ship_serve_every_preset_that_sees_the_same():
    assert latent_actions_for(NANO128) == foundation("nano")
    assert latent_actions_for(replace(NANO128, latent_action_size=None)) is None
    assert latent_actions_for(replace(NANO128, rate=5.0)) is None
    assert latent_actions_for(replace(NANO128, latent_action=replace(NANO.latent_action, num_heads=8))) is None


@pytest.mark.parametrize("words", [["demo", "nano", "--help"], ["--help"]])
def test_output_that_nobody_reads_to_its_end_is_no_failure(words):
    command = [sys.executable, "-m", "dreamdojo", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.close()
        assert b"BrokenPipe" not in running.stderr.read()
    assert running.returncode == 1


def test_errors_are_one_message_and_a_wrong_command_gets_a_hint(capsys, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["pretrian"])
    assert stopped.value.code == 1 and "Perhaps you meant pretrain" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["encode", "nano", "--data", str(tmp_path / "nothing"), "--run", str(tmp_path)])
    message = capsys.readouterr().err
    assert "DataError" in message and "expected a folder" in message and "Traceback" not in message
    with pytest.raises(SystemExit):
        cli.main(["demo", "pico"])
    assert "there are: nano" in capsys.readouterr().err


def test_demo_says_which_half_of_your_own_data_is_missing(tmp_path, recordings, capsys):
    with pytest.raises(SystemExit):
        cli.main(["demo", "nano", "--run", str(tmp_path), "--human", str(recordings[0]), "--no-play"])
    assert "--robot is missing" in capsys.readouterr().err
    arguments = ["--human", str(recordings[0]), "--robot", str(recordings[0])]
    with pytest.raises(SystemExit):
        cli.main(["demo", "nano", "--run", str(tmp_path), *arguments, "--no-play"])
    assert "expected a robot dataset with actions" in capsys.readouterr().err


@pytest.mark.parametrize("command", [name for name in cli.COMMANDS if name != "simulate"])
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"])
    assert stopped.value.code == 0
    assert cli.COMMANDS[command][1].split()[0] in capsys.readouterr().out
