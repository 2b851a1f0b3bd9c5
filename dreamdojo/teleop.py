"""The commands around the cockpit: `dreamdojo teleop`, `teleop calibrate` and `teleop replay`."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from dreamdojo import foundation
from dreamdojo.apps.play.command import depth_span, dojo_starts, find_model, is_dojo_body
from dreamdojo.apps.play.controls import Controls
from dreamdojo.apps.play.server import serve_app
from dreamdojo.apps.play.settings import PlaySettings, PlayWorld, Start
from dreamdojo.apps.teleop.app import create_cockpit
from dreamdojo.apps.teleop.calibration import Calibration, collect, fit_calibration
from dreamdojo.apps.teleop.cockpit import Cockpit, Instruments
from dreamdojo.apps.teleop.hand import open_hand
from dreamdojo.apps.teleop.hazards import Lookout
from dreamdojo.apps.teleop.lerobot_arm import LeaderSource, LeRobotArm, open_follower, open_leader
from dreamdojo.apps.teleop.link import LinkSettings
from dreamdojo.apps.teleop.onboard import Safeguards
from dreamdojo.apps.teleop.pace import levels_for
from dreamdojo.apps.teleop.predict import Ghost, Imagined, Oracle, Predictor
from dreamdojo.apps.teleop.record import Recorder, about, replay
from dreamdojo.apps.teleop.robot import DojoRobot, GymRobot, Robot, require_lerobot
from dreamdojo.apps.teleop.teleoperation import Teleoperation
from dreamdojo.commands import Command, PresetCommand, all_episodes, console
from dreamdojo.dataset.read import open_dataset
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.evaluation.stored_probes import load_probes, save_probes
from dreamdojo.judge import train_probes_on
from dreamdojo.presets import Preset
from dreamdojo.rollout.session import CAMERA, Backend, Session, load_session
from dreamdojo.stages import Run
from dreamdojo.training.checkpoint import model_hash
from dreamdojo.training.device import choose_compute
from dreamdojo.training.progress import progress_line

CALIBRATION, PROBES = "calibration.json", "probes"
"""What `teleop calibrate` writes into `RUN/teleop`."""

Overlay = Literal["model", "ghost", "oracle", "none"]


@dataclass(frozen=True, kw_only=True)
class RobotChoice:
    """Which robot is driven."""

    kind: Literal["dojo", "gym", "lerobot"] = "dojo"
    """The simulator, a Gymnasium environment, or an arm through the package lerobot."""
    name: str = ""
    """Of the environment (e.g. `dreamdojo/Push-v0`), or of the arm's type in lerobot (e.g. `so101_follower`)."""
    port: str = ""
    """Serial port of the arm."""
    camera: str = ""
    """Index or path of the arm's camera, as OpenCV opens it."""
    fps: float | None = None
    """Periods of control in a second; by default those of the model, or of the environment."""
    size: int = 128
    """Side of the dojo's pictures in pixels."""
    difficulty: Literal["gentle", "normal", "clutter"] = "gentle"
    """How hard the dojo's scenes are."""
    depth: bool = False
    """Whether the dojo's camera measures depth as well, off which contact is read; a model of depth turns it on."""

    def open(self, fps: float) -> Robot:
        """The robot, at the rate of the model that predicts for it.

        Raises:
            ConfigError: if what it needs is not said.
            MissingDependencyError: if a package is missing.
        """
        if self.kind == "dojo":
            from dreamdojo.dojo.difficulty import find_difficulty
            from dreamdojo.dojo.simulation import Simulation

            simulation = Simulation("arm", difficulty=find_difficulty(self.difficulty), fps=self.fps or fps)
            return DojoRobot(simulation, size=self.size, depth=self.depth)
        if not self.name:
            raise ConfigError(f"a robot of kind {self.kind} needs a name: give --robot.name")
        if self.kind == "gym":
            import dreamdojo.dojo  # noqa: F401  registers its environments

            return GymRobot(self.name, fps=self.fps, render_mode="rgb_array")
        follower = open_follower(self.name, self.port, _lerobot_camera(self.camera, self.fps or fps))
        return LeRobotArm(follower, camera="head", fps=self.fps or fps)


def _lerobot_camera(camera: str, fps: float) -> dict[str, Any]:
    require_lerobot()
    from lerobot.cameras.opencv import OpenCVCameraConfig  # pyright: ignore[reportMissingImports]

    where = int(camera) if camera.isdigit() else Path(camera)
    return {"head": OpenCVCameraConfig(index_or_path=where, fps=max(30, round(fps)), width=640, height=480)}


