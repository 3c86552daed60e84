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

constexpr int OFF_Q = 0;
constexpr int OFF_K = OFF_Q + Q_BYTES;
constexpr int OFF_V = OFF_K + STAGES * TILE_BYTES;
constexpr int OFF_JOIN = OFF_V + STAGES * TILE_BYTES;  // half the output of a warpgroup
constexpr int OFF_JOIN_ML = OFF_JOIN + 128 * (ACC / 2) * 4;
constexpr int OFF_META = OFF_JOIN_ML + 2 * 64 * 4;     // [STAGES][64] rows (lo, hi), then positions
constexpr int OFF_KIND = OFF_META + STAGES * BLOCK * 8;
constexpr int OFF_LAST = OFF_KIND + STAGES * 4;
constexpr int OFF_BAR = (OFF_LAST + 16 * 4 + 15) / 16 * 16;
static_assert(OFF_BAR + (4 * STAGES + 2) * 8 <= SHARED_BYTES, "shared memory is too small");

constexpr int SEEN_WHOLE = 0, SEEN_BY_ROWS = 1, SEEN_BY_POSITION = 2;  // kinds of a stage
constexpr int ROWS_DONE = 1, ROWS_PARTIAL = 2, ROWS_PREFIX = 4;        // flags of a unit
constexpr int PIECE_PREFIX = 1, PIECE_OPEN = 2;                        // flags of a piece

