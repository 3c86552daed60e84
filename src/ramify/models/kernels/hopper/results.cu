// How a product ends: sums are folded, added to what was there, or gated.
//
// Gated        the tile is TILE / 2 rows of a gate's weight and the same of an up-projection's, and
//              the result silu(gate) * up: an MLP's first half in one launch (SwiGLU)

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
  __device__ __forceinline__ void load(const Params &p) {
    if (!ADD) return;
#pragma unroll
    for (int i = 0; i < COUNT; ++i)
      if (row + i * STRIDE < live) old[i] = *out(p, row + i * STRIDE);
  }

  // the cluster's partial sums, in the order of the ranks
  __device__ __forceinline__ void finish(const Params &p, const char *smem, u32 base,
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
