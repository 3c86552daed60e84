// Partial attention and merge of a whole forest in one persistent launch (sm_90a, CUDA body only).
//
// Maths        s = scale * q . k (soft-capped), o = softmax(s) . v, lse = log sum exp(s), natural log
// Grid         workers * Hkv CTAs, one per SM: CTA c walks the units of worker c / Hkv for KV head
//              c % Hkv, so the heads of a worker read neighbouring bytes at the same time
// Roles        one producer warpgroup copies K and V of the unit's tokens, 64 a stage, through a ring
//              that runs on across units; two consumer warpgroups multiply.
//              up to 64 packed rows:  they take alternate stages and join their results
//              up to 128:             they take 64 rows each of every stage
// Rows         packed: (row, query head of the group), so a KV head is read once for all of them
// Tokens       pieces of any length, laid end to end: a stage may hold many small nodes. A stage that
//              every row sees whole is not masked, others by two row bounds per token, and by
//              position where rows see prefixes
// Growth       `grown` tokens appended to every open piece since the plan was made: no host work
// Traffic      K and V of a unit's tokens once; q once; 4 * (D + 1) bytes written and read for each
//              row and head of a unit that shares the row with others
// Merge        the unit that completes a group of rows (a counter, no waiting) folds its partials in
//              item order: same plan, same bits
// Source       DeFT, Yao et al. 2025 (KV-guided grouping); LeanAttention, Sanovar et al. 2025
//              (stream-K spans, fix-up inside the launch); FlashAttention-3, Shah et al. 2024 (warp
//              roles, softmax beside products). Reference: ../reference.py::tree_attention_ref
//
// Compiled at run time with HEAD_DIM, GROUP, BF16, SOFTCAP, WINDOW and STAGES defined, behind the
// wrappers of wgmma.py (wgmma_s, wgmma_o).

using u32 = unsigned int;
using u64 = unsigned long long;
using i64 = long long;

constexpr int BLOCK = 64;                         // tokens of a stage
constexpr int CHUNKS = (HEAD_DIM + 63) / 64;      // 128-byte columns of a row
constexpr int TILE_BYTES = BLOCK * 128 * CHUNKS;  // K or V of a stage
constexpr int Q_CHUNK = 128 * 128;                // 128 rows of one column
constexpr int Q_BYTES = Q_CHUNK * CHUNKS;
constexpr int ACC = HEAD_DIM / 2;                 // output registers of a thread
constexpr int GROUP_ROWS = GROUP >= 16 ? 1 : 16 / GROUP;  // rows that share a merge counter

// K of a stage is given back before its mask is applied, so masks live in a longer ring
static_assert(MASKS > STAGES + 1, "a mask must outlive its stage");

constexpr int OFF_Q = 0;
constexpr int OFF_K = OFF_Q + Q_BYTES;
constexpr int OFF_V = OFF_K + STAGES * TILE_BYTES;
constexpr int OFF_JOIN = OFF_V + STAGES * TILE_BYTES;  // half the output of a warpgroup
constexpr int OFF_JOIN_ML = OFF_JOIN + 128 * (ACC / 2) * 4;
constexpr int MASK_BYTES = 8 * BLOCK * 2;               // [8 warps][64 tokens] rows that see it
constexpr int OFF_MASK = OFF_JOIN_ML + 2 * 64 * 4;     // [MASKS], then positions [MASKS][64]
constexpr int OFF_POSITION = OFF_MASK + MASKS * MASK_BYTES;
constexpr int OFF_KIND = OFF_POSITION + MASKS * BLOCK * 4;  // [MASKS][4 producer warps]
constexpr int OFF_LAST = OFF_KIND + MASKS * 8;
constexpr int OFF_BAR = (OFF_LAST + 16 * 4 + 15) / 16 * 16;
static_assert(OFF_BAR + (4 * STAGES + 2) * 8 <= SHARED_BYTES, "shared memory is too small");

// kinds of a stage: bits 0 to 7 the consumer warps whose rows see any of it, and what must be masked
constexpr int SEEN_BY_ALL = 0xff, SEEN_BY_ROWS = 0x100, SEEN_BY_POSITION = 0x200;
constexpr int ROWS_DONE = 1, ROWS_PARTIAL = 2, ROWS_PREFIX = 4;        // flags of a unit
constexpr int PIECE_PREFIX = 1, PIECE_OPEN = 2;                        // flags of a piece