struct Params {
  const unsigned short *q, *k, *v;  // [Q, Hq, D], [slots, Hkv, D] twice; last axis contiguous
  unsigned short *out;              // [Q, Hq, D]
  float *lse;                       // [Q, Hq]
  float *part_out, *part_lse;       // [S, Hq, D], [S, Hq]
  int *counters;                    // [groups, Hkv], zero between launches
  const int *header;                // rows, grown
  const int4 *units;                // [U, 16] row0, rows, piece begin, end | tokens, open pieces,
                                    //   slot, flags | first piece: slot, length, lo, hi |
                                    //   its position, its flags, next unit, units to come
  const int4 *pieces;               // [P, 8] slot, length, lo, hi | position, flags, -, -
  const int *user_row, *row_position, *row_units;  // [Q] of each ordered row; units that touch it
  const int *expected;              // [groups] units that share rows of the group
  const int *merge_indptr, *merge_slots;
  i64 q_row, q_head, k_slot, k_head, v_slot, v_head;
  int num_kv_heads, window;
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
// 16 bytes, or zeros
__device__ __forceinline__ void copy16(u32 dst, const void *src, bool live) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(dst), "l"(src),
               "r"(live ? 16 : 0) : "memory");
}
__device__ __forceinline__ void sync_consumers(int id) {
  asm volatile("bar.sync %0, 256;" ::"r"(id) : "memory");
}
__device__ __forceinline__ void proxy_fence() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
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
  int stage;
  u32 phase;
  __device__ __forceinline__ Ring(u32 count = 0)
      : stage(count % STAGES), phase(count / STAGES & 1) {}
  __device__ __forceinline__ void step() {
    if (++stage == STAGES) stage = 0, phase ^= 1;
  }
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
  // the 32 pieces from `piece` on, one a lane: what is left of them
  int piece, slot, length, lo, hi, position, flags;
  int rest;   // tokens of the unit not yet copied
  int token_slot;  // of token 16 * warp + lane % 16 of the present stage; below 0: none

  __device__ __forceinline__ void take_piece(int4 a, int4 b, bool is_live) {
    slot = a.x, lo = a.z, hi = a.w, position = b.x, flags = b.y;
    length = is_live ? a.y + ((b.y & PIECE_OPEN) ? grown : 0) : 0;
  }

  __device__ __forceinline__ void look_ahead(const Unit &unit, int skip) {
    int mine = piece + lane;
    bool is_live = mine < unit.piece_end;
    const int4 *at = p.pieces + 2 * (is_live ? mine : unit.piece_begin);
    take_piece(at[0], at[1], is_live);
    if (lane == 0) slot += skip, length -= skip, position += skip;
  }

  // slots, masks and kind of the next stage; moves on to the piece after it
  __device__ __forceinline__ void find_tokens(const Unit &unit, int least_position) {
    const int mine = 16 * warp + (lane & 15);
    const int row1 = unit.row0 + unit.rows;
    int first_length = __shfl_sync(~0u, length, 0);
    int kind, my_lo, my_hi, my_position;
    if (first_length >= BLOCK) {
      token_slot = __shfl_sync(~0u, slot, 0) + mine;
      my_lo = __shfl_sync(~0u, lo, 0), my_hi = __shfl_sync(~0u, hi, 0);
      my_position = __shfl_sync(~0u, position, 0) + mine;
      int prefix = __shfl_sync(~0u, flags, 0) & PIECE_PREFIX;
      int last = my_position - mine + BLOCK - 1;
      kind = (my_lo <= unit.row0 && row1 <= my_hi) ? SEEN_WHOLE : SEEN_BY_ROWS;
      if ((prefix && last > least_position) || WINDOW) kind = SEEN_BY_POSITION;
      if (first_length == BLOCK) {
        piece += 1;
        look_ahead(unit, 0);
      } else if (lane == 0) {
        slot += BLOCK, length -= BLOCK, position += BLOCK;
      }
    } else {
      token_slot = -1, my_lo = my_hi = my_position = 0;
      int found = 0, prefix = 0;
      // pieces have a token at least, so two rounds of 32 fill a stage
      while (true) {
        int ends = length;
#pragma unroll
        for (int d = 1; d < 32; d *= 2) {
          int below = __shfl_up_sync(~0u, ends, d);
          if (lane >= d) ends += below;
        }
        int total = __shfl_sync(~0u, ends, 31);
        int want = mine - found;
        int at = 0;
#pragma unroll
        for (int d = 16; d; d /= 2)
          if (__shfl_sync(~0u, ends, at + d - 1) <= want) at += d;
        int begins = __shfl_sync(~0u, ends - length, at);
        int its_slot = __shfl_sync(~0u, slot, at), its_position = __shfl_sync(~0u, position, at);
        int its_lo = __shfl_sync(~0u, lo, at), its_hi = __shfl_sync(~0u, hi, at);
        if (want >= 0 && want < total) {
          token_slot = its_slot + want - begins, my_position = its_position + want - begins;
          my_lo = its_lo, my_hi = its_hi;
        }
        prefix |= __any_sync(~0u, (flags & PIECE_PREFIX) && length > 0);
        if (found + total > BLOCK) {  // the piece that token 64 is in comes next
          int over = BLOCK - found;
          int next = __popc(__ballot_sync(~0u, ends <= over));
          int skip = over - __shfl_sync(~0u, ends - length, next);
          piece += next;
          look_ahead(unit, skip);
          break;
        }
        found += total;
        piece += 32;
        if (piece >= unit.piece_end || found == BLOCK) {
          if (piece < unit.piece_end) look_ahead(unit, 0);
          break;
        }
        look_ahead(unit, 0);
      }
      // many small pieces: seldom seen whole, so always masked
      kind = (prefix || WINDOW) ? SEEN_BY_POSITION : SEEN_BY_ROWS;
    }
    if (lane < 16) {
      int a = min(max(my_lo - unit.row0, 0), 0x7fff), b = min(max(my_hi - unit.row0, 0), 0x7fff);
      int *meta = reinterpret_cast<int *>(smem + OFF_META) + ring.stage * 2 * BLOCK;
      meta[mine] = a | b << 16;
      meta[BLOCK + mine] = my_position;
    }
    if (warp == 0 && lane == 0) reinterpret_cast<int *>(smem + OFF_KIND)[ring.stage] = kind;
  }

  __device__ __forceinline__ void copy_tokens(u32 dst, const unsigned short *src, i64 stride) {
    const int part = lane % ROW_LANES, which = lane / ROW_LANES;
    dst += part / 8 * (BLOCK * 128);
#pragma unroll
    for (int i = 0; i < COPIES; ++i) {
      int t = i * COPY_ROWS + which;
      int at = __shfl_sync(~0u, token_slot, t);
      t += 16 * warp;
      if (part * 8 < HEAD_DIM)
        copy16(dst + t * 128 + (((part & 7) ^ (t & 7)) << 4), src + max(at, 0) * stride + part * 8,
               at >= 0);
    }
  }

  __device__ __forceinline__ void copy_q(const Unit &unit, int user_row) {
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
    wait(bars.free_k(ring.stage), ring.phase ^ 1);
    find_tokens(unit, least_position);
    copy_tokens(base + OFF_K + ring.stage * TILE_BYTES, p.k + head * p.k_head, p.k_slot);
    arrive_after_copies(bars.full_k(ring.stage));
    __syncwarp();
    if (lane == 0) arrive(bars.full_k(ring.stage));  // publishes masks and kind
    wait(bars.free_v(ring.stage), ring.phase ^ 1);
    copy_tokens(base + OFF_V + ring.stage * TILE_BYTES, p.v + head * p.v_head, p.v_slot);
    arrive_after_copies(bars.full_v(ring.stage));
    ring.step();
  }

  __device__ __forceinline__ void run(int worker) {
    int index = worker, to_come = 0;
    for (bool is_first = true;; is_first = false) {
      Unit unit(p, index, grown);
      if (is_first) {
        index = unit.piece_b.z, to_come = unit.piece_b.w;
        if (unit.rows == 0) break;
      }
      int packed = 32 * warp + lane;
      int row = unit.row0 + packed / GROUP;
      int user_row = packed < unit.rows * GROUP ? p.user_row[row] : -1;
      int least_position = 0x7fffffff;
      if (unit.flags & ROWS_PREFIX) {
        for (int r = lane; r < unit.rows; r += 32)
          least_position = min(least_position, p.row_position[unit.row0 + r]);
        least_position = __reduce_min_sync(~0u, least_position) + grown;
      }
      piece = unit.piece_begin;
      // the first piece came with the unit, its followers are fetched
      {
        int mine = piece + lane;
        bool is_live = mine < unit.piece_end;
        int4 a = unit.piece_a, b = unit.piece_b;
        if (lane > 0 && is_live) a = p.pieces[2 * mine], b = p.pieces[2 * mine + 1];
        take_piece(a, b, is_live);
      }
      int blocks = unit.blocks();
      // the first stage goes ahead of q, whose rows have to be looked up
#pragma unroll 1
      for (int i = 0; i < max(blocks, 1); ++i) {
        if (blocks) stage(unit, least_position);
        if (i == 0) copy_q(unit, user_row);
      }
      if (to_come-- == 0) break;
      index = is_first ? index : index + 1;
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

  __device__ __forceinline__ void score(float (&s)[32], int stage) {
    u32 k = base + OFF_K + stage * TILE_BYTES;
#pragma unroll
    for (int i = 0; i < HEAD_DIM / 16; ++i)
      wgmma_s(s, qf[i], descriptor(k + i / 4 * (BLOCK * 128) + i % 4 * 32, 16), i > 0);
    wgmma_commit();
  }

  __device__ __forceinline__ void weigh(u32 (&w)[16], int stage) {
    u32 v = base + OFF_V + stage * TILE_BYTES;
#pragma unroll
    for (int i = 0; i < BLOCK / 16; ++i)
      wgmma_o(o, &w[4 * i], descriptor(v + i * 2048, BLOCK * 128));
    wgmma_commit();
  }

  __device__ __forceinline__ void mask(float (&s)[32], int stage, int kind, const int (&row)[2],
                                       const int (&position)[2]) {
    const int *meta = reinterpret_cast<const int *>(smem + OFF_META) + stage * 2 * BLOCK;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      int2 span = *reinterpret_cast<const int2 *>(meta + 8 * i + 2 * (lane & 3));
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        int lo = (j ? span.y : span.x) & 0xffff, hi = (u32)(j ? span.y : span.x) >> 16;
#pragma unroll
        for (int r = 0; r < 2; ++r)
          if (row[r] < lo || row[r] >= hi) s[4 * i + 2 * r + j] = -INFINITY;
      }
    }
    if (kind == SEEN_BY_POSITION) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        int2 at = *reinterpret_cast<const int2 *>(meta + BLOCK + 8 * i + 2 * (lane & 3));
#pragma unroll
        for (int j = 0; j < 2; ++j)
#pragma unroll
          for (int r = 0; r < 2; ++r) {
            int token = j ? at.y : at.x;
            bool seen = token <= position[r];
            if (WINDOW) seen = seen && token > position[r] - p.window;
            if (!seen) s[4 * i + 2 * r + j] = -INFINITY;
          }
      }
    }
  }

  // scores become weights; what is in o before them counts `keep` times
  __device__ __forceinline__ void soften(float (&s)[32], float (&keep)[2]) {
    if (SOFTCAP) {
#pragma unroll
      for (int i = 0; i < 32; ++i) {
        // softcap * tanh(x / softcap); p.softcap carries the scale: 2 log2(e) scale / softcap
        float e = exp2_fast(s[i] * p.softcap);
        if (s[i] != -INFINITY) s[i] = 1.0f - __fdividef(2.0f, e + 1.0f);
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float best = m[r];
#pragma unroll
      for (int i = 0; i < 8; ++i) best = fmaxf(best, fmaxf(s[4 * i + 2 * r], s[4 * i + 2 * r + 1]));
      best = fmaxf(best, __shfl_xor_sync(~0u, best, 1));
      best = fmaxf(best, __shfl_xor_sync(~0u, best, 2));
      // a row that has seen nothing yet must not compute inf - inf
      float shift = best == -INFINITY ? 0.0f : best * p.scale;
      keep[r] = exp2_fast(m[r] * p.scale - shift);
      m[r] = best;
      float sum = 0.0f;
#pragma unroll
      for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          float x = exp2_fast(s[4 * i + 2 * r + j] * p.scale - shift);
          s[4 * i + 2 * r + j] = x;
          sum += x;
        }
      l[r] = l[r] * keep[r] + sum;
    }
  }

  // weights as matrix operands; not while a product still reads w
  __device__ __forceinline__ void pack_weights(const float (&s)[32], u32 (&w)[16]) {
#pragma unroll
    for (int i = 0; i < 16; ++i) w[i] = pack(s[2 * i], s[2 * i + 1]);
  }

  // the stages of a unit that are this warpgroup's: from `first` on, every `step`th
  __device__ __forceinline__ void attend(const Unit &unit, int first, int step) {
    const int blocks = unit.blocks();
#pragma unroll
    for (int i = 0; i < ACC; ++i) o[i] = 0.0f;
    m[0] = m[1] = -INFINITY, l[0] = l[1] = 0.0f;
    if (first >= blocks) return;
    int row[2], position[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      row[r] = packed_row(unit, r) / GROUP;
      position[r] = 0;
      if (((unit.flags & ROWS_PREFIX) || WINDOW) && row[r] < unit.rows)
        position[r] = p.row_position[unit.row0 + row[r]] + grown;
    }
    const u32 releases = step;  // both warpgroups' arrivals where only one reads the stage
    const int *kinds = reinterpret_cast<const int *>(smem + OFF_KIND);
    float s[32], keep[2];
    u32 w[16];
    Ring ring(count + first), before = ring;
    wait(bars.full_k(ring.stage), ring.phase);
    proxy_fence();
    wgmma_fence();
    score(s, ring.stage);
    wgmma_wait<0>();
    hold(s);
    int kind = kinds[ring.stage];
    if (kind != SEEN_WHOLE) mask(s, ring.stage, kind, row, position);
    soften(s, keep);
    pack_weights(s, w);
    release(bars.free_k(ring.stage), releases);
    for (int i = first + step; i < blocks; i += step) {
      for (int j = 0; j < step; ++j) ring.step();
      wait(bars.full_k(ring.stage), ring.phase);
      wait(bars.full_v(before.stage), before.phase);
      proxy_fence();
      hold(s), hold(o), hold(w);
      wgmma_fence();
      score(s, ring.stage);
      weigh(w, before.stage);
      wgmma_wait<1>();
      hold(s);
      kind = kinds[ring.stage];
      if (kind != SEEN_WHOLE) mask(s, ring.stage, kind, row, position);
      soften(s, keep);
      release(bars.free_k(ring.stage), releases);
      wgmma_wait<0>();
      hold(o), hold(w);
      release(bars.free_v(before.stage), releases);
#pragma unroll
      for (int j = 0; j < ACC; ++j) o[j] *= keep[j / 2 & 1];
      pack_weights(s, w);
      before = ring;
    }
    wait(bars.full_v(before.stage), before.phase);
    proxy_fence();
    hold(o), hold(w);
    wgmma_fence();
    weigh(w, before.stage);
    wgmma_wait<0>();
    hold(o);
    release(bars.free_v(before.stage), releases);
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
      bool is_done = !(unit.flags & ROWS_PARTIAL) ||
                     ((unit.flags & ROWS_DONE) && p.row_units[unit.row0 + row] == 1);
      if (is_done) {
        i64 dst = (i64)p.user_row[unit.row0 + row] * num_q_heads + q_index;
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
    __threadfence();
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
      __threadfence();
      for (int i = 4 * group + warp; i < GROUP_ROWS * GROUP; i += 8) {
        int row = (first + g) * GROUP_ROWS + i / GROUP;
        if (row < num_rows) merge(row, head * GROUP + i % GROUP);
      }
    }
  }

  // one warp folds the partial results of one row and head
  __device__ __forceinline__ void merge(int row, int q_index) {
    const int begin = p.merge_indptr[row], end = p.merge_indptr[row + 1];
    if (end - begin < 2) return;
    constexpr int FAN_IN = 8, PART = HEAD_DIM / 32;
    const int num_q_heads = p.num_kv_heads * GROUP;
    float best = -INFINITY, total = 0.0f, acc[PART] = {};
    for (int first = begin; first < end; first += FAN_IN) {
      float lse[FAN_IN], x[FAN_IN][PART];
#pragma unroll
      for (int i = 0; i < FAN_IN; ++i) {
        bool live = first + i < end;
        i64 src = (i64)p.merge_slots[live ? first + i : begin] * num_q_heads + q_index;
        lse[i] = live ? __ldcg(p.part_lse + src) * 1.4426950408889634f : -INFINITY;
#pragma unroll
        for (int j = 0; j < PART; ++j) x[i][j] = __ldcg(p.part_out + src * HEAD_DIM + 32 * j + lane);
      }
#pragma unroll
      for (int i = 0; i < FAN_IN; ++i) {
        float next = fmaxf(best, lse[i]);
        float shift = next == -INFINITY ? 0.0f : next;
        float keep = exp2_fast(best - shift), weight = exp2_fast(lse[i] - shift);
        total = total * keep + weight, best = next;
#pragma unroll
        for (int j = 0; j < PART; ++j) acc[j] = acc[j] * keep + x[i][j] * weight;
      }
    }
    float inverse = total > 0.0f ? __fdividef(1.0f, total) : 0.0f;
    i64 dst = (i64)p.user_row[row] * num_q_heads + q_index;
    if (lane == 0)
      p.lse[dst] = total > 0.0f ? best * 0.6931471805599453f + __logf(total) : -INFINITY;
#pragma unroll
    for (int j = 0; j < PART; ++j)
      p.out[dst * HEAD_DIM + 32 * j + lane] = (unsigned short)pack(acc[j] * inverse, 0.0f);
  }

  __device__ __forceinline__ void run(int worker) {
    int index = worker, to_come = 0;
    for (bool is_first = true;; is_first = false) {
      Unit unit(p, index, grown);
      if (is_first) {
        index = unit.piece_b.z, to_come = unit.piece_b.w;
        if (unit.rows == 0) break;
      }
      const bool is_split = unit.is_split();
      load_q(is_split);
      attend(unit, is_split ? group : 0, is_split ? 2 : 1);
      const int blocks = unit.blocks();
      count += blocks;
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        l[r] += __shfl_xor_sync(~0u, l[r], 1);
        l[r] += __shfl_xor_sync(~0u, l[r], 2);
      }
      if (is_split && blocks > 1) join();
      if (!is_split || group == 0) store(unit);
      if (unit.flags & ROWS_PARTIAL) settle(unit);
      if (to_come-- == 0) break;
      index = is_first ? index : index + 1;
    }
  }
};

extern "C" __global__ void __launch_bounds__(384, 1) forest_attention(const __grid_constant__ Params p) {
  extern __shared__ __align__(1024) char smem[];
  const u32 base = smem_address(smem);
  const Bars bars{base + OFF_BAR};
  const int head = blockIdx.x % p.num_kv_heads, worker = blockIdx.x / p.num_kv_heads;
  const int warpgroup = threadIdx.x / 128, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
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
    asm volatile("setmaxnreg.dec.sync.aligned.u32 56;");
    Producer producer{p, smem, base, bars, warp, lane, head, grown};
    producer.run(worker);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 224;");
    Consumer consumer{p, smem, base, bars, warpgroup - 1, warp, lane, head, grown};
    consumer.run(worker);
  }
}
