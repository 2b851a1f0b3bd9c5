"""Several processes that train one model together, as torchrun starts them. One by itself is the ordinary case.

The large network inside a model (`Shards`) is held in parts, one per process (FSDP2): a block is gathered for its own
forward and backward pass and let go again. What stands around it (adapters, statistics) is small and whole everywhere,
and its gradients are averaged here. A process by itself takes the short way through every function below and never
touches `torch.distributed`, whose import alone takes seconds.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from dreamdojo.errors import ConfigError


@dataclass(frozen=True)
class Processes:
    """The processes of a run, and which of them this one is."""

    rank: int = 0
    count: int = 1
    patient: Any = field(default=None, repr=False, compare=False)
    """The group in which to wait for long work; the ordinary one gives up after minutes."""

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.count > 1

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def share(self, micro_batches: int) -> range:
        """Which micro-batches of a step are this process's own.

        Raises:
            ConfigError: if they cannot be shared out evenly.
        """
        if micro_batches % self.count:
            raise ConfigError(
                f"micro_batches must be a multiple of the number of processes, so that each has as many to do: got "
                f"micro_batches={micro_batches} and {self.count} processes. To see as many samples per step, make "
                "batch_size smaller by the factor by which micro_batches grows."
            )
        return range(self.rank, micro_batches, self.count)

    def mean(self, values: Tensor) -> Tensor:
        """The mean of `values` over the processes, the same on all of them."""
        if self.several:
            import torch.distributed as dist

            dist.all_reduce(values)
            values /= self.count
        return values

    def wait(self) -> None:
        """Return when all processes have come here, however long that takes."""
        if self.several:
            import torch.distributed as dist

            dist.barrier(group=self.patient)

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Run the block in the main process, then in the others, which find on disk what the first has written."""
        if not self.is_main:
            self.wait()
        yield
        if self.is_main:
            self.wait()


ALONE = Processes()


def start_processes(device: torch.device) -> Processes:
    """Join the processes that torchrun started, until this one ends; without torchrun there are no others.

    Raises:
        ConfigError: if `device` has no way to talk to others, or torchrun on several machines was not told how.
    """
    if "RANK" not in os.environ or os.environ.get("WORLD_SIZE", "1") == "1":
        return ALONE
    backends = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}
    if device.type not in backends:
        raise ConfigError(f"several processes train on cuda or cpu, got device {device.type}. Use one process.")
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group(
            backends[device.type],
            store=_store_after_restart(),
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
            device_id=device if device.type == "cuda" else None,
        )
        atexit.register(dist.destroy_process_group)
    patient = dist.new_group(backend="gloo", timeout=timedelta(days=30))
    return Processes(dist.get_rank(), dist.get_world_size(), patient)


@dataclass(frozen=True)
class Shards:
    """The part of a model that several processes hold in parts."""

    network: nn.Module
    """Always called as a module (its `forward`), and the only caller of its blocks."""
    blocks: tuple[nn.Module, ...]
    """Called one after the other, each as a module; the unit that is gathered, or computed again, at a time."""


@runtime_checkable
class HasShards(Protocol):
    """A model that says what of it is large enough to be divided; any other is held whole by every process."""

    def shards(self) -> Shards:
        """The part that is divided."""
        ...


def place(model: nn.Module, device: torch.device, processes: Processes, *, bfloat16: bool) -> None:
    """Move a model to its device; with several processes, make all equal to the main one and divide the shards.

    Parameters stay in the precision they have. With `bfloat16` they are gathered in it for the computation; gradients
    are summed in float32 either way.
    """
    if processes.several:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if bfloat16 else None,
            reduce_dtype=torch.float32,
            cast_forward_inputs=False,  # noise levels and rotary angles keep their precision
        )
        # Nothing is written in place into what blocks return.
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
        mesh = init_device_mesh(device.type, (processes.count,))
        shards = model.shards() if isinstance(model, HasShards) else None
        for module in (*shards.blocks, shards.network) if shards else ():  # block by block, to hold one whole at most
            _copy_main(module, device)
            fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
        _copy_main(model, device)
    model.to(device)


