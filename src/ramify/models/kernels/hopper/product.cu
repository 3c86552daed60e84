// out [M, N] (+)= x [M, K] . w [N, K]^T for few rows M, at the speed at which w can be read (sm_90a).
//
// Grid         one CTA per TILE rows of w and K / SPLIT of their columns; a cluster is the CTAs of SHARE
//              tiles. w is the long operand of the matrix units, x the short one
// Roles        one warp brings tiles of w and x by TMA, 64 columns a stage; each of TILE / 64
//              warpgroups multiplies 64 rows of w with all rows of x
// Share        CTAs of a cluster that want the same columns of x bring a part each, and to all of them
// Launch       started beside the launch before: the first stages of w are on their way before x is
//              there, so the memory is never idle between products
// Fold         the cluster's partial sums meet in shared memory, each CTA adds a part of the tile in
//              the order of the ranks: the same bits every run
// Traffic      w once; x once per SHARE tiles, from L2
// Ends         results.cu, gated or not, and turned.cu; both may divide by the root mean square of the
//              row of x, which the warpgroups sum up as x passes by
//
// Compiled at run time behind what product.py defines: ROWS, TILE, SPLIT, SHARE, STAGES, BF16, ADD,
// GATED, TURNED, the wrapper wgmma_rows, and the single instructions of attention's kernel.

constexpr int GROUPS = TILE / 64;               // warpgroups that multiply
constexpr int W_BYTES = TILE * 128, X_BYTES = ROWS * 128, STAGE_BYTES = W_BYTES + X_BYTES;
constexpr int PITCH = TILE + 4;                 // of partial sums in shared memory, in floats
constexpr int OFF_BARRIERS = STAGES * STAGE_BYTES;
constexpr int OFF_SCALE = OFF_BARRIERS + 16 * STAGES;  // [ROWS] of a gated product; turned: of squares
constexpr int WIDTH = GATED ? TILE / 2 : TILE;  // columns of out
static_assert(!GATED || SPLIT == 1, "a row of x has to pass by as a whole");
static_assert(ROWS % (8 * SHARE) == 0, "a part of x is whole blocks of its swizzled layout");
static_assert(ROWS * PITCH * 4 <= OFF_BARRIERS, "partial sums take the place of the stages");

struct alignas(64) TensorMap { u64 opaque[16]; };

struct Params {
  TensorMap w, x;       // [N, K] in boxes of WIDTH x 64, [M, K] in boxes of ROWS / SHARE x 64
  unsigned short *out;  // [M, N], gated [M, N / 2]; with ADD it holds what is added to
  int num_rows, num_out, steps;  // M, columns of out, stages of one CTA
  float eps;            // gated, turned: added to the mean square
  // turned: out is q [M, Hq, TILE], and there is
  unsigned short *k, *v;          // [slots, Hkv, TILE], last axis contiguous
  const unsigned short *angles;   // [positions, TILE] cosines, then sines
  const i64 *positions, *slots;   // [M]
  i64 k_slot, k_head, v_slot, v_head;  // strides
  int num_q_heads, num_kv_heads;
};

__device__ __forceinline__ void expect_bytes(u32 bar, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void bring(u32 dst, const TensorMap &map, int column, int row, u32 bar,
                                      u64 policy) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%2, %3}], [%4], %5;" ::"r"(dst), "l"(&map), "r"(column), "r"(row), "r"(bar),
      "l"(policy) : "memory");
}
// the same to all CTAs of the cluster that `mask` names, and their barriers
__device__ __forceinline__ void bring_to(u32 mask, u32 dst, const TensorMap &map, int column, int row,
                                         u32 bar, u64 policy) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
      ".L2::cache_hint [%0], [%1, {%2, %3}], [%4], %5, %6;" ::"r"(dst), "l"(&map), "r"(column), "r"(row),
      "r"(bar), "h"((unsigned short)mask), "l"(policy) : "memory");
}
__device__ __forceinline__ u32 at_peer(u32 address, u32 rank) {
  u32 there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
  return there;
}
// of this scope as what it orders was read by the matrix units: a wider one would wait for all of memory
__device__ __forceinline__ void arrive_at_peer(u32 bar, u32 rank) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(at_peer(bar, rank))
               : "memory");
}
__device__ __forceinline__ float4 load_peer(u32 address, u32 rank) {
  const u32 there = at_peer(address, rank);
  float4 x;
  asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w) : "r"(there) : "memory");
  return x;
}
__device__ __forceinline__ float load_peer_float(u32 address, u32 rank) {
  float x;
  asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(x) : "r"(at_peer(address, rank)) : "memory");
  return x;
}
// all CTAs of the cluster have come this far, and see what was written to shared memory before
__device__ __forceinline__ void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
// only the first: without the fence, which waits for every write under way
__device__ __forceinline__ void cluster_meet() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
}
__device__ __forceinline__ float2 unpack(u32 x) {
#if BF16
  return {__uint_as_float(x << 16), __uint_as_float(x & 0xffff0000)};
#else
  float2 y;
  asm("{.reg .f16 a, b;\nmov.b32 {a, b}, %2;\ncvt.f32.f16 %0, a;\ncvt.f32.f16 %1, b;}"
      : "=f"(y.x), "=f"(y.y) : "r"(x));
  return y;
#endif
}

