import pytest
import torch
from torch import nn

from dreamdojo.errors import CheckpointError
from dreamdojo.training.fit import FitConfig, fit
from dreamdojo.training.optimizer import make_optimizer
from tests.tiny import CPU


class Stack(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.config = FitConfig(steps=1, batch_size=1, learning_rate=1.0)
        self.blocks = nn.ModuleList([nn.Linear(6, 4)])
        self.out = nn.Linear(4, 6)

    def forward(self, x):
        return self.out(self.blocks[0](x).tanh())


def updated(name, *, decay=0.0, step=1e-2):
    model = Stack()
    optimizer = make_optimizer(model, name, learning_rate=step, weight_decay=decay, betas=(0.9, 0.99))
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    model(torch.randn(32, 6)).square().sum().backward()
    optimizer.step()
    return {key: value.detach() - before[key] for key, value in model.named_parameters()}


def test_muon_moves_a_block_in_all_directions_alike_and_the_rest_as_adamw_does():
    muon, adamw = updated("muon"), updated("adamw")
    stretch = torch.linalg.svdvals(muon["blocks.0.weight"])
    assert stretch.min() > 0.5 * stretch.max()
    assert torch.linalg.svdvals(adamw["blocks.0.weight"]).min() < 0.5 * stretch.max()
    for name in ("out.weight", "out.bias", "blocks.0.bias"):
        assert torch.equal(muon[name], adamw[name])


def test_the_size_of_an_update_is_about_that_of_adamw():
    size = updated("muon")["blocks.0.weight"].square().mean().sqrt()
    assert 0.1e-2 < size < 1e-2


def train(folder, optimizer, stop_at=None):
    def step(batch, state):
        loss = (model(batch) - batch).square().mean()
        return loss, {"error": loss}

    model = Stack()
    config = FitConfig(steps=40, batch_size=8, learning_rate=0.05, save_every=7, warmup_steps=2, optimizer=optimizer)

    def batches(index):
        return torch.randn(8, 6, generator=torch.Generator().manual_seed(index))

    fit(model, step, batches, config=config, folder=folder, compute=CPU, stop_at=stop_at)
    return model.state_dict()


def test_muon_resumes_bit_for_bit(tmp_path):
    whole = train(tmp_path / "whole", "muon")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", "muon", stop_at=9)
    resumed = train(tmp_path / "parts", "muon")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_the_state_of_another_optimizer_is_refused(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, "muon", stop_at=9)
    with pytest.raises(CheckpointError, match="optimizer"):
        train(tmp_path, "adamw")
