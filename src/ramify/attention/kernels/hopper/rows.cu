// The packed rows of a consumer warpgroup: running softmax, masks, results and where they go.

struct Rows {
  const Params &p;
  char *smem;
  int group, warp, lane, head;  // group: which of the two warpgroups; warp: within it
  int user_row[2];              // where results go; below 0: to the row's partials
  float o[ACC], m[2], l[2];     // of rows lane / 4 and lane / 4 + 8 of the warp's 16

  __device__ __forceinline__ Rows(const Params &p, char *smem, int group, int warp, int lane, int head)
      : p(p), smem(smem), group(group), warp(warp), lane(lane), head(head) {}

  __device__ __forceinline__ int packed_row(const Unit &unit, int r) const {
    return (unit.is_split() ? 0 : 64 * group) + 16 * warp + lane / 4 + 8 * r;
  }

  // looked up before the work, so that storing does not wait for it
  __device__ __forceinline__ void find_rows(const Unit &unit) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      int packed = packed_row(unit, r), row = unit.row0 + packed / GROUP;
      user_row[r] = -1;
      if (packed >= unit.rows * GROUP || !(unit.flags & ROWS_DONE)) continue;
      if (!(unit.flags & ROWS_PARTIAL) || p.row_units[row] == 1) user_row[r] = p.user_row[row];
    }
  }

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < ACC; ++i) o[i] = 0.0f;
    m[0] = m[1] = -INFINITY, l[0] = l[1] = 0.0f;
  }

  __device__ __forceinline__ void mask(float (&s)[32], int place, int kind, int mask_warp,
                                       const int (&position)[2]) {
    const u32 *masks = reinterpret_cast<const u32 *>(smem + OFF_MASK + place * MASK_BYTES +
                                                     mask_warp * (BLOCK * 2)) + (lane & 3);
    const u32 bit = 1u << lane / 4;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const u32 both = masks[4 * i];  // of two tokens
#pragma unroll
      for (int j = 0; j < 2; ++j)
#pragma unroll
        for (int r = 0; r < 2; ++r)
          if (!(both & bit << (16 * j + 8 * r))) s[4 * i + 2 * r + j] = -INFINITY;
    }
    if (kind & SEEN_BY_POSITION) {
      const int2 *at = reinterpret_cast<const int2 *>(smem + OFF_POSITION + place * (BLOCK * 4)) + (lane & 3);
#pragma unroll
      for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int j = 0; j < 2; ++j)
#pragma unroll
          for (int r = 0; r < 2; ++r) {
            const int token = j ? at[4 * i].y : at[4 * i].x;
            bool seen = token <= position[r];
            if (WINDOW) seen = seen && token > position[r] - p.window;
            if (!seen) s[4 * i + 2 * r + j] = -INFINITY;
          }
    }
  }

  // scores become weights; what is in o before them counts `keep` times
  __device__ __forceinline__ void soften(float (&s)[32], float (&keep)[2]) {
    if (SOFTCAP) {
#pragma unroll
      for (int i = 0; i < 32; ++i) {
        // softcap * tanh(x / softcap); p.softcap carries the scale: 2 log2(e) scale / softcap
        float &x = s[i];
        float e = exp2_fast(x * p.softcap);
        if (x != -INFINITY) x = 1.0f - __fdividef(2.0f, e + 1.0f);
      }
    }
    // maxima and sums of both rows in four chains each: what waits is latency, not issue
    float best[2][4], sum[2][4], shift[2];
#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float x = fmaxf(s[4 * i + 2 * r], s[4 * i + 2 * r + 1]);
        best[r][i & 3] = i < 4 ? x : fmaxf(best[r][i & 3], x);
      }
#pragma unroll
    for (int r = 0; r < 2; ++r)
      best[r][0] = fmaxf(fmaxf(best[r][0], best[r][1]), fmaxf(best[r][2], best[r][3]));
#pragma unroll
    for (int r = 0; r < 2; ++r) best[r][0] = fmaxf(best[r][0], __shfl_xor_sync(~0u, best[r][0], 1));
#pragma unroll
    for (int r = 0; r < 2; ++r) best[r][0] = fmaxf(best[r][0], __shfl_xor_sync(~0u, best[r][0], 2));
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      keep[r] = 1.0f;
      // weights up to 2^8 do no harm, so the maximum is only replaced when it is far behind
      if ((best[r][0] - m[r]) * p.scale > 8.0f) {
        keep[r] = exp2_fast((m[r] - best[r][0]) * p.scale);
        m[r] = best[r][0];
        l[r] *= keep[r];
      }
      // a row that has seen nothing yet must not compute inf - inf
      shift[r] = m[r] == -INFINITY ? 0.0f : m[r] * p.scale;
    }
#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
      for (int r = 0; r < 2; ++r)
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          float &x = s[4 * i + 2 * r + j];
          x = exp2_fast(x * p.scale - shift[r]);
          sum[r][i & 3] = (i < 4 && j == 0) ? x : sum[r][i & 3] + x;
        }