struct Params {
  const unsigned short *q, *k, *v;  // [Q, Hq, D], [slots, Hkv, D] twice; last axis contiguous
  unsigned short *out;              // [Q, Hq, D]
  float *lse;                       // [Q, Hq]
  float *part_out, *part_lse;       // [S, Hq, D], [S, Hq]
  int *counters;                    // [groups, Hkv], zero between launches
  const int *header;                // rows, grown, merge inside the launch, rows to merge
  const int4 *units;                // [U, 16] row0, rows, piece begin, end | tokens, open pieces,
                                    //   slot, flags | first piece: slot, length, lo, hi |
                                    //   its position, its flags, next unit, units to come
  const int4 *pieces;               // [P, 8] slot, length, lo, hi | position, flags, -, -
  const int *user_row, *row_position, *row_units;  // [Q] of each ordered row; units that touch it
  const int *expected;              // [groups] units that share rows of the group
  const int4 *merges;               // [n, 8] of each row with several partials: user's row, begin and
                                    //   end of its slots | the first four of them
  const int *merge_slots;
  const int *row_merge;             // [Q] the row's place among the merges
  i64 q_row, q_head, k_head, v_head;
  u32 k_slot_bytes, v_slot_bytes;
  int num_kv_heads, window, plan_lines;  // lines of 128 bytes from `header` on that hold the plan
  float scale, softcap;             // scale in log2 units, applied to q . k (or to the capped logit)
};

// ---- small wrappers ------------------------------------------------------------------------

__device__ __forceinline__ u32 smem_address(const void *p) {
  return static_cast<u32>(__cvta_generic_to_shared(p));
}
__device__ __forceinline__ void barrier_init(u32 bar, u32 count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count));
}
__device__ __forceinline__ void arrive(u32 bar, u32 count = 1) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(count) : "memory");
}
__device__ __forceinline__ void wait(u32 bar, u32 parity) {
  asm volatile(
      "{\n.reg .pred done;\n"
      "again_%=:\n mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again_%=;\n}\n" ::"r"(bar), "r"(parity) : "memory");
}
// arrives once all copies this thread has issued so far are done
__device__ __forceinline__ void arrive_after_copies(u32 bar) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(bar) : "memory");
}
__device__ __forceinline__ void copy16(u32 dst, const void *src) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(dst), "l"(src) : "memory");
}
// 16 bytes, or zeros
__device__ __forceinline__ void copy16(u32 dst, const void *src, bool live) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(dst), "l"(src),
               "r"(live ? 16 : 0) : "memory");
}
__device__ __forceinline__ void sync_consumers(int id) {
  asm volatile("bar.sync %0, 256;" ::"r"(id) : "memory");
}
__device__ __forceinline__ void gpu_fence() { asm volatile("fence.acq_rel.gpu;" ::: "memory"); }
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ u32 pack(float low, float high) {
  u32 y;
#if BF16
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
#else
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
#endif
  return y;
}
// 128-byte swizzled operands: K is [token][dim], V is read as its transpose
__device__ __forceinline__ u64 descriptor(u32 address, u32 leading_bytes) {
  return (u64)((address & 0x3FFFF) >> 4) | (u64)(leading_bytes >> 4) << 16 | (u64)(1024 >> 4) << 32 |
         (u64)1 << 62;
}

struct Ring {  // place in the ring of stages
  u32 count;   // stages before it
  int stage;
  u32 phase;
  __device__ __forceinline__ Ring(u32 count = 0)
      : count(count), stage(count % STAGES), phase(count / STAGES & 1) {}
  __device__ __forceinline__ void step() {
    ++count;
    if (++stage == STAGES) stage = 0, phase ^= 1;
  }
  __device__ __forceinline__ int mask() const { return count % MASKS; }
};

struct Bars {
  u32 base;
  __device__ __forceinline__ u32 full_k(int s) const { return base + 8 * s; }
  __device__ __forceinline__ u32 full_v(int s) const { return base + 8 * (STAGES + s); }
  __device__ __forceinline__ u32 free_k(int s) const { return base + 8 * (2 * STAGES + s); }
  __device__ __forceinline__ u32 free_v(int s) const { return base + 8 * (3 * STAGES + s); }
  __device__ __forceinline__ u32 full_q() const { return base + 8 * 4 * STAGES; }
  __device__ __forceinline__ u32 free_q() const { return base + 8 * (4 * STAGES + 1); }
};

