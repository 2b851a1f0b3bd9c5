"""`dreamdojo train-policy`: a policy from recordings. `dreamdojo evaluate policy`: policies judged in a world model."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import tyro

import dreamdojo
from dreamdojo.apps.policy_eval.compare import Comparison, Protocol, Truth, compare, score_policy
from dreamdojo.apps.policy_eval.report import policy_report
from dreamdojo.apps.policy_eval.starts import Starts, dojo_starts, recorded_starts
from dreamdojo.apps.policy_eval.success import (
    FinderJudge,
    FunctionJudge,
    Judge,
    PixelJudge,
    PoseJudge,
    RewardJudge,
    error_on,
    known_outcomes,
    replay,
)
from dreamdojo.commands import Command, ModelCommand, console, open_robot, train_and_test
from dreamdojo.dataset.cache import SideCache
from dreamdojo.dataset.frames import cache_frames
from dreamdojo.dataset.read import Dataset
from dreamdojo.errors import ConfigError
from dreamdojo.evaluate_world_model import find_models, held_out_episodes
from dreamdojo.evaluation.report import write_report
from dreamdojo.evaluation.reward import JudgeError, Outcome, RewardTraining, train_reward_model
from dreamdojo.evaluation.world_model import STUDENT
from dreamdojo.files import write_json
from dreamdojo.functions import find_function
from dreamdojo.judge import describe, train_probes_on
from dreamdojo.policies.cloning import PixelPolicyConfig, PixelPolicyTraining, demonstrations, train_policy
from dreamdojo.policies.open import LEROBOT, open_policy
from dreamdojo.policies.scripted import ObjectFinder, train_finder
from dreamdojo.rollout.session import CAMERA, Backend, Session, load_session
from dreamdojo.stages import Episodes
from dreamdojo.training.checkpoint import model_hash
from dreamdojo.training.device import Compute, Device, choose_compute
from dreamdojo.training.progress import progress_line
from dreamdojo.video import Size

REWARD, POSE, FUNCTION, PIXELS = "reward model", "object pose", "own function", "pixel similarity"


@dataclass(kw_only=True)
class TrainPolicy(Command):
    """Behaviour cloning from pixels: repeat what the episodes of a robot's dataset show."""

    data: Path
    """The robot's dataset; a split that it declares is followed, and only the training part is learned from."""
    out: Path
    """Folder of the policy."""
    body: str | None = None
    """Whose it is, where the dataset does not say: gr1, g1, yam or agibot."""
    camera: str | None = None
    """Its camera, where it has several."""
    minutes: float | None = None
    """Learn from the first episodes that fill so many minutes; from all by default."""
    test_fraction: float = 0.2
    """Share of the episodes that are held out."""
    size: int = 64
    """Side of the frames in pixels: that of the world model it will act in."""
    rate: float = 10.0
    """Frames and actions per second."""
    chunk: int = 8
    """Actions that it foresees."""
    execute: int = 2
    """Of these, how many are carried out before it looks again."""
    training: PixelPolicyTraining = field(default_factory=PixelPolicyTraining)
    device: Device = "auto"
    """Where to compute."""
    threads: int | None = None
    """CPU threads; all cores by default."""
    workers: int = 2
    """Processes that decode video."""

    def run(self) -> None:
        """Train."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        dataset = open_robot(self.data, self.body)
        episodes, _ = train_and_test(
            dataset, test_fraction=self.test_fraction, minutes=self.minutes, camera=self.camera
        )
        frames = frames_of(
            dataset, self.out, rate=self.rate, size=(self.size, self.size), camera=self.camera, workers=self.workers
        )
        config = PixelPolicyConfig(
            embodiment=dataset.embodiment,
            camera=CAMERA,
            size=(self.size, self.size),
            rate=self.rate,
            chunk=self.chunk,
            execute=self.execute,
        )
        console.print(f"policy from {describe(episodes)}")
        with progress_line("train-policy") as report:
            train_policy(
                config,
                self.training,
                demonstrations(dataset, episodes.indices, frames, rate=self.rate),
                self.out,
                compute=choose_compute(self.device),
                about={"data": str(self.data), "episodes": len(episodes.indices)},
                report=report,
            )
        console.print(f"Judge it with: dreamdojo evaluate policy MODEL --policies {self.out} ...")


@dataclass(kw_only=True)
class EvaluatePolicy(ModelCommand):
    """Let policies act in a world model from real first frames; writes `report.html` and `results.json`."""

    model: tyro.conf.Positional[Path]
    """A run's folder, whose student (or teacher) is used; the folder of one world model; or the name of a preset whose
    models ship (nano)."""
    policies: tuple[str, ...]
    """Each WORD or NAME=WORD: random, the folder of a trained policy, lerobot:FOLDER, ws://HOST:PORT, or
    module:function."""
    robot: Path | None = None
    """Start from the first frames of this dataset's held-out episodes; there is no truth to compare with."""
    all_episodes: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Start from all episodes of `robot`: of recordings that no stage and no policy was trained on."""
    split: str | None = None
    """Start from scenes of this split of the dojo (test, ood_shape, ...), and compare with what truly happens there."""
    task: Literal["push", "lift"] = "push"
    """What success is in the dojo."""
    difficulty: Literal["gentle", "normal", "clutter"] = "gentle"
    """How hard the dojo's scenes are."""
    objects: int | None = None
    """How many objects the dojo's scenes hold; what the difficulty says by default."""
    first_start: int = 0
    """Number of the first scene within the split."""
    starts: int = 50
    """Episodes of each policy."""
    steps: int = 40
    """Actions of an episode."""
    batch: int = 25
    """Starts that run side by side."""
    reward_data: Path | None = None
    """Judge by a reward model that learns from this dataset: of the dojo, or with a column next.success."""
    reward_training: RewardTraining = field(default_factory=RewardTraining)
    probes: Path | None = None
    """Judge by object positions: a dataset of the dojo that teaches a probe; a finder, where scenes have one object."""
    finder_steps: int = 500
    """Optimizer steps of that finder."""
    success: str | None = None
    """Judge by your own module:function, frames b t 3 h w uint8 and state b t s -> b true or false."""
    prompt: str = ""
    """What to do, in words, for policies that read."""
    body: str | None = None
    """Whose recordings they are, where the dataset does not say."""
    camera: str | None = None
    """Their camera, where there are several."""
    test_fraction: float = 0.2
    """Share of the episodes that are held out, as in training."""
    out: Path | None = None
    """Folder for the report; by default `policies` in the model's folder."""
    seed: int = 0
    """Of the model's noise, and of what is random about a policy."""
    sampler_steps: int | None = None
    """Denoising steps; by default those the model was made for."""
    backend: Backend = "torch"
    """What computes: PyTorch, or on a CPU OpenVINO; auto takes it where installed."""
    device: Device = "auto"
    """Where to compute."""
    threads: int | None = None
    """CPU threads; all cores by default."""
    workers: int = 2
    """Processes that decode video."""

    def run(self) -> None:
        """Evaluate."""
        if (self.robot is None) == (self.split is None):
            raise ConfigError("say where episodes start: --robot DATASET (recordings) or --split test (the dojo)")
        if self.reward_data is None and self.probes is None and self.success is None:
            raise ConfigError(
                "say who judges success: --reward-data DATASET, --probes DATASET or --success module:name"
            )
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        compute = choose_compute(self.device)
        where, models = find_models(self.model)
        folder = models.get(STUDENT) or next(iter(models.values()))
        out = self.out or (where / "policies" if self.model.exists() else Path("runs") / self.model / "policies")
        named = dict(name_of(word) for word in self.policies)
        if len(named) < len(self.policies):
            raise ConfigError(f"every policy needs a name of its own, got {', '.join(self.policies)}")
        dataset = None if self.robot is None else open_robot(self.robot, self.body)
        body = None if dataset is None else dataset.embodiment.name
        session = load_session(
            folder, embodiment=body, steps=self.sampler_steps, device=self.device, backend=self.backend
        )
        judges, errors, sources = self._judges(session, out, compute)
        starts = self._starts(session, dataset)
        truth = self._truth(session)
        protocol = Protocol(steps=self.steps, batch=self.batch, seed=self.seed)
        about = {"judges": sources, **self._conditions(dataset)}
        about_model = {"model": model_hash(folder), "sampler steps": session.sampler.steps}
        scores = []
        with progress_line("policies") as report:
            for number, (name, word) in enumerate(named.items()):
                policy = open_policy(
                    word,
                    session.embodiment,
                    actions_per_step=session.actions_per_step,
                    fps=session.fps,
                    task=self.prompt,
                    compute=compute,
                )
                scores.append(
                    score_policy(
                        name,
                        policy,
                        session,
                        starts,
                        judges,
                        protocol,
                        truth=truth,
                        folder=out / "episodes" / name,
                        about={**about, "word": word, "weights": _weights(word)},
                        about_model=about_model,
                        report=lambda done, total, words, n=number: report(n * total + done, len(named) * total, words),
                    )
                )
        self._write(out, folder, compare(scores, tuple(judges)), errors, session, compute)

    def _conditions(self, dataset: Dataset | None) -> dict[str, object]:
        """What episodes depend on besides the model, the judges and the policy: where they start, and what is asked."""
        if dataset is not None:
            return {"starts from": [dataset.hash, self.camera], "prompt": self.prompt}
        return {
            "starts from": [self.split, self.difficulty, self.objects],
            "task": self.task,
            "prompt": self.prompt,
        }

    def _truth(self, session: Session) -> Truth | None:
        if self.split is None:
            return None
        from dreamdojo.apps.policy_eval.truth import TrueWorld
        from dreamdojo.dojo.goals import find_goal

        new = self._new_simulation(session)
        world = partial(TrueWorld, new, size=session.size, actions_per_step=session.actions_per_step)
        return Truth(world=world, goal=find_goal(self.task))

    def _new_simulation(self, session: Session) -> Callable:
        from dreamdojo.dojo.difficulty import find_difficulty
        from dreamdojo.dojo.simulation import Simulation

        body, _, control = session.embodiment.name.removeprefix("dojo_").partition("/")
        difficulty = find_difficulty(self.difficulty)
        if self.objects is not None:
            difficulty = replace(difficulty, objects=(self.objects, self.objects))
        return partial(Simulation, body, control=control, difficulty=difficulty, fps=session.fps)

    def _starts(self, session: Session, dataset: Dataset | None) -> Starts:
        if dataset is None:
            assert self.split is not None
            with progress_line("first frames") as report:
                return dojo_starts(
                    self._new_simulation(session),
                    split=self.split,
                    count=self.starts,
                    size=session.size,
                    first_index=self.first_start,
                    report=report,
                )
        held_out = held_out_episodes(
            dataset, test_fraction=self.test_fraction, camera=self.camera, everything=self.all_episodes
        )
        return recorded_starts(dataset, held_out.indices[: self.starts], size=session.size, camera=self.camera)

    def _judges(
        self, session: Session, out: Path, compute: Compute
    ) -> tuple[dict[str, Judge], dict[str, JudgeError], dict[str, str]]:
        """Those asked for, the one that counts first; their errors; and what each was made from."""
        judges: dict[str, Judge] = {}
        errors: dict[str, JudgeError] = {}
        sources: dict[str, str] = {}
        if self.success is not None:
            judges[FUNCTION], sources[FUNCTION] = FunctionJudge(find_function(self.success)), self.success
        if self.probes is not None:
            source = open_robot(self.probes, None)
            judges[POSE], errors = self._pose_judge(source, session, out)
            sources[POSE] = f"{self.probes} {source.hash}, {self.finder_steps}"
        if self.reward_data is not None:
            dataset = open_robot(self.reward_data, self.body)
            learned, wrong = learn_to_judge(
                dataset,
                session,
                out,
                task=self.task,
                steps=self.steps,
                training=self.reward_training,
                compute=compute,
                camera=self.camera,
                workers=self.workers,
            )
            judges, errors = judges | learned, errors | wrong
            made_from = f"{self.reward_data} {dataset.hash}, {self.task}, {self.reward_training}"
            sources |= dict.fromkeys(learned, made_from)
        return judges, errors, sources

    def _pose_judge(self, source: Dataset, session: Session, out: Path) -> tuple[Judge, dict[str, JudgeError]]:
        """By a finder of the one object, or by a probe that follows the marked one of several."""
        from dreamdojo.dojo.goals import PUSHED
        from dreamdojo.dojo.truth import GroundTruth

        if self.task != "push":
            raise ConfigError(f"object positions in the picture tell a push, not a {self.task}; use --reward-data")
        truth = GroundTruth.open(source.root)
        if self.objects == 1 and all(truth.num_objects(episode.index) == 1 for episode in source.episodes):
            return learn_to_follow(
                source, session, out, steps=self.steps, training_steps=self.finder_steps, workers=self.workers
            )
        robot = Episodes(dataset=source, indices=tuple(episode.index for episode in source.episodes))
        frames = frames_of(source, out, rate=session.fps, size=session.size, workers=self.workers)
        with progress_line("probes") as report:
            _, probe = train_probes_on(robot, frames, size=session.size, report=report)
        if probe is None or not probe.error.valid:
            raise ConfigError(
                f"{source.root}: no probe of object positions could be learned "
                f"({'no object moves enough' if probe is None else probe.error}). Give more episodes, or --reward-data."
            )
        console.print(f"object positions: {probe.error}")
        return PoseJudge(probe, distance=PUSHED), {}

    def _write(
        self,
        out: Path,
        folder: Path,
        comparison: Comparison,
        errors: Mapping[str, JudgeError],
        session: Session,
        compute: Compute,
    ) -> None:
        machine = f"{platform.machine()}, {torch.get_num_threads()} threads, {compute.reason}"
        number = len(next(iter(comparison.scores[0].model.values())))
        source = (
            f"{self.robot}, held-out episodes" if self.robot else f"the dojo's split {self.split}, task {self.task}"
        )
        sheet = {
            "model": str(folder),
            "denoising steps": str(session.sampler.steps),
            "starts": f"{number} from {source}",
            "episode": f"{self.steps} actions at {session.fps:g} per second",
            "frames": f"{session.size[0]}x{session.size[1]} pixels",
            **{f"policy {name}": word for name, word in map(name_of, self.policies)},
            **({} if self.reward_data is None else {"reward model and pixel similarity": str(self.reward_data)}),
            **({} if self.probes is None else {"object probe": str(self.probes)}),
            "seed": str(self.seed),
        }
        write_json(
            out / "results.json",
            {
                "conditions": {"machine": machine, "date": date.today().isoformat(), "data": sheet},
                "judges": {name: error.to_json() for name, error in errors.items()},
                **comparison.to_json(),
            },
        )
        write_report(
            out / "report.html",
            policy_report(
                comparison,
                title="Policies in a world model",
                subtitle=f"DreamDojo {dreamdojo.__version__}, {len(comparison.scores)} policies from {number} starts",
                facts=(date.today().isoformat(), machine),
                data_sheet=sheet,
                rate=session.fps,
                judge_errors=errors,
            ),
        )
        console.print(summary(comparison, errors), markup=False, soft_wrap=True)
        console.print(f"Look at {out / 'report.html'}")


