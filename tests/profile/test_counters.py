"""Nsight Compute's CSV as it writes it, set beside the kernels of a measured report."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ramify.core.errors import InputError
from ramify.profile import characterise
from ramify.profile.counters import base_name, read_counters, with_counters
from ramify.profile.measured import KernelTime, Measured
from ramify.profile.operators import kinds

GEMM = "void cutlass::Kernel2<cutlass_80_tensorop_bf16>(T1::Params)"
FLASH = "void flash::flash_fwd_kernel<Traits<64, 128>, false>(flash::Flash_fwd_params)"
CSV = f'''==PROF== Connected to process 4711 (/usr/bin/python3.12)
==PROF== Profiling "Kernel2": 0%....50%....100% - 3 passes
a line of the program itself
"ID","Process ID","Kernel Name","Block Size","Grid Size","CC","gpu__time_duration.sum","l1tex__t_sector_hit_rate.pct","lts__t_sector_hit_rate.pct"
"","","","","","","ns","%","%"
"0","4711","{GEMM}","(256, 1, 1)","(16, 4, 1)","9.0","3,000","50.00","80"
"1","4711","{GEMM}","(256, 1, 1)","(16, 4, 1)","9.0","1,000","10.00","40"
"2","4711","{FLASH}","(128, 1, 1)","(32, 8, 2)","9.0","500","5.00","90"
"3","4711","{FLASH}","(128, 1, 1)","(1, 8, 1024)","9.0","700","1.00","95"
"4","4711","surprise","(128, 1, 1)","(1, 1, 1)","9.0","100","0","0"
'''  # noqa: E501


def kernel(name, grid, block, kind):
    return KernelTime(kernel=name, grid=grid, block=block, kind=kind, count=1, seconds=1e-6)


@pytest.fixture
def report():
    kernels = (
        kernel(GEMM, (16, 4, 1), (256, 1, 1), kinds.LINEAR),
        kernel("void flash::flash_fwd_kernel<Other>(P)", (32, 8, 2), (128, 1, 1), kinds.SPATIAL),
        kernel(FLASH, (1, 8, 1024), (128, 1, 1), kinds.TEMPORAL),
    )
    found = characterise("llama_7b", sizes={"prompt_tokens": 8, "new_tokens": 2})
    measured = Measured(device="cuda", attention="flash", repeats=1, traced_s=0.0, kernels=kernels)
    return replace(found, measured=(measured,))


def test_rates_by_kind_are_weighted_by_time(report, tmp_path):
    path = tmp_path / "counters.csv"
    path.write_text(CSV)
    rows = {row.kind: row for row in with_counters(report, read_counters(path)).cache}
    assert set(rows) == {kinds.LINEAR, kinds.SPATIAL, kinds.TEMPORAL, kinds.UNKNOWN}
    linear = rows[kinds.LINEAR]
    assert linear.launches == 2
    assert (linear.l1_hit_rate, linear.l2_hit_rate) == pytest.approx((0.4, 0.7))
    # one kernel, two kinds: the grid tells them apart
    assert rows[kinds.SPATIAL].l1_hit_rate == 0.05 and rows[kinds.TEMPORAL].l1_hit_rate == 0.01


def test_names():
    assert base_name(GEMM) == "cutlass::Kernel2" and base_name("gemv(int)") == "gemv"
    assert base_name("nvjet_tst_64x8") == "nvjet_tst_64x8"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("==PROF== Connected\n==ERROR== ERR_NVGPUCTRPERM\n", "header of `ncu"),
        (CSV.replace("lts__t_sector_hit_rate.pct", "dram__bytes.sum"), "lts__t_sector_hit_rate"),
        (CSV.replace('"5.00"', '"n/a"'), "kernel 2"),
        (CSV.replace('"ns"', '"cycle"'), "times in ns"),
    ],
)
def test_what_is_refused(text, message, tmp_path):
    path = tmp_path / "counters.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_counters(path)


def test_files_that_cannot_be_read_and_reports_without_kernels(report, tmp_path):
    with pytest.raises(InputError, match="readable CSV"):
        read_counters(tmp_path / "none.csv")
    with pytest.raises(InputError, match="measured on a GPU"):
        with_counters(replace(report, measured=()), [])