struct Unit {
  int row0, rows, piece_begin, piece_end, tokens, slot0, flags;
  int4 piece_a, piece_b;  // first piece; b.z, b.w: next unit, units to come
  __device__ __forceinline__ Unit(const Params &p, int index, int grown) {
    const int4 *at = p.units + 4 * index;
    int4 a = at[0], b = at[1];
    piece_a = at[2], piece_b = at[3];
    row0 = a.x, rows = a.y, piece_begin = a.z, piece_end = a.w;
    tokens = b.x + b.y * grown, slot0 = b.z, flags = b.w;
  }
  __device__ __forceinline__ int blocks() const { return (tokens + BLOCK - 1) / BLOCK; }
  __device__ __forceinline__ bool is_split() const { return rows * GROUP <= 64; }
};

// ---- merge -----------------------------------------------------------------------------------

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

// ---- producer ------------------------------------------------------------------------------

constexpr int ROW_LANES = HEAD_DIM <= 64 ? 8 : 16;  // lanes that copy one row, 16 bytes each
constexpr int COPY_ROWS = 32 / ROW_LANES;           // rows of one instruction
constexpr int COPIES = 16 / COPY_ROWS;              // instructions for the 16 tokens of a warp

struct Producer {
  const Params &p;
  char *smem;
  u32 base;
  Bars bars;
  int warp, lane, head, grown;
  Ring ring;
  u32 q_phase = 1;
  // a window of 32 pieces, one a lane; tokens count from the window's first
  int window, total, at;                            // its first piece, its tokens, where we are
  int ends, slot0, position0, lo, hi, flags;        // slot and position of token 0, were it here
  int now_ends, now_slot0, now_position0, now_lo, now_hi, now_flags;  // the piece that `at` is in
  int token_slot;  // of token 16 * warp + lane % 16 of the present stage; below 0: none
  int run_slot;    // of the stage's first token, if all follow it; below 0: they do not
  bool is_hidden;  // a window hides the stage from every row: nothing is copied
  bool has_window; // else only the piece we are in is known

