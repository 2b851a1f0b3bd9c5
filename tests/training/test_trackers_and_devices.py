import sys

import pytest
import torch

from dreamdojo.errors import ConfigError, MissingDependencyError
from dreamdojo.training.device import autocast_where_fast, choose_compute
from dreamdojo.training.trackers import open_trackers


def test_tensorboard_gets_every_number(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (tracker,) = open_trackers(("tensorboard",), tmp_path, "tokenizer")
    tracker.log(5, {"loss": 0.5, "pixels": 0.25})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["loss", "pixels"]
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(5, 0.5)]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_service_gets_rows_under_one_project(tmp_path, monkeypatch, name):
    rows = []

    class Service:
        @staticmethod
        def init(project, name):
            assert (project, name) == ("dreamdojo", "student")
            return Service

        @staticmethod
        def log(row, step):
            rows.append((step, row))

    monkeypatch.setitem(sys.modules, name, Service)
    (tracker,) = open_trackers((name,), tmp_path, "student")
    tracker.log(3, {"loss": 1.0})
    assert rows == [(3, {"loss": 1.0})]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_missing_tracker_names_its_extra(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=rf'pip install "dreamdojo\[{name}\]"'):
        open_trackers((name,), tmp_path, "student")


def test_a_device_is_chosen_with_its_reason_and_one_that_is_not_there_is_refused():
    assert choose_compute("cpu", "float32").reason == "cpu (as asked), float32 (as asked)"
    compute = choose_compute("cpu", "bfloat16")
    with compute.autocasting():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="device cuda was asked for"):
            choose_compute("cuda")


@pytest.mark.parametrize("fast", [True, False])
def test_bfloat16_is_taken_only_where_the_processor_has_it(monkeypatch, fast):
    monkeypatch.setattr("dreamdojo.training.device.has_fast_bfloat16", lambda device: fast)
    assert choose_compute("cpu").autocast == fast
    with autocast_where_fast(torch.device("cpu")):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if fast else torch.float32)
