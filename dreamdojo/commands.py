"""The commands of the stages: paths and a preset in, one stage run. Every field is a command-line option."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from rich.console import Console

from dreamdojo import foundation, stages
from dreamdojo.convert.convert import ConvertSettings, convert
from dreamdojo.dataset.published import find_body
from dreamdojo.dataset.read import Dataset, open_dataset
from dreamdojo.dataset.split import split_episodes
from dreamdojo.errors import ConfigError
from dreamdojo.presets import NANO, PRESETS, Preset, find_preset
from dreamdojo.stages import Engine, Episodes, Run
from dreamdojo.training.checkpoint import read_class, read_config
from dreamdojo.training.device import Device, Precision, choose_compute, join_processes
from dreamdojo.training.memory import require_memory
from dreamdojo.training.progress import no_line, progress_line
from dreamdojo.training.trackers import TrackerName
from dreamdojo.world_model.model import WorldModel

console = Console(file=sys.stderr, highlight=False)


@dataclass(kw_only=True)
class Command:
    """A command without a preset."""

    @classmethod
    def preset_and_rest(cls, arguments: Sequence[str]) -> tuple[Preset | None, list[str]]:
        """Split a leading preset name off the arguments, for commands that take one.

        Raises:
            ConfigError: if a preset is named and this command takes none.
        """
        if arguments and arguments[0] in PRESETS and not Path(arguments[0]).exists():
            raise ConfigError(f"this command takes no preset: drop {arguments[0]!r}")
        return None, list(arguments)


@dataclass(kw_only=True)
class ModelCommand(Command):
    """A command without a preset whose first word is a model: a folder, or the name of one that ships."""

    @classmethod
    def preset_and_rest(cls, arguments: Sequence[str]) -> tuple[None, list[str]]:
        """No preset: a name that comes first is a model's."""
        return None, list(arguments)