  __device__ __forceinline__ void open_window(int4 a, int4 b, bool is_live) {
    int length = is_live ? a.y + ((b.y & PIECE_OPEN) ? grown : 0) : 0;
    ends = length;
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
      int below = __shfl_up_sync(~0u, ends, d);
      if (lane >= d) ends += below;
    }
    total = __shfl_sync(~0u, ends, 31);
    slot0 = a.x - (ends - length), position0 = b.x - (ends - length);
    lo = a.z, hi = a.w, flags = b.y;
    has_window = true;
  }

  // the piece that came with the unit: where it is long, nothing else has to be looked up yet
  __device__ __forceinline__ void open_unit(const Unit &unit) {
    window = unit.piece_begin, at = 0, has_window = false;
    now_ends = unit.piece_a.y + ((unit.piece_b.y & PIECE_OPEN) ? grown : 0);
    now_slot0 = unit.piece_a.x, now_lo = unit.piece_a.z, now_hi = unit.piece_a.w;
    now_position0 = unit.piece_b.x, now_flags = unit.piece_b.y;
  }

  __device__ __forceinline__ void load_window(const Unit &unit) {
    int mine = window + lane;
    bool is_live = mine < unit.piece_end;
    const int4 *from = p.pieces + 2 * (is_live ? mine : window);
    open_window(from[0], from[1], is_live);
  }

  __device__ __forceinline__ void next_window(const Unit &unit) {
    at -= total;
    window += 32;
    load_window(unit);
  }

  __device__ __forceinline__ void enter_piece() {
    int its = __popc(__ballot_sync(~0u, ends <= at));
    now_ends = __shfl_sync(~0u, ends, its), now_flags = __shfl_sync(~0u, flags, its);
    now_slot0 = __shfl_sync(~0u, slot0, its), now_position0 = __shfl_sync(~0u, position0, its);
    now_lo = __shfl_sync(~0u, lo, its), now_hi = __shfl_sync(~0u, hi, its);
  }

  // slots, masks and kind of the next stage
  __device__ __forceinline__ void find_tokens(const Unit &unit, int least_position) {
    const int mine = 16 * warp + (lane & 15);
    const int row1 = unit.row0 + unit.rows;
    const bool has_moved = now_ends - at < BLOCK;
    int kind, my_lo, my_hi, my_position;
    if (!has_moved) {
      token_slot = now_slot0 + at + mine, my_position = now_position0 + at + mine;
      my_lo = now_lo, my_hi = now_hi;
      kind = my_lo <= unit.row0 && row1 <= my_hi ? 0 : SEEN_BY_ROWS;
      bool is_prefix = (now_flags & PIECE_PREFIX) && now_position0 + at + BLOCK - 1 > least_position;
      if (is_prefix || WINDOW) kind |= SEEN_BY_POSITION | SEEN_BY_ROWS;
      run_slot = now_slot0 + at;
      is_hidden = WINDOW && now_position0 + at + BLOCK - 1 <= least_position - p.window;
      at += BLOCK;
    } else {
      // many small pieces: seldom seen whole, so always masked
      token_slot = -1, my_lo = my_hi = my_position = 0;
      bool is_prefix = false;
      int rest = BLOCK;
      run_slot = -1, is_hidden = false;
      if (!has_window) load_window(unit);
      while (true) {
        const int want = at + mine - (BLOCK - rest);
        int its = 0;
#pragma unroll
        for (int d = 16; d; d /= 2)
          if (__shfl_sync(~0u, ends, its + d - 1) <= want) its += d;
        int its_slot0 = __shfl_sync(~0u, slot0, its), its_lo = __shfl_sync(~0u, lo, its);
        int its_position0 = __shfl_sync(~0u, position0, its), its_hi = __shfl_sync(~0u, hi, its);
        if (want >= at && want < total) {
          token_slot = its_slot0 + want, my_position = its_position0 + want;
          my_lo = its_lo, my_hi = its_hi;
        }
        is_prefix |= __any_sync(~0u, (flags & PIECE_PREFIX) && ends > at);
        int taken = min(rest, total - at);
        at += taken, rest -= taken;
        if (rest == 0 || window + 32 >= unit.piece_end) break;
        next_window(unit);
      }
      kind = SEEN_BY_ROWS | (is_prefix || WINDOW ? SEEN_BY_POSITION : 0);
    }
    if (has_moved || at >= now_ends) {
      if (!has_window) load_window(unit);
      if (at == total && window + 32 < unit.piece_end) next_window(unit);
      enter_piece();
    }
    const int place = ring.mask();
    if (is_hidden) {
      kind = SEEN_BY_ROWS;
    } else if (kind) {
      // the packed rows of each consumer warp that see the token, as bits; two lanes share a token
      const int first = (my_lo - unit.row0) * GROUP, last = min(my_hi - unit.row0, unit.rows) * GROUP;
      u32 seen = 0;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int w = i + (lane & 16) / 4;
        const int begin = min(max(first - 16 * w, 0), 16), end = min(max(last - 16 * w, 0), 16);
        const u32 bits = end > begin ? (1u << end) - (1u << begin) : 0;
        *reinterpret_cast<unsigned short *>(smem + OFF_MASK + place * MASK_BYTES +
                                            (w * BLOCK + mine) * 2) = bits;
        seen |= bits ? 1u << w : 0;
      }
      kind |= __reduce_or_sync(~0u, seen);
      if ((kind & SEEN_BY_POSITION) && lane < 16)
        *reinterpret_cast<int *>(smem + OFF_POSITION + (place * BLOCK + mine) * 4) = my_position;
    } else {
      kind = SEEN_BY_ALL;
    }
    if (lane == 0)
      *reinterpret_cast<unsigned short *>(smem + OFF_KIND + 8 * place + 2 * warp) = kind;
  }

  // 16 tokens of the stage, all lanes beside one another on a row
  __device__ __forceinline__ void copy_tokens(u32 tile, const unsigned short *src, u32 slot_bytes,
                                              const int (&slots)[COPIES]) {
    const int part = lane % ROW_LANES, which = lane / ROW_LANES;
    if (part * 8 >= HEAD_DIM) return;
    const char *from = reinterpret_cast<const char *>(src + part * 8);
    const u32 dst = tile + part / 8 * (BLOCK * 128) + (16 * warp + which) * 128;
#pragma unroll
    for (int i = 0; i < COPIES; ++i)
      copy16(dst + i * (COPY_ROWS * 128) + (((part & 7) ^ ((i * COPY_ROWS + which) & 7)) << 4),
             from + (u64)(u32)max(slots[i], 0) * slot_bytes, slots[i] >= 0);
  }

  // the same of consecutive slots
  __device__ __forceinline__ void copy_run(u32 tile, const unsigned short *src, u32 slot_bytes) {
    const int part = lane % ROW_LANES, which = lane / ROW_LANES;
    if (part * 8 >= HEAD_DIM) return;
    const char *from = reinterpret_cast<const char *>(src + part * 8) +
                       (u64)(u32)(run_slot + 16 * warp + which) * slot_bytes;
    const u32 dst = tile + part / 8 * (BLOCK * 128) + (16 * warp + which) * 128;
#pragma unroll
    for (int i = 0; i < COPIES; ++i)
      copy16(dst + i * (COPY_ROWS * 128) + (((part & 7) ^ ((i * COPY_ROWS + which) & 7)) << 4),
             from + (u64)(u32)(i * COPY_ROWS) * slot_bytes);
  }

  __device__ __forceinline__ void copy_q(int rows, int user_row) {
    const int part = lane % ROW_LANES, which = lane / ROW_LANES;
    wait(bars.free_q(), q_phase);
    q_phase ^= 1;
#pragma unroll 2
    for (int i = 0; i < 32 / COPY_ROWS; ++i) {
      int r = i * COPY_ROWS + which;
      int user = __shfl_sync(~0u, user_row, r);
      r += 32 * warp;
      int q_index = head * GROUP + r % GROUP;
      bool live = user >= 0;
      if (part * 8 < HEAD_DIM)
        copy16(base + OFF_Q + part / 8 * Q_CHUNK + r * 128 + (((part & 7) ^ (r & 7)) << 4),
               p.q + max(user, 0) * p.q_row + q_index * p.q_head + part * 8, live);
    }
    arrive_after_copies(bars.full_q());
  }

  __device__ __forceinline__ void stage(const Unit &unit, int least_position) {
    const u32 k_bar = bars.full_k(ring.stage), v_bar = bars.full_v(ring.stage);
    const u32 k_tile = base + OFF_K + ring.stage * TILE_BYTES;
    const u32 v_tile = base + OFF_V + ring.stage * TILE_BYTES;
    const unsigned short *k = p.k + head * p.k_head, *v = p.v + head * p.v_head;
    find_tokens(unit, least_position);
    wait(bars.free_k(ring.stage), ring.phase ^ 1);
    if (is_hidden) {
      arrive_after_copies(k_bar);
      __syncwarp();
      if (lane == 0) arrive(k_bar);
      wait(bars.free_v(ring.stage), ring.phase ^ 1);
    } else if (run_slot >= 0) {
      copy_run(k_tile, k, p.k_slot_bytes);
      arrive_after_copies(k_bar);
      __syncwarp();
      if (lane == 0) arrive(k_bar);  // publishes masks and kind
      wait(bars.free_v(ring.stage), ring.phase ^ 1);
      copy_run(v_tile, v, p.v_slot_bytes);
    } else {
      int slots[COPIES];
#pragma unroll
      for (int i = 0; i < COPIES; ++i)
        slots[i] = __shfl_sync(~0u, token_slot, i * COPY_ROWS + lane / ROW_LANES);
      copy_tokens(k_tile, k, p.k_slot_bytes, slots);
      arrive_after_copies(k_bar);
      __syncwarp();
      if (lane == 0) arrive(k_bar);
      wait(bars.free_v(ring.stage), ring.phase ^ 1);
      copy_tokens(v_tile, v, p.v_slot_bytes, slots);
    }
    arrive_after_copies(v_bar);
    ring.step();
  }

  __device__ __forceinline__ int look_up_row(int row0, int rows) const {
    const int packed = 32 * warp + lane;
    return packed < rows * GROUP ? p.user_row[row0 + packed / GROUP] : -1;
  }

  __device__ __forceinline__ void run(int worker) {
    int index = worker, to_come = 0;
    for (bool is_first = true;; is_first = false) {
      Unit unit(p, index, grown);
      if (is_first) {
        index = unit.piece_b.z - 1, to_come = unit.piece_b.w;
        if (unit.rows == 0) break;
      }
      ++index;
      int user_row = is_first ? look_up_row(unit.row0, unit.rows) : -1;
      int least_position = 0x7fffffff;
      if ((unit.flags & ROWS_PREFIX) || WINDOW) {
        for (int r = lane; r < unit.rows; r += 32)
          least_position = min(least_position, p.row_position[unit.row0 + r]);
        least_position = __reduce_min_sync(~0u, least_position) + grown;
      }
      open_unit(unit);
      const int blocks = unit.blocks();
#pragma unroll 1
      for (int i = 0; i < max(blocks, 1); ++i) {
        if (blocks) stage(unit, least_position);
        // the first stage goes ahead of the first q, whose rows have to be looked up
        if (is_first && i == 0) copy_q(unit.rows, user_row);
        if (i == min(max(blocks - 1, 0), STAGES - 1) && to_come) {
          // the next unit's q is there before the unit
          int4 next = p.units[4 * index];
          copy_q(next.y, look_up_row(next.x, next.y));
        }
      }
      if (to_come-- == 0) break;
    }
  }
};

