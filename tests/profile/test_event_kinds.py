"""Names of events: operators, and kernels as torch.compile names them."""

from __future__ import annotations

import pytest

from ramify.profile.event_kinds import fused_kind, kind_of_event, kind_of_kernel
from ramify.profile.operators import kinds


def test_operators():
    assert kind_of_event("aten::_to_copy") == kinds.ELEMENTWISE
    assert kind_of_event("aten::add_") == kinds.ELEMENTWISE
    assert kind_of_event("aten::convolution") == kinds.CONVOLUTION
    assert kind_of_event("aten::conv2d") is None  # the convolution is inside
    assert kind_of_event("cudaLaunchKernel") is None and kind_of_event("no::such") is None


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("triton_poi_fused_add_convolution_3", kinds.ELEMENTWISE),  # the bias after a convolution
        ("triton_red_fused_native_group_norm_silu_12", kinds.GROUP_NORM),
        ("triton_per_fused_add_native_layer_norm_7", kinds.NORM),
        ("triton_tem_fused_addmm_4", kinds.LINEAR),
        ("triton_tem_fused_convolution_1", kinds.CONVOLUTION),
        ("graph_0_cpp_fused_clone_native_group_norm_silu_1", kinds.GROUP_NORM),
        ("graph_1_cpp_fused_add_0", kinds.ELEMENTWISE),
        ("nvjet_tst_64x8_64x16_4x1_v_bz_TNT", None),
    ],
)
def test_compiled_kernels(name, kind):
    assert fused_kind(name) == kind == kind_of_event(name)


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("nvjet_tst_64x8_64x16_4x1_v_bz_TNT", kinds.LINEAR),
        ("void cublasLt::splitKreduce_kernel<32, 16, int, float>", kinds.LINEAR),
        ("sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc", kinds.CONVOLUTION),
        ("void cudnn::ops::nchwToNhwcKernel<__nv_bfloat16>", kinds.CONVOLUTION),
        ("void flash::flash_fwd_kernel<Traits<64, 128>>", kinds.SPATIAL),
        ("triton_red_fused_native_group_norm_silu_12", kinds.GROUP_NORM),
        ("void at::native::vectorized_elementwise_kernel<4, Add>", kinds.ELEMENTWISE),
        ("Memcpy DtoD (Device -> Device)", kinds.ELEMENTWISE),
    ],
)
def test_kernels_that_nobody_launched(kernel, kind):
    assert kind_of_kernel(kernel) == kind
