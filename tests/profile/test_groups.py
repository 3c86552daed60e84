"""Names as profilers report them on an H200, and products told apart by their order."""

from __future__ import annotations

import pytest

from ramify.profile.groups import group_of, groups_of_step

NVJET = "nvjet_tst_64x8_64x16_4x1_v_bz_TNT"
REDUCE = "void cublasLt::splitKreduce_kernel<32, 16, int, float, __nv_bfloat16>"
LAYER = [NVJET, "rope_store_kernel", "forest_attention", "merge_partials", NVJET, NVJET]
LAYER += ["gated_kernel", NVJET]
LAYER_GROUPS = ["qkv product", "rope and store", "attention", "merge", "out product"]
LAYER_GROUPS += ["gate_up product", "gated", "down product"]


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize64x64x64", "products"),
        ("void gemv2T_kernel_val<int, int, __nv_bfloat16>", "products"),
        ("void cutlass::Kernel2<cutlass_80_wmma_tensorop_bf16>", "products"),
        ("partial_kernel", "attention"),
        ("merge_kernel", "merge"),
        ("draw_kernel", "sampling"),
        ("fold_kernel", "sampling"),
        ("copy_kernel", "sampling"),  # of logits that a draw edits
        ("penalise_kernel", "sampling"),
        ("part_top_kernel", "sampling"),
        ("void at::native::unrolled_elementwise_kernel<direct_copy_kernel_cuda>", "copies"),
        ("splitKreduce_kernel", "products"),
        ("product", "products"),
        ("Memcpy DtoH (Device -> Pinned)", "copies"),
        ("void at::native::vectorized_elementwise_kernel<4, CUDAFunctor_add<long>>", "other"),
        ("ramify::tree_attention", "attention"),
        ("aten::matmul", "products"),
    ],
)
def test_names(name, group):
    assert group_of(name) == group


def test_products_by_order():
    names = ["indexSelectSmallIndex", *LAYER, *LAYER, NVJET, "draw_kernel"]
    groups = groups_of_step(names, num_layers=2)
    assert groups == ["other", *LAYER_GROUPS, *LAYER_GROUPS, "head product", "sampling"]


def test_a_reduction_belongs_to_the_product_before_it():
    names = [*LAYER, REDUCE, NVJET, REDUCE]
    groups = groups_of_step(names, num_layers=1)
    assert groups == [*LAYER_GROUPS, "down product", "head product", "head product"]


def test_an_unexpected_number_of_products_stays_one_group():
    groups = groups_of_step([*LAYER, NVJET, NVJET], num_layers=1)
    assert set(groups) & {"qkv product", "head product"} == set()
    assert groups.count("products") == 6
