"""The page of `dreamdojo play`, driven in a real browser."""

import contextlib
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from dreamdojo.apps.play import PlayWorld
from tests.apps.playing import JOINTS, Broken, Page, Square, serving, side_by_side
from tests.apps.test_play_depth import Deep

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)

expect.set_options(timeout=20_000)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs {CHROMIUM}: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium):
    """Open the page at an address; anything on the console that should not be there fails the test."""
    complaints, stack = [], contextlib.ExitStack()

    def open_page(url, *, width=1280, height=800, state="Live", prepare=lambda page: None, **context):
        opened = chromium.new_context(viewport={"width": width, "height": height}, **context)
        opened.set_default_timeout(20_000)
        page = stack.enter_context(contextlib.closing(opened)).new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        prepare(page)
        page.goto(url)
        expect(page.locator("#state")).to_contain_text(state)
        page.wait_for_function("() => document.querySelector('canvas').width > 1")
        return page

    with stack:
        yield open_page
    # a server that is stopped on purpose is one line per attempt to come back
    assert [text for text in complaints if "ERR_CONNECTION_REFUSED" not in text] == []


def pictures(page):
    return page.evaluate("[...document.querySelectorAll('#views canvas')].map((canvas) => canvas.toDataURL())")


def wait_for_another(page, before):
    page.wait_for_function("(before) => document.querySelector('#views canvas').toDataURL() !== before", arg=before)


def reaches(page, meter, least):
    wanted = "([meter, least]) => parseFloat(document.getElementById(meter).textContent) >= least"
    page.wait_for_function(wanted, arg=[meter, least])


def eventually(page, holds):
    for _ in range(800):
        if holds():
            return
        page.wait_for_timeout(25)
    raise AssertionError("it did not come true within 20 seconds")


def number(page, meter):
    return float(page.inner_text(f"#{meter}").replace("–", "nan"))


def test_keys_drive_both_worlds_and_the_page_says_how_fast(visit, tmp_path):
    with serving(side_by_side()) as url:
        page = visit(url)
        first = pictures(page)
        page.keyboard.down("KeyW")
        wait_for_another(page, first[0])
        reaches(page, "fps", 10)
        page.keyboard.up("KeyW")
        reaches(page, "trip", 0)
        reaches(page, "latency", 1)
        page.screenshot(path=tmp_path / "desktop.png")

        assert page.locator("#views figure").count() == 2
        assert number(page, "dropped") >= 0


def test_a_reset_and_a_chosen_start_show_their_scene(visit):
    with serving(side_by_side()) as url:
        page = visit(url)
        first = pictures(page)
        page.keyboard.down("ArrowUp")
        wait_for_another(page, first[0])
        page.keyboard.up("ArrowUp")
        page.keyboard.press("Backspace")
        page.wait_for_function("(first) => document.querySelector('canvas').toDataURL() === first", arg=first[0])

        page.locator(".start").nth(1).click()
        wait_for_another(page, first[0])
        expect(page.locator(".start").nth(1)).to_have_attribute("aria-pressed", "true")
        chosen = pictures(page)
        page.keyboard.press("Backspace")
        expect(page.locator("#state")).to_have_text("Live")
        assert pictures(page) == chosen, "a reset stays with the chosen start"


def test_space_closes_the_gripper_also_after_a_click(visit):
    worlds = side_by_side()
    with serving(worlds) as url:
        page = visit(url)
        page.click("#pixels")
        page.keyboard.press("Space")
        expect(page.locator(".gripper")).to_contain_text("closed")
        eventually(page, lambda: worlds["dojo"].world.actions[-1][-1] == 0)

        page.focus("#pause")
        page.keyboard.press("Space")
        expect(page.locator("#state")).to_have_text("Paused")
        expect(page.locator(".gripper")).to_contain_text("closed")


def test_dragging_a_picture_drives(visit):
    with serving(side_by_side()) as url:
        page = visit(url)
        before = pictures(page)
        box = page.locator(".screen").first.bounding_box()
        page.mouse.move(box["x"] + 100, box["y"] + 100)
        page.mouse.down()
        page.mouse.move(box["x"] + 100, box["y"] + 20)
        wait_for_another(page, before[0])
        page.mouse.up()
        expect(page.locator(".drag")).to_have_count(0)


