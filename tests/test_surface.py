import runpy
import subprocess
import sys

import pytest
import torch
from PIL import Image

import dreamdojo
from dreamdojo.apps.play.command import dojo_starts
from dreamdojo.errors import ConfigError
from dreamdojo.video import probe


def test_everything_public_imports_and_nothing_else_is_promised():
    for name in dreamdojo.__all__:
        assert getattr(dreamdojo, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        dreamdojo.nothing  # noqa: B018


def test_importing_the_package_and_asking_for_help_load_nothing_heavy():
    code = "import sys, dreamdojo.cli; dreamdojo.cli.main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_a_model_that_does_not_ship_is_refused():
    with pytest.raises(ConfigError, match="neither a folder nor a model that ships"):
        dreamdojo.load("pico")


def test_a_run_is_not_a_model(tmp_path):
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=f"give that of a model in it, {tmp_path / 'teacher'}"):
        dreamdojo.load(tmp_path)


shipped = pytest.mark.skipif(dreamdojo.foundation("nano") is None, reason="no weights of nano in this checkout")


@shipped
def test_the_model_that_ships_is_driven_offline_and_obeys():
    session = dreamdojo.load("nano", device="cpu")
    starts, dojo = dojo_starts(session.size, 1)
    dojo.world.close()
    ends = []
    for velocity in (-0.2, 0.2):
        session.reset(starts[0].observation, seed=0)
        for _ in range(5):
            end = session.step(torch.tensor([[[0.0, velocity, 0.0, 0.0, 1.0]]]))
        ends.append(end.frames["head"].float())
    assert (ends[0] - ends[1]).abs().mean() > 1.0  # grey levels: opposite commands give different pictures


@shipped
def test_the_drive_example_writes_a_video_or_a_picture(tmp_path):
    main = runpy.run_path("examples/drive.py")["main"]
    main(str(tmp_path / "drive.mp4"), seconds=0.6)
    assert probe(tmp_path / "drive.mp4").num_frames == 6
    main(str(tmp_path / "drive.webp"), seconds=0.6)
    with Image.open(tmp_path / "drive.webp") as picture:
        assert picture.size == (5 * 256, 2 * 256)
