import base64
import gc
import io
import json
import time

import numpy as np
import pytest
import torch
from PIL import Image

from dreamdojo.apps.play.messages import BadMessageError, Command
from dreamdojo.apps.teleop.calibration import Calibration, Sample, collect, fit_calibration
from dreamdojo.apps.teleop.cockpit import divergence
from dreamdojo.apps.teleop.correct import suggest
from dreamdojo.apps.teleop.hazards import Lookout, Tracks, hazards
from dreamdojo.apps.teleop.lerobot_arm import LeaderSource, LeRobotArm, open_follower
from dreamdojo.apps.teleop.link import Link, LinkSettings
from dreamdojo.apps.teleop.messages import Release, Stop
from dreamdojo.apps.teleop.onboard import Order, Safeguards, limited
from dreamdojo.apps.teleop.pace import LEVELS, Pace, levels_for
from dreamdojo.apps.teleop.predict import Imagined
from dreamdojo.apps.teleop.record import Recorder, replay
from dreamdojo.apps.teleop.robot import GymRobot, Robot
from dreamdojo.apps.teleop.teleoperation import Comparison, Wish
from dreamdojo.dataset.read import open_dataset
from dreamdojo.errors import ConfigError, DataError, MissingDependencyError
from dreamdojo.world import Observation, Prediction
from tests.apps.playing import ARM, Page, Square, starts
from tests.apps.teleoperating import Follower, Perfect, SquareRobot, cockpit_served, controls_of, teleoperation
from tests.test_chain import record
from tests.tiny import CPU, PUSHER, tiny_session

GO = np.array([0.1, -0.1, 0, 0, 1], np.float32)
STILL = np.array([0, 0, 0, 0, 1], np.float32)


def run(robot, periods, wish, predictor=None, seed=0, **safeguards):
    tele = teleoperation(robot, **safeguards)
    report = tele.reset(seed=seed)
    if predictor is not None:
        predictor.reset(report.seen, seed=seed)
    return tele, [tele.fulfil(tele.exchange(wish(i)), predictor) for i in range(periods)]


# the link


def test_a_link_delays_by_what_it_is_told_and_loses_its_share():
    link = Link(seed=1)
    for number in range(2000):
        link.send(number, number / 10, delay=0.3, loss=0.25)
    assert link.receive(0.2) == []
    arrived = link.receive(1e4)
    assert arrived == sorted(arrived) and link.lost == 2000 - len(arrived)
    assert 0.2 < link.lost / 2000 < 0.3


def test_jitter_reorders_and_the_same_seed_does_the_same():
    def arrivals(seed):
        link = Link(seed=seed)
        for number in range(50):
            link.send(number, number / 10, delay=0.1, jitter=0.3, loss=0.1)
        return link.receive(1e4)

    assert arrivals(3) == arrivals(3) != arrivals(4)
    assert arrivals(3) != sorted(arrivals(3))


def test_a_round_trip_is_split_into_whole_periods_on_the_way_up():
    link = LinkSettings.of_round_trip(0.5, fps=10)
    assert (link.up, link.down) == pytest.approx((0.2, 0.3))
    with pytest.raises(ConfigError, match="loss"):
        LinkSettings(loss=1.0)


# the robot's end


def test_the_loss_of_the_link_stops_the_robot_and_its_return_lets_it_go_on():
    def wish(i):
        return Wish(action=GO, link=LinkSettings(loss=0.0 if i < 5 or i > 14 else 0.999999))

    robot = SquareRobot()
    _, shown = run(robot, 20, wish, watchdog=0.3)
    status = [each.report.status for each in shown]
    assert status[4] == "driving" and status[8:15] == ["link lost"] * 7 and status[16] == "driving"
    assert robot.actions[6][0] == pytest.approx(0.1), "it goes on for as long as the watchdog allows"
    assert (robot.actions[10][:4] == 0).all()


def test_the_robot_moves_only_while_the_deadman_switch_is_held():
    robot = SquareRobot()
    _, shown = run(robot, 9, lambda i: Wish(action=GO, held=3 <= i < 6), deadman=True)
    assert [each.report.status for each in shown] == ["released"] * 3 + ["driving"] * 3 + ["released"] * 3
    assert (robot.actions[1][:4] == 0).all() and robot.actions[4][0] > 0 and (robot.actions[7][:4] == 0).all()


