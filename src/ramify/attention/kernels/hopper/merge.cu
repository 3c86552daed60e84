// Merging the partial results of a row: by one warp, or by four.

// Partial results of one row and head. They fold in four chains, every fourth into one, and the
// chains in order: one warp or four, the result is the same to the bit.
struct Merged {
  static constexpr int CHAINS = 4, PART = HEAD_DIM / 32;
  float best = -INFINITY, total = 0.0f, acc[PART] = {};

  __device__ __forceinline__ void add(float its_best, float its_total, const float (&x)[PART]) {
    float next = fmaxf(best, its_best);
    float shift = next == -INFINITY ? 0.0f : next;
    float keep = exp2_fast(best - shift), weight = exp2_fast(its_best - shift);
    total = total * keep + its_total * weight, best = next;
#pragma unroll
    for (int j = 0; j < PART; ++j) acc[j] = acc[j] * keep + x[j] * weight;
  }
};

// the slots of a row's partial results
struct Slots {
  int4 row, near;  // user's row, begin, end of the list; the first four
  __device__ __forceinline__ Slots(const Params &p, int merge)
      : row(p.merges[2 * merge]), near(p.merges[2 * merge + 1]) {}
  __device__ __forceinline__ int count() const { return row.z - row.y; }
  __device__ __forceinline__ int at(const Params &p, int i) const {
    if (i > 3) return p.merge_slots[row.y + i];
    return i == 0 ? near.x : i == 1 ? near.y : i == 2 ? near.z : near.w;
  }
};

__device__ __forceinline__ void load_part(const Params &p, int slot, int q_index, int lane,
                                          float &lse2, float (&x)[Merged::PART]) {
  const i64 src = (i64)slot * (p.num_kv_heads * GROUP) + q_index;
  lse2 = __ldcg(p.part_lse + src) * 1.4426950408889634f;
  const float *from = p.part_out + src * HEAD_DIM + lane * Merged::PART;
  if constexpr (Merged::PART == 4) {
    float4 y = __ldcg(reinterpret_cast<const float4 *>(from));
    x[0] = y.x, x[1] = y.y, x[2] = y.z, x[3] = y.w;
  } else {
#pragma unroll
    for (int j = 0; j < Merged::PART; ++j) x[j] = __ldcg(from + j);
  }
}

__device__ __forceinline__ void store_merged(const Params &p, const Slots &slots, int q_index,
                                             int lane, const Merged &merged) {
  constexpr int PART = Merged::PART;
  const float total = merged.total, inverse = total > 0.0f ? __fdividef(1.0f, total) : 0.0f;
  const i64 dst = (i64)slots.row.x * (p.num_kv_heads * GROUP) + q_index;
  if (lane == 0)
    p.lse[dst] = total > 0.0f ? merged.best * 0.6931471805599453f + __logf(total) : -INFINITY;
  unsigned short *out = p.out + dst * HEAD_DIM + lane * PART;
  if constexpr (PART % 2 == 0) {
#pragma unroll
    for (int j = 0; j < PART; j += 2)
      reinterpret_cast<u32 *>(out)[j / 2] =
          pack(merged.acc[j] * inverse, merged.acc[j + 1] * inverse);
  } else {
#pragma unroll
    for (int j = 0; j < PART; ++j) out[j] = (unsigned short)pack(merged.acc[j] * inverse, 0.0f);
  }
}

// by one warp: a round loads one partial of each chain, and its loads do not wait for one another
__device__ __forceinline__ void merge_by_warp(const Params &p, int merge, int q_index, int lane) {
  constexpr int CHAINS = Merged::CHAINS;
  const Slots slots(p, merge);
  Merged chain[CHAINS];
  for (int begin = 0; begin < slots.count(); begin += CHAINS) {
    float lse2[CHAINS], x[CHAINS][Merged::PART];
#pragma unroll
    for (int c = 0; c < CHAINS; ++c)
      if (begin + c < slots.count())
        load_part(p, slots.at(p, begin + c), q_index, lane, lse2[c], x[c]);
#pragma unroll
    for (int c = 0; c < CHAINS; ++c)
      if (begin + c < slots.count()) chain[c].add(lse2[c], 1.0f, x[c]);
  }
#pragma unroll
  for (int c = 1; c < CHAINS; ++c) chain[0].add(chain[c].best, chain[c].total, chain[c].acc);
  store_merged(p, slots, q_index, lane, chain[0]);
}

// by four warps: each has a chain
__device__ __forceinline__ void merge_by_cta(const Params &p, int merge, int q_index, int warp,
                                             int lane, float (*shared)[HEAD_DIM + 2]) {
  constexpr int CHAINS = Merged::CHAINS, PART = Merged::PART, ROUND = 4;
  const Slots slots(p, merge);
  Merged mine;
  for (int begin = warp; begin < slots.count(); begin += CHAINS * ROUND) {
    float lse2[ROUND], x[ROUND][PART];
#pragma unroll
    for (int i = 0; i < ROUND; ++i)
      if (begin + CHAINS * i < slots.count())
        load_part(p, slots.at(p, begin + CHAINS * i), q_index, lane, lse2[i], x[i]);
#pragma unroll
    for (int i = 0; i < ROUND; ++i)
      if (begin + CHAINS * i < slots.count()) mine.add(lse2[i], 1.0f, x[i]);
  }
  __syncthreads();
#pragma unroll
  for (int j = 0; j < PART; ++j) shared[warp][lane * PART + j] = mine.acc[j];
  if (lane == 0) shared[warp][HEAD_DIM] = mine.best, shared[warp][HEAD_DIM + 1] = mine.total;
  __syncthreads();
  if (warp) return;
#pragma unroll
  for (int c = 1; c < CHAINS; ++c) {
    float x[PART];
#pragma unroll
    for (int j = 0; j < PART; ++j) x[j] = shared[c][lane * PART + j];
    mine.add(shared[c][HEAD_DIM], shared[c][HEAD_DIM + 1], x);
  }
  store_merged(p, slots, q_index, lane, mine);
}
