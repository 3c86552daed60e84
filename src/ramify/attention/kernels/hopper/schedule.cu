// Places in the ring of stages, their barriers, and the units of the schedule.

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
