"""Frames over WebRTC, and without it."""

import asyncio
import json
import sys

import pytest
from websockets.asyncio.client import connect

from dreamdojo.apps.play import PlaySettings, audience
from dreamdojo.apps.play.messages import unpack
from dreamdojo.apps.play.webrtc import require_aiortc
from dreamdojo.errors import ConfigError, MissingDependencyError
from tests.apps.playing import Page, serving, side_by_side
from tests.apps.test_play_page import CHROMIUM, chromium, reaches, visit  # noqa: F401  fixtures

RTC = {"allow_remote": True, "webrtc": True}


def sequence(packed):
    return unpack(packed)[0]["sequence"]


def shown(packed):
    return json.dumps({"type": "shown", "sequence": sequence(packed)})


def needs_aiortc():
    return pytest.importorskip("aiortc", reason="needs aiortc: pip install 'dreamdojo[webrtc]'")


def test_without_aiortc_the_error_says_what_to_install_and_loopback_stays_loopback(monkeypatch):
    monkeypatch.setitem(sys.modules, "aiortc", None)
    with pytest.raises(MissingDependencyError, match=r"dreamdojo\[webrtc\]"):
        require_aiortc()
    with pytest.raises(ConfigError, match="allow_remote"):
        PlaySettings(webrtc=True)


def test_what_is_no_offer_is_refused_and_frames_take_the_websocket():
    needs_aiortc()
    with serving(side_by_side(), **RTC) as url, Page(url) as page:
        page.send(type="offer", sdp="v=0\r\nm=video x y\r\n")
        assert "not understood" in page.text("error")["message"]
        page.send(type="offer", sdp="again")
        assert "second offer" in page.text("error")["message"]
        page.frame()
    with serving(side_by_side()) as url, Page(url) as page:
        page.send(type="offer", sdp="v=0")
        assert "not a message" in page.text("error")["message"], "only where it is asked for"


def test_frames_take_the_channel_once_it_is_open_and_the_websocket_when_it_is_dead(monkeypatch):
    aiortc = needs_aiortc()
    monkeypatch.setattr(audience, "_DEAD_AFTER", 0.6)

    async def page_side(url):
        connection, got = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[])), asyncio.Queue()
        channel = connection.createDataChannel("frames", ordered=False, maxRetransmits=0)
        channel.on("message", got.put_nowait)
        await connection.setLocalDescription(await connection.createOffer())
        async with connect(f"{url.replace('http', 'ws')}/ws", max_size=2**24) as socket:
            await talk(socket, connection, got)
        await connection.close()

    async def talk(socket, connection, got):
        await socket.send(json.dumps({"type": "offer", "sdp": connection.localDescription.sdp}))
        while True:
            message = await socket.recv()
            if isinstance(message, bytes):
                await socket.send(shown(message))
            elif (note := json.loads(message))["type"] == "answer":
                break
        description = aiortc.RTCSessionDescription(sdp=note["sdp"], type="answer")
        await connection.setRemoteDescription(description)
        for _ in range(5):
            await socket.send(shown(await got.get()))
        last = sequence(await got.get())
        # the page shows nothing of the channel any more: frames come back to the socket
        while not (isinstance(message := await socket.recv(), bytes) and sequence(message) > last + 5):
            pass

    with serving(side_by_side(), **RTC) as url:
        asyncio.run(asyncio.wait_for(page_side(url), 30))


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs {CHROMIUM}: apt-get install chromium")
def test_a_browser_gets_its_frames_over_webrtc(visit):  # noqa: F811
    needs_aiortc()
    with serving(side_by_side(), **RTC) as url:
        page = visit(url)
        page.wait_for_function("() => document.body.dataset.frames === 'webrtc'")
        reaches(page, "fps", 1)
