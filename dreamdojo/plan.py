"""`dreamdojo plan`: plan an errand of the dojo inside a world model, or in the simulator itself, and carry it out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

import dreamdojo
from dreamdojo.commands import Command, all_episodes, console
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.rollout.session import Backend
from dreamdojo.training.device import Device, choose_compute
from dreamdojo.training.progress import progress_line

if TYPE_CHECKING:
    from dreamdojo.apps.planning.errands import Errand
    from dreamdojo.apps.planning.execute import Mind
    from dreamdojo.apps.planning.planner import Decider, Objective
    from dreamdojo.apps.planning.search import Search
    from dreamdojo.apps.planning.space import Space
    from dreamdojo.dojo.world import DojoWorld
    from dreamdojo.evaluation.effector import EffectorProbe
    from dreamdojo.evaluation.objects import ObjectProbe
    from dreamdojo.rollout.session import Session
    from dreamdojo.world import Observation

PROBE_EPISODES = 60
"""Simulated episodes that the probes learn from."""


@dataclass(kw_only=True)
class Plan(Command):
    """Plan and execute an errand, write `plan.mp4` (executed frames beside the plan's) and `plan.json`."""

    task: Literal["push", "pick_place"] = "push"
    """What is to be done: the object to the disc, by pushing or by carrying."""
    world: Literal["session", "dojo"] = "session"
    """Where to imagine: in the model, or in the true simulator."""
    model: Path | None = None
    """A teacher's or student's folder; the student that ships by default."""
    method: Literal["cem", "icem", "mppi", "best-of"] = "icem"
    """How to choose: a search, or best-of-N over what scripted policies propose."""
    space: Literal["stroke", "knots"] = "stroke"
    """What is searched: where a stroke goes, or actions at a few moments."""
    objective: str = "errand"
    """What a candidate costs: errand (probes; the truth with --world dojo), goal-image, steps-to-go, or your own
    module:function."""
    split: str = "demo"
    """Of the dojo's scenes."""
    scene: int = 0
    """Which of the split's scenes that have this errand."""
    candidates: int = 32
    """Of a round; for best-of, futures of each policy."""
    iterations: int = 3
    """Rounds."""
    horizon: int = 10
    """Actions of a candidate of knots."""
    execute: int | None = None
    """Actions between two plans; by default half of the horizon of knots, and the whole of a stroke."""
    budget: int = 150
    """Actions in all."""
    offline: int | None = None
    """Instead of planning again and again, score so many candidates of the first moment in one job, which goes on where
    it was stopped, and execute the best."""
    probes: Path = Path("runs/probes")
    """Position probes; trained there first where missing (minutes)."""
    value: Path | None = None
    """Folder of the steps-to-go network (apps.planning.steps_to_go)."""
    out: Path = Path("runs/plan")
    """Folder for what is written."""
    seed: int = 0
    """Of the search and of the model's noise."""
    steps: int | None = None
    """Denoising steps per frame; by default those the model was made for."""
    backend: Backend = "auto"
    """What computes: PyTorch, or on a CPU OpenVINO; auto takes it where installed."""
    device: Device = "auto"
    """Where to compute."""
    threads: int | None = None
    """CPU threads; all cores by default."""

    def run(self) -> None:
        """Plan, act, write."""
        from dreamdojo.apps.planning.errands import errand_of
        from dreamdojo.apps.planning.execute import SessionMind, SimulatorMind, carry_out, write_episode
        from dreamdojo.dojo.errands import errand_seeds
        from dreamdojo.dojo.world import DojoWorld

        if self.threads is not None:
            torch.set_num_threads(self.threads)
        session = None
        if self.world == "session" or self.objective in ("goal-image", "steps-to-go"):
            session = dreamdojo.load(self.model or "nano", steps=self.steps, device=self.device, backend=self.backend)
        # a model was not shown the disc, unless its value network learned from pictures with it
        real = DojoWorld(task=self.task, show_goal=self.objective == "steps-to-go")
        seed = next(islice(errand_seeds(self.task, self.split), self.scene, None))
        first = real.reset(seed=seed)
        errand = errand_of(real, size=session.size if session else (64, 64))
        drawn = self.world == "dojo" and self.objective != "errand"
        mind = SessionMind(session) if session and self.world == "session" else SimulatorMind(real, pictures=drawn)
        decider = self._decider(real, errand, session)
        if self.offline:
            decider = self._scored_offline(decider, mind, first, seed)
        with progress_line("plan") as report:
            episode = carry_out(
                real, first, mind, decider, seed=self.seed, budget=self.budget, film=True, report=report
            )
        facts = {
            "task": self.task,
            "world": self.world,
            "method": self.method,
            "space": self.space,
            "objective": self.objective,
            "model": None if session is None else str(self.model or "nano"),
        }
        write_episode(self.out, episode, real.fps, facts)
        outcome = episode.outcome
        per_decision = sum(decision.seconds for decision in episode.decisions) / max(len(episode.decisions), 1)
        console.print(
            f"{'Done' if outcome.success else 'Not done'} after {episode.actions} actions"
            f"{'' if episode.fault is None else f' ({episode.fault})'}: {100 * outcome.distance:.1f} cm from the goal; "
            f"{len(episode.decisions)} decisions of {per_decision:.1f} s. Look at {self.out / 'plan.mp4'}"
        )

    def _decider(self, real: DojoWorld, errand: Errand, session: Session | None) -> Decider:
        from dreamdojo.apps.planning.ensemble import scripted_ensemble
        from dreamdojo.apps.planning.planner import BestOf, Planner, always
        from dreamdojo.apps.planning.space import Knots

        objective = self._objective(real, errand, session)
        if self.method == "best-of":
            policies = scripted_ensemble(real, errand)
            return BestOf(
                policies=policies,
                objective=objective,
                horizon=70,
                samples=max(1, self.candidates // len(policies)),
                execute=self.execute,
            )
        if self.space == "stroke":
            space = self._aim(real, errand)
            return Planner(space=space, method=self._search(), objective=objective, execute=self.execute)
        knots = Knots(embodiment=real.embodiment, horizon=self.horizon, knots=min(5, self.horizon))
        execute = self.execute or max(1, self.horizon // 2)
        return Planner(space=always(knots), method=self._search(), objective=objective, execute=execute)

    def _search(self) -> Search:
        from dreamdojo.apps.planning.search import CEM, MPPI, icem

        sizes = {"candidates": self.candidates, "iterations": self.iterations}
        elites = max(2, self.candidates // 6)
        if self.method == "mppi":
            return MPPI(**sizes, noise_exponent=2.0)
        return CEM(**sizes, elites=elites) if self.method == "cem" else icem(**sizes, elites=elites)

    def _aim(self, real: DojoWorld, errand: Errand) -> Callable[[Observation], Space]:
        from dreamdojo.apps.planning.errands import seen_aim, true_aim

        if self.world == "dojo" and self.objective == "errand":
            return true_aim(errand, real)
        return seen_aim(errand, self._probes()[1], real)

    def _objective(self, real: DojoWorld, errand: Errand, session: Session | None) -> Objective:
        from dreamdojo.apps.planning.errands import TrueErrand, goal_picture, seen_errand
        from dreamdojo.apps.planning.objectives import GoalImage, latents, user_objective
        from dreamdojo.apps.planning.steps_to_go import FewestSteps, StepsToGo
        from dreamdojo.rollout.session import tokenizer_folder
        from dreamdojo.tokenizer.load import load_tokenizer
        from dreamdojo.training.checkpoint import load_model

        if self.objective == "errand":
            return TrueErrand(errand=errand) if self.world == "dojo" else seen_errand(errand, *self._probes())
        if self.objective not in ("goal-image", "steps-to-go"):
            return user_objective(self.objective)
        assert session is not None
        shipped = dreamdojo.foundation("nano")
        folder = self.model or (shipped / "student" if shipped else Path("nano"))
        embed = latents(load_tokenizer(tokenizer_folder(folder)).to(choose_compute(self.device).device).eval())
        if self.objective == "goal-image":
            return GoalImage(goal=goal_picture(real, size=session.size), embed=embed)
        if self.value is None:
            raise ConfigError("--objective steps-to-go needs --value, the folder of the network")
        return FewestSteps(model=load_model(self.value, StepsToGo), embed=embed)

    def _probes(self) -> tuple[EffectorProbe, ObjectProbe]:
        return probes_in(self.probes)

    def _scored_offline(self, decider: Decider, mind: Mind, first: Observation, seed: int) -> Decider:
        from dreamdojo.apps.planning.offline import score_offline
        from dreamdojo.apps.planning.planner import Fixed, Planner, whole_steps
        from dreamdojo.apps.planning.search import MPPI, draw
        from dreamdojo.training.checkpoint import model_hash

        if not isinstance(decider, Planner):
            raise ConfigError("--offline scores candidates of a search: choose --method cem, icem or mppi")
        assert self.offline is not None
        mind.begin(first, seed=self.seed)
        world, space = mind.now(), decider.space(first)
        state = None if first.state is None else first.state[0, -1]
        generator = torch.Generator().manual_seed(self.seed)
        method = replace(decider.method, candidates=self.offline)
        if not isinstance(method, MPPI):
            method = replace(method, decay=1.0)
        x = draw(space.belief(), method, 0, generator)
        candidates = whole_steps(space.actions(x, state), world.actions_per_step)
        about: dict[str, Any] = {
            "scene": seed,
            "seed": self.seed,
            "world": self.world,
            "model": str(self.model or "nano"),
            "objective": self.objective,
            "probes": str(self.probes),
            "value": None if self.value is None else model_hash(self.value),
            "steps": self.steps,
        }
        with progress_line("score") as report:
            costs = score_offline(
                world, candidates, decider.objective, self.out / "scores.json", about=about, report=report
            )
        best = int(costs.argmin())
        console.print(f"The best of {len(costs)} candidates costs {costs[best]:.3f}, the median {costs.median():.3f}.")
        return Fixed(actions=candidates[best], cost=float(costs[best]), tried=len(costs))


def probes_in(folder: Path, *, device: Device = "auto") -> tuple[EffectorProbe, ObjectProbe]:
    """The position probes in `folder`; simulated episodes are made and learned from where there are none.

    Raises:
        DataError: if no object moves enough in those episodes to learn from.
    """
    from dreamdojo.dojo.simulate import SimulateSettings, simulate
    from dreamdojo.evaluation.stored_probes import FILE, load_probes, save_probes
    from dreamdojo.judge import train_probes
    from dreamdojo.presets import NANO
    from dreamdojo.stages import Run

    if not (folder / FILE).exists():
        data = folder / "data"
        if not (data / "meta" / "info.json").exists():
            with progress_line("simulate") as report:
                simulate(SimulateSettings(body="arm", episodes=PROBE_EPISODES), data, workers=2, progress=report)
        run = Run(folder=folder, preset=NANO, compute=choose_compute(device))
        with progress_line("probes") as report:
            effector, objects = train_probes(run, all_episodes(data), report)
        save_probes(folder, effector, objects)
    effector, objects = load_probes(folder)
    if objects is None:
        raise DataError(f"{folder}: no object moves enough in its episodes to learn where objects are")
    for name, probe in (("gripper", effector), ("objects", objects)):
        console.print(f"{name}: {probe.error}")
    return effector, objects
