"""Drive `dreamdojo play` in headless Chromium: `python benchmarks/play.py [--run RUN] [--shot PNG]`.

Adds the arm `play` (`play_openvino` with that backend) to `benchmarks/results/demo.json`: the dream beside the dojo
under a held key, in real time and at full speed. Needs Debian's chromium and the `playwright` package.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from demo import write
from playwright.sync_api import sync_playwright

ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="runs/benchmark")
    parser.add_argument("--shot", default="")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--backend", choices=("torch", "openvino"), default="torch", help="what computes the dream")
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "dreamdojo", "play", "nano", "--run", arguments.run, "--port", "0"]
    command += ["--backend", arguments.backend]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "200"})
    try:
        assert server.stderr is not None
        address = next(m.group() for line in server.stderr if (m := re.search(r"http://\S+", line)))
        arm = "play" if arguments.backend == "torch" else f"play_{arguments.backend}"
        write(arm, drive(address, arguments.seconds, arguments.shot))
    finally:
        server.terminate()
        server.wait()


def drive(address: str, seconds: float, shot: str) -> dict:
    """Hold a key and read the page's meters."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=Path("/usr/bin/chromium"), args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(address)
        page.wait_for_function("() => document.querySelector('canvas')?.width > 1")
        found = {}
        for name in ("real_time", "full_speed"):
            if name == "full_speed":
                page.keyboard.press("m")
            page.keyboard.down("a")
            time.sleep(seconds / 2)
            page.keyboard.up("a")
            page.keyboard.down("w")
            time.sleep(seconds / 2)
            found[name] = {meter: float(page.locator(f"#{meter}").inner_text()) for meter in ("fps", "step", "latency")}
            page.keyboard.up("w")
        if shot:
            page.screenshot(path=shot)
        browser.close()
    return {"worlds": "dream and dojo side by side", "fps_step_ms_and_key_to_picture_ms": found}


if __name__ == "__main__":
    main()