@dataclass(kw_only=True)
class PresetCommand(Command):
    """A command that follows a preset and works in a run folder."""

    preset: Annotated[Preset, tyro.conf.arg(name="")]
    run_folder: Annotated[Path, tyro.conf.arg(name="run")] = Path("runs/nano")
    """Run folder: what earlier stages wrote is read from here, and what this one makes goes here."""
    device: Device = "auto"
    """Where to compute."""
    precision: Precision = "auto"
    """bfloat16 where it is faster, unless said otherwise."""
    peak_tflops: float | None = None
    """What one device can do at most (its data sheet), of which training logs its share; measured if not given."""
    threads: int | None = None
    """CPU threads; all cores by default."""
    workers: int = 2
    """Processes that decode video; with --stream-gb, threads."""
    stream_gb: float | None = None
    """Stream video while training, with so many gigabytes for decoded frames per dataset (by weight), and derive
    latents straight from it; by default all frames are decoded into the run folder first."""
    skip_corrupt: bool = False
    """Go on without episodes that do not decode; they are counted, and named in left_out.json."""
    engine: Engine = "here"
    """Who derives latents and latent actions: this process, `local` (a pool of --workers processes) or `ray`."""
    trackers: tuple[TrackerName, ...] = ()
    """Experiment trackers beside metrics.jsonl."""

    @classmethod
    def preset_and_rest(cls, arguments: Sequence[str]) -> tuple[Preset | None, list[str]]:
        """The preset named first, or `nano`."""
        if arguments and not arguments[0].startswith("-"):
            return find_preset(arguments[0]), list(arguments[1:])
        return NANO, list(arguments)

    @classmethod
    def with_preset(cls, preset: Preset) -> PresetCommand:
        """A command of the preset whose other required options are still to be given."""
        blank = object.__new__(cls)  # tyro asks for what is missing, so the fields are not checked here
        for each in dataclasses.fields(cls):
            default = tyro.MISSING if each.default is dataclasses.MISSING else each.default
            if each.default_factory is not dataclasses.MISSING:
                default = each.default_factory()
            setattr(blank, each.name, default)
        blank.preset, blank.run_folder = preset, Path("runs") / preset.name
        return blank

    def open_run(self) -> Run:
        """The run, after saying what was chosen and why."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        peak = None if self.peak_tflops is None else self.peak_tflops * 1e12
        compute = dataclasses.replace(join_processes(choose_compute(self.device, self.precision)), peak_flops=peak)
        is_main = compute.processes.is_main
        if is_main:
            console.print(f"preset {self.preset.name}, {compute.reason}, {torch.get_num_threads()} threads")
        return Run(
            folder=self.run_folder,
            preset=self.preset,
            compute=compute,
            trackers=self.trackers if is_main else (),
            workers=self.workers,
            progress=progress_line if is_main else no_line,
            stream_gb=self.stream_gb,
            skip_corrupt=self.skip_corrupt,
            engine=self.engine,
        )


def open_robot(path: Path | str, body: str | None) -> Dataset:
    """A dataset, read as that of a published body where one is named.

    Raises:
        ConfigError: if there is no such body.
        DataError: if the dataset cannot be of that body.
    """
    return open_dataset(path, embodiment=find_body(body) if body else None)


def all_episodes(
    path: Path | str, camera: str | None = None, body: str | None = None, *, weight: float = 1.0
) -> Episodes:
    """A dataset with all of its episodes."""
    dataset = open_robot(path, body)
    return Episodes(dataset=dataset, indices=tuple(e.index for e in dataset.episodes), camera=camera, weight=weight)


@dataclass(kw_only=True)
class _OfDatasets(PresetCommand):
    """A command on one dataset or several, mixed."""

    data: tuple[str | Path, ...]
    """Datasets: folders, or URLs such as hf://datasets/ORG/NAME."""
    weights: tuple[float, ...] = ()
    """How often each is drawn from, e.g. 1 2 10; all alike by default."""
    camera: str | None = None
    """Their camera, where they have several."""

    def mixture(self) -> list[Episodes]:
        """The datasets with their weights, which are made 1 on average.

        Raises:
            ConfigError: if there is not one positive weight for each dataset.
        """
        weights = self.weights or (1.0,) * len(self.data)
        if len(weights) != len(self.data) or min(weights) <= 0:
            raise ConfigError(
                f"expected one positive weight for each of the {len(self.data)} datasets, got {self.weights}"
            )
        mean = sum(weights) / len(weights)
        return [
            all_episodes(path, self.camera, weight=weight / mean)
            for path, weight in zip(self.data, weights, strict=True)
        ]


def train_and_test(
    dataset: Dataset, *, test_fraction: float, minutes: float | None, camera: str | None = None
) -> tuple[Episodes, Episodes]:
    """Split a dataset by episode; of the training part, keep the first episodes that fill `minutes`."""
    train, test = split_episodes(dataset, test_fraction=test_fraction, seed=0)
    if minutes is not None:
        train = first_minutes(dataset, train, minutes)
    return (
        Episodes(dataset=dataset, indices=tuple(train), camera=camera),
        Episodes(dataset=dataset, indices=tuple(test), camera=camera),
    )


def first_minutes(dataset: Dataset, indices: Sequence[int], minutes: float) -> list[int]:
    """As many of the episodes, in order, as fit into `minutes`.

    Raises:
        ConfigError: if not even the first fits.
    """
    if minutes <= 0:
        raise ConfigError(f"expected --minutes above 0, got {minutes:g}")
    kept, seconds = [], 0.0
    for index in indices:
        seconds += dataset.episode(index).length / dataset.fps
        if seconds > minutes * 60 + 1e-6:
            break
        kept.append(index)
    if not kept:
        raise ConfigError(f"{dataset.root}: no episode fits into {minutes:g} minutes; allow more")
    return kept


