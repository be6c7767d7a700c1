/* Where: y = condition ? a : b, with broadcasting of all three.
 *
 * lines:   y is o0 x o1 x o2 x middle x inner, dense; the operands' strides as in binary.cl. A work-item
 *          does W elements of a line, the last one of a line the rest one by one.
 * strided: y is d0 x ... x d7, dense; operands of any strides. One work-item per element. */

#ifndef T
#define T float /* element type of a, b and y */
#endif
#ifndef M
#define M int /* signed integer as wide as T */
#endif
#ifndef W
#define W 16 /* elements of a work-item: 1, 2, 4, 8 or 16 */
#endif

#include "vectors.cl"

#if W == 1
#define MASK(v) ((v) != 0)
#else
#define MASK(v) (CAT(convert_, VEC(M))(v) != (VEC(M))0)
#endif
typedef VEC(T) TV __attribute__((aligned(sizeof(T))));
typedef VEC(uchar) CV __attribute__((aligned(1)));

__kernel __attribute__((vec_type_hint(VEC(T))))
void lines(__global const uchar *condition, __global const T *a, __global const T *b,
           __global T *y, const int o0, const int o1, const int o2,
           const int middle, const int inner,
           const int c0, const int c1, const int c2, const int c_middle, const int c_step,
           const int a0, const int a1, const int a2, const int a_middle, const int a_step,
           const int b0, const int b1, const int b2, const int b_middle, const int b_step)
{
    const int start = (int)get_global_id(0) * W;
    const int j = get_global_id(1);
    const int k = get_global_id(2);
    if (start >= inner || j >= middle) return;
    const int k2 = k % o2;
    const int k1 = (k / o2) % o1;
    const int k0 = k / (o2 * o1);
    condition += k0 * c0 + k1 * c1 + k2 * c2 + j * c_middle;
    a += k0 * a0 + k1 * a1 + k2 * a2 + j * a_middle;
    b += k0 * b0 + k1 * b1 + k2 * b2 + j * b_middle;
    y += (k * middle + j) * inner;
    if (start + W <= inner) {
        VEC(uchar) c;
        VEC(T) p;
        VEC(T) q;
        if (c_step) c = *(__global const CV *)(condition + start);
        else c = (VEC(uchar))condition[0];
        if (a_step) p = *(__global const TV *)(a + start);
        else p = (VEC(T))a[0];
        if (b_step) q = *(__global const TV *)(b + start);
        else q = (VEC(T))b[0];
        *(__global TV *)(y + start) = MASK(c) ? p : q;
        return;
    }
    for (int i = start; i < inner; i++)
        y[i] = condition[i * c_step] ? a[i * a_step] : b[i * b_step];
}

#define SPLIT(d, r, s, t)                                                    \
    at_c += (rest % d) * r; at_a += (rest % d) * s; at_b += (rest % d) * t;  \
    rest /= d;

__kernel void strided(__global const uchar *condition, __global const T *a, __global const T *b,
                      __global T *y, const int size,
                      const int d0, const int d1, const int d2, const int d3,
                      const int d4, const int d5, const int d6, const int d7,
                      const int r0, const int r1, const int r2, const int r3,
                      const int r4, const int r5, const int r6, const int r7,
                      const int s0, const int s1, const int s2, const int s3,
                      const int s4, const int s5, const int s6, const int s7,
                      const int t0, const int t1, const int t2, const int t3,
                      const int t4, const int t5, const int t6, const int t7)
{
    const int i = get_global_id(0);
    if (i >= size) return;
    int rest = i, at_c = 0, at_a = 0, at_b = 0;
    SPLIT(d7, r7, s7, t7)
    SPLIT(d6, r6, s6, t6)
    SPLIT(d5, r5, s5, t5)
    SPLIT(d4, r4, s4, t4)
    SPLIT(d3, r3, s3, t3)
    SPLIT(d2, r2, s2, t2)
    SPLIT(d1, r1, s1, t1)
    SPLIT(d0, r0, s0, t0)
    y[i] = condition[at_c] ? a[at_a] : b[at_b];
}