def test_an_emergency_stop_holds_until_released_and_old_orders_do_not_come_back():
    robot = SquareRobot()
    link = LinkSettings(up=0.3)
    tele, shown = run(robot, 16, lambda i: Wish(action=GO, stopped=6 <= i < 10, link=link))
    status = [each.report.status for each in shown]
    assert status[5] == "driving" and status[6:10] == ["stopped"] * 4
    assert status[10] == "waiting", "what was ordered before the release is not obeyed after it"
    assert status[-1] == "driving"
    assert robot.halted == 1 and (robot.actions[8][:4] == 0).all()
    tele.onboard.stop()
    assert tele.onboard.reset(seed=0) and tele.onboard.stopped, "a reset does not lift it"


def test_a_stop_that_is_released_within_the_same_period_does_not_stay_for_ever():
    robot = SquareRobot()
    robot.simulated = False  # a real robot is stopped at once and not at the next period
    with cockpit_served(robot, None) as (_, cockpit):
        cockpit.begin(starts()[0])
        cockpit.obey(Stop(type="stop"))
        assert robot.halted == 1
        cockpit.obey(Release(type="release"))
        command = Command(values=np.array([1, 0, 0, 0, 1], np.float32))
        cockpit.advance(command)
        (shot,) = cockpit.advance(command)
        assert shot.notes["status"] == "driving" and not shot.notes["stopped"]


def test_speed_and_workspace_are_limited_and_the_way_back_is_open():
    guards = Safeguards(speed=0.2, workspace={"position": ((0.2,) * 4, (0.6,) * 4)})
    state = np.array([0.59, 0.5, 0.7, 0.5], np.float32)
    ask = np.array([0.5, 0.5, 0.5, -0.5, 0], np.float32)
    got = limited(ask, STILL, state, ARM, guards, dt=0.2)
    np.testing.assert_allclose(got, [0.05, 0.1, 0.0, -0.1, 0], atol=1e-5)
    back = limited(-ask, STILL, state, ARM, guards, dt=0.2)
    assert back[2] == pytest.approx(-0.1), "from outside it may only go back in"


def test_targets_move_no_faster_than_allowed_from_where_the_body_is():
    arm = LeRobotArm(Follower(), camera="front", fps=10)
    got = limited(
        np.array([100, -100, 100], np.float32),
        np.zeros(3, np.float32),
        np.array([10, -20, 50], np.float32),
        arm.embodiment,
        Safeguards(speed=0.5),
        dt=0.1,
    )
    np.testing.assert_allclose(got, [20, -30, 100], atol=1e-4)


def test_what_is_not_a_number_never_reaches_the_robot():
    robot = SquareRobot()
    with pytest.raises(DataError, match=r"velocity\.x"):
        run(robot, 1, lambda i: Wish(action=GO * np.nan))
    assert robot.actions == []


def test_nobody_looking_halts_the_robot():
    robot = SquareRobot(fps=20.0)
    with cockpit_served(robot, None) as (url, _):
        with Page(url) as page:
            page.frame(lambda frame: frame["index"] >= 2)
            assert robot.halted == 0
        deadline = time.monotonic() + 5
        while not robot.halted and time.monotonic() < deadline:
            time.sleep(0.02)
        assert robot.halted == 1


# prediction


@pytest.mark.parametrize("round_trip", [0.2, 0.5, 1.0])
def test_the_picture_shown_is_that_of_the_newest_command(round_trip):
    robot = SquareRobot()
    link = LinkSettings.of_round_trip(round_trip, fps=10)
    rng = np.random.default_rng(0)
    actions = [np.array([*rng.uniform(-0.2, 0.2, 4), 1], np.float32) for _ in range(20)]
    _, shown = run(robot, 20, lambda i: Wish(action=actions[i], link=link), Perfect(robot))
    ahead = round(10 * round_trip)
    assert shown[-1].ahead == ahead
    truth = SquareRobot()
    truth.reset(seed=0)
    frames = [truth.act(action).frames["head"] for action in [STILL] * round(10 * link.up) + actions]
    for i in (0, 3, 19):
        tick = i + round(10 * link.up)
        torch.testing.assert_close(shown[i].picture, frames[tick][0, 0])


