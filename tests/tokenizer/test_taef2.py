"""TAEF2: the layout of the published files, one frame at a time, and how well real recordings come back."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dreamdojo.commands import all_episodes
from dreamdojo.convert import names
from dreamdojo.convert.convert import ConvertSettings, convert, convert_tokenizer
from dreamdojo.convert.publish import to_published
from dreamdojo.convert.read import TAEF2_DECODER, TAEF2_ENCODER, TAEF2_FILE
from dreamdojo.dataset.read import open_dataset
from dreamdojo.errors import CheckpointError, ConfigError, DataError
from dreamdojo.presets import NANO, NANO_TAEF2
from dreamdojo.presets.costs import costs_of
from dreamdojo.rollout.session import Session
from dreamdojo.stages import Run, tokenizer_stage
from dreamdojo.tokenizer import taef2
from dreamdojo.tokenizer.load import load_tokenizer
from dreamdojo.tokenizer.protocol import VideoTokenizer
from dreamdojo.tokenizer.rgbd import join_parts
from dreamdojo.tokenizer.taef2 import TAEF2Config, TAEF2Tokenizer
from dreamdojo.tokenizer.train import encode_episode, reconstruction_psnr
from dreamdojo.training.checkpoint import read_about
from dreamdojo.video import VideoReader, resize
from dreamdojo.world import Observation
from dreamdojo.world_model.model import WorldModel
from dreamdojo.world_model.sample import SamplerConfig
from tests.test_chain import record
from tests.tiny import CPU, PUSHER, awake, tiny_rgbd_tokenizer, tiny_world_model

SHARED = Path(__file__).resolve().parents[2].parent / "shared/data"
WEIGHTS = SHARED / "taef2_weights"
needs_weights = pytest.mark.skipif(not WEIGHTS.is_dir(), reason="the TAEF2 weights (shared/data) are not here")
TINY = TAEF2Config(width=8, latent_channels=4)


def tiny_taef2() -> TAEF2Tokenizer:
    torch.manual_seed(0)
    return TAEF2Tokenizer(TINY).eval()


def published_halves() -> dict[str, dict[str, torch.Tensor]]:
    """Random weights of the published layout, as its two files hold them."""
    entries = names.to_published(dict(tiny_taef2().half().named_parameters()), prefix="", names=names.TAEF2_NAMES)
    return {
        side: {n.removeprefix(side): v.detach() for n, v in entries.items() if n.startswith(side)}
        for side in ("encoder.", "decoder.")
    }


@pytest.fixture
def files(tmp_path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    halves = published_halves()
    torch.save(halves["encoder."], folder / TAEF2_ENCODER)
    torch.save(halves["decoder."], folder / TAEF2_DECODER)
    return folder


def in_one_file() -> dict[str, torch.Tensor]:
    """The same as the hub has it: the decoder's layers count from the first with weights."""
    entries = {}
    for side, half in published_halves().items():
        for name, value in half.items():
            layer, _, rest = name.partition(".")
            entries[f"{side}layers.{int(layer) - (side == 'decoder.')}.{rest}"] = value
    return entries


def test_it_is_a_frozen_video_tokenizer_that_sees_one_frame_at_a_time():
    tokenizer = tiny_taef2()
    assert isinstance(tokenizer, VideoTokenizer)
    assert not any(parameter.requires_grad for parameter in tokenizer.parameters())
    frames = torch.rand(2, 3, 3, 16, 24) * 2 - 1
    latents, state = tokenizer.encode(frames)
    redrawn, _ = tokenizer.decode(latents)
    assert latents.shape == (2, 3, 4, 2, 3) and redrawn.shape == frames.shape and state == ()
    assert tokenizer.num_latents(7) == 7
    alone, _ = tokenizer.encode(frames[1:, 2:], state)
    torch.testing.assert_close(alone, latents[1:, 2:])
    torch.testing.assert_close(tokenizer.decode(latents[1:, 2:])[0], redrawn[1:, 2:])


