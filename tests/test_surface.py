import subprocess
import sys

import pytest

import dreamdojo
from dreamdojo.errors import ConfigError


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
