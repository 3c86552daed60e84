// How attention's first product ends: a tile is a head, which is scaled, turned and put in its place.
//
// Maths        y = (x . w) / rms(x), w with the norm's weight folded in; of q and k the pair
//              (i, i + TILE / 2) turns by the angle of the row's position. In float32, rounded once
// Split        each CTA of a tile finishes a part of the rows, as both halves of a head are needed
// Source       RoFormer, Su et al. 2021; reference: ../../layers.py::DecoderLayer.attention

struct Turned {
  static constexpr int HALF = TILE / 2, PART = HALF / 4;  // groups of four columns of a half
  static constexpr int MINE = ROWS / SPLIT;               // rows that this CTA finishes
  static constexpr int STRIDE = GROUPS * 128 / PART;
  static constexpr int COUNT = (MINE + STRIDE - 1) / STRIDE;
  static_assert(GROUPS * 128 % PART == 0 && ROWS % SPLIT == 0, "a thread keeps to its columns");
  const int head, n, row, end;  // first column of a half, first row, one past the last
  i64 slot[COUNT];
  float4 cosine[COUNT], sine[COUNT];

  __device__ __forceinline__ Turned(const Params &p, int tile, int rank)
      : head(tile), n(threadIdx.x % PART * 4), row(rank * MINE + threadIdx.x / PART),
        end(tile * TILE < p.num_out ? min((rank + 1) * MINE, p.num_rows) : 0) {}

  __device__ __forceinline__ static float4 four(const unsigned short *from) {
    const uint2 x = *reinterpret_cast<const uint2 *>(from);
    const float2 a = unpack(x.x), b = unpack(x.y);
    return {a.x, a.y, b.x, b.y};
  }
  __device__ __forceinline__ bool is_q(const Params &p) const { return head < p.num_q_heads; }
  __device__ __forceinline__ bool is_v(const Params &p) const {
    return head >= p.num_q_heads + p.num_kv_heads;
  }

  // ahead of the sums, as one load waits for another
  __device__ __forceinline__ void load(const Params &p) {
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
      const int m = row + i * STRIDE;
      slot[i] = 0, cosine[i] = {1, 1, 1, 1}, sine[i] = {0, 0, 0, 0};
      if (m >= end) continue;
      if (!is_q(p)) slot[i] = p.slots[m];
      if (is_v(p)) continue;
      const unsigned short *angle = p.angles + p.positions[m] * TILE + n;
      cosine[i] = four(angle), sine[i] = four(angle + HALF);
    }
  }

  __device__ __forceinline__ unsigned short *place(const Params &p, int m, i64 slot) const {
    if (is_q(p)) return p.out + ((i64)m * p.num_q_heads + head) * TILE + n;
    const int at = head - p.num_q_heads;
    if (!is_v(p)) return p.k + slot * p.k_slot + at * p.k_head + n;
    return p.v + slot * p.v_slot + (at - p.num_kv_heads) * p.v_head + n;
  }

  // partial sums in the order of the ranks
  __device__ __forceinline__ static float4 folded(u32 address, int member) {
    float4 total = load_peer(address, member);
#pragma unroll
    for (int r = 1; r < SPLIT; ++r) {
      const float4 part = load_peer(address, r * SHARE + member);
      total = {total.x + part.x, total.y + part.y, total.z + part.z, total.w + part.w};
    }
    return total;
  }

  __device__ __forceinline__ void finish(const Params &p, const char *, u32 base, int member) const {
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
      const int m = row + i * STRIDE;
      if (m >= end) continue;
      const u32 sums = base + (m * PITCH + n) * 4;
      const float4 a = folded(sums, member), b = folded(sums + HALF * 4, member);
      float squares = 0.0f;
#pragma unroll
      for (int r = 0; r < SPLIT; ++r)
        squares += load_peer_float(base + OFF_SCALE + 4 * m, r * SHARE + member);
      const float by = rsqrtf(squares / (64 * SPLIT * p.steps) + p.eps);
      const float4 c = cosine[i], s = sine[i];
      unsigned short *to = place(p, m, slot[i]);
      const float first[4] = {a.x * by, a.y * by, a.z * by, a.w * by};
      const float second[4] = {b.x * by, b.y * by, b.z * by, b.w * by};
      *reinterpret_cast<uint2 *>(to) = {
          pack(first[0] * c.x - second[0] * s.x, first[1] * c.y - second[1] * s.y),
          pack(first[2] * c.z - second[2] * s.z, first[3] * c.w - second[3] * s.w)};
      *reinterpret_cast<uint2 *>(to + HALF) = {
          pack(second[0] * c.x + first[0] * s.x, second[1] * c.y + first[1] * s.y),
          pack(second[2] * c.z + first[2] * s.z, second[3] * c.w + first[3] * s.w)};
    }
  }
};
