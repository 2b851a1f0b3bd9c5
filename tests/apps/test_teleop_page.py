"""The cockpit in a real browser."""

import base64

import numpy as np
import pytest
from playwright.sync_api import expect

from dreamdojo.apps.teleop.cockpit import Instruments
from dreamdojo.apps.teleop.hand import HandSource
from dreamdojo.apps.teleop.link import LinkSettings
from dreamdojo.apps.teleop.onboard import Safeguards
from tests.apps.teleoperating import Perfect, SquareRobot, cockpit_served
from tests.apps.test_play_page import CHROMIUM, chromium, visit  # noqa: F401  fixtures

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs {CHROMIUM}: apt-get install chromium"),
]


def measured(page, row):
    page.wait_for_function(
        "(row) => parseFloat(document.querySelectorAll('.latency tbody tr')[row].cells[1].textContent) >= 0", arg=row
    )
    return float(page.locator(".latency tbody tr").nth(row).locator("td").first.inner_text())


def test_the_cockpit_predicts_measures_stops_and_switches(visit, tmp_path):  # noqa: F811
    robot = SquareRobot(fps=10.0)
    link = LinkSettings.of_round_trip(1.0, fps=10)
    with cockpit_served(robot, Perfect(robot), link=link) as (url, _):
        page = visit(url)
        expect(page.locator("#robot")).to_have_text("Robot drives")
        expect(page.locator("#views figure:visible")).to_have_count(1)
        for _ in range(3):
            page.keyboard.press("KeyW", delay=250)
        prediction, camera = measured(page, 0), measured(page, 1)
        assert camera > prediction + 500, "the camera answers a second later than the prediction"
        page.screenshot(path=tmp_path / "robot.png")

        page.get_by_role("button", name="Side by side").click()
        expect(page.locator("#views figure:visible")).to_have_count(2)
        page.keyboard.press("Escape")
        expect(page.locator("#robot")).to_have_text("Emergency stop")
        page.click("#release")
        expect(page.locator("#robot")).to_have_text("Robot drives")

        page.get_by_role("button", name="Dream", exact=True).click()
        expect(page.locator("#views figure:visible")).to_have_count(1)
        expect(page.locator("#stop")).to_be_hidden()


def test_a_late_picture_in_the_place_of_a_prediction_does_not_count_as_an_early_answer(visit):  # noqa: F811
    with cockpit_served(SquareRobot(fps=10.0), None, link=LinkSettings.of_round_trip(0.6, fps=10)) as (url, _):
        page = visit(url)
        page.keyboard.press("KeyW", delay=250)
        assert measured(page, 0) > 500


def test_a_gamepad_that_is_unplugged_lets_go_of_the_deadman_switch(visit):  # noqa: F811
    robot = SquareRobot(fps=10.0)
    with cockpit_served(robot, Perfect(robot), safeguards=Safeguards(deadman=True)) as (url, _):
        page = visit(url)
        page.evaluate(
            """() => {
                const buttons = Array.from({ length: 16 }, (_, i) => ({ pressed: i === 4, value: 0 }));
                window.pads = [{ connected: true, axes: [0, 0, 0, 0], buttons }];
                navigator.getGamepads = () => window.pads;
            }"""
        )
        expect(page.locator("#robot")).to_have_text("Robot drives")
        page.evaluate("window.pads = []")
        expect(page.locator("#robot")).to_have_text("Deadman switch released", timeout=5_000)


def test_a_phone_holds_the_deadman_switch_and_nothing_scrolls_sideways(visit, tmp_path):  # noqa: F811
    robot = SquareRobot(fps=10.0)
    with cockpit_served(robot, Perfect(robot), safeguards=Safeguards(deadman=True)) as (url, _):
        page = visit(url, width=390, height=844, has_touch=True, is_mobile=True)
        expect(page.locator("#robot")).to_have_text("Deadman switch released")
        box = page.locator(".hold").bounding_box()
        touch = page.context.new_cdp_session(page)
        at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [at]})
        expect(page.locator("#robot")).to_have_text("Robot drives")
        page.screenshot(path=tmp_path / "phone.png")
        expect(page.locator("#release")).to_be_hidden()
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        expect(page.locator("#robot")).to_have_text("Deadman switch released")
        assert page.evaluate("document.documentElement.scrollWidth") == 390


