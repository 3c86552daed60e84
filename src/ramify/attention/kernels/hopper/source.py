"""The CUDA source of the Hopper kernel: its parts behind constants and wgmma wrappers.

The wrappers are generated because an instruction of N columns names N / 2 registers.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

PARTS = (
    "params.cu",
    "instructions.cu",
    "schedule.cu",
    "merge.cu",
    "producer.cu",
    "rows.cu",
    "consumer.cu",
    "entry.cu",
)
MAX_SHARED_BYTES = 227 << 10  # of one CTA on sm_90
BLOCK = 64  # tokens of a stage
MASKS = 8  # stages whose masks are kept


@dataclass(frozen=True, kw_only=True)
class KernelConstants:
    """What a variant of the kernel is compiled for."""

    head_dim: int  # a multiple of 16, at most 128
    group: int  # query heads per KV head
    is_bf16: bool  # else fp16
    has_softcap: bool
    has_window: bool

    @property
    def stages(self) -> int:
        """Stages of the ring: as many as shared memory holds and masks can follow."""
        room = MAX_SHARED_BYTES - self._fixed_bytes()
        return min(MASKS - 2, room // self._stage_bytes())

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory of a CTA."""
        return self._fixed_bytes() + self.stages * self._stage_bytes()

    def _chunks(self) -> int:
        return -(-self.head_dim // 64)

    def _fixed_bytes(self) -> int:
        q, join = 128 * 128 * self._chunks(), 128 * self.head_dim
        masks = MASKS * (BLOCK * (2 * 8 + 4) + 8)
        return q + join + masks + 1024  # row maxima and sums, merge flags, two barriers

    def _stage_bytes(self) -> int:
        return 2 * BLOCK * 128 * self._chunks() + 4 * 8


def instructions() -> str:
    """Single instructions as functions, for other kernels too; they need `BF16` and PREAMBLE."""
    return files(__package__).joinpath("instructions.cu").read_text(encoding="utf-8")


def hopper_source(constants: KernelConstants) -> str:
    """The translation unit of one variant."""
    folder = files(__package__)
    parts = [folder.joinpath(name).read_text(encoding="utf-8") for name in PARTS]
    kind = "bf16" if constants.is_bf16 else "f16"
    defines = {
        "HEAD_DIM": constants.head_dim,
        "GROUP": constants.group,
        "BF16": int(constants.is_bf16),
        "SOFTCAP": int(constants.has_softcap),
        "WINDOW": int(constants.has_window),
        "STAGES": constants.stages,
        "MASKS": MASKS,
        "SHARED_BYTES": constants.shared_bytes,
        "INFINITY": "__int_as_float(0x7f800000)",
    }
    return "\n".join(
        [
            *(f"#define {name} {value}" for name, value in defines.items()),
            PREAMBLE,
            _wgmma("wgmma_s", 64, kind, k_major=True),
            _wgmma("wgmma_o", constants.head_dim, kind, k_major=False),
            *parts,
        ]
    )


PREAMBLE = """
using u32 = unsigned int;
using u64 = unsigned long long;
using i64 = long long;
__device__ __forceinline__ void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int PENDING> __device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}
"""


def _wgmma(name: str, columns: int, kind: str, *, k_major: bool) -> str:
    """acc [64, columns] (+)= a [64, 16] in registers times b [16, columns] in shared memory."""
    count = columns // 2
    acc = ", ".join(f"%{i}" for i in range(count))
    a = ", ".join(f"%{count + i}" for i in range(4))
    outputs = ", ".join(f'"+f"(acc[{i}])' for i in range(count))
    add = "int add" if k_major else "int add = 1"
    return f"""
__device__ __forceinline__ void {name}(float (&acc)[{count}], const unsigned int *a,
                                       unsigned long long b, {add}) {{
  asm volatile(
      "{{\\n.reg .pred add;\\nsetp.ne.b32 add, %{count + 5}, 0;\\n"
      "wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.{kind}.{kind} "
      "{{{acc}}}, {{{a}}}, %{count + 4}, add, 1, 1, {int(not k_major)};\\n}}\\n"
      : {outputs}
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}}"""
