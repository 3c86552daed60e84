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
// Gated        the tile is TILE / 2 rows of a gate's weight and the same of an up-projection's, and
//              the result silu(gate) * up, both over the root mean square of the row of x, which the
//              warpgroups sum up as x passes by: an MLP's first half in one launch (SwiGLU)
//
// Compiled at run time behind what product.py defines: ROWS, TILE, SPLIT, SHARE, STAGES, BF16, ADD,
// GATED, the wrapper wgmma_rows, and the single instructions of attention's kernel.

constexpr int GROUPS = TILE / 64;               // warpgroups that multiply
constexpr int W_BYTES = TILE * 128, X_BYTES = ROWS * 128, STAGE_BYTES = W_BYTES + X_BYTES;
constexpr int PITCH = TILE + 4;                 // of partial sums in shared memory, in floats
constexpr int OFF_BARRIERS = STAGES * STAGE_BYTES;
constexpr int OFF_SCALE = OFF_BARRIERS + 16 * STAGES;  // [ROWS] of a gated product
constexpr int WIDTH = GATED ? TILE / 2 : TILE;  // columns of out
static_assert(!GATED || SPLIT == 1, "a row of x has to pass by as a whole");
static_assert(ROWS % (8 * SHARE) == 0, "a part of x is whole blocks of its swizzled layout");
static_assert(ROWS * PITCH * 4 <= OFF_BARRIERS, "partial sums take the place of the stages");

struct alignas(64) TensorMap { u64 opaque[16]; };

struct Params {
  TensorMap w, x;       // [N, K] in boxes of WIDTH x 64, [M, K] in boxes of ROWS / SHARE x 64
  unsigned short *out;  // [M, N], gated [M, N / 2]; with ADD it holds what is added to
  int num_rows, num_out, steps;  // M, columns of out, stages of one CTA
  float eps;            // gated: added to the mean square
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