def name_of(word: str) -> tuple[str, str]:
    """The name of a policy and the word for it, from NAME=WORD or WORD."""
    name, mark, rest = word.partition("=")
    if mark:
        return name, rest
    return (Path(word).name if Path(word).exists() else word.replace("/", "-")), word


def _weights(word: str) -> str | None:
    """What a policy that is a folder has learned, so that one trained anew is not taken for the old one."""
    folder = Path(word.removeprefix(LEROBOT))
    return model_hash(folder) if (folder / "model.safetensors").exists() else None


def frames_of(
    dataset: Dataset, out: Path, *, rate: float, size: Size, camera: str | None = None, workers: int = 2
) -> SideCache:
    """A dataset's frames at a rate and size, decoded once into `out/cache`."""
    height, width = (size, size) if isinstance(size, int) else size
    path = out / "cache" / f"frames-{dataset.camera(camera)}-{height}x{width}px-{rate:g}hz-{dataset.hash}"
    with progress_line(f"frames {dataset.root.name}") as report:
        return cache_frames(
            dataset,
            path,
            rate=rate,
            size=(height, width),
            camera=camera,
            workers=workers,
            progress=lambda done, total: report(done, total, "episodes"),
        )


def learn_to_judge(
    dataset: Dataset,
    session: Session,
    out: Path,
    *,
    task: str,
    steps: int,
    training: RewardTraining | None = None,
    compute: Compute,
    camera: str | None = None,
    workers: int = 2,
) -> tuple[dict[str, Judge], dict[str, JudgeError]]:
    """The reward model and the pixel baseline from a dataset, and their errors on held-out episodes of it.

    Errors are on real frames, and on what `session` predicts under the recorded actions.

    Raises:
        DataError: if the dataset says nothing about success, or never both succeeds and fails.
    """
    from dreamdojo.dojo.goals import find_goal
    from dreamdojo.dojo.truth import FILE_NAME

    training = training or RewardTraining()
    goal = find_goal(task) if (dataset.root / FILE_NAME).exists() else None
    frames = frames_of(dataset, out, rate=session.fps, size=session.size, camera=camera, workers=workers)
    train, test = train_and_test(dataset, test_fraction=training.held_out, minutes=None, camera=camera)
    known = partial(known_outcomes, dataset, frames=frames, rate=session.fps, goal=goal, length=steps + 1)
    outcomes = known(train.indices)
    with progress_line("reward model") as report:
        model = train_reward_model(
            outcomes, out / "reward" / dataset.hash, compute=compute, training=training, report=report
        )
    judges: dict[str, Judge] = {REWARD: RewardJudge(model), PIXELS: PixelJudge(outcomes)}
    return judges, errors_of(judges, dataset, test.indices, known, session, frames, steps=steps)