@dataclass(kw_only=True)
class Simulate(Command):
    """Write datasets from the dojo."""

    out: Path
    """Folder for the datasets; one folder per body appears in it."""
    bodies: tuple[Literal["human", "arm", "mobile_arm"], ...] = ("human", "arm")
    """Whose episodes to simulate."""
    control: Literal["end_effector_velocity", "joint_position", "joint_velocity", "joint_torque"] = (
        "end_effector_velocity"
    )
    """What a robot's actions mean."""
    episodes: int = 50
    """Episodes of each body."""
    frames: int = 64
    """Frames of an episode."""
    split: str = "train"
    """Which seeds: train, test, demo, ood_shape, ood_colour, ood_layout or ood_lighting."""
    difficulty: Literal["gentle", "normal", "clutter"] = "gentle"
    """How hard the scenes are."""
    size: int = 128
    """Side of a frame in pixels."""
    depth: bool = False
    """Whether to write metric depth video too."""
    workers: int = 2
    """Processes."""

    def run(self) -> None:
        """Simulate."""
        from dreamdojo.dojo.simulate import SimulateSettings, simulate

        for body in self.bodies:
            settings = SimulateSettings(
                body=body,
                split=self.split,
                episodes=self.episodes,
                frames=self.frames,
                difficulty=self.difficulty,
                control=self.control,
                size=self.size,
                depth=self.depth,
            )
            with progress_line(f"simulate {body}") as report:
                result = simulate(settings, self.out / body, workers=self.workers, progress=report)
            console.print(str(result))


@dataclass(kw_only=True)
class TrainTokenizer(_OfDatasets):
    """Train the video tokenizer."""

    rgb: Path | None = None
    """A tokenizer of RGB to keep, of another run or a converted one: with modality rgbd only depth is trained."""

    def run(self) -> None:
        """Train."""
        stages.tokenizer_stage(self.open_run(), self.mixture(), self.rgb)


@dataclass(kw_only=True)
class _OfDataset(PresetCommand):
    """A command on one dataset."""

    data: str | Path
    """The dataset: a folder, or a URL such as hf://datasets/ORG/NAME."""
    camera: str | None = None
    """Its camera, where it has several."""

    def episodes(self) -> Episodes:
        """All episodes of the dataset."""
        return all_episodes(self.data, self.camera)


class Encode(_OfDataset):
    """Encode a dataset's frames to latents."""

    def run(self) -> None:
        """Encode."""
        console.print(str(self.open_run().latents(self.episodes())))


@dataclass(kw_only=True)
class TrainLatentAction(_OfDatasets):
    """Train the latent action model on unlabelled video."""

    labelled: Path | None = None
    """A robot's dataset, whose actions teach the first numbers of the latent action; needs a label_weight."""

    def run(self) -> None:
        """Train."""
        labelled = all_episodes(self.labelled) if self.labelled else None
        stages.latent_action_stage(self.open_run(), *self.mixture(), labelled=labelled)


class InferLatentActions(_OfDataset):
    """Infer the latent actions of a dataset."""

    def run(self) -> None:
        """Infer."""
        console.print(str(self.open_run().latent_actions(self.episodes())))


def adopt_shipped_latent_action(run: Run) -> None:
    """Give a run without a latent action model the one that ships, if there is one for its preset."""
    shipped, own = foundation(run.preset.name), run.folder / "latent_action"
    if shipped is not None and not own.exists():
        console.print(f"Latent actions: {own} is not there, so the model that ships is copied to it")
        stages.adopt_foundation(run, shipped, ["latent_action"])