  __device__ __forceinline__ void store(float *scale, int num_in, float eps) {
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
      const int part = threadIdx.x + i * GROUPS * 128;
      float total = sum[i];
#pragma unroll
      for (int d = 1; d < 8; d *= 2) total += __shfl_xor_sync(~0u, total, d);
      if (part < ROWS * 8 && part % 8 == 0) scale[part / 8] = rsqrtf(total / num_in + eps);
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
    if (GATED) {
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

// What a thread of a CTA writes of its tile: four columns at a time, of every few rows. Loads go ahead of
// what needs them, and none waits for another.
struct Results {
  static constexpr int PART = WIDTH / SPLIT / 4;  // groups of four columns that this CTA adds
  static constexpr int COUNT = (ROWS * PART + GROUPS * 128 - 1) / (GROUPS * 128);
  static constexpr int BATCH = COUNT % 4 == 0 ? 4 : COUNT % 3 == 0 ? 3 : COUNT;
  static_assert(GROUPS * 128 % PART == 0, "a thread keeps to its columns");
  const int row = threadIdx.x / PART;  // of its first; the next is STRIDE further
  static constexpr int STRIDE = GROUPS * 128 / PART;
  int n, column, live;  // place in the tile, column of out, rows that are there
  uint2 old[ADD ? COUNT : 1];

  __device__ __forceinline__ Results(const Params &p, int tile, int rank) {
    n = (rank * PART + threadIdx.x % PART) * 4, column = tile * WIDTH + n;
    live = column < p.num_out ? p.num_rows : 0;
  }
  __device__ __forceinline__ uint2 *out(const Params &p, int m) const {
    return reinterpret_cast<uint2 *>(p.out + (u64)m * p.num_out + column);
  }
  __device__ __forceinline__ void load_old(const Params &p) {
#pragma unroll
    for (int i = 0; i < COUNT; ++i)
      if (row + i * STRIDE < live) old[i] = *out(p, row + i * STRIDE);
  }

  // the cluster's partial sums, in the order of the ranks
  __device__ __forceinline__ void finish(const Params &p, const char *smem, u32 base, int rank,
                                         int member) const {
    const float *sums = reinterpret_cast<const float *>(smem);
    const float *scale = reinterpret_cast<const float *>(smem + OFF_SCALE);
#pragma unroll
    for (int begin = 0; begin < COUNT; begin += BATCH) {
      float4 part[BATCH][SPLIT];
#pragma unroll
      for (int i = 0; i < BATCH; ++i) {
        const int m = row + (begin + i) * STRIDE;
        if (m >= live) continue;
#pragma unroll
        for (int r = 0; r < SPLIT; ++r)
          part[i][r] = SPLIT > 1 ? load_peer(base + (m * PITCH + n) * 4, r * SHARE + member)
                                 : *reinterpret_cast<const float4 *>(sums + m * PITCH + n);
      }
#pragma unroll
      for (int i = 0; i < BATCH; ++i) {
        const int m = row + (begin + i) * STRIDE;
        if (m >= live) continue;
        float4 total = part[i][0];
#pragma unroll
        for (int r = 1; r < SPLIT; ++r)
          total.x += part[i][r].x, total.y += part[i][r].y, total.z += part[i][r].z,
              total.w += part[i][r].w;
        if (GATED) {
          const float by = scale[m];
          const float4 up = *reinterpret_cast<const float4 *>(sums + m * PITCH + n + WIDTH);
          total = {gate(total.x * by, up.x * by), gate(total.y * by, up.y * by),
                   gate(total.z * by, up.z * by), gate(total.w * by, up.w * by)};
        }
        if (ADD) {
          const float2 a = unpack(old[begin + i].x), b = unpack(old[begin + i].y);
          total.x += a.x, total.y += a.y, total.z += b.x, total.w += b.y;
        }
        *out(p, m) = {pack(total.x, total.y), pack(total.z, total.w)};
      }
    }
  }
};

extern "C" __global__ void __launch_bounds__(GROUPS * 128 + 32, 1)
    product(const __grid_constant__ Params p) {
  extern __shared__ __align__(1024) char smem[];
  const u32 base = smem_address(smem);
  constexpr int CLUSTER = SPLIT * SHARE;
  const int member = blockIdx.x % SHARE, rank = blockIdx.x % CLUSTER / SHARE, leader = rank * SHARE;
  const int tile = blockIdx.x / CLUSTER * SHARE + member;
  const int group = threadIdx.x / 128, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    for (int i = 0; i < STAGES; ++i) {
      barrier_init(base + OFF_BARRIERS + 8 * i, 1);
      barrier_init(base + OFF_BARRIERS + 8 * (STAGES + i), 4 * GROUPS * SHARE);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  asm volatile("griddepcontrol.launch_dependents;");
  float *sums = reinterpret_cast<float *>(smem);
  Results results(p, tile, rank);
  Producer producer(p, base, tile, rank * p.steps, member, leader);
  if (group == GROUPS && lane == 0) producer.begin();
  __syncwarp();
  // nobody brings x to a peer whose barriers are not there
  if (SHARE > 1) cluster_meet();
  if (group == GROUPS) {
    asm volatile("griddepcontrol.wait;" ::: "memory");
    if (lane == 0) producer.run();
    __syncwarp();
  } else {
    float sum[ROWS / 2];
    Squares squares;
    multiply(p, smem, base, group, lane, leader, sum, squares);
    if (GATED) squares.store(reinterpret_cast<float *>(smem + OFF_SCALE), 64 * p.steps, p.eps);
    asm volatile("griddepcontrol.wait;" ::: "memory");
    // all warpgroups are done with the stages
    asm volatile("bar.sync 1, %0;" ::"n"(GROUPS * 128) : "memory");
    const int n = 64 * group + 16 * warp + lane / 4;
#pragma unroll
    for (int i = 0; i < ROWS / 8; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j)
        sums[(8 * i + 2 * (lane & 3) + (j & 1)) * PITCH + n + 8 * (j >> 1)] = sum[4 * i + j];
    if (ADD) results.load_old(p);
  }
  if (SPLIT > 1)
    cluster_sync();
  else
    __syncthreads();
  if (group < GROUPS) results.finish(p, smem, base, rank, member);
  // nobody leaves while a peer may still read from it or arrive at its barriers
  if (CLUSTER > 1) cluster_meet();
}