def is_divided(tensor: Tensor) -> bool:
    """Whether this process holds only a part of the tensor."""
    return hasattr(tensor, "to_local")  # of DTensor, whose import is not worth the question


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor: its part, or all of one that is whole. Shares its memory."""
    return tensor.to_local() if is_divided(tensor) else tensor  # pyright: ignore[reportAttributeAccessIssue]


@torch.no_grad()
def average_gradients(model: nn.Module, processes: Processes) -> None:
    """Average the gradients of whole parameters over the processes (those of the shards are averaged by FSDP).

    A parameter that no process has used has no gradient afterwards, as with one process.
    """
    whole = [p for p in model.parameters() if p.requires_grad and not is_divided(p)]
    if not processes.several or not whole:
        return
    used = processes.mean(torch.tensor([float(p.grad is not None) for p in whole], device=whole[0].device))
    for parameter, share in zip(whole, used.tolist(), strict=True):
        if share > 0:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            processes.mean(parameter.grad)


@torch.no_grad()
def clip_gradients(model: nn.Module, largest: float, processes: Processes) -> Tensor:
    """Scale all gradients so that their norm, over all parameters of all processes, is at most `largest`.

    Returns the norm before.
    """
    parameters = list(model.parameters())
    if not processes.several:
        return nn.utils.clip_grad_norm_(parameters, largest)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    divided = [local(gradient) for gradient in gradients if is_divided(gradient)]
    whole = [gradient for gradient in gradients if not is_divided(gradient)]
    squares = processes.count * processes.mean(_norm(divided, parameters[0].device).square())
    norm = (squares + _norm(whole, parameters[0].device).square()).sqrt()
    for gradient in divided + whole:
        gradient.mul_((largest / (norm + 1e-6)).clamp(max=1.0))
    return norm


@torch.no_grad()
def gather(weights: Mapping[str, Tensor], processes: Processes) -> dict[str, Tensor]:
    """The weights as one process would have them: on the CPU of the main process, nothing elsewhere.

    All processes must call this. Tensors are gathered one at a time.
    """
    if not processes.several:
        return dict(weights)
    whole = {}
    for name, value in weights.items():
        full = value.full_tensor() if is_divided(value) else value  # pyright: ignore[reportAttributeAccessIssue]
        if processes.is_main:
            whole[name] = full.cpu()
    return whole


@contextmanager
def noting_stops(processes: Processes) -> Iterator[Callable[[], bool]]:
    """Note Ctrl-C and SIGTERM instead of stopping at once, so that all processes stop after the same whole step.

    Yields a function that says whether this process was asked to. A second Ctrl-C stops one process by itself at once,
    without saving.
    """
    asked: list[int] = []

    def note(number: int, _: object) -> None:
        if asked and number == signal.SIGINT and not processes.several:
            raise SystemExit(130)
        asked.append(number)

    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield lambda: False
        return
    before = {each: signal.signal(each, note) for each in _STOPS}
    try:
        yield lambda: bool(asked)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


_STOPS = (signal.SIGINT, signal.SIGTERM)


def _store_after_restart() -> Any:
    """Where processes that torchrun has started again find each other; None where torch finds the place itself.

    torchrun keeps one store through all of its restarts, in which the addresses of the dead are still written. Alone on
    a machine it counts restarts, so each gets a place of its own; several torchruns may count differently.
    """
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if restarts == 0 or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    if os.environ["LOCAL_WORLD_SIZE"] != os.environ["WORLD_SIZE"]:
        raise ConfigError(
            "restarts on several machines need a store of their own: expected TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in "
            "torchrun's environment, found it unset. Set it on every machine (docs/cluster.md)."
        )
    from torch.distributed import PrefixStore, TCPStore  # pyright: ignore[reportPrivateImportUsage]

    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    return PrefixStore(f"restart-{restarts}", store)


def _copy_main(module: nn.Module, device: torch.device) -> None:
    import torch.distributed as dist

    module.to(device)
    for tensor in (*module.parameters(), *module.buffers()):
        if not is_divided(tensor):
            dist.broadcast(tensor.data, src=0)


def _norm(gradients: Iterable[Tensor], device: torch.device) -> Tensor:
    return nn.utils.get_total_norm(list(gradients)).to(device)
