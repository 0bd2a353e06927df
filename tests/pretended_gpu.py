"""A device that is not there: tensors that say they are on it, computed on the CPU, and never mixed with the CPU's.

Torch's "meta" device stands for the GPU: every tensor that claims to be there carries its values along. What a GPU
would refuse is an error here: a tensor of the host among the device's, or numbers drawn on one side by a generator of
the other. What would make the host wait for a GPU is counted.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # torch imports it at the first operation within a mode, where it does not belong
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

GPU, HOST = torch.device("meta"), torch.device("cpu")
aten = torch.ops.aten
PACKAGE = str(Path(__file__).resolve().parent.parent / "neuralrecon")


class OnGpu(Tensor):
    """Values on the host that claim to be on the GPU."""

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> OnGpu:
        made = Tensor._make_wrapper_subclass(
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            layout=values.layout,
            device=GPU,
        )
        made.values = values
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} outside of PretendedGpu")


class Generator(torch.Generator):
    """`torch.Generator` with the pretended device: it draws as the host's does."""

    def __new__(cls, device: torch.device | None = None) -> Generator:
        return super().__new__(cls)

    def __init__(self, device: torch.device | None = None) -> None:
        self.claimed = torch.device(device or HOST)

    @property
    def device(self) -> torch.device:
        return self.claimed


class _PastTheDispatcher(TorchFunctionMode):
    """What only torch's functions are told: generators, `torch.tensor(..., device=GPU)` and `tolist`."""

    def __init__(self, note: Callable[[Any], None]) -> None:
        super().__init__()
        self.note = note

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if (generator := kwargs.get("generator")) is not None:
            target = torch.device(kwargs.get("device") or HOST)
            assert generator.device == target, f"{func}: a generator of {generator.device} asked for {target}"
        if func is torch.tensor and kwargs.get("device") == GPU:
            self.note("torch.tensor")
            return OnGpu(torch.tensor(*args, **{**kwargs, "device": HOST}))
        if func is Tensor.tolist and isinstance(args[0], OnGpu):
            self.note("tolist")
            return args[0].values.tolist()
        return func(*args, **kwargs)


class PretendedGpu(TorchDispatchMode):
    """Within the block the GPU is there. `waits` counts what makes the host wait for it, by the line of our package."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.functions = _PastTheDispatcher(self._note)

    def __enter__(self) -> PretendedGpu:
        super().__enter__()
        self.functions.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.functions.__exit__(*error)
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        given = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        there = [x for x in given if isinstance(x, OnGpu)]
        target = kwargs.get("device")
        if func in (aten._to_copy.default, aten.copy_.default):
            return self._copied(func, args, kwargs, bool(there))
        if not there and target != GPU:
            return func(*args, **kwargs)
        strangers = [x for x in given if not isinstance(x, OnGpu) and x.dim() > 0]
        if strangers:
            raise AssertionError(f"{func}: {[tuple(x.shape) for x in strangers]} on the host, the rest on the GPU")
        if any(not isinstance(x, OnGpu) for x in given) or _waits(func, args):
            self._note(func)
        if target is not None:
            assert target == GPU, f"{func}: asked of {target}"
            kwargs["device"] = HOST
        results = func(*tree_map(_values, args), **tree_map(_values, kwargs))
        return _like_given(func, results, args, kwargs)

    def _copied(self, func: Any, args: Any, kwargs: Any, any_there: bool) -> Any:
        if func == aten.copy_.default:
            if isinstance(args[0], OnGpu) != isinstance(args[1], OnGpu):
                self._note(func)
            func(*tree_map(_values, args), **kwargs)
            return args[0]
        goes_there = (kwargs.get("device") or (GPU if any_there else HOST)) == GPU
        if goes_there != any_there:
            self._note(func)
        if "device" in kwargs:
            kwargs["device"] = HOST
        copy = func(*tree_map(_values, args), **kwargs)
        return OnGpu(copy) if goes_there else copy

    def _note(self, func: Any) -> None:
        self.waits[_place(func)] += 1


class HostWaits(TorchDispatchMode):
    """Counts, on tensors of the host, what would make it wait for a GPU if they were there."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if _waits(func, args):
            self.waits[_place(func)] += 1
        return func(*args, **(kwargs or {}))


def _values(x: Any) -> Any:
    return x.values if isinstance(x, OnGpu) else x


def _waits(func: Any, args: Any) -> bool:
    if func in (aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.equal.default):
        return True
    masks = args[1] if func in (aten.index.Tensor, aten.index_put_.default) else ()
    return any(x is not None and x.dtype == torch.bool for x in masks)


def _like_given(func: Any, results: Any, args: Any, kwargs: Any) -> Any:
    """What is changed in place comes back as it was given; the rest is new."""
    known = {id(x.values): x for x in tree_flatten((args, kwargs))[0] if isinstance(x, OnGpu)}
    return tree_map(lambda x: known.get(id(x), x) if id(x) in known or not isinstance(x, Tensor) else OnGpu(x), results)


def _place(func: Any) -> str:
    """The innermost function of our package that is at work, and what it asks for."""
    frame = sys._getframe(2)
    while frame.f_back is not None and not frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_name} {func}"
