/* Sums of four products of bytes, included by kernels that compute on bytes. No kernel stands here.
 *
 * A lane has four unsigned bytes of x and four signed ones of w in a word each. With VNNI, a
 * work-item has 16 lanes: the instruction vpdpbusd of x86 CPUs (AVX-512 VNNI), which compilers of
 * OpenCL C know by the name of its builtin or only by that of LLVM's intrinsic. Else it has one. */

#ifndef VNNI
#define VNNI 0 /* 1: 16 lanes a work-item */
#endif
#if VNNI
#define W 16
#else
#define W 1
#endif
#include "byte_vectors.cl"

#if VNNI
#if defined(__has_builtin)
#if __has_builtin(__builtin_ia32_vpdpbusd512)
#define DOT(sums, x, w) __builtin_ia32_vpdpbusd512(sums, (int16)(x), w)
#endif
#endif
#ifndef DOT
typedef char bytes64 __attribute__((ext_vector_type(64)));
INTS vpdpbusd(INTS sums, bytes64 x, bytes64 w) __asm__("llvm.x86.avx512.vpdpbusd.512");
#define DOT(sums, x, w) \
    vpdpbusd(sums, __builtin_astype((int16)(x), bytes64), __builtin_astype(w, bytes64))
#endif
#else
inline int dot_of(const uchar4 x, const char4 w)
{
    return x.s0 * w.s0 + x.s1 * w.s1 + x.s2 * w.s2 + x.s3 * w.s3;
}
#define DOT(sums, x, w) ((sums) + dot_of(as_uchar4(x), as_char4(w)))
#endif
