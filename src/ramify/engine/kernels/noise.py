"""The counter-based Gumbel noise of core/seeds.py inside a kernel (Triton body only).

Maths        u = (top 24 bits of mix64 + 1/2) / 2 ** 24;  noise = -log(-log u)
Rough        float32, two hardware logarithms, within 2e-5 of the noise: finds the few tokens that
             may have won
Exact        float64, rounded to float32 as the CPU does. Two correct float64 logarithms differ in
             the last bit at most, which the rounding hides but for one noise in about 1e8.
Source       SplitMix64, Steele, Lea, Flood 2014; Gumbel-max, Maddison et al. 2014
"""

from __future__ import annotations

import triton
import triton.language as tl

from ramify.core import seeds

GOLDEN = tl.constexpr(seeds.GOLDEN)
MIX_A = tl.constexpr(seeds.MIX_A)
MIX_B = tl.constexpr(seeds.MIX_B)
LN_2 = tl.constexpr(0.6931471805599453)
STEP = tl.constexpr(2.0**-24)


@triton.jit
def stream_at(stream, position):
    """Start of the noise of one draw: mix64(stream ^ position), int64 in, uint64 out."""
    value = (stream ^ position).to(tl.uint64, bitcast=True) + GOLDEN
    value = (value ^ (value >> 30)) * MIX_A
    value = (value ^ (value >> 27)) * MIX_B
    return value ^ (value >> 31)


@triton.jit
def uniform_bits(start, token):
    """The 24 random bits of a token, int32; the mixer's last shift does not reach them."""
    value = start + (token + 1).to(tl.uint64) * GOLDEN
    value = (value ^ (value >> 30)) * MIX_A
    value = (value ^ (value >> 27)) * MIX_B
    return (value >> 40).to(tl.int32)


@triton.jit
def rough_log(x, FAST: tl.constexpr):
    """Natural logarithm of a positive normal float32, to about 2 ** -22."""
    if FAST:
        log2 = tl.inline_asm_elementwise(
            "lg2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
        return log2 * LN_2
    return tl.log(x)


@triton.jit
def rough_gumbel(bits, FAST: tl.constexpr):
    """Noise of 24 random bits, float32, within 2e-5."""
    # near u = 1, where winners are, a logarithm of the rounded u would lose all digits
    left = (16777216 - bits).to(tl.float32)
    rest = (left - 0.5) * STEP
    series = 0.25 + rest * (0.2 + rest * 0.16666667)
    series = rest * (1.0 + rest * (0.5 + rest * (0.33333334 + rest * series)))
    # the difference of two integers is exact, and cheaper than to convert the bits once more
    plain = -rough_log((16777216.0 - left + 0.5) * STEP, FAST)
    return -rough_log(tl.where(rest < 0.125, series, plain), FAST)


@triton.jit
def exact_gumbel(bits):
    """Noise of 24 random bits as the CPU computes it: float64, then rounded to float32."""
    uniform = (bits.to(tl.float64) + 0.5) * STEP
    return (-tl.log(-tl.log(uniform))).to(tl.float32)
