"""The stages of the world model: human video, the robot's episodes, the student."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dreamdojo.dataset.actions import relative_actions
from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.dataset.published import RESERVED_SLOT, in_reserved_slot
from dreamdojo.errors import CheckpointError, ConfigError
from dreamdojo.latent_action.align import ridge_map
from dreamdojo.stages.run import Episodes, Run
from dreamdojo.stages.sources import latent_action_source, robot_motion, robot_source
from dreamdojo.student.distill import distil, is_distilled
from dreamdojo.tokenizer.load import load_tokenizer
from dreamdojo.tokenizer.protocol import VideoTokenizer
from dreamdojo.training.checkpoint import load_model, read_about
from dreamdojo.training.fit import is_finished
from dreamdojo.training.trackers import open_trackers
from dreamdojo.world_model.lora import LoRAConfig, train_lora
from dreamdojo.world_model.model import LATENT_ACTION, ActionAdapter, WorldModel, WorldModelConfig
from dreamdojo.world_model.sample import SamplerConfig
from dreamdojo.world_model.train import train_world_model
from dreamdojo.world_model.widen import add_reference

AdapterStart = Literal["aligned", "fresh"]


def pretrain_stage(run: Run, *human: Episodes) -> WorldModel:
    """Train the world model on human video and its latent actions, of one dataset or several, mixed by weight."""
    folder, preset = run.folder / "pretrained", run.preset
    if is_finished(folder, preset.pretraining.fit):
        return load_model(folder, WorldModel)
    sources = [latent_action_source(run, each) for each in human]
    torch.manual_seed(preset.pretraining.fit.seed)
    model = WorldModel(
        WorldModelConfig(
            dit=preset.world_model,
            size=preset.size,
            rate=preset.rate,
            text_tokens=preset.text_tokens,
            latent_action_slot=preset.latent_action_slot,
        )
    )
    if preset.latent_action_slot is None:
        mean, std = _spread(run, human)
        model.latent_action_mean.copy_(torch.from_numpy(mean))
        model.latent_action_std.copy_(torch.from_numpy(std.clip(1e-4)))
    with run.progress("pre-train") as report:
        return train_world_model(
            model,
            preset.pretraining,
            sources,
            folder,
            compute=run.compute,
            about=sampling(preset.student.teacher),
            trackers=open_trackers(run.trackers, folder, "pretrained"),
            report=report,
        )


def _spread(run: Run, human: Sequence[Episodes]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of latent actions, datasets counting by their weight: `l` float32 each."""
    moments = []
    for each in human:
        cache = run.latent_actions(each)
        rows = np.concatenate([cache[index][:-1] for index in cache.of(each.indices)])
        moments.append((rows.mean(axis=0), rows.std(axis=0)))
    shares = np.array([each.weight for each in human], np.float32) / np.float32(sum(each.weight for each in human))
    mean = sum(share * own for share, (own, _) in zip(shares, moments, strict=True))
    variance = sum(share * (std**2 + (own - mean) ** 2) for share, (own, std) in zip(shares, moments, strict=True))
    return np.asarray(mean), np.sqrt(variance)


def posttrain_stage(
    run: Run,
    robot: Episodes,
    human: Episodes | None,
    *,
    lora_rank: int | None = None,
    adapter: AdapterStart = "aligned",
) -> WorldModel:
    """Teach the pre-trained world model a robot's body from its episodes; some human video is mixed in.

    With `lora_rank` only a LoRA of that rank and the robot's adapter are trained. A new body's adapter starts `aligned`
    with the latent actions of the robot's own video, or as a `fresh` layer. A reference frame that the preset has and
    the pre-trained model has not is added.

    Raises:
        CheckpointError: if the stage was finished with another `lora_rank` or `adapter`.
    """
    folder, preset = run.folder / "teacher", run.preset
    if is_finished(folder, preset.posttraining.fit):
        about = read_about(folder)
        found = {"lora_rank": about.get("lora", {}).get("rank"), "adapter": about.get("adapter", "aligned")}
        asked = {"lora_rank": lora_rank, "adapter": adapter}
        for name in asked:
            if found[name] != asked[name]:
                raise CheckpointError(
                    f"{folder} is finished, with {name}={found[name]}; {name}={asked[name]} was asked for. Use another "
                    "run folder, or delete this one's teacher to train it again."
                )
        return load_model(folder, WorldModel)
    model = load_model(run.folder / "pretrained", WorldModel)
    if preset.world_model.reference_latent and not model.config.dit.reference_latent:
        model = add_reference(model)
    body = body_for(model, robot.dataset.embodiment)
    if body not in model.config.embodiments:
        torch.manual_seed(preset.posttraining.fit.seed)
        model = model.with_embodiments(body)
    sources = [robot_source(run, robot, body, weight=1 - preset.human_share)]
    if human is not None and preset.human_share > 0:
        sources.append(latent_action_source(run, human, weight=preset.human_share))
    front, inferable = model.adapter(body.name), (run.folder / "latent_action" / "model.safetensors").exists()
    if adapter == "aligned" and isinstance(front, ActionAdapter) and inferable:
        front.start_from(*align_adapter(run, model, robot, body))
    # a model that was made elsewhere keeps its own way of being sampled
    about = {"sampler": read_about(run.folder / "pretrained")["sampler"], "adapter": adapter}
    train = train_world_model
    if lora_rank is not None:
        torch.manual_seed(preset.posttraining.fit.seed)
        base = "bfloat16" if run.compute.autocast else "float32"
        train = partial(train_lora, lora=LoRAConfig(rank=lora_rank, alpha=2.0 * lora_rank, base=base))
    with run.progress("post-train") as report:
        return train(
            model,
            preset.posttraining,
            sources,
            folder,
            compute=run.compute,
            about=about,
            trackers=open_trackers(run.trackers, folder, "teacher"),
            report=report,
        )


