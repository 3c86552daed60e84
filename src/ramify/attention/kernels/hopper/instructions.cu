// Single instructions: barriers, asynchronous copies, fences, conversions, operand descriptors.

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
// 128-byte swizzled operands: K is [token][dim], V is read as its transpose. Only a descriptor's low
// word says where, so one word has to be computed, and no carry
__device__ __forceinline__ u32 low_word(u32 address, u32 leading_bytes) {
  return (address & 0x3FFFF) >> 4 | leading_bytes >> 4 << 16;
}
__device__ __forceinline__ u64 with_low_word(u32 low) {
  u64 x;
  asm("mov.b64 %0, {%1, %2};" : "=l"(x) : "r"(low), "n"(1024 >> 4 | 1 << 30));
  return x;
}
