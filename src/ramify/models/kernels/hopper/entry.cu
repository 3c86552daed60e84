// The launch: roles of the warps, and what follows what. See product.cu.

#if TURNED
using Ends = Turned;
#else
using Ends = Results;
#endif

extern "C" __global__ void __launch_bounds__(GROUPS * 128 + 32, 1)
    product(const __grid_constant__ Params p) {
  extern __shared__ __align__(1024) char smem[];
  const u32 base = smem_address(smem);
  constexpr int CLUSTER = SPLIT * SHARE;
  const int member = blockIdx.x % SHARE, rank = blockIdx.x % CLUSTER / SHARE, leader = rank * SHARE;
  const int tile = blockIdx.x / CLUSTER * SHARE + member;
  const int group = threadIdx.x / 128, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    for (int i = 0; i < STAGES; ++i) {
      barrier_init(base + OFF_BARRIERS + 8 * i, 1);
      barrier_init(base + OFF_BARRIERS + 8 * (STAGES + i), 4 * GROUPS * SHARE);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  asm volatile("griddepcontrol.launch_dependents;");
  float *sums = reinterpret_cast<float *>(smem);
  Ends ends(p, tile, rank);
  Producer producer(p, base, tile, rank * p.steps, member, leader);
  if (group == GROUPS && lane == 0) producer.begin();
  __syncwarp();
  // nobody brings x to a peer whose barriers are not there
  if (SHARE > 1) cluster_meet();
  if (group == GROUPS) {
    asm volatile("griddepcontrol.wait;" ::: "memory");
    if (lane == 0) producer.run();
    __syncwarp();
  } else {
    float sum[ROWS / 2];
    Squares squares;
    multiply(p, smem, base, group, lane, leader, sum, squares);
    if (GATED || TURNED) squares.store(reinterpret_cast<float *>(smem + OFF_SCALE), 64 * p.steps, p.eps);
    asm volatile("griddepcontrol.wait;" ::: "memory");
    // all warpgroups are done with the stages
    asm volatile("bar.sync 1, %0;" ::"n"(GROUPS * 128) : "memory");
    const int n = 64 * group + 16 * warp + lane / 4;
#pragma unroll
    for (int i = 0; i < ROWS / 8; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j)
        sums[(8 * i + 2 * (lane & 3) + (j & 1)) * PITCH + n + 8 * (j >> 1)] = sum[4 * i + j];
    ends.load(p);
  }
  if (SPLIT > 1)
    cluster_sync();
  else
    __syncthreads();
  if (group < GROUPS) ends.finish(p, smem, base, member);
  // nobody leaves while a peer may still read from it or arrive at its barriers
  if (CLUSTER > 1) cluster_meet();
}