def body_for(model: WorldModel, body: Embodiment) -> Embodiment:
    """A dataset's body as `model` takes it: the one it knows by that name, or a new one.

    In models with published slots a new body takes the reserved one, unless its actions are too wide for it: then it
    gets an adapter of its own, as in every other model.

    Raises:
        ConfigError: if the model knows another body by that name.
    """
    for known in model.config.embodiments:
        if known.name == body.name:
            if known.action_names() != body.action_names():
                raise ConfigError(
                    f"the model knows {body.name} with the actions {', '.join(known.action_names())}; the dataset has "
                    f"{', '.join(body.action_names())}. Give one of them another name."
                )
            return known
    fits = body.action_dim <= RESERVED_SLOT.stop - RESERVED_SLOT.start
    return in_reserved_slot(body) if model.config.latent_action_slot is not None and fits else body


def align_adapter(run: Run, model: WorldModel, robot: Episodes, body: Embodiment) -> tuple[Tensor, Tensor]:
    """Ridge regression from the robot's action chunks to the latent actions inferred from its own video.

    The linear part of an alignment, of actions as the model is given them (without a base) and latent actions as it is
    conditioned on them. Returns the weight and bias of the adapter's linear part.
    """
    k = run.preset.tokenizer.temporal_factor
    inferred = run.latent_actions(robot)
    chunks, targets, episodes = [], [], []
    for index in inferred.of(robot.indices):
        actions, _ = robot_motion(run, robot, index, body)
        usable = len(actions) // k * k
        given = relative_actions(actions, actions[0], k) if body.relative else actions
        chunks.append(given[:usable].reshape(usable // k, -1))
        targets.append(inferred[index][:usable].reshape(usable // k, -1))
        episodes.append(np.full(usable // k, index))
    target = model.conditioning(LATENT_ACTION, torch.from_numpy(np.concatenate(targets))[None])[0]
    fit = ridge_map(torch.from_numpy(np.concatenate(chunks)), target, torch.from_numpy(np.concatenate(episodes)))
    return fit.weight.T, fit.bias


def student_stage(run: Run, robot: Episodes) -> WorldModel:
    """Distil the teacher into a student of few steps.

    Raises:
        CheckpointError: if the stage was finished by other means.
    """
    folder, preset = run.folder / "student", run.preset
    if is_distilled(folder, preset.student):
        return load_model(folder, WorldModel)
    teacher = load_model(run.folder / "teacher", WorldModel)
    body = body_for(teacher, robot.dataset.embodiment)
    source, longer, tokenizer = robot_source(run, robot, body), None, None
    if preset.clip_frames is not None and preset.student.longest:  # its own rollouts are longer than a clip
        frames = 1 + (preset.student.longest - 1) * preset.tokenizer.temporal_factor
        longer = [
            robot_source(dataclasses.replace(run, preset=dataclasses.replace(preset, clip_frames=frames)), robot, body)
        ]
        tokenizer = load_tokenizer(run.folder / "tokenizer").to(run.compute.device)
        assert isinstance(tokenizer, VideoTokenizer)
    with run.progress("student") as report:
        return distil(
            teacher,
            preset.student,
            preset.posttraining,
            [source],
            folder,
            compute=run.compute,
            long_sources=longer,
            tokenizer=tokenizer,
            trackers=open_trackers(run.trackers, folder, "student"),
            report=report,
        )


def sampling(sampler: SamplerConfig) -> dict[str, dict[str, float]]:
    """How a checkpoint wants to be sampled, as kept in its `about`."""
    return {"sampler": dataclasses.asdict(sampler)}
