"""FLOPs and bytes against closed forms, and against torch's own counter where that is right."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ramify.core.errors import InputError
from ramify.profile.operators import kinds
from ramify.profile.operators.formulas import register_formula
from ramify.profile.operators.recorder import Recorder


def record(module, *args, frames=None, **kwargs):
    recorder = Recorder({"m": module}, frames)
    with recorder.recording():
        module(*args, **kwargs)
    return recorder.records


def meta(*shape, dtype=torch.float32):
    return torch.empty(shape, device="meta", dtype=dtype)


class Calls(nn.Module):
    """A module that calls a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args, **kwargs):
        return self.function(*args, **kwargs)


def test_convolutions_take_a_weight_column_per_output():
    with torch.device("meta"):
        plain = nn.Conv2d(6, 8, (3, 5), stride=2, padding=1, groups=2)
        turned = nn.ConvTranspose2d(6, 8, 4, stride=2)
        volume = nn.Conv3d(4, 5, (3, 1, 1), padding=(1, 0, 0))
    (found,) = record(plain, meta(3, 6, 20, 30))
    assert found.kind == kinds.CONVOLUTION and found.module == "m"
    assert found.flops == 2 * 3 * 10 * 14 * 8 * (6 // 2) * 3 * 5
    assert found.bytes_moved == 4 * (3 * 6 * 20 * 30 + 8 * 3 * 15 + 8 + 3 * 8 * 10 * 14)
    (found,) = record(turned, meta(2, 6, 7, 9))
    assert found.flops == 2 * 2 * 7 * 9 * 6 * 8 * 4 * 4
    (found,) = record(volume, meta(2, 4, 16, 3, 3))
    assert found.flops == 2 * 2 * 16 * 9 * 5 * 4 * 3


def test_a_linear_layer_is_one_product_whatever_its_batch():
    with torch.device("meta"):
        layer = nn.Linear(24, 40, dtype=torch.bfloat16)
    (found,) = record(layer, meta(2, 5, 24, dtype=torch.bfloat16))
    assert found.kind == kinds.LINEAR and found.flops == 2 * 10 * 24 * 40
    assert found.bytes_moved == 2 * (10 * 24 + 24 * 40 + 40 + 10 * 40)
    assert found.dtype == "bfloat16"


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_attention_is_one_record_on_every_device(device):
    q, k, v = (
        torch.zeros(2, heads, n, 16, device=device) for heads, n in ((8, 9), (2, 30), (2, 30))
    )
    attend = Calls(lambda *qkv: F.scaled_dot_product_attention(*qkv, enable_gqa=True))
    (found,) = record(attend, q, k, v)
    assert found.kind == kinds.CROSS and found.flops == 4 * 2 * 8 * 9 * 30 * 16
    assert found.bytes_moved == 4 * (2 * q.numel() + k.numel() + v.numel())
    assert found.matrix_bytes_moved == 4 * 4 * 2 * 8 * 9 * 30
    assert found.attention.heads == 8 and found.attention.kv_len == 30


def test_the_same_totals_as_torch_counts_where_it_counts_right():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.GroupNorm(2, 8),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(512, 7),
    )
    x = torch.randn(2, 3, 8, 8)
    with FlopCounterMode(display=False) as counter:
        model(x)
    records = record(model, x)
    assert sum(found.flops for found in records) == counter.get_total_flops()
    expected = [kinds.CONVOLUTION, kinds.GROUP_NORM, kinds.ELEMENTWISE, kinds.LINEAR]
    assert [found.kind for found in records] == expected
    assert [found.module for found in records] == ["m.0", "m.1", "m.2", "m.4"]


def test_views_are_free_and_expanded_axes_are_read_once():
    def forward(x):
        window = x.view(4, 6).transpose(0, 1)[1:].unsqueeze(0)
        return window.expand(10, 5, 4) + 1.0

    (found,) = record(Calls(forward), meta(24))
    assert found.op == "aten.add" and found.bytes_moved == 4 * (5 * 4 + 10 * 5 * 4)


def test_an_unknown_operator_is_kept_and_can_be_taught():
    library = torch.library.Library("ramify_test_profile", "DEF")
    library.define("mystery(Tensor x) -> Tensor")
    library.impl("mystery", lambda x: x * 2, "CompositeExplicitAutograd")
    call = Calls(torch.ops.ramify_test_profile.mystery)
    found = record(call, torch.ones(8))[-1]
    assert (found.op, found.kind) == ("ramify_test_profile.mystery", kinds.UNKNOWN)
    assert found.flops == 0 and found.bytes_moved == 64
    register_formula(found.op, kinds.LINEAR, lambda args, kwargs, result: 3 * args[0].numel())
    taught = record(call, torch.ones(8))[-1]
    assert (taught.kind, taught.flops) == (kinds.LINEAR, 24)
    with pytest.raises(InputError, match="one of attention spatial"):
        register_formula("a.b", "convolutions")


def test_a_failing_model_leaves_nothing_behind():
    layer = nn.Linear(4, 4)
    with pytest.raises(RuntimeError):
        record(layer, torch.ones(3))
    assert not layer._forward_pre_hooks and not layer._forward_hooks
    assert len(record(layer, torch.ones(1, 4))) == 1
