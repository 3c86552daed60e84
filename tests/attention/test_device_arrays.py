"""Named arrays in one buffer: what was sent last is there, at addresses that hold still."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ramify.attention.backends.device_arrays import ALIGN, DeviceArrays
from ramify.core.errors import InputError

CPU = torch.device("cpu")


def send(arrays: DeviceArrays, values: dict[str, np.ndarray]) -> None:
    """Write values where the arrays start, and send them; what is not named gets no room."""
    memory, begin = arrays.room_for({name: array.size for name, array in values.items()})
    for name, start in zip(arrays.room, begin.tolist(), strict=True):
        if name in values:
            memory[start : start + values[name].size] = values[name].reshape(-1)
    arrays.send()


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int32)


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(
        st.fixed_dictionaries({name: st.integers(0, 200) for name in "abc"}), min_size=1, max_size=8
    ),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_was_sent_last_is_there(sizes: list[dict[str, int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    arrays = DeviceArrays(CPU, {"a": 40, "b": 0, "c": 7})
    versions = []
    for step in sizes:
        fits = all(size <= arrays.room[name] for name, size in step.items())
        before = arrays.version, arrays.tensor.data_ptr()
        sent = {name: rng.integers(-9, 9, size, dtype=np.int32) for name, size in step.items()}
        send(arrays, sent)
        for name, array in sent.items():
            assert len(arrays[name]) == arrays.room[name]
            np.testing.assert_array_equal(arrays[name][: array.size].numpy(), array)
            assert arrays[name].storage_offset() % ALIGN == 0
        assert fits == ((arrays.version, arrays.tensor.data_ptr()) == before)
        versions.append(arrays.version)
    assert versions == sorted(versions)


def test_room_grows_to_powers_of_two_and_only_where_needed() -> None:
    arrays = DeviceArrays(CPU, {"a": 5, "b": 3})
    send(arrays, {"a": ints(*range(9)), "b": ints(1)})
    assert arrays.room == {"a": 16, "b": 3} and arrays.version == 2
    send(arrays, {"a": ints(*range(16)), "b": ints(1, 2, 3)})
    assert arrays.version == 2
    send(arrays, {"b": ints(*range(4))})
    assert arrays.room == {"a": 16, "b": 4} and arrays.version == 3


def test_arrays_of_any_shape_lie_flat() -> None:
    arrays = DeviceArrays(CPU, {"a": 6})
    send(arrays, {"a": np.arange(6, dtype=np.int32).reshape(2, 3)})
    assert arrays["a"].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_view_is_the_device_memory_itself() -> None:
    """What a kernel counts up there is seen, until the next arrays are sent."""
    arrays = DeviceArrays(CPU, {"header": 4})
    send(arrays, {"header": ints(7, 0, 1, 2)})
    arrays["header"][1:2].add_(5)
    assert arrays["header"].tolist() == [7, 5, 1, 2]
    send(arrays, {"header": ints(8, 0, 1, 2)})
    assert arrays["header"].tolist() == [8, 0, 1, 2]


def test_fixed_room_keeps_its_address_and_refuses_more() -> None:
    arrays = DeviceArrays(CPU, {"a": 1, "b": 1})
    arrays.fix({"a": 100, "b": 0})
    assert arrays.is_fixed and arrays.room == {"a": 100, "b": 1}
    address, version = arrays.tensor.data_ptr(), arrays.version
    send(arrays, {"a": np.ones(100, dtype=np.int32), "b": ints(3)})
    message = r"plan: expected at most {'a': 100} integers, got {'a': 101}"
    with pytest.raises(InputError, match=message):
        send(arrays, {"a": np.zeros(101, dtype=np.int32), "b": ints(4)})
    # nothing of what does not fit was sent
    assert arrays["a"].eq(1).all() and arrays["b"].tolist() == [3]
    assert (arrays.tensor.data_ptr(), arrays.version) == (address, version)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_sending_does_not_wait_and_lands_in_order() -> None:
    arrays = DeviceArrays(torch.device("cuda"), {"a": 1 << 20})
    total = torch.zeros((), dtype=torch.int64, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        for value in range(50):
            send(arrays, {"a": np.full(1 << 20, value, dtype=np.int32)})
            total += arrays["a"][-1]
            assert arrays.version == 1
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert total.item() == sum(range(50))