def test_statistics_normalise_and_come_off_again():
    tokenizer = tiny_taef2()
    frames = torch.rand(1, 2, 3, 16, 16) * 2 - 1
    raw, _ = tokenizer.encode(frames)
    redrawn, _ = tokenizer.decode(raw)
    tokenizer.latent_mean.fill_(0.3)
    tokenizer.latent_std.fill_(2.0)
    normal, _ = tokenizer.encode(frames)
    torch.testing.assert_close(normal, (raw - 0.3) / 2)
    torch.testing.assert_close(tokenizer.decode(normal)[0], redrawn)


def test_many_frames_are_worked_through_in_parts(monkeypatch):
    tokenizer, frames = tiny_taef2(), torch.rand(2, 5, 3, 16, 16) * 2 - 1
    latents, _ = tokenizer.encode(frames)
    redrawn, _ = tokenizer.decode(latents)
    monkeypatch.setattr(taef2, "PIXELS_AT_ONCE", 3 * 16 * 16)
    torch.testing.assert_close(tokenizer.encode(frames)[0], latents)
    torch.testing.assert_close(tokenizer.decode(latents)[0], redrawn)


@pytest.mark.parametrize("shape", [(1, 2, 4, 16, 16), (1, 0, 3, 16, 16), (1, 1, 3, 16, 20)])
def test_frames_that_do_not_fit_are_refused(shape):
    with pytest.raises(DataError, match=r"b t 3 h w|do not divide by the tokenizer's spatial factor 8"):
        tiny_taef2().encode(torch.zeros(shape))
    with pytest.raises(ConfigError, match="width must be at least 1, got 0"):
        TAEF2Config(width=0)


def test_the_two_files_the_one_file_and_a_single_name_are_the_same_model_and_come_back(files, tmp_path):
    one = tmp_path / "one"
    one.mkdir()
    save_file({name: value.contiguous() for name, value in in_one_file().items()}, one / TAEF2_FILE)
    sources = {"a": files, "b": files / TAEF2_DECODER, "c": one, "d": one / TAEF2_FILE}
    for name, source in sources.items():
        convert(ConvertSettings(tokenizer=source), tmp_path / name)
    written = [load_file(tmp_path / name / "tokenizer" / "model.safetensors") for name in sources]
    for other in written[1:]:
        assert other.keys() == written[0].keys()
        assert all(torch.equal(other[name], value) for name, value in written[0].items())
    tokenizer = load_tokenizer(tmp_path / "a" / "tokenizer")
    assert isinstance(tokenizer, TAEF2Tokenizer) and tokenizer.config == TINY
    assert read_about(tmp_path / "a" / "tokenizer")["converted_from"] == [TAEF2_ENCODER, TAEF2_DECODER]
    torch.testing.assert_close(tokenizer.encoder.conv_in.weight, tiny_taef2().encoder.conv_in.weight, atol=1e-3, rtol=0)

    to_published(tmp_path / "c", tmp_path / "back")
    for file, half in ((TAEF2_ENCODER, "encoder."), (TAEF2_DECODER, "decoder.")):
        found, expected = torch.load(tmp_path / "back" / file, weights_only=True), published_halves()[half]
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_foreign_files_are_refused_by_name(files, tmp_path):
    halves = published_halves()
    torch.save(halves["encoder."] | {"9.gadget.weight": torch.ones(3)}, files / TAEF2_ENCODER)
    with pytest.raises(CheckpointError, match=r"foreign .*encoder\.9\.gadget\.weight \(3,\)|'encoder\.9\.gadget"):
        convert_tokenizer(files, tmp_path / "a")
    torch.save(halves["decoder."], files / TAEF2_ENCODER)
    with pytest.raises(CheckpointError, match=r"expected an entry 'encoder\.0\.weight' of 4 axes, found none"):
        convert_tokenizer(files, tmp_path / "b")
    (files / TAEF2_DECODER).unlink()
    with pytest.raises(CheckpointError, match=r"expected taef2_encoder\.pth and taef2_decoder\.pth, or taef2\.safe"):
        convert_tokenizer(files, tmp_path / "c")


def test_a_repository_of_the_hub_is_downloaded(files, tmp_path, monkeypatch):
    asked = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda repo, **about: asked.append((repo, about)) or str(files)
    )
    convert(ConvertSettings(tokenizer=Path("madebyollin/taef2")), tmp_path / "out")
    assert asked[0][0] == "madebyollin/taef2" and TAEF2_FILE in asked[0][1]["allow_patterns"]
    assert isinstance(load_tokenizer(tmp_path / "out" / "tokenizer"), TAEF2Tokenizer)


