"""Record every operator of a forward pass, on any device, the meta device included.

A dispatch mode sees the operators that torch runs; a function mode above it keeps
scaled_dot_product_attention one record, which below would be one fused operator on a CPU, another
on a GPU and three products and a softmax on the meta device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.profiler import record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ramify.profile.operators import kinds
from ramify.profile.operators.attention import (
    SDPA,
    TEMPORAL_NAMES,
    Caller,
    arguments_of,
    attention_kind,
    attention_shape,
    context_length,
    output_like,
)
from ramify.profile.operators.formulas import formula_of, op_name
from ramify.profile.operators.record import OpRecord

ATTENTION_MARK = "ramify attention: "
"""Starts the name of the range around each attention; its kind and `of` its shapes follow."""

MODULE_MARK = "ramify module: "
"""Starts the name of the range around each call of a module; its path follows."""

# views whose schema does not say so, and room without content: neither moves a byte
FREE = frozenset(
    "aten._unsafe_view aten.detach aten.lift_fresh aten.alias aten._reshape_alias aten.empty "
    "aten.empty_like aten.new_empty aten.empty_strided aten.new_empty_strided aten.resize "
    "aten.sym_size aten.is_nonzero aten._assert_tensor_metadata aten._assert_async".split()
)


class Recorder:
    """Collects the operators of what runs inside `recording`.

    Args:
        modules: the outermost modules by name; paths start with the name.
        num_frames: of a video whose temporal attention no name gives away, see `attention_kind`.
    """

    def __init__(
        self,
        modules: Mapping[str, torch.nn.Module],
        num_frames: int | None = None,
    ) -> None:
        self.records: list[OpRecord] = []
        self.modules = modules
        self._num_frames = None if _names_temporal(modules) else num_frames
        self._callers: list[Caller] = [Caller("", None)]
        self._is_inside_attention = False
        self._ranges: list[Any] | None = None  # open ones of modules, while marking

    @contextmanager
    def recording(self) -> Iterator[Recorder]:
        """Record what runs inside, without gradients."""
        with self._tracking(), torch.no_grad(), _Dispatch(self), _Functions(self.attend):
            yield self

    @contextmanager
    def marking(self) -> Iterator[None]:
        """Keep no records of what runs inside; name modules and attention in a profiler's trace."""
        self._ranges = []
        try:
            with self._tracking(), _Functions(self._mark_attention):
                yield
        finally:
            self._ranges = None

    @contextmanager
    def _tracking(self) -> Iterator[None]:
        with ExitStack() as stack:
            for name, root in self.modules.items():
                for path, module in root.named_modules(prefix=name):
                    for handle in self._track(path, module):
                        stack.callback(handle.remove)
            yield

    def within(self, name: str) -> list[OpRecord]:
        """The records of one of the outermost modules; of none of them for the empty name."""
        return [record for record in self.records if record.module.partition(".")[0] == name]

    def _track(self, path: str, module: torch.nn.Module) -> tuple[Any, Any]:
        def enter(called: torch.nn.Module, args: Any, kwargs: Any) -> None:
            self._callers.append(Caller(path, context_length(called, args, kwargs)))
            if self._ranges is not None:
                self._ranges.append(record_function(MODULE_MARK + path))
                self._ranges[-1].__enter__()

        def leave(called: torch.nn.Module, args: Any, result: Any) -> None:
            self._callers.pop()
            if self._ranges is not None:
                self._ranges.pop().__exit__(None, None, None)

        return (
            module.register_forward_pre_hook(enter, with_kwargs=True),
            module.register_forward_hook(leave, always_call=True),
        )

    def attend(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> torch.Tensor:
        """Record an attention and run it; on the meta device its result has only a shape."""
        named, caller = arguments_of(args, kwargs), self._callers[-1]
        shape = attention_shape(named, caller)
        tensors = [named[name] for name in ("query", "key", "value")]
        mask = named.get("attn_mask")
        self._is_inside_attention = True
        try:
            is_meta = tensors[0].is_meta
            result = output_like(named) if is_meta else func(*args, **kwargs)
        finally:
            self._is_inside_attention = False
        read = [*tensors, *([] if mask is None else [mask])]
        self.records.append(
            OpRecord(
                op=SDPA,
                kind=attention_kind(shape, caller, self._num_frames),
                module=caller.path,
                dtype=_dtype_name(tensors),
                shapes=tuple(tuple(tensor.shape) for tensor in read),
                flops=shape.flops,
                bytes_moved=sum(map(distinct_bytes, [*read, result])),
                attention=shape,
            )
        )
        return result

    def _mark_attention(
        self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]
    ) -> torch.Tensor:
        named, caller = arguments_of(args, kwargs), self._callers[-1]
        shape = attention_shape(named, caller)
        kind = attention_kind(shape, caller, self._num_frames)
        sizes = [list(named[name].shape) for name in ("query", "key", "value")]
        with record_function(f"{ATTENTION_MARK}{kind} of {sizes}"):
            return func(*args, **kwargs)

    def see(self, func: torch._ops.OpOverload, args: Any, kwargs: Any, result: Any) -> None:
        """Record an operator that torch has run; views and empty tensors leave no trace."""
        if self._is_inside_attention or op_name(func) in FREE or _is_view(func):
            return
        read, made = _tensors((args, kwargs)), _tensors(result)
        if not read and not made:
            return
        kind, flops = formula_of(func) or (kinds.UNKNOWN, lambda *_: 0)
        self.records.append(
            OpRecord(
                op=op_name(func),
                kind=kind,
                module=self._callers[-1].path,
                dtype=_dtype_name(read or made),
                shapes=tuple(tuple(tensor.shape) for tensor in read),
                flops=int(flops(args, kwargs, result)),
                bytes_moved=_bytes_of(op_name(func), read, made),
            )
        )


class _Dispatch(TorchDispatchMode):
    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.recorder.see(func, args, kwargs or {}, result)
        return result


class _Functions(TorchFunctionMode):
    def __init__(self, attend: Callable[[Any, Any, dict[str, Any]], torch.Tensor]) -> None:
        super().__init__()
        self.attend = attend

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            return self.attend(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def _names_temporal(modules: Mapping[str, torch.nn.Module]) -> bool:
    """Whether names say which attention is temporal; lengths need not be asked then.

    A level of a UNet may have as many pixels as the video has frames.
    """
    paths = (path for root in modules.values() for path, _ in root.named_modules())
    return any(name in path for path in paths for name in TEMPORAL_NAMES)


def distinct_bytes(tensor: torch.Tensor) -> int:
    """Bytes of a tensor's elements, those of an expanded axis counted once."""
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= size if stride or not size else 1
    return count * tensor.element_size()


def _bytes_of(op: str, read: list[torch.Tensor], made: list[torch.Tensor]) -> int:
    written = sum(map(distinct_bytes, made))
    if op == "aten.embedding":  # reads the rows it returns, not the table
        return 2 * written + distinct_bytes(read[1])
    if op in ("aten.fill", "aten.zero"):
        return written
    if op == "aten.copy":
        read = read[1:]
    return written + sum(map(distinct_bytes, read))


def _is_view(func: torch._ops.OpOverload) -> bool:
    """Whether all results are windows into an argument."""
    returns = func._schema.returns
    return bool(returns) and all(
        value.alias_info is not None and not value.alias_info.is_write for value in returns
    )


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _dtype_name(tensors: list[torch.Tensor]) -> str:
    return str(tensors[0].dtype).removeprefix("torch.")
