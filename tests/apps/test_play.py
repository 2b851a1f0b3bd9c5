import asyncio
import dataclasses
import json
import logging
import socket
import struct
import subprocess
import sys
import threading
import time
from io import BytesIO

import httpx
import numpy as np
import pytest
from fastapi import WebSocket
from PIL import Image
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from dreamdojo.apps.play import Controls, PlaySettings, PlayWorld, create_app, serve
from dreamdojo.apps.play.audience import Member
from dreamdojo.apps.play.driver import Driver
from dreamdojo.apps.play.messages import BadMessageError, Command, Frame, Parser, Picture, View, pack, unpack
from dreamdojo.apps.play.worlds import Worlds
from dreamdojo.dataset.embodiment import Embodiment, Field
from dreamdojo.errors import ConfigError, DataError, SimulationError
from dreamdojo.world import World
from tests.apps.playing import ARM, JOINTS, Broken, Page, Square, serving, side_by_side, starts

# controls


def controls(embodiment):
    return Controls.of(embodiment, screen_right="-y", screen_up="+x")


def test_named_axes_get_a_role_and_its_keys():
    by_axis = {column.axis: column for column in controls(ARM).columns}

    assert {axis: column.role for axis, column in by_axis.items()} == {
        "x": "forward",
        "y": "right",
        "z": "up",
        "yaw": "yaw",
        "opening": "gripper",
    }
    assert by_axis["x"].positive == ("KeyW", "ArrowUp")
    assert by_axis["y"].negative == ("KeyD", "ArrowRight"), "y points left, so the right key drives it down"
    assert by_axis["yaw"].positive == ("KeyQ",)
    assert by_axis["opening"].positive == ("Space",)
    assert [column.mode for column in controls(ARM).columns] == ["rate"] * 4 + ["toggle"]


def test_a_second_arm_is_not_moved_by_the_first_ones_keys():
    arm = ARM.action[0]
    both = Embodiment(name="two", action=(arm, dataclasses.replace(arm, name="right_velocity", integrates=None)))

    assert [column.role for column in controls(both).columns] == ["forward", "right", "up", "yaw"] + [None] * 4


def test_a_column_without_range_is_fixed():
    field = Field(name="mode", axes=("m",), unit="1", low=(2.0,), high=(2.0,))

    (column,) = controls(Embodiment(name="one", action=(field,))).columns

    assert column.mode == "fixed"


def test_rates_rest_at_a_physical_zero_even_in_an_uneven_range():
    field = Field(name="speed", axes=("x",), unit="m/s", low=(-0.1,), high=(0.3,), resampling="mean")
    embodiment = Embodiment(name="one", action=(field,))

    rest = controls(embodiment).rest(None)

    np.testing.assert_allclose(embodiment.denormalize_action(rest), 0.0, atol=1e-7)


def test_targets_rest_where_the_body_is_or_in_mid_range():
    state = np.linspace(-1, 3, 26, dtype=np.float32)

    np.testing.assert_allclose(controls(JOINTS).rest(state), np.linspace(-1, 1, 26), atol=1e-6)
    np.testing.assert_allclose(controls(JOINTS).rest(None), 0.0, atol=1e-6)


def test_letting_go_stops_velocities_and_keeps_targets_and_grippers():
    np.testing.assert_allclose(controls(ARM).relaxed(np.array([1, -1, 0.5, 1, -1])), [0, 0, 0, 0, -1], atol=1e-7)
    np.testing.assert_allclose(controls(JOINTS).relaxed(np.full(26, 0.7)), 0.7, atol=1e-7)


# what travels


@pytest.mark.parametrize(
    ("text", "found", "expected"),
    [
        ("", "not a message", "drive"),
        ("[1, 2]", "not a message", "drive"),
        ('{"type": "jump"}', "not a message", '{"type": "reset"'),
        ('{"type": "pause", "paused": 1}', "pause.paused", "true or false"),
        ('{"type": "pause", "paused": true, "hard": true}', "pause.hard", "true or false"),
        ('{"type": "drive", "episode": 1, "id": 1, "time": 0, "values": [2]}', "drive.values.0", "-1..1"),
        ('{"type": "drive", "episode": 1, "id": 1, "time": 0, "values": [NaN]}', "drive.values.0", "-1..1"),
        ('{"type": "drive", "episode": 1, "id": -1, "time": 0, "values": []}', "drive.id", "count"),
        ("[" * 5000, "not a message", "drive"),
        ("x" * 20_000, "20000 bytes", "at most 16384"),
    ],
)
def test_a_bad_message_is_answered_with_what_was_found_and_what_was_expected(text, found, expected):
    with pytest.raises(BadMessageError) as caught:
        Parser().parse(text, max_bytes=16_384)

    assert found in caught.value.found
    assert expected in caught.value.expected


