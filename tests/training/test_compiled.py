import pytest
import torch
from torch import nn

from dreamdojo.training import fit as module
from dreamdojo.training.compiled import compile_parts, compiler_fault
from dreamdojo.training.fit import FitConfig, fit
from tests.tiny import CPU

needs_compiler = pytest.mark.skipif(
    compiler_fault() is not None, reason=f"nothing can be compiled here: {compiler_fault()}"
)


class Curve(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.config = FitConfig(steps=1, batch_size=1, learning_rate=1.0)  # any dataclass will do
        self.layer = nn.Sequential(nn.Linear(2, 8), nn.SiLU(), nn.LayerNorm(8), nn.Linear(8, 1))


def batches(index):
    x = torch.randn(8, 2, generator=torch.Generator().manual_seed(index))
    return x, x.prod(dim=1, keepdim=True)


def train(folder, *, compile, said=None, **arguments):
    model = Curve()

    def step(batch, state):
        loss = (model.layer(batch[0]) - batch[1]).square().mean()
        return loss, {"error": loss}

    config = FitConfig(steps=20, batch_size=8, learning_rate=0.01, warmup_steps=2, compile=compile)
    report = (lambda done, total, text: said.append(text)) if said is not None else (lambda *_: None)
    fit(model, step, batches, config=config, folder=folder, compute=CPU, report=report, **arguments)
    return model


@needs_compiler
def test_compiled_training_is_the_same_training_and_resumes_bit_for_bit(tmp_path):
    plain, whole = train(tmp_path / "plain", compile=False), train(tmp_path / "whole", compile=True)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", compile=True, stop_at=9)
    resumed = train(tmp_path / "parts", compile=True)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[name])
        assert torch.equal(value, resumed.state_dict()[name])
    assert whole.layer._compiled_call_impl is None


@needs_compiler
def test_parts_are_compiled_in_place_and_restored():
    model = Curve()
    names = list(model.state_dict())
    restore = compile_parts(model)
    assert model.layer._compiled_call_impl is not None and list(model.state_dict()) == names
    restore()
    assert model.layer._compiled_call_impl is None


def test_without_a_compiler_training_says_so_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "compiler_fault", lambda: "no compiler")
    said = []
    train(tmp_path / "compiled", compile=True, said=said)
    assert any("not compiled (no compiler)" in text for text in said)
    train(tmp_path / "plain", compile=False)
    one, other = (tmp_path / name / "model.safetensors" for name in ("compiled", "plain"))
    assert one.read_bytes() == other.read_bytes()