def test_real_frames_and_the_actions_that_led_to_them_reach_the_predictor_whatever_is_lost():
    robot = SquareRobot()
    link = LinkSettings(up=0.2, down=0.2, jitter=0.05, loss=0.3)
    predictor = Perfect(robot)
    run(robot, 60, lambda i: Wish(action=GO * (1 if i % 7 else -1), link=link), predictor, seed=5)
    anchors = [call for call in predictor.calls if call[0] == "anchor"]
    assert sum(call[2].shape[1] for call in anchors) == anchors[-1][1], "every tick once, in order"
    told = torch.cat([call[3][0] for call in anchors]).numpy()
    np.testing.assert_array_equal(told, np.stack(robot.actions[: len(told)]))


def test_after_a_gap_too_long_to_know_the_prediction_starts_anew():
    robot = SquareRobot()
    predictor = Perfect(robot)

    def wish(i):
        return Wish(action=GO, link=LinkSettings(loss=0.999999 if 2 < i < 90 else 0.0))

    run(robot, 95, wish, predictor)
    assert [call[0] for call in predictor.calls].count("reset") == 2
    assert predictor.calls[-1][0] == "anchor"


@pytest.mark.parametrize("wish", [Wish(action=GO, anchor=False), Wish(action=GO, link=LinkSettings(loss=0.999999))])
def test_a_session_that_is_not_anchored_any_more_does_not_grow(wish):
    robot = SquareRobot()
    tele, predictor = teleoperation(robot), Perfect(robot)
    predictor.reset(tele.reset(seed=0).seen, seed=0)
    alive = []
    for i in range(300):
        tele.fulfil(tele.exchange(wish if i > 5 else Wish(action=GO)), predictor)
        if i % 100 == 99:
            alive.append(sum(type(each) is Observation for each in gc.get_objects()))
    assert alive[2] <= alive[1]


def test_a_prediction_that_parts_from_the_robot_raises_the_alarm():
    def compared(wrong):
        robot = SquareRobot()
        link = LinkSettings.of_round_trip(0.3, fps=10)
        tele = teleoperation(robot)
        predictor = Perfect(robot, wrong=wrong)
        predictor.reset(tele.reset(seed=0).seen, seed=0)
        found = []
        for _ in range(15):
            tele.fulfil(tele.exchange(Wish(action=0.3 * GO, link=link)), predictor)
            found += [each] if (each := tele.compare()) else []
        return found[-5:]

    assert not divergence(compared(0.0), None)["alarm"]
    assert divergence(compared(0.1), None)["alarm"]
    calibration = Calibration(offset=0.02, slope=1.0, per_frame=0.0, quantile=1.5, level=0.9, late=(0.1,))
    near = Comparison(tick=1, ahead=3, error=0.02, late=0.1, spread=0.0)
    far = Comparison(tick=1, ahead=3, error=0.04, late=0.1, spread=0.0)
    assert not divergence([near], calibration)["alarm"] and divergence([far], calibration)["alarm"]


def observation(batch=1, frames=1):
    torch.manual_seed(1)
    pictures = torch.randint(0, 255, (batch, frames, 3, 16, 16), dtype=torch.uint8)
    return Observation(frames={"head": pictures}, state=torch.zeros(batch, frames, 2))


def test_members_spread_and_one_alone_does_not_say():
    actions = torch.full((1, 3, 2), 0.2)
    sure, unsure = Imagined(tiny_session()), Imagined(tiny_session(), members=3)
    for predictor in (sure, unsure):
        predictor.reset(observation(), seed=0)
    assert sure.predict(actions).uncertainty is None
    told = unsure.predict(actions)
    assert told.uncertainty.shape == (1, 3) and (told.uncertainty > 0).all()
    assert told.frames["head"].shape == (1, 3, 3, 16, 16) and told.state.shape == (1, 3, 2)


def test_extending_is_predicting_more_and_an_anchor_forgets_it():
    first, second = Imagined(tiny_session()), Imagined(tiny_session())
    actions = torch.linspace(-0.3, 0.3, 8).view(1, 4, 2)
    for predictor in (first, second):
        predictor.reset(observation(), seed=0)
    whole = first.predict(actions).frames["head"]
    second.predict(actions[:, :3])
    torch.testing.assert_close(second.extend(actions[:, 3:]).frames["head"][:, 0], whole[:, 3])
    branch, left = second.branch()
    assert left.shape[1] == 0 and branch.step(actions[:, :1]).frames["head"].shape[1] == 1
    second.anchor(observation(frames=2), actions[:, :2], 2)
    second.set(members=1, steps=1)
    assert second.session.sampler.steps == 1
    assert second.predict(actions).frames["head"].shape[1] == 4