def test_a_state_that_is_not_finite_still_makes_a_message_that_a_browser_reads():
    view = View(
        world="dream",
        pictures=(Picture(camera="head", data=b"abc"), Picture(camera="wrist", data=b"de")),
        step_ms=1.0,
        state=(1.25, float("nan"), float("inf")),
        state_source="head",
        uncertainty=float("nan"),
    )
    command = Command(values=np.zeros(2, dtype=np.float32))
    frame = Frame(sequence=1, episode=1, index=0, time=0.0, command=command, views=(view,))

    header, pictures = unpack(pack(frame))

    assert header["views"][0]["state"] == [1.25, None, None] and header["views"][0]["uncertainty"] is None
    assert pictures == [b"abc", b"de"]


def test_what_commands_do_not_move_is_unknown_where_they_are_integrated():
    opening = Field(name="gripper_opening", axes=("opening",), unit="1", low=(0.0,), high=(1.0,))
    worlds = Worlds(side_by_side(embodiment=dataclasses.replace(ARM, state=(*ARM.state, opening))), PlaySettings())
    worlds.begin(starts()[0])
    (shot,) = worlds.advance(Command(values=np.zeros(5, dtype=np.float32)))
    state = shot.views[0].state
    assert state is not None and np.isfinite(state[:4]).all() and np.isnan(state[4])


# settings


def test_the_fake_world_satisfies_the_protocol():
    assert isinstance(Square(), World)


def test_other_machines_are_let_in_only_on_request():
    with pytest.raises(ConfigError, match="allow_remote"):
        PlaySettings(host="0.0.0.0")

    assert PlaySettings(host="0.0.0.0", allow_remote=True)
    assert PlaySettings(host="::1") and PlaySettings(host="localhost")


def test_worlds_that_cannot_be_driven_together_are_refused():
    dream = PlayWorld(world=Square(), from_observation=True, label="Dream")
    other_body = PlayWorld(world=Square(JOINTS), from_observation=False, label="Dojo")
    other_rate = PlayWorld(world=Square(fps=5.0), from_observation=False, label="Dojo")

    with pytest.raises(ConfigError, match="action fields"):
        create_app({"dream": dream, "dojo": other_body}, starts(), PlaySettings())
    with pytest.raises(ConfigError, match="Hz"):
        create_app({"dream": dream, "dojo": other_rate}, starts(), PlaySettings())
    with pytest.raises(ConfigError, match="'blind' has none"):
        blind = dataclasses.replace(starts()[0], name="blind", observation=None)
        create_app({"dream": dream}, [blind], PlaySettings())
    with pytest.raises(DataError, match="thumbnail"):
        dataclasses.replace(starts()[0], thumbnail=np.zeros((4, 4, 3), dtype=np.float32))


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "websockets"])
def test_a_missing_package_is_named_with_its_install_line(package):
    script = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from dreamdojo.errors import MissingDependencyError\n"
        "try:\n    import dreamdojo.apps.play\nexcept MissingDependencyError as error:\n    sys.exit(str(error))"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)

    assert f"needs the package {package}" in ended.stderr
    assert "pip install 'dreamdojo[play]'" in ended.stderr


def test_a_taken_port_is_refused_by_name():
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(ConfigError, match="another port"):
        serve(side_by_side(), starts(), PlaySettings(port=other.getsockname()[1]))


def test_without_a_callback_the_address_is_logged(caplog):
    stop = threading.Event()
    stop.set()

    with caplog.at_level(logging.INFO, logger="dreamdojo.apps.play.server"):
        serve(side_by_side(), starts(), PlaySettings(port=0), stop=stop)

    assert "http://127.0.0.1:" in caplog.text


# the session


