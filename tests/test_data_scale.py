"""The stages on data that is streamed, mixed, far away, damaged or worked on by others: the models are the same."""

import json
from dataclasses import replace

import fsspec
import numpy as np
import pytest

from dreamdojo import stages
from dreamdojo.commands import TrainLatentAction, all_episodes
from dreamdojo.dataset import stream
from dreamdojo.dataset.cache import CacheKey, CacheWriter, open_cache
from dreamdojo.dataset.windows import WindowSampler
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.latent_action.train import train_latent_action_model
from dreamdojo.stages.sources import frame_source
from tests.test_chain import record, toy_run
from tests.tiny import CPU

ENOUGH = 1e-3
"""Gigabytes for streams of toy size."""


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    return record(folder / "one", robot=False, episodes=4), record(folder / "two", robot=False, episodes=6, seed=1)


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(stream, "SEGMENT", 16)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, recordings):
    """A run with a tokenizer and a latent action model."""
    run, human = toy_run(tmp_path_factory.mktemp("trained"), 4), all_episodes(recordings[0])
    stages.tokenizer_stage(run, [human])
    stages.latent_action_stage(run, human)
    return run


def run_beside(trained, folder, **changes):
    """Another run with the same models."""
    run = replace(trained, folder=folder, **changes)
    for stage in ("tokenizer", "latent_action"):
        stages.link_model(trained.folder / stage, folder / stage)
    return run


def unfeatured(run):
    """Without the tokenizer's part in the loss of the latent action model."""
    training = replace(run.preset.latent_action_training, feature_weight=0.0)
    return replace(run, preset=replace(run.preset, latent_action_training=training))


def test_training_from_a_stream_goes_on_in_mid_epoch_on_another_number_of_workers(tmp_path, recordings, short):
    human = all_episodes(recordings[0])
    whole = replace(unfeatured(toy_run(tmp_path / "whole", 1)), stream_gb=ENOUGH, workers=2)
    stages.latent_action_stage(whole, human)

    class Stopping:
        def log(self, step, row):
            if step == 7:
                raise KeyboardInterrupt

    stopped = replace(unfeatured(toy_run(tmp_path / "stopped", 1)), stream_gb=ENOUGH, workers=1)
    source = frame_source(stopped, human)
    with pytest.raises(KeyboardInterrupt):
        train_latent_action_model(
            stopped.preset.latent_action,
            stopped.preset.latent_action_training,
            [source],
            stopped.folder / "latent_action",
            compute=CPU,
            trackers=(Stopping(),),
        )
    stages.latent_action_stage(replace(stopped, workers=3), human)
    one, two = ((run.folder / "latent_action" / "model.safetensors").read_bytes() for run in (whole, stopped))
    assert one == two
    assert not (whole.folder / "cache").exists(), "nothing was decoded to disk"


@pytest.mark.filterwarnings("ignore:::ray")
@pytest.mark.parametrize(
    ("engine", "kind"), [("local", "latents"), pytest.param("ray", "latent_actions", marks=pytest.mark.slow)]
)
def test_engines_on_a_stream_write_what_one_process_writes_from_its_cache(tmp_path, recordings, trained, engine, kind):
    if engine == "ray":
        pytest.importorskip("ray.data")
    human = all_episodes(recordings[0])
    run = run_beside(trained, tmp_path / "run", engine=engine, workers=1, stream_gb=ENOUGH)
    mine, theirs = getattr(trained, kind)(human), getattr(run, kind)(human)
    assert mine.key == theirs.key and not list((run.folder / "cache").glob("frames*"))
    for episode in human.indices:
        np.testing.assert_array_equal(mine[episode], theirs[episode])
        np.testing.assert_array_equal(mine.valid(episode), theirs.valid(episode))


def test_datasets_are_mixed_as_the_command_line_says(tmp_path, recordings):
    fsspec.filesystem("memory").put(str(recordings[1]), "/far/two", recursive=True)
    preset = toy_run(tmp_path, 1).preset
    command = TrainLatentAction(preset=preset, data=(recordings[0], "memory://far/two"), weights=(1.0, 10.0))
    one, two = command.mixture()
    assert two.weight / one.weight == pytest.approx(10) and two.dataset.address == "memory://far/two"
    run = unfeatured(toy_run(tmp_path, 1))
    sources = [frame_source(run, each) for each in (one, two)]
    sampler = WindowSampler(sources, length=2, batch_size=100, seed=0)
    random, counts = [np.random.default_rng([0, step]) for step in range(20)], np.zeros(2)
    for each in random:
        counts += each.multinomial(100, sampler._shares)
    assert 0.88 < counts[1] / counts.sum() < 0.94
    with pytest.raises(ConfigError, match="one positive weight for each of the 2 datasets"):
        replace(command, weights=(1.0,)).mixture()
    stages.latent_action_stage(run, one, two)
    stages.tokenizer_stage(run, [one])
    stages.pretrain_stage(run, one, two)


def damage(root, *, at):
    path = next(root.rglob("*.mp4"))
    data = bytearray(path.read_bytes())
    start = data.find(b"mdat") + 4
    place = start + int((len(data) - start) * at)
    data[place : place + 600] = bytes(600)
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("gigabytes", [None, 0.01])
def test_a_corrupt_episode_stops_a_command_or_is_left_out_and_named(tmp_path, gigabytes):
    root = record(tmp_path / "torn", robot=False, episodes=5)
    damage(root, at=0.35)
    run = replace(unfeatured(toy_run(tmp_path / "run", 1)), stream_gb=gigabytes)
    human = all_episodes(root)
    with pytest.raises(DataError, match=r"damaged|decodes from its first|frame"):
        stages.latent_action_stage(run, human)
    lenient = replace(run, skip_corrupt=True)
    stages.latent_action_stage(lenient, human)
    stages.tokenizer_stage(lenient, [human])
    stages.pretrain_stage(lenient, human)
    named = json.loads(lenient.left_out.read_text())
    assert list(named) == [str(root)] and len(named[str(root)]) == 1
    episode, reason = next(iter(named[str(root)].items()))
    assert "torn" in reason
    latents = lenient.latents(human)
    assert latents.episodes == [index for index in human.indices if index != int(episode)]
    if gigabytes is None:
        with pytest.raises(DataError, match=r"goes without 1 corrupt episodes.*--skip-corrupt again"):
            run.frames(human)


def test_a_cache_that_misses_what_it_should_hold_says_why(tmp_path, recordings):
    key = CacheKey(kind="latent", dataset_hash="d", model_hash="m", rate=10.0, gap=0)
    with CacheWriter(tmp_path / "c", key, {0: 2, 1: 3}, (1,), "float32") as writer:
        writer.write(0, np.ones((2, 1), np.float32))
        writer.leave_out(1, "the video is torn")
    cache = open_cache(tmp_path / "c", key)
    assert cache.episodes == [0] and 1 not in cache and cache.of([1, 0]) == [0]
    with pytest.raises(DataError, match="episode 1 was left out: the video is torn"):
        cache[1]