def test_a_batch_predicts_as_each_alone_would_see_its_own_frames():
    predictor = Imagined(tiny_session())
    both = observation(batch=2)
    predictor.reset(both, seed=0)
    told = predictor.predict(torch.zeros(2, 2, 2))
    assert told.frames["head"].shape[:2] == (2, 2)
    assert not torch.equal(told.frames["head"][0], told.frames["head"][1])


# what warns


def samples(count, slope=2.0, seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        ahead = torch.arange(1, 11).repeat(20)
        spread = torch.from_numpy(rng.uniform(0, 0.05, 200)).float()
        error = (0.01 + slope * spread + 0.002 * ahead) * torch.from_numpy(rng.lognormal(0, 0.3, 200)).float()
        made.append(Sample(ahead=ahead, spread=spread, error=error, late=0.02 * ahead.float()))
    return made


def test_the_bound_covers_what_it_promises_on_episodes_it_has_not_seen(tmp_path):
    calibration = fit_calibration(samples(24), level=0.9, members=4)
    assert calibration.coverage == pytest.approx(0.9, abs=0.03)
    assert calibration.coverage_low < calibration.coverage < calibration.coverage_high
    assert calibration.expected(0.04, 5) > calibration.expected(0.01, 5)
    calibration.save(tmp_path / "c.json")
    assert Calibration.load(tmp_path / "c.json") == calibration
    with pytest.raises(DataError, match="2 held-out"):
        fit_calibration(samples(1))


def test_it_does_not_know_where_the_late_picture_is_expected_to_be_as_good():
    calibration = fit_calibration(samples(8))
    assert calibration.knows(0.0, 8) and not calibration.knows(0.2, 8)


def tracks(gripper, thing, found=True):
    gripper, thing = torch.tensor(gripper), torch.tensor([thing])
    return Tracks(
        gripper=gripper,
        gripper_found=torch.ones(len(gripper), dtype=torch.bool),
        objects=thing,
        objects_found=torch.full(thing.shape[:2], found),
    )


def test_an_object_that_will_be_moved_is_a_collision_unless_it_is_meant():
    path = [[0.2, 0.5], [0.3, 0.5], [0.4, 0.5], [0.5, 0.5]]
    hit = tracks(path, [[0.5, 0.5], [0.5, 0.5], [0.51, 0.5], [0.58, 0.5]])
    (hazard,) = hazards(hit, fps=10, opening=1.0)
    assert (hazard.kind, hazard.seconds, hazard.thing) == ("collision", 0.3, 0) and "hit in 0.3 s" in hazard.words
    assert hazards(hit, fps=10, opening=1.0, target=0) == []
    assert hazards(tracks(path, [[0.5, 0.5]] * 4), fps=10, opening=1.0) == []
    assert hazards(tracks(path, hit.objects[0].tolist(), found=False), fps=10, opening=1.0) == []


def test_an_object_that_will_leave_the_closed_gripper_falls():
    path = [[0.5, 0.5], [0.5, 0.4], [0.5, 0.3]]
    falls = tracks(path, [[0.5, 0.52], [0.5, 0.45], [0.5, 0.52]])
    (hazard,) = hazards(falls, fps=10, opening=0.3, target=0)
    assert (hazard.kind, hazard.seconds) == ("drop", 0.2)
    assert hazards(tracks(path, [[0.5, 0.52], [0.5, 0.42], [0.5, 0.32]]), fps=10, opening=0.3) == []


def test_the_suggestion_is_the_branch_that_harms_least_and_the_session_stays():
    class Bright(Square):
        """A world in which driving on makes the picture bright."""

        def __init__(self, n=1):
            super().__init__()
            self.level = torch.zeros(n)

        def fork(self, n):
            return Bright(n)

        def step(self, actions):
            self.level = self.level + actions[:, 0, 0]
            frames = (100 + 50 * self.level).clamp(0, 255).byte().view(-1, 1, 1, 1, 1).expand(-1, 1, 3, 4, 4)
            return Prediction(frames={"head": frames})

    world = Bright()
    command = np.array([1, 0, 0, 0, 1], np.float32)
    found = suggest(
        world, command, controls_of(SquareRobot()), lambda told: told.frames["head"].float().amax((1, 2, 3, 4))
    )
    assert found.helps and found.command[0] < 0 and found.command[4] == 1
    assert (world.level == 0).all()


def test_a_suggestion_is_tried_at_the_speed_at_which_it_would_be_carried_out():
    asked = []

    class Listening(Square):
        def fork(self, n):
            return self

        def step(self, actions):
            asked.append(actions)
            return Prediction(frames={"head": torch.zeros(len(actions), 1, 3, 4, 4)})

    controls, command = controls_of(SquareRobot()), np.array([1, 0, 0, 0, 1], np.float32)
    suggest(Listening(), command, controls, lambda told: told.frames["head"].sum(dim=(1, 2, 3, 4)), gain=0.5)
    np.testing.assert_allclose(asked[0][0, 0], controls.action(command, gain=0.5))


def test_a_search_that_fails_is_logged_and_suggests_nothing(caplog):
    with cockpit_served(SquareRobot(), None) as (_, cockpit):
        predictor = Imagined(tiny_session())
        predictor.reset(observation(), seed=0)
        wrong = np.zeros(5)  # a command of another body
        found = cockpit._search(predictor, object.__new__(Lookout), observation(), wrong, 1.0, None)
        assert found.result(timeout=10) is None
    assert "safer motion failed" in caplog.text


# keeping up


def test_too_slow_gives_up_one_thing_after_the_other_and_comes_back():
    pace = Pace(0.1)
    for _ in range(60):
        pace.took(0.5)
    assert pace.index == len(LEVELS) - 1 and pace.level.every == 0
    for _ in range(4000):
        pace.took(0.01)
    assert pace.index == 0


def test_a_model_of_one_step_has_no_level_of_fewer():
    assert levels_for(2) == LEVELS
    ones = levels_for(1)
    assert len(ones) == len(LEVELS) - 1 and {level.steps for level in ones} == {None}
    assert ones[0].members > 1 and ones[-1].every == 0


# other robots


def test_an_arm_of_lerobot_goes_where_it_is_told_and_holds_when_halted():
    follower = Follower()
    arm = LeRobotArm(follower, camera="front", fps=50)
    assert isinstance(arm, Robot)
    first = arm.reset(seed=0)
    assert follower.is_connected and first.frames["head"].shape == (1, 1, 3, 48, 64)
    np.testing.assert_allclose(first.state[0, 0], [10, -20, 50])
    began = time.monotonic()
    for _ in range(5):
        arm.act(np.array([11, -21, 60], np.float32))
    assert time.monotonic() - began > 0.08, "a period lasts as long as it says"
    assert follower.sent[-1] == {"pan.pos": 11.0, "lift.pos": -21.0, "gripper.pos": 60.0}
    follower.positions["pan.pos"] = 10.5
    arm.halt()
    assert follower.sent[-1]["pan.pos"] == 10.5
    arm.close()
    assert not follower.is_connected
    with pytest.raises(ConfigError, match="camera 'side'"):
        LeRobotArm(follower, camera="side")


def test_a_leader_with_the_same_joints_gives_the_commands():
    arm = LeRobotArm(Follower(), camera="front")
    leader = Follower()
    leader.positions = {"lift.pos": 100.0, "pan.pos": -50.0, "gripper.pos": 0.0}
    source = LeaderSource(leader, arm.embodiment)
    np.testing.assert_allclose(source.command(), [-0.5, 1.0, -1.0])
    with pytest.raises(ConfigError, match="joints"):
        LeaderSource(leader, ARM)


def test_without_lerobot_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lerobot", None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        open_follower("so101_follower", "/dev/ttyACM0", {})


def test_any_gymnasium_environment_with_pictures_is_a_robot():
    import gymnasium
    from gymnasium import spaces

    class Dot(gymnasium.Env):
        metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012
        action_space = spaces.Box(-2.0, 2.0, (2,), np.float32)
        observation_space = spaces.Box(-1, 1, (2,), np.float32)

        def reset(self, *, seed=None, options=None):
            self.steps = 0
            return np.zeros(2, np.float32), {}

        def step(self, action):
            self.steps += 1
            return np.zeros(2, np.float32), 0.0, self.steps == 3, False, {}

        def render(self):
            return np.full((20, 24, 3), 10 * self.steps, np.uint8)

    robot = GymRobot(Dot())
    assert isinstance(robot, Robot) and robot.fps == 5 and robot.embodiment.action_dim == 2
    robot.reset(seed=1)
    looks = [int(robot.act(np.ones(2, np.float32)).frames["head"].max()) for _ in range(5)]
    assert looks == [10, 20, 30, 30, 30], "after its end it stands still"
    np.testing.assert_allclose(controls_of(robot).rest(None), 0)

    class Float(Dot):
        def render(self):
            return np.full((20, 24, 3), 0.5)

    with pytest.raises(ConfigError, match="uint8"):
        GymRobot(Float()).reset(seed=1)
    Float.action_space = spaces.Box(-2.0, np.inf, (2,), np.float32)
    with pytest.raises(ConfigError, match="bounded"):
        GymRobot(Float())


# sessions


def test_a_recorded_session_lives_again_bit_for_bit(tmp_path):
    robot = SquareRobot()
    predictor = Perfect(robot)
    size = (robot.square.size,) * 2
    recorder = Recorder(tmp_path / "session", fps=10, embodiment=ARM, size=size, shown=size, about={"robot": "square"})
    tele = teleoperation(robot, deadman=True)
    rng = np.random.default_rng(0)
    report = tele.reset(seed=7)
    predictor.reset(report.seen, seed=7)
    recorder.begin(report.seen, seed=7)
    for i in range(25):
        link = LinkSettings(up=0.1, down=0.2, jitter=0.05, loss=0.2)
        wish = Wish(
            action=rng.uniform(-0.3, 0.3, 5).astype(np.float32), held=i % 9 != 0, stopped=10 < i < 13, link=link
        )
        recorder.add(wish, LEVELS[1], tele.fulfil(tele.exchange(wish), predictor))
    recorder.close()

    dataset = open_dataset(tmp_path / "session")
    assert list(dataset.cameras) == ["head", "prediction"] and dataset.episodes[0].length == 25
    again = SquareRobot()
    found = replay(dataset, 0, teleoperation(again, deadman=True), Perfect(again), size=size)
    assert (found.periods, found.frames_equal, found.predictions_equal) == (25, 25, 25)
    other = SquareRobot()
    differs = replay(dataset, 0, teleoperation(other, deadman=True, speed=0.1), Perfect(other), size=size)
    assert differs.frames_equal < 25, "another robot's end is noticed"


def test_a_replay_denoises_as_the_session_did(tmp_path, monkeypatch):
    from dreamdojo import teleop
    from dreamdojo.presets import NANO

    robot, asked = SquareRobot(), {}
    size = (robot.square.size,) * 2
    monkeypatch.setattr(teleop.RobotChoice, "open", lambda self, fps: robot)
    monkeypatch.setattr(teleop, "model_hash", lambda folder: "the model's")
    monkeypatch.setattr(teleop, "load_session", lambda folder, **options: asked.update(options))
    monkeypatch.setattr(teleop, "make_predictor", lambda overlay, robot, session: None)
    told = teleop.Teleop(preset=NANO, folder=tmp_path, steps=1)._model_told(None)
    told |= {"robot": {"kind": "dojo"}, "safeguards": {}, "fps": 10.0, "shown": size}
    recorder = Recorder(tmp_path / "session", fps=10, embodiment=ARM, size=size, shown=size, about=told)
    tele = teleoperation(robot)
    recorder.begin(tele.reset(seed=0).seen, seed=0)
    wish = Wish(action=GO)
    recorder.add(wish, LEVELS[1], tele.fulfil(tele.exchange(wish), None))
    recorder.close()
    teleop.TeleopReplay(data=tmp_path / "session").run()
    assert asked == {"steps": 1, "device": "auto", "backend": "torch"}


def test_an_episode_too_short_to_calibrate_on_is_named(tmp_path):
    dataset = open_dataset(record(tmp_path / "robot", robot=True, episodes=1, frames=8))
    with pytest.raises(DataError, match="at least 10 actions"):
        collect(Imagined(tiny_session()), dataset, [0], horizon=10)


# the page's end


def test_robot_and_dream_on_one_session_and_everybody_may_stop_it():
    robot = SquareRobot(fps=20.0)
    link = LinkSettings.of_round_trip(0.2, fps=20)
    with cockpit_served(robot, Perfect(robot), link=link) as (url, _), Page(url) as page, Page(url) as viewer:
        assert page.hello["cockpit"]["modes"] == ["robot", "dream"]
        assert [world["mode"] for world in page.hello["worlds"]] == ["robot", "robot", "dream"]
        page.frame()
        sent = page.drive([1, 0, 0, 0, 1])
        frame = page.frame(lambda frame: frame["notes"]["camera_command"] == sent)
        assert [view["world"] for view in frame["views"]] == ["camera", "prediction"]
        assert frame["notes"]["ahead"] == 4 and frame["notes"]["status"] == "driving"

        viewer.send(type="stop")
        page.frame(lambda frame: frame["notes"]["status"] == "stopped")
        viewer.send(type="release")
        assert "another page drives" in viewer.text("error")["message"]
        page.send(type="release")
        page.frame(lambda frame: frame["notes"]["status"] == "driving")

        page.send(type="link", round_trip=1.0, jitter=0.0, loss=0.0)
        page.frame(lambda frame: frame["notes"]["ahead"] == 20)
        for bad in ({"type": "link", "round_trip": -1, "jitter": 0, "loss": 0}, {"type": "source", "source": "leader"}):
            page.send(**bad)
            assert page.text("error")["expected"]
        page.send(type="mode", mode="dream")
        page.session_with(mode="dream", state="running")
        frame = page.frame(lambda frame: frame["notes"] is None)
        assert [view["world"] for view in frame["views"]] == ["dream"]


def test_a_silent_page_lets_go_of_the_deadman_switch():
    robot = SquareRobot(fps=20.0)
    with cockpit_served(robot, None, safeguards=Safeguards(deadman=True)) as (url, _), Page(url) as page:
        page.frame(lambda frame: frame["notes"]["status"] == "released")
        page.send(type="hold", held=True)
        page.frame(lambda frame: frame["notes"]["status"] == "driving")
        page.frame(lambda frame: frame["notes"]["status"] == "released")


def test_a_page_that_floods_is_hung_up_on_and_a_token_is_asked_for():
    from websockets.exceptions import ConnectionClosed

    robot = SquareRobot()
    with cockpit_served(robot, None, messages_per_second=20, token="secret") as (url, _):
        assert url.endswith("/?token=secret")
        bare = url.partition("/?")[0]
        with pytest.raises(ConnectionClosed) as closed:
            Page(bare)
        assert closed.value.rcvd.code == 4403
        with Page(bare, page="x&token=secret") as page:
            with pytest.raises(ConnectionClosed) as closed:
                for _ in range(200):
                    page.send(type="ping", time=0.0)
                page.until(lambda message: False)
            assert closed.value.rcvd.code == 4429


def test_a_hand_before_the_webcam_becomes_a_command():
    from dreamdojo.apps.teleop.hand import HandSource
    from dreamdojo.latent_action.align import Alignment, AlignmentConfig
    from tests.latent_action.test_model import model as tiny_model

    model = tiny_model()
    alignment = Alignment(AlignmentConfig(embodiment=PUSHER, latent_dim=model.config.latent_dim, kind="ridge"))
    hand = HandSource(model, alignment, PUSHER, 16, CPU)

    def jpeg(level):
        buffer = io.BytesIO()
        Image.fromarray(np.full((24, 32, 3), level, np.uint8)).save(buffer, "JPEG")
        return base64.b64encode(buffer.getvalue()).decode()

    assert hand.command(None, np.zeros(2)) is None
    hand.hear(jpeg(50))
    hand.hear(jpeg(200))
    told = hand.command(None, np.zeros(2, np.float32))
    assert told.shape == (2,) and (np.abs(told) <= 1).all()
    huge = bytearray(base64.b64decode(jpeg(50)))
    at = huge.index(b"\xff\xc0") + 5  # of the height and width in the frame's header
    huge[at : at + 4] = b"\xff\xff\xff\xff"
    for bad in ("%%%", "é", base64.b64encode(b"GIF89a").decode(), base64.b64encode(huge).decode()):
        with pytest.raises(BadMessageError, match=r"hand\.jpeg"):
            hand.hear(bad)


def test_orders_and_reports_are_plain_and_the_hello_is_json():
    robot = SquareRobot()
    with cockpit_served(robot, None) as (_, cockpit):
        assert json.loads(json.dumps(cockpit.hello))["robot"] == ARM.name
    assert Order(number=1, action=GO, held=True).number == 1