def test_the_page_and_its_thumbnails_are_served():
    with serving(side_by_side()) as url, httpx.Client(base_url=url) as client:
        page = client.get("/")
        thumbnail = client.get("/starts/2.png")

        assert "DreamDojo" in page.text
        assert "default-src 'self'" in page.headers["content-security-policy"]
        assert client.get("/main.js").headers["content-type"].startswith("text/javascript")
        assert np.asarray(Image.open(BytesIO(thumbnail.content))).mean() == 190
        assert client.get("/starts/3.png").status_code == 404
        assert client.get("/starts/..%2f..%2fserver.py").status_code in (404, 422)


def test_the_same_command_drives_every_world_in_lockstep():
    with serving(side_by_side()) as url, Page(url) as page:
        first = page.frame(lambda frame: frame["index"] == 0)
        driven = page.drive([1, 0, 0, 0, 1])
        later = page.frame(lambda frame: frame["command"]["id"] == driven and frame["index"] >= 4)

    assert [view["world"] for view in later["views"]] == ["dream", "dojo"]
    assert first["views"][0]["step_ms"] is None and later["views"][0]["step_ms"] >= 0
    assert later["command"] == {"id": driven, "time": 1.5, "values": [1.0, 0.0, 0.0, 0.0, 1.0]}
    for view in later["views"]:
        assert view["state"][0] > first["views"][0]["state"][0] and view["state_source"] == "integrator"
    dream, dojo = later["images"]
    np.testing.assert_array_equal(dream, dojo)
    assert not np.array_equal(dream, first["images"][0])


def test_frames_arrive_pixel_for_pixel_and_in_the_worlds_own_time():
    worlds = side_by_side()
    with serving(worlds) as url, Page(url) as page:
        for _ in range(25):
            page.frame()
        page.send(type="pause", paused=True)
        page.session_with(state="paused")
        last = page.frames[-1]

    shown = worlds["dream"].world.draw().permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(last["images"][0], shown)
    assert {frame["sequence"] - frame["index"] for frame in page.frames} == {1}, "only the page drops frames"
    assert last["time"] == pytest.approx(last["index"] / 20.0)


def test_a_world_with_several_actions_a_step_repeats_the_command_and_shows_every_frame():
    worlds = {
        "dream": PlayWorld(world=Square(k=4), from_observation=True, label="Dream"),
        "dojo": PlayWorld(world=Square(k=1), from_observation=False, label="Dojo"),
    }
    with serving(worlds) as url, Page(url) as page:
        frames = [page.frame() for _ in range(13)]

    assert {frame["index"] % 4 for frame in frames} == {0, 1, 2, 3}
    np.testing.assert_array_equal(frames[-1]["images"][0], frames[-1]["images"][1])
    chunks = np.stack(worlds["dream"].world.actions).reshape(-1, 4, 5)
    assert (chunks == chunks[:, :1]).all()


def test_a_reset_starts_the_chosen_scene_and_forgets_commands_of_the_last_episode():
    with serving(side_by_side()) as url, Page(url) as page:
        first = page.frame()
        page.drive([1, 0, 0, 0, 1])
        page.frame(lambda frame: frame["index"] >= 3)

        page.send(type="reset", start=2)
        chosen = page.frame(lambda frame: frame["episode"] == 2)
        assert page.session["start"] == 2
        page.drive([1, 0, 0, 0, 1], episode=1)
        still = page.frame(lambda frame: frame["episode"] == 2 and frame["index"] >= 3)

        page.send(type="reset", start=None)
        again = page.frame(lambda frame: frame["episode"] == 3)

    assert chosen["views"][0]["state"][0] == pytest.approx(0.8)
    assert first["views"][0]["state"][0] == pytest.approx(0.2)
    assert still["views"][0]["state"] == chosen["views"][0]["state"]
    np.testing.assert_array_equal(again["images"][0], chosen["images"][0])


def test_a_joint_body_begins_at_its_state():
    worlds = {"dream": PlayWorld(world=Square(JOINTS), from_observation=True, label="Dream")}
    with serving(worlds) as url, Page(url) as page:
        page.session_with(episode=1)

    assert page.session["rest"] == pytest.approx([2 * (0.2 + 1) / 4 - 1] * 26, abs=1e-6)


def test_a_silent_operator_lets_go_and_a_repeated_command_holds():
    with serving(side_by_side(), command_timeout=0.5) as url, Page(url) as page:
        page.frame()
        page.drive([1, 0, 0, 0, -1])
        page.frame(lambda frame: frame["command"]["values"][0] == 1)
        stopped = page.frame(lambda frame: frame["command"]["values"][0] == 0)

    assert stopped["command"]["values"] == [0, 0, 0, 0, -1], "the gripper keeps its hold"


