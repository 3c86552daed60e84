// The producer warpgroup: finds the slots of a stage's tokens, says who sees them, copies K and V.

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
