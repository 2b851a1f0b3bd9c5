"""The whole chain with depth at toy size: a square on a table, nearer than the table, that a robot moves."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import dreamdojo
from dreamdojo import cli, stages
from dreamdojo.apps.play.command import dataset_starts
from dreamdojo.commands import all_episodes
from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.dataset.write import CameraSpec, DatasetWriter, encode_episode
from dreamdojo.demo import Demo, DemoData
from dreamdojo.errors import CheckpointError, ConfigError, DataError
from dreamdojo.evaluation.report import write_report
from dreamdojo.evaluation.world_model import build_report
from dreamdojo.judge import judge
from dreamdojo.presets import NANO_RGBD, PAPER_2B_RGBD, PRESETS
from dreamdojo.presets.costs import costs_of
from dreamdojo.rollout.session import load_session
from dreamdojo.stages import Episodes
from dreamdojo.student.self_forcing import SelfForcing
from dreamdojo.tokenizer.depth import DepthCoding
from dreamdojo.tokenizer.rgbd import RGBDTokenizer
from dreamdojo.tokenizer.wan import WanConfig, WanTokenizer
from dreamdojo.training.checkpoint import model_hash, read_about, read_class, save_model
from dreamdojo.training.fit import FitConfig
from dreamdojo.world_model.sample import SamplerConfig
from tests.tiny import CPU, PUSHER, tiny_tokenizer

SIZE, FRAMES = 16, 24
TABLE, SQUARE = 1.0, 0.8
FIT = FitConfig(steps=3, batch_size=4, learning_rate=2e-3, warmup_steps=1, save_every=5, log_every=1)


def toy(preset):
    return replace(
        preset,
        name="toy-rgbd",
        size=(SIZE, SIZE),
        tokenizer=replace(preset.tokenizer, width=8, blocks=1),
        tokenizer_training=replace(preset.tokenizer_training, fit=FIT),
        latent_action=replace(
            preset.latent_action, dim=16, convolutional=False, latent_dim=4, encoder_blocks=1, decoder_blocks=1
        ),
        latent_action_training=replace(preset.latent_action_training, fit=FIT),
        world_model=replace(
            preset.world_model, dim=32, num_heads=2, num_blocks=1, action_dim=4, window=3, convolution_width=8
        ),
        pretraining=replace(preset.pretraining, fit=FIT, latent_frames=3),
        posttraining=replace(preset.posttraining, fit=FIT, latent_frames=3),
        student=replace(
            preset.student,
            fit=FIT,
            teacher=SamplerConfig(steps=2),
            sampler=SamplerConfig(steps=1),
            self_forcing=SelfForcing(fit=FIT, shortest=3, longest=5, window=3),
        ),
    )


TOY = toy(replace(NANO_RGBD, depth_tokenizer=replace(NANO_RGBD.depth_tokenizer, width=8, blocks=1)))
_NARROW = replace(TOY.world_model, latent_channels=TOY.tokenizer.latent_channels)
TOY_RGB = replace(TOY, name="toy-rgb", modality="rgb", depth_tokenizer=None, depth_coding=None, world_model=_NARROW)


def record(root, *, robot, depth, episodes, seed=0):
    random = np.random.default_rng(seed)
    cameras = {"head": CameraSpec(height=SIZE, width=SIZE, depth=depth)}
    body = PUSHER if robot else Embodiment(name="human")
    with DatasetWriter(root, fps=10, embodiment=body, cameras=cameras) as writer:
        for index in range(episodes):
            velocity = np.repeat(random.uniform(-0.5, 0.5, (FRAMES // 4, 2)), 4, axis=0).astype(np.float32)
            position = np.clip(np.cumsum(velocity, axis=0) / 10, -0.9, 0.9).astype(np.float32)
            video = np.full((FRAMES, SIZE, SIZE, 3), 60, np.uint8)
            metres = np.full((FRAMES, SIZE, SIZE), TABLE, np.float32)
            for picture, far, (x, y) in zip(video, metres, position, strict=True):
                place = tuple(slice(int((v + 1) / 2 * (SIZE - 6)), int((v + 1) / 2 * (SIZE - 6)) + 6) for v in (y, x))
                picture[place], far[place] = 220, SQUARE
            writer.add(
                encode_episode(
                    scratch=writer.scratch,
                    index=index,
                    fps=10,
                    cameras=cameras,
                    frames={"head": video},
                    depth={"head": metres} if depth else None,
                    columns={"action": velocity, "observation.state": position} if robot else {},
                    task="push",
                )
            )
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    return {
        "human": record(folder / "human", robot=False, depth=True, episodes=2),
        "robot": record(folder / "robot", robot=True, depth=True, episodes=5, seed=1),
        "flat": record(folder / "flat", robot=True, depth=False, episodes=2, seed=2),
    }


def run_of(folder, preset=TOY):
    return stages.Run(folder=folder, preset=preset, compute=CPU, workers=1)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    run, human, robot = run_of(tmp_path_factory.mktemp("run")), all_episodes(data["human"]), all_episodes(data["robot"])
    stages.tokenizer_stage(run, [human, robot])
    stages.latent_action_stage(run, human)
    stages.pretrain_stage(run, human)
    stages.posttrain_stage(run, robot, human)
    stages.student_stage(run, robot)
    return run


def test_depth_goes_through_every_stage_and_is_driven(trained, data):
    robot = all_episodes(data["robot"])
    depth = trained.depth(robot)
    assert depth[0].dtype == np.float16 and depth[0].shape == (FRAMES, SIZE, SIZE)
    assert np.unique(depth[0].round(2)).tolist() == pytest.approx([SQUARE, TABLE], abs=0.005)
    assert trained.latents(robot)[0].shape == (FRAMES, TOY.world_model.latent_channels, 4, 4)

    session = load_session(trained.folder / "student", device="cpu")
    starts = dataset_starts(robot.dataset, (0, 1), None, session)
    session.reset(starts[0].observation)
    found = session.step(torch.zeros(1, 1, 2))
    assert found.depth["head"].shape == (1, 1, 1, SIZE, SIZE) and found.frames["head"].shape == (1, 1, 3, SIZE, SIZE)


def test_depth_error_is_in_the_results_and_the_report(trained, data, tmp_path):
    held_out = Episodes(dataset=all_episodes(data["robot"]).dataset, indices=(2, 3, 4))
    found = judge(trained, held_out, None)
    results = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert 0 < results["tokenizer_depth_error"] < 100
    for key in ("depth_error", "moving_depth_error"):
        assert results["rollouts"]["mean"][key].keys() == {"teacher", "student", "copy last frame"}
    # the square is 20 cm above the table: where it went or left, copying is off by that, elsewhere by nothing
    copied = results["rollouts"]["mean"]["moving_depth_error"]["copy last frame"]["16"]["mean"]
    assert copied == pytest.approx(100 * (TABLE - SQUARE), abs=0.5)
    assert results["rollouts"]["mean"]["depth_error"]["copy last frame"]["16"]["mean"] < copied / 2
    report = build_report(
        found, title="t", subtitle="s", facts=(), data_sheet={}, stage_seconds={"tokenizer": 1.0}, rate=10.0, shown=1
    )
    assert "How far things are" in [section.title for section in report.sections]
    write_report(tmp_path / "report.html", report)
    assert "depth, student" in (tmp_path / "report.html").read_text()


def test_generate_says_the_error_in_centimetres_and_writes_depth(trained, data, tmp_path):
    out = tmp_path / "generated"
    model = str(trained.folder / "student")
    cli.main(["generate", model, "--robot", str(data["robot"]), "--out", str(out), "--frames", "4", "--device", "cpu"])
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["depth_error"] > 0 and metrics["depth_error_copy"] > 0
    assert (out / "truth_prediction_depth.mp4").exists()


def test_a_dataset_without_depth_is_refused_with_what_to_do(trained, data):
    with pytest.raises(DataError, match=r"flat: expected depth beside the camera head.*simulate --depth"):
        trained.latents(all_episodes(data["flat"]))


@pytest.fixture(scope="module")
def rgb(data, tmp_path_factory):
    """A run without depth, to a teacher."""
    run, robot = run_of(tmp_path_factory.mktemp("rgb") / "rgb", TOY_RGB), all_episodes(data["robot"])
    stages.tokenizer_stage(run, [robot])
    stages.latent_action_stage(run, robot)
    stages.pretrain_stage(run, robot)
    stages.posttrain_stage(run, robot, None)
    return run


def test_the_demo_with_depth_begins_from_the_foundation_without(rgb, data, tmp_path, monkeypatch):
    human, robot = all_episodes(data["human"]), all_episodes(data["robot"])
    held_out = Episodes(dataset=robot.dataset, indices=(2, 3, 4))
    given = DemoData(human=human, robot=robot, held_out=held_out, truths=None, sheet={})
    monkeypatch.setattr(dreamdojo, "foundation", {TOY.foundation: rgb.folder}.get)
    monkeypatch.setattr(Demo, "_simulated", lambda self, run: given)
    Demo(preset=TOY, run_folder=tmp_path, device="cpu", workers=1, play=False).run()
    assert (tmp_path / "tokenizer" / "rgb").resolve() == rgb.folder / "tokenizer"
    assert read_about(tmp_path / "pretrained")["rgb_model"] == model_hash(rgb.folder / "pretrained")
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["rollouts"]["mean"]["depth_error"]["student"]["8"]["mean"] > 0


def test_an_rgb_run_gets_depth_and_shows_what_it_showed(rgb, data, tmp_path, monkeypatch):
    """Two runs by their commands: RGB to a teacher, then RGB-D from it, with its tokenizer."""
    monkeypatch.setitem(PRESETS, TOY.name, TOY)
    robot, before = all_episodes(data["robot"]), model_hash(rgb.folder / "tokenizer")

    run, teacher = run_of(tmp_path / "rgbd"), rgb.folder / "teacher"
    with pytest.raises(CheckpointError, match=r"train-tokenizer toy-rgbd --rgb .*rgb/tokenizer"):
        stages.start_with_depth(run, teacher)
    common = ["--run", str(run.folder), "--device", "cpu", "--workers", "1"]
    tokenizer = str(rgb.folder / "tokenizer")
    cli.main(["train-tokenizer", TOY.name, *common, "--data", str(data["robot"]), "--rgb", tokenizer])
    joined = stages.tokenizer_stage(run, [robot])  # again, without naming it: nothing is trained
    assert isinstance(joined, RGBDTokenizer) and model_hash(rgb.folder / "tokenizer") == before
    stages.start_with_depth(run, teacher)
    stages.start_with_depth(run, teacher)
    assert read_class(run.folder / "pretrained") == "WorldModel"

    videos = []
    for folder in (teacher, run.folder / "pretrained"):
        session = load_session(folder, device="cpu")
        session.reset(dataset_starts(robot.dataset, (0,), None, session)[0].observation, seed=4)
        videos.append(torch.cat([session.step(torch.full((1, 1, 2), 0.3)).frames["head"] for _ in range(5)], dim=1))
    assert torch.equal(videos[0], videos[1])

    cli.main(["posttrain", TOY.name, *common, "--robot", str(data["robot"]), "--start", str(teacher)])
    assert load_session(run.folder / "teacher", device="cpu").depth == TOY.depth_coding
    with pytest.raises(ConfigError, match="is there already"):
        stages.start_with_depth(run, rgb.folder / "pretrained")
    other = replace(TOY, depth_coding=DepthCoding(near=0.2, far=9.0))
    with pytest.raises(CheckpointError, match="another tokenizer than preset"):
        stages.tokenizer_stage(run_of(run.folder, other), [robot])


def test_a_preset_says_all_of_depth_or_nothing():
    with pytest.raises(ConfigError, match="modality rgbd needs a depth_coding"):
        replace(TOY, depth_coding=None)
    with pytest.raises(ConfigError, match="modality rgb has neither"):
        replace(TOY, modality="rgb")
    with pytest.raises(ConfigError, match="latent_channels must be 10"):
        replace(TOY, world_model=TOY_RGB.world_model)


def test_the_published_layout_gets_depth_through_its_own_tokenizer(data, tmp_path):
    rgb = WanTokenizer(
        WanConfig(width=8, latent_channels=16, multipliers=(1, 1, 1), blocks=1, temporal_down=(True, True))
    )
    save_model(tmp_path / "vae", rgb)
    model = replace(PAPER_2B_RGBD.world_model, dim=32, num_heads=2, num_blocks=1)
    run = run_of(tmp_path / "run", replace(PAPER_2B_RGBD, size=(SIZE, SIZE), tokenizer=rgb.config, world_model=model))
    robot = all_episodes(data["robot"])
    with pytest.raises(ConfigError, match="give its folder with --rgb"):
        stages.tokenizer_stage(run, [])
    tokenizer = stages.tokenizer_stage(run, [], tmp_path / "vae")
    assert isinstance(tokenizer, RGBDTokenizer) and tokenizer.own_depth is None
    latents = run.latents(robot)[0]
    assert latents.shape == (3 * 4, 32, 4, 4)  # three clips of 13 frames, four apart, in an episode of 24
    assert not np.array_equal(latents[:, :16], latents[:, 16:])
    assert costs_of(run.preset).parameters["tokenizer"] == sum(p.numel() for p in rgb.parameters())


def test_another_tokenizer_than_the_presets_is_refused(tmp_path):
    save_model(tmp_path / "other", tiny_tokenizer(4))
    with pytest.raises(CheckpointError, match=r"other: expected the tokenizer of RGB of preset toy-rgbd"):
        stages.tokenizer_stage(run_of(tmp_path / "run"), [], tmp_path / "other")
    assert not (tmp_path / "run" / "tokenizer" / "rgb").exists()