def test_full_speed_is_faster_than_the_clock():
    with serving(side_by_side(fps=10.0)) as url, Page(url) as page:
        page.frame()
        page.send(type="speed", unlimited=True)
        page.session_with(unlimited=True)
        began = time.monotonic()
        for _ in range(40):
            page.frame()

    assert time.monotonic() - began < 3.0


def test_bad_messages_are_answered_and_the_session_goes_on():
    with serving(side_by_side()) as url, Page(url) as page:
        for message, found in [
            ("nonsense", "not a message"),
            (b"\x00\x01", "binary"),
            (json.dumps({"type": "reset", "start": 7}), "reset.start: 7"),
            (json.dumps({"type": "drive", "episode": 1, "id": 1, "time": 0, "values": [0, 0]}), "2 numbers"),
            ("x" * 20_000, "20000 bytes"),
        ]:
            page.socket.send(message)
            error = page.text("error")
            assert found in error["message"] and error["expected"]
        page.send(type="ping", time=12.5)
        assert page.text("pong")["time"] == 12.5
        assert page.frame()


def test_a_message_beyond_all_bounds_ends_its_own_connection_only():
    with serving(side_by_side()) as url, Page(url) as viewer, Page(url) as hostile:
        with pytest.raises(ConnectionClosed):
            hostile.socket.send("x" * 1_000_000)
            hostile.until(lambda message: False)
        assert viewer.frame()


def test_a_second_page_watches_and_takes_over_when_nobody_drives():
    with serving(side_by_side()) as url:
        operator, viewer = Page(url), Page(url)
        with viewer:
            assert operator.session["driving"] and not viewer.session["driving"] and viewer.session["driven"]
            assert viewer.frame()["images"][0].shape == (64, 64, 3)
            for refused in ({"type": "reset", "start": 0}, {"type": "take"}):
                viewer.send(**refused)
                assert "another page drives" in viewer.text("error")["message"]

            operator.session_with(episode=1)
            operator.drive([1, 0, 0, 0, 1])
            viewer.frame(lambda frame: frame["command"]["values"][0] == 1)
            operator.stack.close()
            viewer.frame(lambda frame: frame["command"]["values"][0] == 0)
            viewer.session_with(driven=False)
            viewer.drive([0, 0, 0, 0, 1])
            assert "only watches" in viewer.text("error")["message"]

            viewer.send(type="take")
            viewer.session_with(driving=True)


def test_a_page_that_connects_again_gets_its_seat_back():
    with serving(side_by_side()) as url, Page(url, page="mine") as first, Page(url, page="other") as other:
        first.frame(lambda frame: frame["index"] >= 3)
        with Page(url, page="mine") as again:
            seen = again.frame()
            assert again.session["driving"] and again.session["episode"] == 1 and seen["index"] >= 3
            with pytest.raises(ConnectionClosed) as closed:
                first.until(lambda message: False)
            assert closed.value.rcvd.code == 4001
            assert other.frame()


def test_a_slow_page_skips_frames_and_holds_nobody_up():
    with serving(side_by_side()) as url, Page(url) as quick, Page(url, slow=True) as slow:
        kept = [slow.frame(), slow.frame()]
        quick.frame(lambda frame: frame["sequence"] >= kept[-1]["sequence"] + 12)
        with pytest.raises(TimeoutError):
            slow.until(lambda message: message["type"] == "frame", timeout=0.3)
        newest = quick.frames[-1]["sequence"]
        slow.shown(kept[-1])
        caught_up = slow.frame()

    assert sum(frame["sequence"] > kept[-1]["sequence"] for frame in quick.frames) >= 6
    assert kept[-1]["sequence"] + 12 <= newest <= caught_up["sequence"] + 1, (
        "what waited was the newest, not the oldest"
    )


