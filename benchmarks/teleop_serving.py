"""The cockpit as it is served: `python benchmarks/teleop.py --only latency`, `--only soak`.

    latency    a browser drives for `--minutes` (2) per display: input event to pixel, dropped and stale frames, freezes
    soak       for `--minutes` (30) clients come, stall, vanish, and say what nobody may say: what is left behind

Both drive `dreamdojo teleop` in a process of its own, on this machine, with the run's student or the one that ships.
Latency needs Debian's chromium and the `playwright` package, soak reads `/proc`. Writes
`benchmarks/results/teleop_serving.json` when an arm ends; `--quick` is for tests and writes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from dreamdojo.files import read_json, write_json

RESULTS = Path(__file__).parent / "results" / "teleop_serving.json"
CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
DISPLAYS = (("model", 0.5), ("model", 0.0), ("ghost", 0.5), ("none", 0.5))
"""Overlays and round trips, in seconds, that latency is measured of."""
ARMS = ("latency", "soak")
CLIENTS = 6
"""At a time, in the soak."""


@contextlib.contextmanager
def served(run: Path, *options: str) -> Iterator[tuple[str, int, Path]]:
    """`dreamdojo teleop` in a process of its own: its address, its number, and the file it logs to."""
    log = run / "teleop.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "dreamdojo", "teleop", "nano", "--run", str(run), "--port", "0", *options]
    with log.open("w") as file:
        environment = {**os.environ, "COLUMNS": "200"}
        server = subprocess.Popen(command, stderr=file, stdout=file, env=environment)
        try:
            deadline = time.monotonic() + 300
            while not (found := re.search(r"http://\S+", log.read_text())):
                if server.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{' '.join(command)} did not come up:\n{log.read_text()}")
                time.sleep(0.2)
            yield found.group(), server.pid, log
        finally:
            server.terminate()
            server.wait(timeout=60)


# latency

LISTEN = """async () => {
    const { Latency } = await import("/cockpit/latency.js");
    const answered = Latency.prototype.answered;
    window.measured = new Map();  // in the order in which a frame answers: the prediction, then the camera
    Latency.prototype.answered = function (id, now) {
        if (!window.measured.has(this)) window.measured.set(this, []);
        window.measured.get(this).push(now);
        answered.call(this, id, now);
    };
}"""
COLLECT = """() => [...window.measured].map(([latency, shown]) => ({ times: latency.times, shown }))"""


def latency(address: str, seconds: float, *, seed: int = 0, shot: Path | None = None) -> dict[str, Any]:
    """Press and release keys at random in headless Chromium, and read what the page measured."""
    from playwright.sync_api import sync_playwright

    draw = random.Random(seed)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(address)
        page.wait_for_function("() => document.querySelector('canvas')?.width > 1")
        page.wait_for_timeout(3000)  # the pace finds its level
        page.evaluate(LISTEN)
        dropped = int(page.locator("#dropped").inner_text())
        until, levels = time.monotonic() + seconds, Counter[str]()
        while time.monotonic() < until:
            levels[page.evaluate("document.body.dataset.level")] += 1
            key = draw.choice(("KeyW", "KeyA", "KeyS", "KeyD"))
            page.keyboard.down(key)
            page.wait_for_timeout(draw.uniform(150, 600))
            page.keyboard.up(key)
            page.wait_for_timeout(draw.uniform(150, 600))
        page.wait_for_timeout(2500)  # what is still on its way
        found = page.evaluate(COLLECT)
        told = {
            "frames dropped": int(page.locator("#dropped").inner_text()) - dropped,
            "stale frames": page.locator("#stale").inner_text(),
            "level of the pace, looks": dict(sorted(levels.items())),
            "browser": browser.version,
        }
        if shot is not None:
            page.screenshot(path=shot)
        browser.close()
    told |= {name: percentiles(each["times"]) for name, each in zip(("prediction", "camera"), found, strict=False)}
    shown = found[0]["shown"]
    return told | {"frames shown": len(shown), "between frames": percentiles(list(np.diff(shown)))}


def percentiles(times: Sequence[float]) -> dict[str, float]:
    """Of times in milliseconds; jitter is the mean difference of neighbours."""
    if len(times) < 2:
        return {"count": len(times)}
    found = {name: float(np.percentile(times, share)) for name, share in (("p50", 50), ("p95", 95), ("p99", 99))}
    jitter = float(np.abs(np.diff(times)).mean())
    return {"count": len(times), **found, "most": float(max(times)), "jitter": jitter}


# soak


@dataclass(frozen=True)
class Usage:
    """What a process holds."""

    megabytes: float
    threads: int
    files: int

    @classmethod
    def of(cls, pid: int) -> Usage:
        """Read off `/proc`."""
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return cls(
            megabytes=int(status["VmRSS"].split()[0]) / 1024,
            threads=int(status["Threads"]),
            files=len(list(Path(f"/proc/{pid}/fd").iterdir())),
        )


@dataclass
class Client:
    """One who comes again and again, each time as somebody else."""

    address: str
    draw: random.Random
    seen: Counter[str]

    async def live(self, until: float) -> None:
        """Come and go until the clock says so."""
        parts = [self.drive, self.drive, self.stall, self.vanish, self.babble, self.flood, self.foreign, self.no_page]
        to_come: list[Callable[[float], Awaitable[None]]] = []
        while time.monotonic() < until:
            to_come = to_come or self.draw.sample(parts, len(parts))
            part = to_come.pop()
            try:
                await asyncio.wait_for(part(until), 60)
                self.seen[part.__name__] += 1
            except (OSError, EOFError, WebSocketException, TimeoutError) as error:
                self.seen[f"{part.__name__}: {type(error).__name__}"] += 1

    async def drive(self, until: float) -> None:
        """A page that drives, shows what it gets, and goes in good order; sometimes it is one that was there before."""
        async with self._connect(page=str(self.draw.randrange(4))) as socket:
            number, episode = 0, 0
            for _ in range(self.draw.randrange(5, 120)):
                if time.monotonic() > until:
                    return
                message = await socket.recv()
                if isinstance(message, bytes):
                    header = json.loads(message[4 : 4 + int.from_bytes(message[:4], "little")])
                    await socket.send(json.dumps({"type": "shown", "sequence": header["sequence"]}))
                    self.seen["frames"] += 1
                elif (note := json.loads(message))["type"] == "session":
                    episode, number = note["episode"], max(number, note["command_id"])
                number += 1
                values = [self.draw.uniform(-1, 1) for _ in range(4)] + [1.0]
                command = {"type": "drive", "episode": episode, "id": number, "time": 0.0, "values": values}
                asked = self.draw.choice(({"type": "take"}, {"type": "ping", "time": 1.0}, {"type": "stop"}, None))
                last = {"type": "release"} if asked == {"type": "stop"} else None
                for each in (command, asked, last):
                    if each is not None:
                        await socket.send(json.dumps(each))

    async def stall(self, until: float) -> None:
        """A page that connects and reads nothing any more."""
        async with self._connect(max_queue=1) as socket:
            socket.transport.pause_reading()
            await asyncio.sleep(min(self.draw.uniform(1, 20), max(0, until - time.monotonic())))
            socket.transport.abort()

    async def vanish(self, until: float) -> None:
        """A page whose machine is gone."""
        del until
        async with self._connect(page=str(self.draw.randrange(4))) as socket:
            await asyncio.sleep(self.draw.uniform(0, 1))
            socket.transport.abort()

    async def babble(self, until: float) -> None:
        """A page that says what is no message, or no sense, and is told so; a message that is too large ends it."""
        del until
        texts = [bad(self.draw) for _ in range(self.draw.randrange(1, 12))]
        async with self._connect() as socket:
            for text in texts:
                await socket.send(text)
            await self._errors(socket, 1)
            self.seen["refused messages"] += 1
            with contextlib.suppress(WebSocketException):
                await socket.send("x" * 200_000)
                await self._closed(socket)

    async def flood(self, until: float) -> None:
        """A page that says more than anybody could mean."""
        del until
        async with self._connect() as socket:
            with contextlib.suppress(WebSocketException):
                for _ in range(2000):
                    await socket.send('{"type": "ping", "time": 0.0}')
            await self._closed(socket)

    async def foreign(self, until: float) -> None:
        """A page of another site."""
        del until
        async with self._connect(origin="http://elsewhere.example") as socket:
            await self._closed(socket)

    async def no_page(self, until: float) -> None:
        """What speaks no WebSocket at all, or half of one."""
        del until
        host, port = self.address.removeprefix("http://").rstrip("/").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        starts = (b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n", b"\x16\x03\x01" + bytes(200), b"GET /../")
        writer.write(self.draw.choice(starts))
        await asyncio.sleep(self.draw.uniform(0, 2))
        writer.transport.abort()

    def _connect(self, page: str = "", **options: Any) -> connect:
        url = f"{self.address.replace('http', 'ws').rstrip('/')}/ws?page={page}"
        return connect(url, max_size=2**24, open_timeout=30, **options)

    async def _errors(self, socket: ClientConnection, count: int) -> None:
        while count:
            message = await socket.recv()
            count -= isinstance(message, str) and json.loads(message)["type"] == "error"

    async def _closed(self, socket: ClientConnection) -> None:
        with contextlib.suppress(WebSocketException):
            while True:
                await socket.recv()
        self.seen[f"closed {socket.close_code}"] += 1


def bad(draw: random.Random) -> str | bytes:
    """A message that is to be refused."""
    return draw.choice(
        (
            "",
            "{",
            "null",
            "[" * 8000,
            '{"type": "drive"}',
            '{"type": "drive", "episode": 0, "id": 1e400, "time": NaN, "values": [Infinity]}',
            '{"type": "drive", "episode": -1, "id": 0, "time": 0, "values": []}',
            '{"type": "drive", "episode": 0, "id": 1, "time": 0.0, "values": [' + "0.0," * 2000 + "0.0]}",
            '{"type": "reset", "start": 99999999999999999999}',
            '{"type": "link", "round_trip": -1, "jitter": 1e9, "loss": 2}',
            '{"type": "hand", "jpeg": "%%%"}',
            '{"type": "mode", "mode": "__class__"}',
            '{"type": "source", "source": "../../etc/passwd"}',
            '{"type": "pause", "paused": "yes", "also": {}}',
            '{"type": "\\u0000"}',
            bytes(draw.randrange(256) for _ in range(draw.randrange(1, 400))),
        )
    )


async def besiege(
    address: str, pid: int, seconds: float, *, clients: int = CLIENTS, warm: float = 120.0, seed: int = 0
) -> dict[str, Any]:
    """Let clients come and go; what the server's process holds after a while, and after the last has gone."""
    seen: Counter[str] = Counter()
    warm = min(warm, seconds / 3)

    async def live(first: int, until: float) -> None:
        async with asyncio.TaskGroup() as group:
            for i in range(clients):
                group.create_task(Client(address, random.Random(seed + first + i), seen).live(until))

    await live(0, time.monotonic() + warm)
    start = await alone(address, pid)
    samples: list[tuple[float, Usage]] = []
    until = time.monotonic() + seconds - warm
    lives = asyncio.create_task(live(clients, until))
    while not lives.done():
        samples.append((time.monotonic(), Usage.of(pid)))
        await asyncio.wait([lives], timeout=min(10.0, seconds / 20))
    lives.result()
    end = await alone(address, pid)
    hours = np.array([at / 3600 for at, _ in samples[len(samples) // 2 :]])
    megabytes = np.array([usage.megabytes for _, usage in samples[len(samples) // 2 :]])
    return {
        "minutes": seconds / 60,
        "at the start": vars(start[0]),
        "at the end": vars(end[0]),
        "most": {name: max(vars(usage)[name] for _, usage in samples) for name in vars(start[0])},
        "megabytes an hour, second half": float(np.polyfit(hours - hours[0], megabytes, 1)[0])
        if len(hours) > 2
        else None,
        "other pages at the end": end[1] - 1,
        "still drives": end[2],
        "clients": dict(sorted(seen.items())),
    }


async def alone(address: str, pid: int, patience: float = 90.0) -> tuple[Usage, int, bool]:
    """The one page left: what the server holds, how many pages it knows, and whether it still shows new frames."""
    url = f"{address.replace('http', 'ws').rstrip('/')}/ws?page=alone"
    async with connect(url, max_size=2**24) as socket:
        pages, sequences, deadline = 99, set(), time.monotonic() + patience
        await socket.send('{"type": "take"}')
        while (pages > 1 or len(sequences) < 5) and time.monotonic() < deadline:
            message = await asyncio.wait_for(socket.recv(), patience)
            if isinstance(message, bytes):
                header = json.loads(message[4 : 4 + int.from_bytes(message[:4], "little")])
                sequences.add(header["sequence"])
                await socket.send(json.dumps({"type": "shown", "sequence": header["sequence"]}))
            elif (note := json.loads(message))["type"] == "session":
                pages = note["pages"]
                if note["paused"] and note["driving"]:
                    await socket.send('{"type": "pause", "paused": false}')
        await asyncio.sleep(1.0)
        return Usage.of(pid), pages, len(sequences) >= 5


# results


def goals(metrics: dict[str, Any]) -> dict[str, Any]:
    """What serving is held to; a goal whose arm was not run is null."""

    def goal(found: dict[str, Any] | None, value: Any, bound: float, op: str) -> dict[str, Any]:
        told = {"value": None if found is None else value(found), "bound": bound, "op": op}
        return told if found is not None else told | {"reason": "not run"}

    soak, model = metrics.get("soak"), metrics.get("latency", {}).get("model, 500 ms")

    def more(name: str) -> Any:
        return lambda found: found["at the end"][name] - found["at the start"][name]

    return {
        "input to predicted pixel at 500 ms, p95, ms": goal(model, lambda m: m["prediction"].get("p95"), 250, "<="),
        "longest time without a new frame, ms": goal(model, lambda m: m["between frames"].get("most"), 1000, "<="),
        "soak: minutes": goal(soak, lambda s: s["minutes"], 30, ">="),
        "soak: megabytes more": goal(soak, more("megabytes"), 32, "<="),
        "soak: megabytes an hour more, second half": goal(
            soak, lambda s: s["megabytes an hour, second half"], 30, "<="
        ),
        "soak: threads more": goal(soak, more("threads"), 0, "<="),
        "soak: open files more": goal(soak, more("files"), 0, "<="),
        "soak: sessions left": goal(soak, lambda s: s["other pages at the end"], 0, "<="),
    }


def write(arm: str, found: dict[str, Any]) -> None:
    """Put an arm into the results file."""
    stored = read_json(RESULTS, of="result") if RESULTS.exists() else {"metrics": {}}
    metrics = {**stored["metrics"], arm: found}
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    conditions = {
        "machine": f"{platform.machine()}, {os.cpu_count()} threads, browser, server and clients together",
        "threads of the model": os.environ.get("OMP_NUM_THREADS", "all"),
        "browser": "headless Chromium without a GPU, 1280 x 800",
        "latency": "from the input event to the display's next frame after the picture is drawn",
        "model": "the student that ships for nano, unless the run folder has its own",
    }
    write_json(
        RESULTS,
        {
            "name": "teleop_serving",
            "commit": commit.stdout.strip(),
            "date": date.today().isoformat(),
            "conditions": conditions,
            "metrics": metrics,
            "goals": goals(metrics),
        },
    )


def run_latency(run: Path, minutes: float, *, quick: bool = False) -> dict[str, Any]:
    """Every display in turn."""
    found = {}
    for overlay, round_trip in DISPLAYS[-1:] if quick else DISPLAYS:
        name = f"{overlay}, {round(1000 * round_trip)} ms"
        with served(run, "--overlay", overlay, "--round-trip", str(round_trip)) as (address, _, _):
            found[name] = latency(address, 60 * minutes, shot=run / f"{overlay}.png")
        print(name, json.dumps(found[name]), flush=True)
    return found


def run_soak(run: Path, minutes: float) -> dict[str, Any]:
    """The default session under siege."""
    with served(run) as (address, pid, log):
        found = asyncio.run(besiege(address, pid, 60 * minutes))
        refused = sum("refused" in line or "hung up" in line for line in log.read_text().splitlines())
    print(json.dumps(found | {"refusals logged": refused}), flush=True)
    return found | {"refusals logged": refused}


def measure(arm: str, run: Path, *, minutes: float | None, quick: bool = False) -> None:
    """Run an arm and keep its result."""
    if arm == "latency":
        found = run_latency(run, 0.1 if quick else minutes or 2, quick=quick)
    else:
        found = run_soak(run, 0.3 if quick else minutes or 30)
    if not quick:
        write(arm, found)