@dataclass(kw_only=True)
class LatentActionReport(PresetCommand):
    """Tell a healthy latent action model from a collapsed one: report.html, report.json and a verdict in words."""

    human: Path
    """Video of the kind the model was trained on, of episodes it was not trained on."""
    robot: Path | None = None
    """A robot's dataset, for probes of its actions and for transfer between bodies."""
    ood: tuple[Path, ...] = ()
    """Datasets unlike those of training."""
    model: Path | None = None
    """Folder of the model; by default the run's, or else the one that ships."""
    out: Path | None = None
    """Folder for the report; by default latent_action_report in the run folder."""
    body: str | None = None
    """Whose the robot's dataset is, where it does not say: gr1, g1, yam or agibot."""
    camera: str | None = None
    """The camera of all datasets, where they have several."""
    oracle_pairs: int = 48
    """Pairs whose best latent action is searched, which takes most of the time."""
    oracle_steps: int = 100
    """Steps of each search."""
    seed: int = 0
    """Decides splits, shuffles, lights and cameras."""

    def run(self) -> None:
        """Examine the model and write the report."""
        from dreamdojo.judge import HealthData, write_health

        data = HealthData(
            human=all_episodes(self.human, self.camera),
            robot=all_episodes(self.robot, self.camera, self.body) if self.robot else None,
            ood=tuple(all_episodes(path, self.camera) for path in self.ood),
        )
        run, out = self.open_run(), self.out or self.run_folder / "latent_action_report"
        if self.model is None:
            adopt_shipped_latent_action(run)
        verdict = write_health(
            run,
            self.model or self.run_folder / "latent_action",
            data,
            out,
            oracle_pairs=self.oracle_pairs,
            oracle_steps=self.oracle_steps,
            seed=self.seed,
        )
        console.print(verdict.text)
        for caution in verdict.cautions:
            console.print(f"Caution: {caution}.")
        console.print(f"Look at {out / 'report.html'}")


class Pretrain(_OfDatasets):
    """Train the world model on human video and its latent actions."""

    def run(self) -> None:
        """Train."""
        stages.pretrain_stage(self.open_run(), *self.mixture())


@dataclass(kw_only=True)
class _OfRobot(PresetCommand):
    """A command on a robot's dataset."""

    robot: str | Path
    """The robot's dataset: a folder or a URL."""
    body: str | None = None
    """Whose it is, where the dataset does not say: gr1, g1, yam or agibot, with their published ranges."""
    camera: str | None = None
    """Its camera, where it has several."""
    minutes: float | None = None
    """Use only the first episodes that fill so many minutes."""
    test_fraction: float = 0.2
    """Share of its episodes that are held out (a split that the dataset declares goes first)."""

    def split(self) -> tuple[Episodes, Episodes]:
        """Training and held-out episodes."""
        dataset = open_robot(self.robot, self.body)
        return train_and_test(dataset, test_fraction=self.test_fraction, minutes=self.minutes, camera=self.camera)


@dataclass(kw_only=True)
class LatentActionAlign(_OfRobot):
    """Align latent actions with a robot's actions, both ways, and say whether its data are enough.

    The latent actions are those of the run's model, or else of the one that ships.
    """

    kind: Literal["ridge", "mlp"] = "mlp"
    """Linear, or with two more layers."""
    seed: int = 0
    """Decides the order of the data and the fit."""

    def run(self) -> None:
        """Fit, say how well, and write `alignment/` into the run folder."""
        from dreamdojo.evaluation.alignment import alignment_report, alignment_rows
        from dreamdojo.evaluation.report import write_report

        run, (train, held_out) = self.open_run(), self.split()
        adopt_shipped_latent_action(run)
        fit, curve = stages.align_stage(run, train, held_out, kind=self.kind, seed=self.seed)
        for name, r2 in alignment_rows(fit):
            console.print(f"  {name}: R² {r2}")
        for point in curve.points:
            console.print(f"  with {point.seconds:.0f} s: R² {point.r2.mean}")
        console.print(curve.sufficiency().text)
        out = run.folder / "alignment" / "report.html"
        write_report(out, alignment_report(fit, curve, facts=(f"preset {run.preset.name}", str(self.robot))))
        console.print(f"Look at {out}")


