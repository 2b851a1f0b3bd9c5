"""Batches that a thread prepares, and copies to the GPU, while the model computes on those before."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

Batch = TypeVar("Batch")


@contextmanager
def prefetched(
    batches: Callable[[int], Batch], numbers: Iterator[int], device: torch.device, *, ahead: int = 2
) -> Iterator[Iterator[tuple[int, Batch]]]:
    """Inside, an iterator of `(number, batches(number))`, of which up to `ahead` are prepared before they are wanted.

    `batches` is called in one thread, for one number after the other, so a batch is what it would be without. An error
    in it is raised where its batch is wanted. On a GPU tensors arrive on `device`, copied in a stream of their own;
    elsewhere they stay where `batches` has made them.
    """
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def prepare(number: int) -> tuple[int, Batch]:
        batch = batches(number)
        if stream is not None:
            with torch.cuda.stream(stream):
                batch = each_tensor(batch, lambda tensor: tensor.pin_memory().to(device, non_blocking=True))
            stream.synchronize()  # waits in this thread only
        return number, batch

    def deliver() -> Iterator[tuple[int, Batch]]:
        waiting = deque()
        for number in numbers:
            waiting.append(thread.submit(prepare, number))
            if len(waiting) > ahead:
                yield arrived(waiting.popleft().result())
        while waiting:
            yield arrived(waiting.popleft().result())

    def arrived(item: tuple[int, Batch]) -> tuple[int, Batch]:
        if stream is not None:  # or the next copy could take the memory while the model still reads it
            each_tensor(item[1], lambda tensor: tensor.record_stream(torch.cuda.current_stream(device)) or tensor)
        return item

    thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
    try:
        yield deliver()
    finally:
        thread.shutdown(cancel_futures=True)


def each_tensor(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same mappings, tuples, lists and dataclasses with every tensor in them changed; other values stay."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: each_tensor(item, change) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(each_tensor(item, change) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: each_tensor(getattr(value, field.name), change) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    return value