// ---- consumer ------------------------------------------------------------------------------

struct Consumer {
  const Params &p;
  char *smem;
  u32 base;
  Bars bars;
  int group, warp, lane, head, grown;  // group: which of the two warpgroups; warp within it
  u32 count = 0;                       // stages of all units so far
  u32 q_phase = 0;
  u32 qf[HEAD_DIM / 16][4];            // the rows' q as matrix operands
  int user_row[2];                     // where results go; below 0: to the row's partials
  float o[ACC], m[2], l[2];            // of rows lane / 4 and lane / 4 + 8 of the warp's 16

  __device__ __forceinline__ void load_q(bool is_split) {
    wait(bars.full_q(), q_phase);
    q_phase ^= 1;
    int row = (is_split ? 0 : 64 * group) + 16 * warp + (lane & 15);
#pragma unroll
    for (int i = 0; i < HEAD_DIM / 16; ++i) {
      int part = 2 * i + lane / 16;
      u32 at = base + OFF_Q + part / 8 * Q_CHUNK + row * 128 + (((part & 7) ^ (row & 7)) << 4);
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(qf[i][0]), "=r"(qf[i][1]), "=r"(qf[i][2]), "=r"(qf[i][3]) : "r"(at));
    }
    __syncwarp();
    if (lane == 0) arrive(bars.free_q());
  }

  // descriptors of one tile differ by constants in units of 16 bytes
  __device__ __forceinline__ void score(float (&s)[32], int stage) {
    const u64 k = descriptor(base + OFF_K + stage * TILE_BYTES, 16);
#pragma unroll
    for (int i = 0; i < HEAD_DIM / 16; ++i)
      wgmma_s(s, qf[i], k + (i / 4 * (BLOCK * 128) + i % 4 * 32) / 16, i > 0);
    wgmma_commit();
  }

  __device__ __forceinline__ void weigh(u32 (&w)[16], int stage) {
    const u64 v = descriptor(base + OFF_V + stage * TILE_BYTES, BLOCK * 128);
#pragma unroll
    for (int i = 0; i < BLOCK / 16; ++i) wgmma_o(o, &w[4 * i], v + i * (2048 / 16));
    wgmma_commit();
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

  // the stages of a unit: all, or of a split unit every second one
  __device__ __forceinline__ void attend(const Unit &unit) {
    const int blocks = unit.blocks();
    const bool is_split = unit.is_split();
#pragma unroll
    for (int i = 0; i < ACC; ++i) o[i] = 0.0f;
    m[0] = m[1] = -INFINITY, l[0] = l[1] = 0.0f;
    int position[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = packed_row(unit, r) / GROUP;
      position[r] = 0;
      if (((unit.flags & ROWS_PREFIX) || WINDOW) && row < unit.rows)
        position[r] = p.row_position[unit.row0 + row] + grown;
    }
    if (is_split) {
#pragma unroll 1
      for (int i = group; i < blocks; i += 2) fold_alone(Ring(count + i), position);
    } else {
      fold_together(blocks, position);
    }
  }

  // One stage that only this warpgroup reads while the other is at the next.
  __device__ __forceinline__ void fold_alone(const Ring &ring, const int (&position)[2]) {
    float s[32], keep[2] = {1.0f, 1.0f};
    u32 w[16];
    wait(bars.full_k(ring.stage), ring.phase);
    const int kind = kinds(ring.mask());
    if (WINDOW && !__any_sync(~0u, kind & SEEN_BY_ALL)) {
      release(bars.free_k(ring.stage), 2);
      release(bars.free_v(ring.stage), 2);
      return;
    }
    hold(s);
    wgmma_fence();
    score(s, ring.stage);
    wgmma_wait<0>();
    hold(s);
    release(bars.free_k(ring.stage), 2);
    if (kind & 1 << warp) {
      if (kind & SEEN_BY_ROWS) mask(s, ring.mask(), kind, warp, position);
      soften(s, keep);
      rescale(keep);
      pack_weights(s, w);
    } else {
      no_weights(w);
    }
    apply(w, ring, 2);
  }

  // All stages of a unit, with the other warpgroup: they take turns with the matrix units, and the
  // products of a stage run beside the softmax of the next. Stages that none of the warpgroup's
  // rows sees are passed over.
  __device__ __forceinline__ void fold_together(int blocks, const int (&position)[2]) {
    float s[32], keep[2];
    u32 w[16];
    Ring ring(count), before = ring;
    bool is_pending = false;
    const int mask_warp = 4 * group + warp;
#pragma unroll 1
    for (int i = 0; i < blocks; ++i, ring.step()) {
      wait(bars.full_k(ring.stage), ring.phase);
      const int kind = kinds(ring.mask());
      const bool is_seen = __any_sync(~0u, kind & 0xf << 4 * group);
      if (is_pending) wait(bars.full_v(before.stage), before.phase);
      take_turn();
      if (!is_seen) {
        pass_turn();
        release(bars.free_k(ring.stage), 1);
        release(bars.free_v(ring.stage), 1);
        // a stage must not be kept while others go by
        if (is_pending) apply(w, before, 1);
        is_pending = false;
        continue;
      }
      hold(s), hold(o), hold(w);
      if (is_pending) {
        wgmma_fence();
        score(s, ring.stage);
        weigh(w, before.stage);
        pass_turn();
        wgmma_wait<1>();
      } else {
        wgmma_fence();
        score(s, ring.stage);
        pass_turn();
        wgmma_wait<0>();
      }
      hold(s);
      release(bars.free_k(ring.stage), 1);
      keep[0] = keep[1] = 1.0f;
      const bool is_mine = kind & 1 << mask_warp;
      if (is_mine) {
        if (kind & SEEN_BY_ROWS) mask(s, ring.mask(), kind, mask_warp, position);
        soften(s, keep);
      }
      wgmma_wait<0>();
      hold(o), hold(w);
      if (is_pending) release(bars.free_v(before.stage), 1);
      if (is_mine) {
        rescale(keep);
        pack_weights(s, w);
      } else {
        no_weights(w);
      }
      before = ring, is_pending = true;
    }
    if (is_pending) apply(w, before, 1);
  }

  __device__ __forceinline__ void pack_weights(const float (&s)[32], u32 (&w)[16]) {
#pragma unroll
    for (int i = 0; i < 16; ++i) w[i] = pack(s[2 * i], s[2 * i + 1]);
  }
  __device__ __forceinline__ void no_weights(u32 (&w)[16]) {
#pragma unroll
    for (int i = 0; i < 16; ++i) w[i] = 0;
  }

  // weights times the values of their stage, which is then given back
  __device__ __forceinline__ void apply(u32 (&w)[16], const Ring &ring, u32 arrivals) {
    wait(bars.full_v(ring.stage), ring.phase);
    hold(o), hold(w);
    wgmma_fence();
    weigh(w, ring.stage);
    wgmma_wait<0>();
    hold(o), hold(w);
    release(bars.free_v(ring.stage), arrivals);
  }

  __device__ __forceinline__ int kinds(int place) const {
    uint2 x = *reinterpret_cast<const uint2 *>(smem + OFF_KIND + 8 * place);
    x.x |= x.y;
    return (x.x | x.x >> 16) & 0xffff;
  }

  // barriers 3 and 4: whose turn it is to queue products
  __device__ __forceinline__ void take_turn() {
    asm volatile("bar.sync %0, 256;" ::"r"(3 + group) : "memory");
  }
  __device__ __forceinline__ void pass_turn() {
    asm volatile("bar.arrive %0, 256;" ::"r"(4 - group) : "memory");
  }

  __device__ __forceinline__ void rescale(const float (&keep)[2]) {
    if (__all_sync(~0u, keep[0] == 1.0f && keep[1] == 1.0f)) return;
#pragma unroll
    for (int j = 0; j < ACC; ++j) o[j] *= keep[j / 2 & 1];
  }

  __device__ __forceinline__ void release(u32 bar, u32 arrivals) {
    __syncwarp();
    if (lane == 0) arrive(bar, arrivals);
  }

  template <int N> __device__ __forceinline__ void hold(float (&x)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) asm volatile("" : "+f"(x[i])::"memory");
  }
  template <int N> __device__ __forceinline__ void hold(u32 (&x)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) asm volatile("" : "+r"(x[i])::"memory");
  }

  __device__ __forceinline__ int packed_row(const Unit &unit, int r) const {
    return (unit.is_split() ? 0 : 64 * group) + 16 * warp + lane / 4 + 8 * r;
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

  __device__ __forceinline__ void run(int worker) {
    int index = worker, to_come = 0;
    if (group == 1) pass_turn();
    for (bool is_first = true;; is_first = false) {
      Unit unit(p, index, grown);
      if (is_first) {
        index = unit.piece_b.z, to_come = unit.piece_b.w;
        if (unit.rows == 0) break;
      }
      const bool is_split = unit.is_split();
      find_rows(unit);
      load_q(is_split);
      attend(unit);
      const int blocks = unit.blocks();
      count += blocks;
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        l[r] += __shfl_xor_sync(~0u, l[r], 1);
        l[r] += __shfl_xor_sync(~0u, l[r], 2);
      }
      if (is_split && blocks > 1) join();
      if (!is_split || group == 0) store(unit);
      if ((unit.flags & ROWS_PARTIAL) && p.header[2]) settle(unit);
      if (to_come-- == 0) break;
      index = is_first ? index : index + 1;
    }
  }
};

