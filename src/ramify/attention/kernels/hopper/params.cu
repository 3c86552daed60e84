// What the host passes and what the parts of the kernel agree on: sizes, shared memory, flags.

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