@dataclass(kw_only=True)
class Teleop(PresetCommand):
    """Drive a robot in the browser, a second ahead of its camera, or the world model itself."""

    preset: tyro.conf.Suppress[Preset]  # its settings are those of training
    model: Literal["student", "teacher"] = "student"
    """Which model of the run predicts."""
    folder: Path | None = None
    """Instead, a world model's folder."""
    overlay: Overlay = "model"
    """What is drawn over the late picture; ghost (the arm from its commands) and oracle (the truth) are the dojo's."""
    robot: RobotChoice = field(default_factory=RobotChoice)
    """What is driven."""
    round_trip: float = 0.5
    """Delay of the simulated link, there and back, seconds. The page can change it."""
    jitter: float = 0.0
    """Mean of the further delay of each message, seconds."""
    loss: float = 0.0
    """Probability that a message is lost."""
    safeguards: Safeguards = field(default_factory=Safeguards)
    """What the robot's end insists on."""
    steps: int | None = None
    """Denoising steps per frame; by default those the model was made for."""
    backend: Backend = "auto"
    """What computes: PyTorch, or on a CPU OpenVINO, faster after some seconds; auto takes it where installed."""
    leader: str = ""
    """Type in lerobot of a leader arm that gives the commands, e.g. `so101_leader`."""
    leader_port: str = ""
    """Its serial port."""
    hand: bool = False
    """Whether a hand before the page's webcam may give them, by the run's alignment (`latent-action align`)."""
    record: Path | None = None
    """Record the session as a LeRobot dataset in this new folder."""
    starts: int = 6
    """Scenes to start from."""
    host: str = "127.0.0.1"
    """Address to listen on; only this machine by default."""
    port: int = 8643
    """Port to listen on."""
    allow_remote: bool = False
    """Allow a host that other machines can reach; the address then carries a token."""
    encoding: Literal["webp", "webp-lossless", "jpeg"] = "webp"
    """How pictures travel."""
    webrtc: bool = False
    """Let frames travel over WebRTC, on which a lost one holds up none; with --allow-remote, and the extra webrtc."""

    def run(self) -> None:
        """Serve until Ctrl-C."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        settings = PlaySettings(
            host=self.host,
            port=self.port,
            allow_remote=self.allow_remote,
            encoding=self.encoding,
            quality=85,
            webrtc=self.webrtc,
        )
        session = self._session()
        if session is not None:
            console.print(f"Model: {self.model_folder()}, {session}")
        with contextlib.ExitStack() as stack:
            choice = replace(self.robot, depth=self.robot.depth or (session is not None and session.depth is not None))
            robot = stack.enter_context(contextlib.closing(choice.open(session.fps if session else 10.0)))
            predictor = make_predictor(self.overlay, robot, session)
            shown = session.size if isinstance(predictor, Imagined) and session else _size(robot)
            starts, dreams = self._starts(session, robot)
            link = LinkSettings.of_round_trip(self.round_trip, fps=robot.fps, jitter=self.jitter, loss=self.loss)
            recorder = None
            if self.record is not None:
                told = {"robot": asdict(choice), "safeguards": asdict(self.safeguards), **self._model_told(session)}
                recorder = stack.enter_context(
                    contextlib.closing(
                        Recorder(
                            self.record,
                            fps=robot.fps,
                            embodiment=robot.embodiment,
                            size=_size(robot),
                            shown=shown,
                            about={**told, "fps": robot.fps, "shown": list(shown)},
                        )
                    )
                )
            cockpit = Cockpit(
                robot,
                predictor,
                settings=settings,
                safeguards=self.safeguards,
                link=link,
                shown=shown,
                instruments=self._instruments(robot, session, stack),
                recorder=recorder,
                levels=levels_for(session.sampler.steps if session else 1),
            )
            stack.enter_context(contextlib.closing(cockpit))
            app = create_cockpit(cockpit, dreams, starts, settings)
            serve_app(app, settings, announce=lambda url: console.print(f"Drive at {url}  (Ctrl-C stops)"))

    def model_folder(self) -> Path | None:
        """Where the model is, or None where none is drawn.

        Raises:
            ConfigError: if there is none.
        """
        if self.overlay != "model" and self.folder is None and self.robot.kind != "dojo":
            return None
        folder = self.folder or find_model(self.run_folder, foundation(self.preset.name), self.model)
        if folder is None and self.overlay == "model":
            raise ConfigError(
                f"no {self.model} in {self.run_folder}, and none ships for preset {self.preset.name}. Make one with "
                "`dreamdojo demo`, name a folder with --folder, or drive without one: --overlay none"
            )
        return folder

    def _session(self) -> Session | None:
        folder = self.model_folder()
        return (
            None if folder is None else load_session(folder, steps=self.steps, device=self.device, backend=self.backend)
        )

    def _model_told(self, session: Session | None) -> dict[str, Any]:
        folder = self.model_folder() if self.overlay == "model" else None
        return {
            "overlay": self.overlay,
            "model": None if folder is None else str(folder),
            "model_hash": None if folder is None else model_hash(folder),
            "device": self.device,
            "denoising_steps": self.steps,
            "backend": None if session is None else session.backend,
        }

    def _starts(self, session: Session | None, robot: Robot) -> tuple[list[Start], dict[str, PlayWorld]]:
        if self.robot.kind == "dojo":
            size = session.size if session else self.robot.size
            depth = session.depth if session else None
            starts, _ = dojo_starts(size, self.starts, depth, difficulty=self.robot.difficulty)
            dreams = {}
            if session is not None and is_dojo_body(session):
                dream = self._session()
                assert dream is not None
                dreams["dream"] = PlayWorld(
                    world=dream, from_observation=True, label="Dream", depth_span=depth_span(depth)
                )
            return starts, dreams
        looks = [robot.reset(seed=number) for number in range(self.starts if robot.simulated else 1)]
        pictures = [look.frames[CAMERA][0, 0].permute(1, 2, 0).contiguous().numpy() for look in looks]
        names = [f"Seed {number}" for number in range(len(looks))] if robot.simulated else ["Where it is"]
        return [
            Start(name=name, thumbnail=picture, observation=None, seed=number)
            for number, (name, picture) in enumerate(zip(names, pictures, strict=True))
        ], {}

    def _instruments(self, robot: Robot, session: Session | None, stack: contextlib.ExitStack) -> Instruments:
        folder = self.run_folder / "teleop"
        calibration = Calibration.load(folder / CALIBRATION) if (folder / CALIBRATION).exists() else None
        if calibration is None:
            console.print(f"No {folder / CALIBRATION}: the prediction does not say how sure it is (teleop calibrate)")
        lookout = None
        if (folder / PROBES).exists():
            gripper, objects = load_probes(folder / PROBES)
            if not gripper.error.valid:
                raise DataError(
                    f"{folder / PROBES}: the gripper's position is {gripper.error}. Teach it from more data"
                )
            lookout = Lookout(gripper, objects if objects is not None and objects.error.valid else None)
        leader = None
        if self.leader:
            leader = LeaderSource(open_leader(self.leader, self.leader_port), robot.embodiment)
            stack.enter_context(contextlib.closing(leader))
        hand = None
        if self.hand:
            shipped = foundation(self.preset.name)
            own = self.run_folder / "latent_action"
            model = own if (own / "model.safetensors").exists() or shipped is None else shipped / "latent_action"
            size = self.preset.latent_action_size or self.preset.size
            hand = open_hand(model, self.run_folder / "alignment", robot.embodiment, size)
        return Instruments(
            calibration=calibration,
            lookout=lookout,
            masks=(lambda: object_masks(robot, session)) if isinstance(robot, DojoRobot) else None,
            leader=leader,
            hand=hand,
        )


def make_predictor(overlay: Overlay, robot: Robot, session: Session | None) -> Predictor | None:
    """What is drawn over the late picture.

    Raises:
        ConfigError: if the robot is not one that this can be drawn for.
    """
    if overlay == "none":
        return None
    if overlay == "model":
        assert session is not None
        if session.embodiment.action != robot.embodiment.action or session.fps != robot.fps:
            raise ConfigError(
                f"the model predicts {session.embodiment.name} at {session.fps:g} Hz, and the robot is "
                f"{robot.embodiment.name} at {robot.fps:g} Hz. Post-train a model on this robot and name it with "
                "--folder, or drive with --overlay none"
            )
        if session.depth is not None and not (isinstance(robot, DojoRobot) and robot.depth):
            raise ConfigError(
                f"the model sees depth, and only the dojo's camera measures it; the robot is {robot.embodiment.name}. "
                "Drive it with a model of RGB alone"
            )
        return Imagined(session)
    if not isinstance(robot, DojoRobot):
        raise ConfigError(f"the overlay {overlay!r} is drawn by the dojo, and the robot is {robot.embodiment.name}")
    return Ghost(robot) if overlay == "ghost" else Oracle(robot)


def object_masks(robot: DojoRobot, session: Session | None) -> torch.Tensor | None:
    """Where the objects are now, `o h w` bool at the size of what is shown."""
    from dreamdojo.dojo.scene import FIRST_OBJECT

    side = session.size[0] if session else robot.size
    labels = robot.simulation.picture(side, segmentation=True).segmentation
    count = len(robot.simulation.layout.objects)
    return torch.from_numpy(labels)[None] == torch.arange(FIRST_OBJECT, FIRST_OBJECT + count)[:, None, None]


def _size(robot: Robot) -> tuple[int, int]:
    """Of the robot's pictures. Simulated robots are asked by a look, real ones too: they only look."""
    if isinstance(robot, DojoRobot):
        return robot.size, robot.size
    height, width = robot.reset(seed=0).frames[CAMERA].shape[-2:]
    return height, width


