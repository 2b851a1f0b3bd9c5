"""The stages of the latent action model: training it, and aligning it with a robot."""

from __future__ import annotations

from torch import nn

from dreamdojo.errors import ConfigError
from dreamdojo.files import write_json
from dreamdojo.latent_action.align import AlignmentFit, Kind, fit_alignment
from dreamdojo.latent_action.curve import AlignmentCurve, alignment_curve
from dreamdojo.latent_action.model import LatentActionModel
from dreamdojo.latent_action.train import train_latent_action_model
from dreamdojo.stages.run import Episodes, Run
from dreamdojo.stages.sources import frame_source, labelled_sources, paired_episodes
from dreamdojo.tokenizer.load import load_tokenizer
from dreamdojo.tokenizer.rgbd import RGBDTokenizer
from dreamdojo.training.checkpoint import model_hash, save_model
from dreamdojo.training.trackers import open_trackers


def latent_action_stage(run: Run, *human: Episodes, labelled: Episodes | None = None) -> LatentActionModel:
    """Train the latent action model on unlabelled video, and on a robot's episodes where its `label_weight` asks.

    Raises:
        ConfigError: if several datasets of video are to be mixed with a labelled one, or there is a `label_weight` and
            nothing labelled, or the other way round; or if the tokenizer's features are to be predicted and there is no
            tokenizer.
    """
    size, weight = run.preset.latent_action_size, run.preset.latent_action_training.label_weight
    if (labelled is not None) != (weight > 0):
        raise ConfigError(
            f"a labelled dataset and a label_weight go together: got {labelled and labelled.dataset.root} and {weight}"
        )
    if labelled is not None and len(human) != 1:
        raise ConfigError(f"a labelled dataset goes with one dataset of video, got {len(human)}")
    tokenizer = _feature_tokenizer(run)
    sources = (
        [frame_source(run, each, size) for each in human]
        if labelled is None
        else labelled_sources(run, human[0], labelled)
    )
    with run.progress("latent actions") as report:
        folder = run.folder / "latent_action"
        return train_latent_action_model(
            run.preset.latent_action,
            run.preset.latent_action_training,
            sources,
            folder,
            compute=run.compute,
            tokenizer=tokenizer,
            trackers=open_trackers(run.trackers, folder, "latent_action"),
            report=report,
        )


def _feature_tokenizer(run: Run) -> nn.Module | None:
    """The frozen tokenizer of RGB whose features the latent action model is to predict, if any."""
    weight = run.preset.latent_action_training.feature_weight
    if not weight:
        return None
    if not (run.folder / "tokenizer" / "config.json").exists():
        raise ConfigError(
            f"the latent action model is to predict features of the tokenizer (feature_weight {weight:g}), and "
            f"{run.folder / 'tokenizer'} holds none: run `dreamdojo train-tokenizer` first, or set "
            "--latent-action-training.feature-weight 0"
        )
    tokenizer = load_tokenizer(run.folder / "tokenizer")
    return tokenizer.rgb if isinstance(tokenizer, RGBDTokenizer) else tokenizer


def align_stage(
    run: Run, robot: Episodes, held_out: Episodes, *, kind: Kind = "mlp", seed: int = 0
) -> tuple[AlignmentFit, AlignmentCurve]:
    """Align latent actions with a robot's actions, both ways; the curve says whether there is enough data.

    Raises:
        DataError: if the dataset has no actions, or fewer than three episodes.
    """
    body, k = robot.dataset.embodiment, run.preset.tokenizer.temporal_factor
    train, test = paired_episodes(run, robot), paired_episodes(run, held_out)
    fit = fit_alignment(train, test, body, kind=kind, chunk=k, seed=seed)
    curve = alignment_curve(train, test, body, rate=run.preset.rate, kind=kind, chunk=k, seed=seed)
    folder, enough = run.folder / "alignment", curve.sufficiency()
    save_model(folder, fit.alignment, about={"seed": seed, "model_hash": model_hash(run.folder / "latent_action")})
    found = {"answer": enough.text, "enough": enough.enough, "gain_of_twice_the_data": enough.gain}
    write_json(folder / "alignment.json", {**found, "fit": fit.to_json(), "curve": curve.to_json()})
    return fit, curve