def learn_to_follow(
    dataset: Dataset, session: Session, out: Path, *, steps: int, training_steps: int = 500, workers: int = 2
) -> tuple[Judge, dict[str, JudgeError]]:
    """A judge of pushes that sees where the one object stands, from a dataset of the dojo, and its errors.

    A fifth of the episodes is held out for those: on real frames, and on what `session` predicts.
    """
    from dreamdojo.dojo.goals import PUSHED, pushed

    frames = frames_of(dataset, out, rate=session.fps, size=session.size, workers=workers)
    train, test = train_and_test(dataset, test_fraction=0.2, minutes=None, camera=None)
    finder = learn_to_find(dataset, train.indices, frames, out / "finder" / dataset.hash, steps=training_steps)
    judge = FinderJudge(finder, distance=PUSHED)
    known = partial(known_outcomes, dataset, frames=frames, rate=session.fps, goal=pushed, length=steps + 1)
    return judge, errors_of({POSE: judge}, dataset, test.indices, known, session, frames, steps=steps)


def learn_to_find(
    dataset: Dataset, indices: Sequence[int], frames: SideCache, folder: Path, *, steps: int, seed: int = 0
) -> ObjectFinder:
    """What sees where the one object stands in each frame, from episodes of the dojo; a finished one is loaded."""
    from dreamdojo.dojo.truth import GroundTruth

    truth = GroundTruth.open(dataset.root)
    with progress_line("object finder") as report:
        return train_finder(
            torch.from_numpy(np.concatenate([np.moveaxis(frames[index], -1, 1) for index in indices])),
            torch.from_numpy(np.concatenate([truth.object_pixels(index)[:, 0] for index in indices])).float(),
            torch.from_numpy(np.concatenate([truth.object_poses(index)[:, 0, :2] for index in indices])).float(),
            folder,
            steps=steps,
            seed=seed,
            report=report,
        )


