// A consumer warpgroup: products of its packed rows with the stages of one unit after another.

struct Consumer : Rows {
  u32 base;
  Bars bars;
  int grown;
  u32 count = 0;             // stages of all units so far
  u32 q_phase = 0;
  u32 qf[HEAD_DIM / 16][4];  // the rows' q as matrix operands

  __device__ __forceinline__ Consumer(const Rows &rows, u32 base, Bars bars, int grown)
      : Rows(rows), base(base), bars(bars), grown(grown) {}

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

  // Descriptors of one tile differ by constants in units of 16 bytes, in their low words. They have
  // to be in uniform registers, which the compiler adds in if it knows that all lanes agree
  __device__ __forceinline__ void score(float (&s)[32], int stage) {
    const u32 k = low_word(base + OFF_K + __shfl_sync(~0u, stage, 0) * TILE_BYTES, 16);
#pragma unroll
    for (int i = 0; i < HEAD_DIM / 16; ++i)
      wgmma_s(s, qf[i], with_low_word(k + (i / 4 * (BLOCK * 128) + i % 4 * 32) / 16), i > 0);
    wgmma_commit();
  }

  __device__ __forceinline__ void weigh(u32 (&w)[16], int stage) {
    const u32 v = low_word(base + OFF_V + __shfl_sync(~0u, stage, 0) * TILE_BYTES, BLOCK * 128);
#pragma unroll
    for (int i = 0; i < BLOCK / 16; ++i) wgmma_o(o, &w[4 * i], with_low_word(v + i * (2048 / 16)));
    wgmma_commit();
  }

  // the stages of a unit: all, or of a split unit every second one
  __device__ __forceinline__ void attend(const Unit &unit) {
    const int blocks = unit.blocks();
    const bool is_split = unit.is_split();
    clear();
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
      // the other warpgroup may still hold the stage's last values: they must be given back first
      wait(bars.full_v(ring.stage), ring.phase);
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