def test_a_body_of_joints_gets_sliders_and_keys_to_move_them(visit):
    worlds = {"dream": PlayWorld(world=Square(JOINTS), from_observation=True, label="Dream")}
    with serving(worlds) as url:
        page = visit(url)
        assert page.locator(".slider").count() == 26
        expect(page.locator(".slider .value").first).to_have_text("0.20 rad")
        before = pictures(page)
        page.keyboard.press("ArrowDown")
        expect(page.locator(".slider").nth(1)).to_have_class(re.compile("selected"))
        page.keyboard.down("ArrowRight")
        wait_for_another(page, before[0])
        page.keyboard.up("ArrowRight")
        expect(page.locator(".slider .value").first).to_have_text("0.20 rad")

        page.locator(".slider input").first.fill("1")
        expect(page.locator(".slider .value").first).to_have_text("3.00 rad")


def test_a_phone_steers_by_touch_without_scrolling_sideways(visit, tmp_path):
    worlds = side_by_side()
    with serving(worlds) as url:
        page = visit(url, width=390, height=844, has_touch=True, is_mobile=True)
        stick = page.locator(".plane .track").bounding_box()
        assert stick["y"] + stick["height"] < 844, "pictures and stick fit on one screen"
        x, y = stick["x"] + stick["width"] / 2, stick["y"] + stick["height"] / 2
        before = pictures(page)
        touch = page.context.new_cdp_session(page)
        touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [{"x": x, "y": y - 60}]})
        wait_for_another(page, before[0])
        page.screenshot(path=tmp_path / "phone.png")
        eventually(page, lambda: worlds["dojo"].world.position[0] > 0.3)
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

        assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_a_second_page_watches_and_may_take_control_when_the_first_leaves(visit):
    with serving(side_by_side()) as url:
        with Page(url) as operator:
            operator.session_with(driving=True)
            page = visit(url)
            expect(page.locator("#role")).to_have_text("Another page drives")
            expect(page.locator("#reset")).to_be_disabled()
        page.click("#take")
        expect(page.locator("#role")).to_have_text("You drive")
        before = pictures(page)
        page.keyboard.down("KeyW")
        wait_for_another(page, before[0])


def test_a_server_that_goes_and_comes_back_is_found_again(visit):
    worlds = side_by_side()
    with contextlib.ExitStack() as first:
        url = first.enter_context(serving(worlds))
        page = visit(url)
        first.close()
        expect(page.locator("#state")).to_have_text("Reconnecting")
        expect(page.locator("#reset")).to_be_disabled()
    with serving(worlds, port=int(url.rpartition(":")[2])):
        expect(page.locator("#state")).to_have_text("Live")
        before = pictures(page)
        page.keyboard.down("KeyW")
        wait_for_another(page, before[0])


def test_a_world_that_fails_is_shown_until_a_reset(visit):
    worlds = {"dream": PlayWorld(world=Broken(), from_observation=True, label="Dream")}
    with serving(worlds) as url:
        page = visit(url, state="Stopped")
        expect(page.locator("#notice")).to_contain_text("the arm left the table")
        worlds["dream"].world.step = Square.step.__get__(worlds["dream"].world)
        page.keyboard.press("Backspace")
        expect(page.locator("#notice")).to_be_hidden()
        expect(page.locator("#state")).to_have_text("Live")


def test_what_the_server_objects_to_is_shown(visit):
    def garble(page):
        def pass_on(socket):
            server = socket.connect_to_server()
            socket.on_message(lambda message: server.send(message.replace("reset", "rest")))

        page.route_web_socket(re.compile("/ws"), pass_on)

    with serving(side_by_side()) as url:
        page = visit(url, prepare=garble)
        page.keyboard.press("Backspace")
        expect(page.locator(".toast")).to_contain_text("not a message")
        expect(page.locator(".toast small")).to_contain_text('{"type": "reset"')
        expect(page.locator("#state")).to_have_text("Live")


def test_depth_stands_beside_the_picture_and_can_be_put_away(visit, tmp_path):
    worlds = {"dream": PlayWorld(world=Deep(), from_observation=True, label="Dream", depth_span=(0.2, 3.0))}
    with serving(worlds) as url:
        page = visit(url)
        assert page.locator("#views figcaption .name").all_inner_texts() == ["Dream", "Dream, depth"]
        rgb, depth = pictures(page)
        assert rgb != depth
        page.screenshot(path=tmp_path / "depth.png")
        page.click("#depth")
        expect(page.locator("#views figure:visible")).to_have_count(1)
        page.keyboard.press("KeyB")
        expect(page.locator("#views figure:visible")).to_have_count(2)
        expect(page.locator("#depth")).to_have_attribute("aria-pressed", "true")
    with serving(side_by_side()) as url:
        expect(visit(url).locator("#depth")).to_be_hidden()
