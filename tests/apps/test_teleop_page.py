"""The cockpit in a real browser."""

import pytest
from playwright.sync_api import expect

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