def test_a_preset_takes_it_and_a_run_links_and_encodes_with_it(files, tmp_path):
    robot = all_episodes(record(tmp_path / "robot", robot=True, episodes=2, frames=8))
    preset = replace(NANO_TAEF2, tokenizer=TINY, world_model=replace(NANO.world_model, latent_channels=4))
    convert(ConvertSettings(tokenizer=files), tmp_path / "models")
    run = Run(folder=tmp_path / "run", preset=preset, compute=CPU, workers=1)
    tokenizer = tokenizer_stage(run, [robot], tmp_path / "models" / "tokenizer")
    assert isinstance(tokenizer, TAEF2Tokenizer) and (run.folder / "tokenizer").is_symlink()
    latents = run.latents(robot)
    assert latents[1].shape == (8, 4, 16, 16)
    np.testing.assert_array_equal(
        latents[1], encode_episode(tokenizer, run.frames(robot)[1].transpose(0, 3, 1, 2), CPU)
    )


def test_a_session_dreams_through_it():
    model = awake(WorldModel(replace(tiny_world_model().config, size=(32, 32))))
    session = Session(model, tiny_taef2(), SamplerConfig(steps=1), embodiment=PUSHER, compute=CPU)
    session.reset(Observation(frames={"head": torch.zeros(1, 1, 3, 32, 32, dtype=torch.uint8)}))
    session.observe(Observation(frames={"head": torch.zeros(1, 2, 3, 32, 32, dtype=torch.uint8)}), torch.zeros(1, 2, 2))
    assert session.step(torch.zeros(1, 1, 2)).frames["head"].shape == (1, 1, 3, 32, 32)


def test_a_run_refuses_another_or_none(files, tmp_path):
    preset = NANO_TAEF2
    assert costs_of(preset).parameters["tokenizer"] == 2_677_027
    run = Run(folder=tmp_path / "run", preset=preset, compute=CPU)
    with pytest.raises(ConfigError, match=r"not trained here.*convert --tokenizer"):
        tokenizer_stage(run, [])
    convert(ConvertSettings(tokenizer=files), tmp_path / "models")
    with pytest.raises(CheckpointError, match="expected the tokenizer of RGB of preset nano-taef2"):
        tokenizer_stage(run, [], tmp_path / "models" / "tokenizer")


def test_depth_may_go_through_it():
    rgbd = join_parts(tiny_taef2(), None, tiny_rgbd_tokenizer().coding)
    frames = torch.rand(1, 2, 4, 16, 16)
    latents, state = rgbd.encode(frames)
    assert latents.shape == (1, 2, 8, 2, 2) and rgbd.decode(latents, state)[0].shape == frames.shape


@pytest.mark.slow
@needs_weights
def test_real_recordings_come_back_at_27_db_or_more(tmp_path):
    convert(ConvertSettings(tokenizer=WEIGHTS), tmp_path / "models")
    tokenizer = load_tokenizer(tmp_path / "models" / "tokenizer")
    assert isinstance(tokenizer, TAEF2Tokenizer) and tokenizer.config == TAEF2Config()
    films = {"g1": open_dataset(SHARED / "g1_inspire_pick_bottle").frames(0, range(0, 120, 40), size=(192, 256))}
    for camera in (0, 2):
        with VideoReader(SHARED / f"droid_3cam/droid_subset/videos/train/0/{camera}.mp4") as reader:
            films[f"droid {camera}"] = resize(reader.read([0, 20, 40]), (192, 256))
    psnr = {}
    for name, film in films.items():
        frames = film.transpose(0, 3, 1, 2)
        psnr[name] = reconstruction_psnr(tokenizer, [{"frames": frames}], CPU)
        latents = encode_episode(tokenizer, frames, CPU)
        assert latents.shape == (3, 32, 24, 32) and 0.5 < latents.std() < 1.5  # the published scale is near N(0, 1)
    assert min(psnr.values()) >= 27, psnr