HEADSET = """() => {
    const buttons = [{ pressed: false }, { pressed: false }];
    const position = { x: 0, y: 1, z: 0 };
    window.hand = { buttons, position };
    const session = new EventTarget();
    session.inputSources = [{ gripSpace: {}, gamepad: { buttons } }];
    session.updateRenderState = () => {};
    session.requestReferenceSpace = async () => ({});
    const frame = { getPose: () => ({ transform: { position } }), getViewerPose: () => ({ views: [{}] }) };
    session.requestAnimationFrame = (draw) => requestAnimationFrame((now) => draw(now, frame));
    window.headset = session;
    const xr = { isSessionSupported: async () => true, requestSession: async () => session };
    Object.defineProperty(navigator, "xr", { value: xr });
    window.XRWebGLLayer = class {
        framebuffer = null;
        getViewport = () => ({ x: 0, y: 0, width: 8, height: 8 });
    };
}"""


def test_a_headsets_squeezed_controller_moves_the_robot_and_letting_go_stops_it(visit):  # noqa: F811
    robot = SquareRobot(fps=10.0)
    with cockpit_served(robot, Perfect(robot), safeguards=Safeguards(deadman=True)) as (url, _):
        page = visit(url, prepare=lambda page: page.add_init_script(f"({HEADSET})()"))
        page.click("#headset")
        expect(page.locator("#robot")).to_have_text("Deadman switch released")
        page.evaluate("hand.buttons[1].pressed = true")
        expect(page.locator("#robot")).to_have_text("Robot drives")
        before = robot.square.position.copy()
        page.evaluate("hand.position.y += 0.12")
        page.wait_for_timeout(600)
        assert robot.square.position[2] > before[2] and abs(robot.square.position[1] - before[1]) < 0.01
        page.evaluate("hand.buttons[1].pressed = false")
        expect(page.locator("#robot")).to_have_text("Deadman switch released")


def test_the_webcam_sends_pictures_while_the_hand_drives(visit):  # noqa: F811
    heard = []

    class Hand(HandSource):
        def __init__(self): ...

        def hear(self, jpeg):
            heard.append(base64.b64decode(jpeg))

        def command(self, state, last):
            return np.array([0.5, 0, 0, 0, 1], np.float32)

    robot = SquareRobot(fps=10.0)
    with cockpit_served(robot, Perfect(robot), instruments=Instruments(hand=Hand())) as (url, _):
        page = visit(url)
        expect(page.locator("#robot")).to_have_text("Robot drives")
        before = robot.square.position[0]
        page.get_by_role("button", name="Hand (webcam)").click()
        page.wait_for_timeout(1500)
        expect(page.locator(".webcam video")).to_be_visible()
    assert len(heard) > 3 and all(picture.startswith(b"\xff\xd8") for picture in heard)
    assert robot.square.position[0] > before


SOCKETS = """() => {
    const Original = WebSocket;
    window.sockets = [];
    window.WebSocket = class extends Original {
        constructor(...rest) {
            super(...rest);
            window.sockets.push(this);
        }
    };
}"""


def test_two_pages_watch_one_session_and_a_lost_connection_resumes_it(visit):  # noqa: F811
    robot = SquareRobot(fps=10.0)
    with cockpit_served(robot, Perfect(robot)) as (url, _):
        driver = visit(url, prepare=lambda page: page.add_init_script(f"({SOCKETS})()"))
        viewer = visit(url)
        expect(driver.locator("#role")).to_have_text("You drive, 1 watching")
        expect(viewer.locator("#role")).to_have_text("Another page drives")
        driver.keyboard.press("KeyD", delay=600)
        place, clock = robot.square.position.copy(), float(driver.locator("#clock").inner_text())
        assert place[1] < 0.5
        driver.evaluate("sockets.at(-1).close()")
        driver.wait_for_function("() => sockets.length == 2")
        expect(driver.locator("#role")).to_have_text("You drive, 1 watching")
        driver.wait_for_function(
            "(clock) => parseFloat(document.getElementById('clock').textContent) > clock", arg=clock
        )
        assert abs(robot.square.position[1] - place[1]) < 0.05, "it goes on from where it was"