extern "C" __global__ void __launch_bounds__(384, 1)
    forest_attention(const __grid_constant__ Params p) {
  extern __shared__ __align__(1024) char smem[];
  const u32 base = smem_address(smem);
  const Bars bars{base + OFF_BAR};
  const int head = blockIdx.x % p.num_kv_heads, worker = blockIdx.x / p.num_kv_heads;
  const int warpgroup = threadIdx.x / 128, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  asm volatile("griddepcontrol.launch_dependents;");  // the merge may take its place early
  // every array of the plan is on its way before it is asked for
  const int line = blockIdx.x * blockDim.x + threadIdx.x;
  if (line < p.plan_lines)
    asm volatile("prefetch.global.L2 [%0];" ::"l"(reinterpret_cast<const char *>(p.header) + 128 * line));
  if (threadIdx.x == 0) {
    for (int i = 0; i < STAGES; ++i) {
      barrier_init(bars.full_k(i), 128 + 4);
      barrier_init(bars.full_v(i), 128);
      barrier_init(bars.free_k(i), 8);
      barrier_init(bars.free_v(i), 8);
    }
    barrier_init(bars.full_q(), 128);
    barrier_init(bars.free_q(), 8);
  }
  __syncthreads();
  const int grown = p.header[1];
  if (warpgroup == 0) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 72;");
    Producer producer{p, smem, base, bars, warp, lane, head, grown};
    producer.run(worker);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 216;");
    Consumer consumer{p, smem, base, bars, warpgroup - 1, warp, lane, head, grown};
    consumer.run(worker);
  }
}

