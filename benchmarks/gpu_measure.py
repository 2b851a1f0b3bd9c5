"""What the GPU benchmarks share: models with random weights, timing by events, CUDA graphs of any function."""

from __future__ import annotations

import dataclasses
import gc
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch._dynamo.utils
from torch import Tensor, nn

from dreamdojo.training.memory import GIB

SEED = 0
DATASHEET_FLOPS = {"NVIDIA H200": 989.5e12}
"""Dense bfloat16 rate by the vendor's data sheet."""

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Setting:
    """Where an arm runs, and how thoroughly."""

    device: torch.device
    quick: bool = False
    """Tiny sizes and two repeats: shows that an arm runs, and measures nothing."""
    backend: str | None = "inductor"
    """Compiler of the compiled arms; None leaves them uncompiled."""

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def seconds(self) -> float:
        """How long a figure is measured for, about."""
        return 0.0 if self.quick else 2.0

    def randn(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape, device=self.device, dtype=dtype)


def fresh_start(setting: Setting) -> None:
    """Leave nothing of the arm before."""
    torch.manual_seed(SEED)
    if setting.backend is not None:
        torch._dynamo.reset()
        torch._dynamo.config.recompile_limit = 64
        torch._dynamo.utils.counters.clear()
    if setting.cuda:
        torch.backends.cudnn.benchmark = True
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def graphs_compiled(setting: Setting) -> dict[str, int]:
    """How many programs the compiler made in this arm: one for all blocks, if their code is shared."""
    if setting.backend is None:
        return {}
    return {"graphs_compiled": torch._dynamo.utils.counters["stats"]["unique_graphs"]}


def build(make: Callable[[], Model], setting: Setting, dtype: torch.dtype = torch.bfloat16) -> Model:
    """A model made on the device itself, with random weights of the usual size in every layer."""
    with torch.device("meta"):
        model = make()
    model.to(dtype).to_empty(device=setting.device)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gamma") or (parameter.ndim == 1 and name.endswith("weight")):
                parameter.fill_(1)
            elif parameter.ndim == 1:
                parameter.zero_()
            else:
                parameter.normal_(std=(len(parameter) / parameter.numel()) ** 0.5)
        for name, buffer in model.named_buffers():
            if name.endswith(("mean", "no_text")):
                buffer.zero_()
            elif name.endswith("std"):
                buffer.fill_(1)
            else:
                buffer.normal_()
    return model.requires_grad_(False).eval()


def measure(step: Callable[[], object], setting: Setting, *, seconds: float | None = None) -> dict[str, float]:
    """Milliseconds of one call: median and the tenth and ninetieth per cent; `step` was called before."""
    seconds = setting.seconds if seconds is None or setting.quick else seconds
    once = _timed(step, setting, 1)[0] / 1000
    least = 2 if setting.quick else 3 if once > 0.5 else 5
    return spread(_timed(step, setting, max(least, min(int(seconds / max(once, 1e-6)), 200))))


def spread(milliseconds: list[float]) -> dict[str, float]:
    """The median and its surroundings."""
    times = sorted(milliseconds)

    def at(share: float) -> float:
        return round(times[min(int(share * len(times)), len(times) - 1)], 4)

    return {"median": at(0.5), "low": at(0.1), "high": at(0.9), "repeats": len(times)}


def _timed(step: Callable[[], object], setting: Setting, repeats: int) -> list[float]:
    watch = Marks(setting)
    watch.mark()
    for _ in range(repeats):
        step()
        watch.mark()
    return watch.milliseconds()


class Marks:
    """Points in time on the device's own clock."""

    def __init__(self, setting: Setting) -> None:
        self._cuda = setting.cuda
        self._marks: list[Any] = []

    def mark(self) -> None:
        if self._cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append(event)
        else:
            self._marks.append(time.perf_counter())

    def milliseconds(self) -> list[float]:
        """Between neighbouring marks."""
        pairs = zip(self._marks[:-1], self._marks[1:], strict=True)
        if self._cuda:
            torch.cuda.synchronize()
            return [first.elapsed_time(second) for first, second in pairs]
        return [1000 * (second - first) for first, second in pairs]


def reset_peak(setting: Setting) -> None:
    """Count memory from here on."""
    if setting.cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()


def peak_memory(setting: Setting) -> dict[str, float]:
    """GiB since `reset_peak`, weights included: in tensors, and taken from the device (graphs and caches included)."""
    if not setting.cuda:
        return {}
    return {
        "peak_gib": round(torch.cuda.max_memory_allocated() / GIB, 3),
        "reserved_gib": round(torch.cuda.max_memory_reserved() / GIB, 3),
    }


def rate(flops: float, milliseconds: float) -> dict[str, float]:
    """The work of one call and its speed; the runner turns it into shares of the device's peak."""
    return {"tflop": flops / 1e12, "tflop_per_second": flops / milliseconds / 1e9}


def relative_error(found: Tensor, expected: Tensor) -> float:
    """`|found - expected| / |expected|`, of finite numbers."""
    expected = finite(expected).double()
    return ((finite(found).double() - expected).norm() / expected.norm()).item()


def finite(values: Tensor) -> Tensor:
    """The same values.

    Raises:
        FloatingPointError: if one is not finite.
    """
    if not values.isfinite().all():
        raise FloatingPointError(f"of {values.numel()} results {(~values.isfinite()).sum().item()} are not finite")
    return values


def compile_each(modules: Iterable[nn.Module], setting: Setting) -> None:
    """Compile modules one by one; those of one class and shape share the code."""
    if setting.backend is not None:
        for module in modules:
            module.compile(backend=setting.backend, fullgraph=True, dynamic=False)


class Graphed:
    """A function of tensors (in tuples and dataclasses) captured as a CUDA graph; on a CPU, the function itself.

    Shapes are those of the example. What a call returns is overwritten by the next call; it may be given to that call.
    """

    def __init__(self, function: Callable[..., Any], *example: Any, setting: Setting) -> None:
        self._function, self._graph = function, None
        if not setting.cuda:
            return
        self._given = with_tensors(example, iter([tensor.clone() for tensor in tensors_of(example)]))
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside), torch.no_grad():
            for _ in range(3):
                function(*self._given)
        torch.cuda.current_stream().wait_stream(aside)
        reset_peak(setting)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph), torch.no_grad():
            self._returned = function(*self._given)

    def __call__(self, *given: Any) -> Any:
        if self._graph is None:
            return self._function(*given)
        torch._foreach_copy_(list(tensors_of(self._given)), list(tensors_of(given)))
        self._graph.replay()
        return self._returned


def tensors_of(value: Any) -> Iterator[Tensor]:
    """All tensors inside, in order."""
    if isinstance(value, Tensor):
        yield value
    for part in _parts(value):
        yield from tensors_of(part)


def with_tensors(value: Any, tensors: Iterator[Tensor]) -> Any:
    """The same with other tensors, in the order of `tensors_of`."""
    if isinstance(value, Tensor):
        return next(tensors)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return type(value)(*[with_tensors(part, tensors) for part in _parts(value)])
    if isinstance(value, tuple | list):
        return type(value)(with_tensors(part, tensors) for part in value)
    return value


def _parts(value: Any) -> list[Any]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    return list(value) if isinstance(value, tuple | list) else []