@dataclass(kw_only=True)
class Posttrain(_OfRobot):
    """Teach the world model a robot from its episodes."""

    human: str | Path | None = None
    """Human video to mix in, so that what it taught is not forgotten."""
    start: Path | None = None
    """World model to start from, e.g. a converted one, with its tokenizer beside; by default the run's pretrained. With
    modality rgbd one of RGB gets depth, and keeps the RGB that it says."""
    lora_rank: int | None = None
    """Train only a LoRA of this rank and the robot's adapter; by default all weights."""
    adapter: Literal["aligned", "fresh"] = "aligned"
    """How a new robot's adapter starts: aligned with the latent actions of its own video, or as a fresh layer."""

    def run(self) -> None:
        """Train."""
        human = all_episodes(self.human) if self.human else None
        run = self.open_run()
        self.check_memory(run)
        if self.start is not None:
            if self.preset.modality == "rgbd" and read_class(self.start.parent / "tokenizer") != "RGBDTokenizer":
                stages.start_with_depth(run, self.start)
            else:
                stages.start_from(self.run_folder, self.start)
        stages.posttrain_stage(run, self.split()[0], human, lora_rank=self.lora_rank, adapter=self.adapter)

    def check_memory(self, run: Run) -> None:
        """Refuse, with the numbers, to begin what cannot fit.

        Raises:
            ConfigError: if a training step needs more than the device has free.
        """
        from dreamdojo.presets.costs import costs_of

        preset, start = self.preset, self.start or self.run_folder / "pretrained"
        if (start / "config.json").exists():
            dit, channels = read_config(start, WorldModel).dit, preset.world_model.latent_channels
            preset = dataclasses.replace(preset, world_model=dataclasses.replace(dit, latent_channels=channels))
        costs, count = costs_of(preset), run.compute.processes.count
        needed = costs.training_bytes // count if self.lora_rank is None else costs.lora_bytes
        require_memory(
            needed,
            run.compute.device,
            what=f"post-training preset {self.preset.name}" + (f" in each of {count} processes" if count > 1 else ""),
            advice="Train a LoRA (--lora-rank 16), divide it over more devices (torchrun), or use a smaller preset.",
        )


class Distill(_OfRobot):
    """Distil the teacher into a student of few steps."""

    def run(self) -> None:
        """Distil."""
        stages.student_stage(self.open_run(), self.split()[0])


@dataclass(kw_only=True)
class Info(PresetCommand):
    """What a preset costs, and whether it fits here. Nothing is loaded or computed."""

    memory: float | None = None
    """GiB to fit into; by default what is free on the device."""

    def run(self) -> None:
        """Print the costs; refuses with the numbers where generating does not fit."""
        from rich.table import Table

        from dreamdojo.presets.costs import costs_of, in_gib
        from dreamdojo.training.memory import GIB, available_memory

        costs, device = costs_of(self.preset), choose_compute(self.device, self.precision).device
        table = Table("", self.preset.name, title_justify="left")
        for what, how_much in costs.rows():
            table.add_row(what, how_much)
        Console(highlight=False).print(table)
        there = available_memory(device) if self.memory is None else int(self.memory * GIB)
        if there is None:
            return
        fits = {
            "generate": costs.generation_bytes,
            "post-train with a LoRA": costs.lora_bytes,
            "post-train all weights": costs.training_bytes,
        }
        console.print(f"With {there / GIB:.1f} GiB ({device}):")
        for what, needed in fits.items():
            verdict = "fits" if needed <= there else "does not fit"
            console.print(f"  {what}: {verdict}, needs about {in_gib(needed)}")
        if costs.generation_bytes > there:
            raise ConfigError(
                f"preset {self.preset.name} needs about {costs.generation_bytes / GIB:.1f} GiB to generate, "
                f"{there / GIB:.1f} GiB are there. Use a smaller preset or a device with more memory."
            )


@dataclass(kw_only=True)
class Convert(Command):
    """Turn the published weights into models, or models back into them."""

    out: Path
    """A new or empty folder for what is written."""
    back: Path | None = None
    """Instead, turn the models in this folder back into published files."""
    settings: Annotated[ConvertSettings, tyro.conf.arg(name="")] = field(default_factory=ConvertSettings)

    def run(self) -> None:
        """Convert."""
        from dreamdojo.convert.publish import to_published

        if self.back is None:
            convert(self.settings, self.out, progress_line)
        elif self.settings != ConvertSettings():
            raise ConfigError("--back takes a folder of models and --out only; leave the other options out")
        else:
            to_published(self.back, self.out, progress_line)
        console.print(f"Written to {self.out}")
