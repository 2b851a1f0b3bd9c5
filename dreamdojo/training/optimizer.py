"""The optimizers: AdamW, or Muon for the matrices inside the model and AdamW for everything else."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from dreamdojo.errors import ConfigError
from dreamdojo.training.distributed import is_divided

OptimizerName = Literal["adamw", "muon"]


def make_optimizer(
    model: nn.Module,
    name: OptimizerName,
    *,
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float],
) -> torch.optim.Optimizer:
    """An optimizer of what `model` trains; vectors are not decayed.

    Raises:
        ConfigError: if Muon is asked for a model whose matrices are divided among processes.
    """
    trained = {key: parameter for key, parameter in model.named_parameters() if parameter.requires_grad}
    hidden = [p for key, p in trained.items() if name == "muon" and p.ndim == 2 and is_hidden(key)]
    if any(is_divided(parameter) for parameter in hidden):
        raise ConfigError("Muon needs whole matrices, and several processes divide them: train with optimizer=adamw")
    taken = set(map(id, hidden))
    rest = [parameter for parameter in trained.values() if id(parameter) not in taken]
    groups = []
    for divided in (False, True):  # the optimizer cannot update parts and whole tensors in one go
        alike = [p for p in rest if is_divided(p) == divided]
        if alike or not divided:
            groups.append({"params": [p for p in alike if p.ndim > 1], "weight_decay": weight_decay})
            groups.append({"params": [p for p in alike if p.ndim <= 1], "weight_decay": 0.0})
    adamw = torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=True)
    if not hidden:
        return adamw
    muon = torch.optim.Muon(
        hidden, lr=learning_rate, weight_decay=weight_decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    return Together(muon, adamw)


def is_hidden(name: str) -> bool:
    """Whether a parameter is inside one of the model's blocks, which is what Muon is for."""
    return "blocks." in name


class Together(torch.optim.Optimizer):
    """Two optimizers of different parameters as one: one state, one list of groups."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.parts = parts
        self._share()

    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Let each part take its step."""
        for part in self.parts:
            part.step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with a saved state."""
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        """Groups and moments of the parts are the very objects of the whole."""
        groups = iter(self.param_groups)
        for part in self.parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state