__device__ __forceinline__ float gate(float x, float up) {
  return x / (1.0f + __expf(-x)) * up;
}

// One thread's work: tiles of w, and its part of x to all CTAs that share it.
struct Producer {
  const Params &p;
  u32 base;
  int tile, first, member, leader;  // member: of those that share x, who stand from `leader` on
  u64 stream, keep;

  __device__ __forceinline__ Producer(const Params &p, u32 base, int tile, int first, int member,
                                      int leader)
      : p(p), base(base), tile(tile), first(first), member(member), leader(leader) {
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(stream));
    asm("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(keep));
  }
  __device__ __forceinline__ u32 full(int stage) const { return base + OFF_BARRIERS + 8 * stage; }
  __device__ __forceinline__ u32 free(int stage) const { return full(STAGES + stage); }
  __device__ __forceinline__ int ahead() const { return p.steps < STAGES ? p.steps : STAGES; }

  __device__ __forceinline__ void bring_w(int i, int stage) {
    const u32 at = base + stage * STAGE_BYTES, bar = full(stage);
    expect_bytes(bar, STAGE_BYTES);
    bring(at, p.w, column(i), tile * WIDTH, bar, stream);
    if (GATED) bring(at + W_BYTES / 2, p.w, column(i), p.num_out + tile * WIDTH, bar, stream);
  }
  __device__ __forceinline__ void bring_x(int i, int stage) {
    constexpr int PART = ROWS / SHARE;
    const u32 at = base + stage * STAGE_BYTES + W_BYTES + member * PART * 128, bar = full(stage);
    if (SHARE > 1)
      bring_to(((1u << SHARE) - 1) << leader, at, p.x, column(i), member * PART, bar, keep);
    else
      bring(at, p.x, column(i), 0, bar, keep);
  }

  __device__ __forceinline__ int column(int i) const { return (first + i) * 64; }

  // the first stages of w, which depend on nobody
  __device__ __forceinline__ void begin() {
    for (int i = 0; i < ahead(); ++i) bring_w(i, i);
  }
  __device__ __forceinline__ void run() {
    for (int i = 0; i < ahead(); ++i) bring_x(i, i);
    for (int i = STAGES, stage = 0, turn = 0; i < p.steps; ++i) {
      wait(free(stage), turn);  // of all CTAs that share x
      bring_w(i, stage);
      bring_x(i, stage);
      if (++stage == STAGES) stage = 0, turn ^= 1;
    }
  }
};

// Squares of a stage's x: eight threads a row, 16 bytes each. The order within a row is swizzled.
struct Squares {
  static constexpr int COUNT = (ROWS * 8 + GROUPS * 128 - 1) / (GROUPS * 128);
  float sum[COUNT] = {};

  __device__ __forceinline__ void add(const char *x) {
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
      const int part = threadIdx.x + i * GROUPS * 128;
      if (part >= ROWS * 8) break;
      const uint4 y = reinterpret_cast<const uint4 *>(x)[part];
      const float2 a = unpack(y.x), b = unpack(y.y), c = unpack(y.z), d = unpack(y.w);
      sum[i] += (a.x * a.x + a.y * a.y) + (b.x * b.x + b.y * b.y) + (c.x * c.x + c.y * c.y) +
                (d.x * d.x + d.y * d.y);
    }
  }

  // the factor of each row, or where others have seen the rest of it, its sum
  __device__ __forceinline__ void store(float *scale, int num_in, float eps) {
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
      const int part = threadIdx.x + i * GROUPS * 128;
      float total = sum[i];
#pragma unroll
      for (int d = 1; d < 8; d *= 2) total += __shfl_xor_sync(~0u, total, d);
      if (part < ROWS * 8 && part % 8 == 0) scale[part / 8] = TURNED ? total : rsqrtf(total / num_in + eps);
    }
  }
};

__device__ __forceinline__ void multiply(const Params &p, char *smem, u32 base, int group, int lane,
                                         int leader, float (&sum)[ROWS / 2], Squares &squares) {
  const u32 full = base + OFF_BARRIERS, free = full + 8 * STAGES;
#pragma unroll
  for (int i = 0; i < ROWS / 2; ++i) sum[i] = 0.0f;
  int before = -1;
#pragma unroll 1
  for (int i = 0, stage = 0, turn = 0; i < p.steps; ++i) {
    wait(full + 8 * stage, turn);
    const u32 at = base + stage * STAGE_BYTES;
    const u32 w = low_word(at + group * (64 * 128), 16), x = low_word(at + W_BYTES, 16);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; ++k) wgmma_rows(sum, with_low_word(w + 2 * k), with_low_word(x + 2 * k));
    wgmma_commit();
    if (GATED || TURNED) {
      squares.add(smem + stage * STAGE_BYTES + W_BYTES);
      __syncwarp();
    }
    wgmma_wait<1>();
    if (before >= 0 && lane < SHARE) {
      if (SHARE > 1)
        arrive_at_peer(free + 8 * before, leader + lane);
      else
        arrive(free + 8 * before);
    }
    before = stage;
    if (++stage == STAGES) stage = 0, turn ^= 1;
  }
  wgmma_wait<0>();
}