@dataclass(kw_only=True)
class TeleopCalibrate(PresetCommand):
    """Measure how wrong predictions are at each spread, and teach the probes that look for hazards."""

    preset: tyro.conf.Suppress[Preset]
    data: Path
    """Held-out episodes of the robot: nothing of the model was trained on them."""
    probes: Path | None = None
    """A dataset of the dojo whose renderings teach the probes; without it nothing looks for hazards."""
    folder: Path | None = None
    """The model; by default the run's student, or the one that ships."""
    camera: str | None = None
    """The dataset's camera, where it has several."""
    episodes: int = 32
    """Episodes at most."""
    horizon: int = 10
    """Frames ahead."""
    members: int = 4
    """Futures side by side."""
    level: float = 0.9
    """Share of errors that the bound is to cover."""

    def run(self) -> None:
        """Write RUN/teleop/calibration.json, and RUN/teleop/probes."""
        folder = self.folder or Teleop(preset=self.preset, run_folder=self.run_folder).model_folder()
        assert folder is not None
        session = load_session(folder, device=self.device)
        held_out = all_episodes(self.data, self.camera)
        with progress_line("calibrate") as report:
            samples = collect(
                Imagined(session, members=self.members),
                held_out.dataset,
                held_out.indices[: self.episodes],
                horizon=self.horizon,
                camera=self.camera,
                report=report,
            )
        calibration = fit_calibration(samples, level=self.level, members=self.members)
        calibration.save(self.run_folder / "teleop" / CALIBRATION)
        console.print(
            f"Coverage {calibration.coverage:.3f} of {self.level:g} on {calibration.episodes} episodes that were not "
            f"fitted on; {calibration.unknown:.0%} of the predictions say that they do not know"
        )
        if self.probes is not None:
            teach_probes(self.probes, self.run_folder, self.preset, session)