def test_a_page_that_vanishes_while_it_is_sent_to_hurts_nobody(caplog):
    worlds = side_by_side(size=256)
    with serving(worlds, frames_in_flight=1000) as url, Page(url) as viewer:
        vanished = Page(url)
        raw = vanished.socket.socket
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        viewer.send(type="speed", unlimited=True)
        for _ in range(3):
            viewer.frame()
        raw.shutdown(socket.SHUT_RD)
        vanished.socket.close_socket()  # a reset, without a closing handshake
        before = viewer.frames[-1]["sequence"]
        assert viewer.frame(lambda frame: frame["sequence"] > before + 5)
        viewer.session_with(pages=1)

    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_the_worlds_stand_still_when_nobody_looks():
    worlds = side_by_side()
    with serving(worlds) as url:
        with Page(url) as page:
            page.frame(lambda frame: frame["index"] >= 2)
        time.sleep(0.2)
        before = len(worlds["dream"].world.actions)
        time.sleep(0.3)
        assert len(worlds["dream"].world.actions) == before
        with Page(url) as page:
            assert page.frame()["index"] == before, "who comes back finds the session where it was"
            assert page.frame()["index"] == before + 1


def test_a_world_that_fails_says_so_and_a_reset_tries_again():
    worlds = {"dream": PlayWorld(world=Broken(), from_observation=True, label="Dream")}
    with serving(worlds) as url, Page(url) as page:
        assert page.session_with(state="failed")["failure"] == "the arm left the table"
        page.send(type="reset", start=None)
        assert page.frame(lambda frame: frame["episode"] == 2 and frame["index"] == 1)


def driven_until(driver, wanted):
    """Run a driver that somebody watches until its state is as wanted."""
    thread = threading.Thread(target=driver.run, args=(lambda event: None,))
    driver.watch(True)
    thread.start()
    try:
        deadline = time.monotonic() + 5
        while not wanted(driver.state()) and time.monotonic() < deadline:
            time.sleep(0.01)
        return driver.state()
    finally:
        driver.stop()
        thread.join()


def vehicle(world):
    return Worlds({"dream": PlayWorld(world=world, from_observation=True, label="Dream")}, PlaySettings())


def test_a_reset_that_is_asked_for_while_a_world_fails_is_not_forgotten():
    class Failing(Square):
        failed = False

        def step(self, actions):
            if not self.failed:
                self.failed = True
                driver.reset(2)
                raise SimulationError("the arm left the table")
            return super().step(actions)

    driver = Driver({"worlds": vehicle(Failing())}, starts(), PlaySettings())
    state = driven_until(driver, lambda state: state.episode == 2)
    assert (state.episode, state.start, state.failure) == (2, 2, None)


def test_a_vehicle_is_not_driven_before_it_has_begun():
    class Switching(Driver):
        def _turn(self, *arguments):
            if self.state().mode == "first":
                self.switch("second")
            return super()._turn(*arguments)

    second = Square()  # without a reset it has no position
    driver = Switching({"first": vehicle(Square()), "second": vehicle(second)}, starts(), PlaySettings())
    assert driven_until(driver, lambda state: second.actions or state.failure).failure is None


def test_who_was_hung_up_on_is_not_heard_any_more():
    said = iter(["connect", "receive", "disconnect"])
    heard = []

    async def receive():
        return {"type": f"websocket.{next(said)}", "text": '{"type": "take"}', "code": 1000}

    async def send(message): ...

    async def listen():
        socket = WebSocket({"type": "websocket"}, receive, send)
        await socket.accept()
        member = Member(socket, "page", PlaySettings())
        member.hang_up(4001)
        await member.hear_all(heard.append)

    asyncio.run(listen())
    assert heard == []


def test_a_connection_to_another_path_is_refused(caplog):
    with serving(side_by_side()) as url:
        with pytest.raises(InvalidStatus), connect(f"{url.replace('http', 'ws')}/elsewhere"):
            pass
        with pytest.raises(InvalidStatus):
            Page(url, page="x" * 65)

    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_page_of_another_site_is_refused():
    with serving(side_by_side()) as url:
        port = int(url.rpartition(":")[2])
        with pytest.raises(ConnectionClosed) as closed:
            Page(url, origin="http://evil.example")
        assert closed.value.rcvd.code == 4403

        # a name that its owner has pointed at this machine
        evil = f"http://evil.example:{port}"
        with pytest.raises(ConnectionClosed) as closed:
            Page(evil, origin=evil, sock=socket.create_connection(("127.0.0.1", port)))
        assert closed.value.rcvd.code == 4403

        with Page(url, origin=url) as page:
            assert page.frame()
