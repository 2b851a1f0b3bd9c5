"""Live rollouts on a CPU with OpenVINO: the numbers of PyTorch in less time.

A small model spends most of a frame between its operations and not in them. Two functions are called with the same
shapes frame after frame, and become programs in which all of that is fused:

    network   a pass over the newest frame, behind a window that is full
    decode    the decoder on one latent frame

Everything else stays with PyTorch: the first frames of a rollout, the real frames that a session observes, and the
embedding of noise level and action, since bfloat16 cannot tell one noise level from the next.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dreamdojo.tokenizer.protocol import CausalState, VideoTokenizer
from dreamdojo.training.device import Compute
from dreamdojo.world_model.dit import DiT, KeyValue
from dreamdojo.world_model.model import WorldModel
from dreamdojo.world_model.sample import SamplerConfig


class Program:
    """A module of tensors, batch first, as an OpenVINO program for any batch."""

    def __init__(self, module: nn.Module, example: Sequence[Tensor], compute: Compute) -> None:
        """Trace the module on an example and compile it for as many threads as PyTorch has now."""
        openvino, example = _openvino(), tuple(example)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that sizes are taken as they are, which is the purpose
            traced = torch.jit.trace(module.eval(), example, check_trace=False)
            graph = openvino.convert_model(traced, example_input=example)
        graph.reshape({i: openvino.PartialShape([-1, *each.shape[1:]]) for i, each in enumerate(example)})
        how = {
            "INFERENCE_PRECISION_HINT": "bf16" if compute.autocast else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        self._request = openvino.Core().compile_model(graph, "CPU", how).create_infer_request()
        self._lock = threading.Lock()

    def __call__(self, *tensors: Tensor) -> list[Tensor]:
        """What the module gives, in float32 and in memory of its own."""
        arrays = [tensor.detach().float().contiguous().numpy() for tensor in tensors]
        with self._lock:
            found = self._request.infer(arrays, share_inputs=True)
        return [torch.from_numpy(array) for array in found.to_tuple()]


class OpenVINOPrograms:
    """A model's pass and its decoder, as `CausalDream` calls them."""

    def __init__(self, model: WorldModel, tokenizer: VideoTokenizer, sampler: SamplerConfig, compute: Compute) -> None:
        """Compile both, which takes seconds; `cannot_run` says whether that is possible."""
        config = model.config.dit
        window = _window(model, sampler)
        assert window is not None
        self._dit, self._tokenizer, self._past = model.dit, tokenizer, max(window - 1, 1)
        self._many = torch.get_num_threads()
        rows, columns = (side // tokenizer.spatial_factor for side in model.config.size)
        frame = (2, 1, config.latent_channels, rows, columns)
        cached = (2, self._past, rows * columns // config.patch_size**2, config.num_heads, config.head_dim)
        shapes = [frame, (2, 1, config.dim), (2, 1, 3 * config.dim)]
        shapes += [frame] * config.previous_latent + [(2, *frame[2:])] * config.reference_latent
        shapes += [cached] * (2 * config.num_blocks)
        self._pass = Program(_Pass(model.dit), [torch.zeros(shape) for shape in shapes], compute)
        with torch.no_grad():
            _, state = tokenizer.decode(torch.zeros(frame))
        self._decode = Program(_Decode(tokenizer), [torch.zeros(frame), *state], compute)

    def network(
        self,
        noisy: Float[Tensor, "b t c h w"],
        sigma: Float[Tensor, "b t"],
        action: Float[Tensor, "b t ka"],
        *,
        has_action: Float[Tensor, "b t"],
        previous: Float[Tensor, "b t c h w"] | None = None,
        reference: Float[Tensor, "b c h w"] | None = None,
        text: Tensor | None = None,
        past: Sequence[KeyValue] | None = None,
    ) -> tuple[Tensor, list[KeyValue]]:
        """`DiT.forward`."""
        if not past or past[0].key.shape[1] != self._past:
            with _threads(self._many):
                return self._dit(
                    noisy,
                    sigma,
                    action,
                    has_action=has_action,
                    previous=previous,
                    reference=reference,
                    text=text,
                    past=past,
                )
        e, shared = self._dit.embed(sigma, action, has_action)
        given = [noisy, e, shared, *(latent for latent in (previous, reference) if latent is not None)]
        prediction, *own = self._pass(*given, *(tensor for kv in past for tensor in (kv.key, kv.value)))
        return prediction, [KeyValue(*pair) for pair in zip(own[::2], own[1::2], strict=True)]

    def decode(
        self, latents: Float[Tensor, "b tl cl hl wl"], state: CausalState | None = None
    ) -> tuple[Float[Tensor, "b t c h w"], CausalState]:
        """`VideoTokenizer.decode`."""
        if state is None or latents.shape[1] != 1:
            return self._tokenizer.decode(latents, state)
        frames, *following = self._decode(latents, *state)
        return frames, tuple(following)

    def stepping(self) -> AbstractContextManager[None]:
        """PyTorch with one thread: its others would wait for work on the cores that the programs need."""
        return _threads(1)


class _Pass(nn.Module):
    """A pass over one frame, of tensors alone."""

    def __init__(self, dit: DiT) -> None:
        super().__init__()
        self.dit = dit

    def forward(self, *given: Tensor) -> Any:
        noisy, e, shared, *past = given
        previous = past.pop(0) if self.dit.config.previous_latent else None
        reference = past.pop(0) if self.dit.config.reference_latent else None
        pairs = [KeyValue(*pair) for pair in zip(past[::2], past[1::2], strict=True)]
        prediction, own = self.dit.transform(noisy, e, shared, previous=previous, reference=reference, past=pairs)
        return (prediction, *(tensor for kv in own for tensor in (kv.key, kv.value)))


class _Decode(nn.Module):
    """The decoder on frames after the first, of tensors alone."""

    def __init__(self, tokenizer: VideoTokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, *given: Tensor) -> Any:
        frames, following = self.tokenizer.decode(given[0], given[1:])
        return (frames, *following)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _openvino() -> Any:
    """The library, without the module that would tell its makers that it is in use; it does without."""
    sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType]
    import openvino

    return openvino


def cannot_run(model: WorldModel, sampler: SamplerConfig, compute: Compute) -> str | None:
    """Why a model cannot be run here by OpenVINO; None where it can."""
    config = model.config.dit
    if compute.device.type != "cpu":
        return f"computes on the CPU, not on {compute.device}"
    if not config.causal or config.text_dim is not None or _window(model, sampler) is None:
        return "is for models that predict frame by frame within a window and without text, which this one is not"
    if importlib.util.find_spec("openvino") is None:
        return 'needs `pip install "dreamdojo[openvino]"`'
    return None


def _window(model: WorldModel, sampler: SamplerConfig) -> int | None:
    return sampler.window or model.config.dit.window