#pragma unroll
    for (int r = 0; r < 2; ++r) l[r] += (sum[r][0] + sum[r][1]) + (sum[r][2] + sum[r][3]);
  }

  __device__ __forceinline__ void rescale(const float (&keep)[2]) {
    if (__all_sync(~0u, keep[0] == 1.0f && keep[1] == 1.0f)) return;
#pragma unroll
    for (int j = 0; j < ACC; ++j) o[j] *= keep[j / 2 & 1];
  }

  __device__ __forceinline__ void pack_weights(const float (&s)[32], u32 (&w)[16]) {
#pragma unroll
    for (int i = 0; i < 16; ++i) w[i] = pack(s[2 * i], s[2 * i + 1]);
  }
  __device__ __forceinline__ void no_weights(u32 (&w)[16]) {
#pragma unroll
    for (int i = 0; i < 16; ++i) w[i] = 0;
  }

  // of a unit whose stages were shared: the second warpgroup's results go into the first's
  __device__ __forceinline__ void join() {
    float *half = reinterpret_cast<float *>(smem + OFF_JOIN);
    float2 *ml = reinterpret_cast<float2 *>(smem + OFF_JOIN_ML);
    const int me = 32 * warp + lane, row = 16 * warp + lane / 4;
    float mine[2], other[2];
    if (group == 1) {
      if ((lane & 3) == 0) ml[row] = {m[0], l[0]}, ml[row + 8] = {m[1], l[1]};
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      if (group == 1) {
#pragma unroll
        for (int i = 0; i < ACC / 2; ++i) half[i * 128 + me] = o[h * (ACC / 2) + i];
      }
      sync_consumers(1);
      if (group == 0) {
        if (h == 0) {
#pragma unroll
          for (int r = 0; r < 2; ++r) {
            float2 its = ml[row + 8 * r];
            float best = fmaxf(m[r], its.x);
            float shift = best == -INFINITY ? 0.0f : best * p.scale;
            mine[r] = exp2_fast(m[r] * p.scale - shift);
            other[r] = exp2_fast(its.x * p.scale - shift);
            m[r] = best, l[r] = l[r] * mine[r] + its.y * other[r];
          }
        }
#pragma unroll
        for (int i = 0; i < ACC / 2; ++i) {
          int j = h * (ACC / 2) + i, r = j / 2 & 1;
          o[j] = o[j] * mine[r] + half[i * 128 + me] * other[r];
        }
      }
      sync_consumers(2);
    }
  }

  // rows that no other unit touches are finished, others leave a partial result
  __device__ __forceinline__ void store(const Unit &unit) {
    const int num_q_heads = p.num_kv_heads * GROUP;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      int packed = packed_row(unit, r);
      if (packed >= unit.rows * GROUP) continue;
      int row = packed / GROUP, q_index = head * GROUP + packed % GROUP;
      float inverse = l[r] > 0.0f ? __fdividef(1.0f, l[r]) : 0.0f;
      float lse = l[r] > 0.0f ? m[r] * p.scale * 0.6931471805599453f + __logf(l[r]) : -INFINITY;
      if (user_row[r] >= 0) {
        i64 dst = (i64)user_row[r] * num_q_heads + q_index;
        if ((lane & 3) == 0) p.lse[dst] = lse;
        u32 *out = reinterpret_cast<u32 *>(p.out + dst * HEAD_DIM) + (lane & 3);
#pragma unroll
        for (int i = 0; i < ACC / 4; ++i)
          out[4 * i] = pack(o[4 * i + 2 * r] * inverse, o[4 * i + 2 * r + 1] * inverse);
      } else {
        i64 dst = (i64)(unit.slot0 + row) * num_q_heads + q_index;
        if ((lane & 3) == 0) p.part_lse[dst] = lse;
        float2 *out = reinterpret_cast<float2 *>(p.part_out + dst * HEAD_DIM) + (lane & 3);
#pragma unroll
        for (int i = 0; i < ACC / 4; ++i)
          out[4 * i] = {o[4 * i + 2 * r] * inverse, o[4 * i + 2 * r + 1] * inverse};
      }
    }
  }

  // counts this unit in at its groups of rows, and merges the groups that it completes
  __device__ __forceinline__ void settle(const Unit &unit) {
    int *last = reinterpret_cast<int *>(smem + OFF_LAST);
    const int me = 128 * group + 32 * warp + lane;
    const int first = unit.row0 / GROUP_ROWS;
    const int groups = (unit.row0 + unit.rows - 1) / GROUP_ROWS - first + 1;
    gpu_fence();
    sync_consumers(1);
    if (me < groups) {
      int *counter = p.counters + (first + me) * p.num_kv_heads + head;
      int expected = p.expected[first + me];
      bool is_last = expected > 0 && atomicAdd(counter, 1) == expected - 1;
      if (is_last) *counter = 0;
      last[me] = is_last;
    }
    sync_consumers(2);
    const int num_rows = p.header[0];
    for (int g = 0; g < groups; ++g) {
      if (!last[g]) continue;
      gpu_fence();
      for (int i = 4 * group + warp; i < GROUP_ROWS * GROUP; i += 8) {
        int row = (first + g) * GROUP_ROWS + i / GROUP;
        if (row >= num_rows || p.row_units[row] < 2) continue;
        merge_by_warp(p, p.row_merge[row], head * GROUP + i % GROUP, lane);
      }
    }
  }
};
