"""`dreamdojo train-policy` and `dreamdojo evaluate policy`, end to end on seconds of the dojo."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dreamdojo import foundation
from dreamdojo.cli import main
from dreamdojo.dojo.difficulty import GENTLE
from dreamdojo.dojo.simulate import SimulateSettings, simulate
from dreamdojo.errors import ConfigError
from dreamdojo.evaluate_policy import EvaluatePolicy, _weights, name_of

pytestmark = pytest.mark.skipif(foundation("nano") is None, reason="no models ship with this copy")


def brighter(frames: torch.Tensor, state: torch.Tensor | None) -> torch.Tensor:
    assert state is not None and state.shape[:2] == frames.shape[:2]
    return frames[:, -1].float().mean(dim=(1, 2, 3)) > frames[:, 0].float().mean(dim=(1, 2, 3))


ONE = replace(GENTLE, objects=(1, 1))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("policies") / "pushes"
    settings = SimulateSettings(
        body="arm", episodes=4, frames=33, size=64, difficulty=ONE, tasks={"push_away": 1.0}, truth="poses"
    )
    simulate(settings, root, workers=1)
    return root


def test_a_policy_is_trained_and_judged_in_model_and_dojo(data: Path, tmp_path: Path) -> None:
    brief = ["--training.fit.steps", "3", "--training.fit.batch-size", "4", "--workers", "1"]
    main(["train-policy", "--data", str(data), "--out", str(tmp_path / "policy"), "--test-fraction", "0.25", *brief])
    judge = ["--reward-training.fit.steps", "3", "--reward-training.fit.batch-size", "4", "--workers", "1"]
    judge += ["--reward-data", str(data), "--reward-training.held-out", "0.25"]
    amount = ["--starts", "2", "--batch", "2", "--steps", "4", "--objects", "1", "--out", str(tmp_path / "out")]
    policies = ["--policies", f"mine={tmp_path / 'policy'}", "random"]
    main(["evaluate", "policy", "nano", *policies, "--split", "test", *judge, *amount])
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [row["policy"] for row in found["policies"]] == ["mine", "random"]
    assert all(len(row["outcomes"]["truth"]) == 2 for row in found["policies"])
    assert set(found["agreement"]) == {"reward model", "pixel similarity"}
    assert "reward model, predicted frames" in found["judges"] and "reward model, real frames" in found["judges"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<video") >= 2 and "Agreement with the truth" in page


def test_one_object_is_looked_for_where_it_ends(data: Path, tmp_path: Path) -> None:
    judge = ["--probes", str(data), "--finder-steps", "3", "--workers", "1", "--objects", "1"]
    amount = ["--starts", "2", "--batch", "2", "--steps", "4", "--out", str(tmp_path)]
    main(["evaluate", "policy", "nano", "--policies", "random", "--split", "test", *judge, *amount])
    found = json.loads((tmp_path / "results.json").read_text())
    assert list(found["policies"][0]["model"]) == ["object pose"]
    assert set(found["judges"]) == {"object pose, real frames", "object pose, predicted frames"}


def test_recordings_give_starts_without_truth(data: Path, tmp_path: Path) -> None:
    own = ["--success", "tests.test_evaluate_policy:brighter", "--out", str(tmp_path)]
    amount = ["--starts", "2", "--batch", "2", "--steps", "2", "--test-fraction", "0.5"]
    main(["evaluate", "policy", "nano", "--policies", "random", "--robot", str(data), *own, *amount])
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["policies"][0]["truth"] is None and found["agreement"] == {}
    assert len(found["policies"][0]["outcomes"]["own function"]) == 2


def test_other_scenes_tasks_and_weights_are_not_taken_for_those_scored_before(tmp_path: Path) -> None:
    def conditions(**settings: Any) -> dict[str, object]:
        known = {"model": Path("nano"), "policies": (), "split": "test"}
        return EvaluatePolicy(**known | settings)._conditions(None)

    same = conditions()
    assert conditions(out=tmp_path) == same
    for changed in ({"difficulty": "clutter"}, {"objects": 1}, {"task": "lift"}, {"prompt": "push"}):
        assert conditions(**changed) != same, changed
    hashes = set()
    for content in (b"first", b"second"):
        (tmp_path / "model.safetensors").write_bytes(content)
        hashes.add(_weights(str(tmp_path)))
    assert len(hashes) == 2 and _weights("random") is None


def test_what_is_missing_is_said() -> None:
    with pytest.raises(ConfigError, match="where episodes start"):
        EvaluatePolicy(model=Path("nano"), policies=("random",)).run()
    with pytest.raises(ConfigError, match="who judges"):
        EvaluatePolicy(model=Path("nano"), policies=("random",), split="test").run()
    with pytest.raises(ConfigError, match="name of its own"):
        EvaluatePolicy(
            model=Path("nano"),
            policies=("random", "random"),
            split="test",
            success="tests.test_evaluate_policy:brighter",
        ).run()
    assert name_of("mine=ws://127.0.0.1:1") == ("mine", "ws://127.0.0.1:1") and name_of("random")[0] == "random"