def errors_of(
    judges: Mapping[str, Judge],
    dataset: Dataset,
    held_out: Sequence[int],
    known: Callable[[Sequence[int]], list[Outcome]],
    session: Session,
    frames: SideCache,
    *,
    steps: int,
) -> dict[str, JudgeError]:
    """How often judges are wrong about held-out episodes, and about what the model makes of their actions."""
    first = {index: known([index])[0] for index in held_out}
    whole = {i: each for i, each in first.items() if len(each.frames) == steps + 1 and np.isfinite(each.success[-1])}
    if not whole:
        console.print(f"{dataset.root}: no held-out episode has {steps + 1} frames: the judges' error is not measured")
        return {}
    truth = torch.tensor([bool(each.success[-1]) for each in whole.values()])
    pictures = torch.from_numpy(np.stack([each.frames for each in whole.values()]))
    with progress_line("judges") as report:
        predicted = replay(session, dataset, list(whole), frames, steps=steps, report=report)
    session.close()
    errors = {}
    for name, judge in judges.items():
        errors[f"{name}, real frames"] = error_on(judge, pictures, truth)
        errors[f"{name}, predicted frames"] = error_on(judge, predicted.frames, truth)
    return errors


def summary(comparison: Comparison, errors: Mapping[str, JudgeError]) -> str:
    """What was found in a few lines."""
    judge = comparison.judges[0]
    lines = [f"success in the model, by {judge}:"]
    for score in comparison.scores:
        rate, true = score.rate(judge), score.true_rate
        beside = (
            ""
            if true is None
            else f", in truth {100 * true.mean:.0f} % ({100 * true.low:.0f} to {100 * true.high:.0f})"
        )
        lines.append(f"  {score.name}: {100 * rate.mean:.0f} % ({100 * rate.low:.0f} to {100 * rate.high:.0f}){beside}")
    lines += [f"{name}: {error}" for name, error in errors.items()]
    if (found := comparison.agreement(judge)) is not None:
        lines.append(
            f"Pearson {found.pearson} p {found.permutation.p:.2g}, Spearman {found.spearman:.2f}, MMRV "
            f"{found.mmrv_truth:.3f} (true gaps) {found.mmrv_model:.3f} (model's gaps)"
        )
    return "\n".join(lines)