// The merge as a launch of its own, for plans whose units hold many rows: all SMs share it. It is
// started beside the other launch and waits for its end. A CTA takes one row and head, each of its
// warps every fourth partial, or where rows have few partials each warp a row of its own.
extern "C" __global__ void __launch_bounds__(128, 8)
    merge_partials(const __grid_constant__ Params p) {
  const int num_q_heads = p.num_kv_heads * GROUP;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int count = p.header[2] ? 0 : p.header[3] * num_q_heads;
  const bool is_shared = p.header[4];
  __shared__ float shared[4][HEAD_DIM + 2];
  // the plan may be read before the partial results are there
  bool is_first = true;
  const int stride = is_shared ? gridDim.x : gridDim.x * 4;
  for (int index = is_shared ? blockIdx.x : blockIdx.x * 4 + warp; index < count; index += stride) {
    const int merge = index / num_q_heads, q_index = index % num_q_heads;
    if (is_first) {
      asm volatile("prefetch.global.L1 [%0];" ::"l"(p.merges + 2 * merge));
      asm volatile("griddepcontrol.wait;" ::: "memory");
    }
    is_first = false;
    if (is_shared)
      merge_by_cta(p, merge, q_index, warp, lane, shared);
    else
      merge_by_warp(p, merge, q_index, lane);
  }
  // the next launch must not start before the one that this one waits for has ended
  if (is_first) asm volatile("griddepcontrol.wait;" ::: "memory");
}
