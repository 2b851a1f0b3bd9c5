"""The GPU benchmarks without a GPU: every arm runs at tiny sizes, and what is kept is kept rightly."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_measure import Graphed, Setting, tensors_of, with_tensors
from dreamdojo.world_model.dit import KeyValue
from dreamdojo.world_model.sample import RolloutState

QUICK = Setting(torch.device("cpu"), quick=True, backend=None)
H200 = {"device": gpu.GOAL_DEVICE}


@pytest.fixture(autouse=True)
def no_results_of_the_repository(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "RESULTS", tmp_path / "repository.json")


@pytest.fixture
def results(tmp_path):
    return gpu.Results(tmp_path / "gpu.json", "abc", H200)


def distinct_arms() -> list[str]:
    """One of those arms that differ only in their mode, which a CPU without a compiler does not know."""
    modes = {"eager", "graph", "compiled", "compiled-graph", "cudnn", "cudnn-graph"}
    by_rest = {"/".join(part for part in name.split("/") if part not in modes): name for name in gpu.ARMS}
    return list(by_rest.values())


@pytest.mark.parametrize("name", distinct_arms())
def test_every_arm_runs(name):
    record = gpu.run_arm(gpu.ARMS[name], QUICK)
    assert "error" not in record
    assert name in gpu.table({name: record})


@pytest.mark.slow
def test_blocks_and_decoders_compile_whole_and_nothing_is_written(tmp_path):
    arms = "student-2b/small/b1/compiled,train-2b/compiled/b1,wan/decode/compiled-graph"
    command = [sys.executable, "-m", "benchmarks.gpu", "--quick", "--only", arms, "--out", str(tmp_path / "gpu.json")]
    done = subprocess.run(command, cwd=gpu.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())


def test_without_a_gpu_there_are_no_conditions_to_write_figures_under():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit, match="no figure is ever written from a CPU"):
        gpu.conditions()


def test_a_failing_arm_is_recorded_with_its_error():
    def arm(setting):
        raise torch.OutOfMemoryError("out of memory")

    record = gpu.run_arm(arm, QUICK)
    assert record["error"] == "OutOfMemoryError: out of memory"


def test_arms_of_the_same_commit_are_not_run_again(results):
    results.put("device", {"matmul_tflop_per_second": 800.0})
    results.put("parts-2b/student/b1", {"error": "no"})
    same = gpu.Results(results.path, "abc", H200)
    assert same.is_done("device") and not same.is_done("parts-2b/student/b1") and not same.is_done("nano/tokenizer")
    assert not gpu.Results(results.path, "def", H200).is_done("device")
    results.put("device", {"matmul_tflop_per_second": 800.0, "commit": "abc-dirty"})
    dirty = gpu.Results(results.path, "abc-dirty", H200)
    dirty.put("device", {})
    assert not dirty.is_done("device")


def test_a_new_file_goes_on_from_the_repositorys(results, tmp_path, monkeypatch):
    results.put("device", {"matmul_tflop_per_second": 800.0})
    monkeypatch.setattr(gpu, "RESULTS", results.path)
    elsewhere = gpu.Results(tmp_path / "out/gpu.json", "abc", H200)
    assert elsewhere.is_done("device")
    elsewhere.put("nano/tokenizer", {})
    assert set(json.loads(elsewhere.path.read_text())["metrics"]) == {"device", "nano/tokenizer"}


def worker(results, dies_at=(), late_at=None):
    """Does what a worker does with the results, and its exit status."""
    started = []

    def start(names):
        started.append(names)
        own = gpu.Results(results.path, results.commit, results.conditions)
        for name in names:
            if name == late_at:
                return 0
            own.put(name, {"error": "did not end"})
            if name in dies_at:
                return 1
            own.put(name, {})
        return 0

    return start, started


def test_where_a_worker_dies_the_others_go_on_in_a_new_one(results):
    names = ["device", "nano/tokenizer", "wan/decode/eager"]
    for name in names:
        results.put(name, {"error": "did not end"})  # of a run before
    start, started = worker(results, dies_at=("device",))
    gpu.supervise(list(names), results, start)
    assert started == [names, names[1:]]
    assert [results.is_done(name) for name in names] == [False, True, True]


def test_what_the_time_does_not_suffice_for_is_left(results, capsys):
    start, started = worker(results, late_at="nano/tokenizer")
    gpu.supervise(["device", "nano/tokenizer"], results, start)
    assert len(started) == 1 and "1 arms are left for another run: nano/tokenizer" in capsys.readouterr().out


def test_a_worker_that_cannot_start_is_not_started_for_ever(results, capsys):
    gpu.supervise(["device"], results, lambda names: 2)
    assert "status 2 before its first arm" in capsys.readouterr().err


def test_goals_are_the_best_of_the_modes_and_null_with_a_reason_elsewhere(results):
    results.put("device", {"matmul_tflop_per_second": 800.0})
    results.put("student-2b/dit/b1/eager", {"frames_per_second": 40.0, "tflop_per_second": 400.0})
    results.put("student-2b/dit/b1/compiled-graph", {"frames_per_second": 70.0})
    results.put("student-2b/dit/b4/compiled-graph", {"frames_per_second": 100.0})
    results.put("student-2b/wan/b1/graph", {"error": "out of memory"})
    whole = json.loads(results.path.read_text())
    dit, small, wan = whole["goals"].values()
    assert (dit["value"], dit["arm"]) == (70.0, "student-2b/dit/b1/compiled-graph")
    assert (small["value"], small["reason"]) == (None, "not run")
    assert (wan["value"], wan["reason"]) == (None, "out of memory")
    assert whole["metrics"]["student-2b/dit/b1/eager"]["mfu_of_measured_product"] == 0.5
    assert set(whole) == {"name", "commit", "date", "conditions", "metrics", "goals"}
    on_another = gpu.goals(results.arms, "NVIDIA A100")
    assert all(goal["value"] is None and goal["reason"] == "measured on NVIDIA A100" for goal in on_another.values())


def test_patterns_choose_arms_and_a_wrong_one_is_said():
    assert gpu.chosen("device,nano/*") == ["device", "nano/tokenizer", "nano/latent-action", "nano/pretraining"]
    with pytest.raises(SystemExit, match="no arm is named nothing"):
        gpu.chosen("nothing")


def test_a_state_is_taken_apart_and_put_together_again():
    a, b, c = torch.zeros(1, 1, 1, 1, 1), torch.ones(1, 1, 1, 1, 1), torch.full((1, 1, 1, 1), 2.0)
    state = (RolloutState(c, c, (KeyValue(a, b),)), "words", ())
    assert [tensor.item() for tensor in tensors_of(state)] == [2, 2, 0, 1]
    doubled = with_tensors(state, iter([2 * tensor for tensor in tensors_of(state)]))
    assert [tensor.item() for tensor in tensors_of(doubled)] == [4, 4, 0, 2] and doubled[1:] == ("words", ())
    assert Graphed(lambda x: x + 1, a, setting=QUICK)(b).item() == 2