def teach_probes(data: Path, run_folder: Path, preset: Any, session: Session) -> None:
    """Train the probes on a dojo dataset and keep them in the run."""
    run = Run(folder=run_folder, preset=preset, compute=choose_compute("cpu"))
    episodes = all_episodes(data)
    with progress_line("probes") as report:
        effector, objects = train_probes_on(episodes, run.frames(episodes), size=session.size, report=report)
    console.print(f"gripper: {effector.error}; objects: {'not learned' if objects is None else objects.error}")
    save_probes(run_folder / "teleop" / PROBES, effector, objects)


@dataclass(kw_only=True)
class TeleopReplay(Command):
    """Live a recorded session again, and say whether every frame is the same to the last bit."""

    data: Path
    """The recorded dataset."""
    episode: int = 0
    """Which of its episodes."""
    predictions: bool = True
    """Whether to compare what was predicted too, which takes the time of the session and its very model."""

    def run(self) -> None:
        """Replay.

        Raises:
            DataError: if a frame differs, or the robot was real.
        """
        dataset = open_dataset(self.data)
        told = about(dataset)
        choice = RobotChoice(**told["robot"])
        if choice.kind == "lerobot":
            raise DataError(f"{self.data}: a real robot's session cannot be lived again; a simulated one can")
        with contextlib.closing(choice.open(told["fps"])) as robot:
            session = None
            if self.predictions and told["overlay"] == "model":
                folder = Path(told["model"])
                if model_hash(folder) != told["model_hash"]:
                    raise DataError(f"{folder}: expected the model that was recorded with, found another one")
                session = load_session(
                    folder,
                    steps=told.get("denoising_steps"),
                    device=told["device"],
                    backend=told.get("backend") or "torch",
                )
            predictor = make_predictor(told["overlay"], robot, session) if self.predictions else None
            safeguards = Safeguards(**told["safeguards"])
            controls = Controls.of(robot.embodiment, screen_right="-y", screen_up="+x")
            size = (int(told["shown"][0]), int(told["shown"][1]))
            with progress_line("replay") as report:
                found = replay(
                    dataset,
                    self.episode,
                    Teleoperation(robot, controls, safeguards),
                    predictor,
                    size=size,
                    report=report,
                )
        console.print(str(found))
        if found.frames_equal < found.periods or (found.predictions_equal or found.periods) < found.periods:
            raise DataError(f"{self.data}: the replay differs from the recording ({found})")
