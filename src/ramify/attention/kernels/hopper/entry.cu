// Attention of a whole forest in one persistent launch, and the merge of what it leaves (sm_90a).
//
// Maths        s = scale * q . k (soft-capped), o = softmax(s) . v, lse = log sum exp(s), natural log
// Grid         workers * Hkv CTAs, one per SM: CTA c walks the units of worker c / Hkv for KV head
//              c % Hkv, so the heads of a worker read neighbouring bytes at the same time
// Roles        a producer warpgroup copies K and V of the unit's tokens, 64 a stage, through a ring
//              that runs on across units; two consumer warpgroups multiply.
//              up to 64 packed rows: split, they take alternate stages and join their results
//              up to 128:            they take 64 rows each of every stage
// Rows         packed: (row, query head of the group), so a KV head is read once for all of them
// Tokens       pieces of any length, laid end to end: a stage may hold many small nodes. What not
//              every row sees is masked by bits, a bit for each packed row of a warp and token, and
//              by position where rows see prefixes or a window
// Growth       `grown` tokens appended to every open piece since the plan was made: no host work
// Traffic      K and V of a unit's tokens once; q once; 4 * (D + 1) bytes written and read for each
//              row and head of a unit that shares the row with others
// Merge        where units have few rows, the one that completes a group of rows (a counter, no
//              waiting) merges it; else the second launch. Both fold alike: same plan, same bits
// Source       DeFT, Yao et al. 2025 (KV-guided grouping); LeanAttention, Sanovar et al. 2025
//              (stream-K spans, fix-up inside the launch); FlashAttention-3, Shah et al. 2024 (warp
//              roles, softmax beside products). Reference: ../../reference.py::tree_attention_ref
//
// Compiled at run time behind what source.py defines: HEAD_DIM, GROUP, BF16, SOFTCAP, WINDOW, STAGES,
// MASKS, SHARED_BYTES, INFINITY, and the wrappers wgmma_s and wgmma_o.

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
  // started beside the launch before it: what that one writes may be read from here on
  asm volatile("griddepcontrol.wait;" ::: "memory");
  __syncthreads();
  const int grown = p.header[1];
  if (warpgroup == 0) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 72;");
    Producer producer{p, smem, base, bars, warp, lane, head, grown};
    producer.run(worker);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 216;");
    Consumer consumer(Rows(p, smem, warpgroup - 1, warp, lane, head), base, bars, grown);
    consumer.run(worker);
  }
}

// The merge as a launch of its own, for plans whose units hold many rows: all SMs share it. It is
// started beside the other launch and waits for its end. A CTA takes one row and head, each of its
// warps every fourth partial, or where rows have few partials each warp a row of its own.
extern "C" __global__ void __launch_bounds__(128, 8)
    merge_partials(const __grid_constant__ Params p) {
  asm volatile("griddepcontrol.launch_dependents;");  // what comes next may fetch its own weights
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
