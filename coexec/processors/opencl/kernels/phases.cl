/* X from the phases of a stride that is 2 on the last axis: phases lie one after another in each
 * plane of `phases` (i0 * i1 * i2 elements, an image and a channel each), every one contiguous.
 * Phase (a, b, c) holds positions a + j * q0, b + k * q1, c + l * 2. Bit a of r0 (b of r1, c of r2)
 * is set where some tap reaches that phase of the axis; a phase that none reaches is the bias or 0
 * and not stored in `phases`.
 * Geometry: (blocks of SPAN lines of a plane, planes), work-groups of one. */

#ifndef V
#define V 4 /* lanes: two instructions interleave two vectors of 16 bytes */
#endif
#ifndef SPAN
#define SPAN 32 /* lines of a work-item */
#endif

#include "alone.cl"

#define LOAD(p) (*(__global const stored *)(p))
#define STORE(p, v) (*(__global stored *)(p) = (v))

/* Positions of the phases before `phase` of an axis, and those of the phase itself. */
inline int before(const int size, const int stride, const int phase)
{
    const int rest = size % stride;
    return phase * (size / stride) + (phase < rest ? phase : rest);
}
inline int count(const int size, const int stride, const int phase)
{
    return (size - phase + stride - 1) / stride;
}

__kernel ALONE void interleave(__global const T *phases, __global const T *bias, __global T *x,
                               const int has_bias, const int channels, const int i0, const int i1,
                               const int i2, const int q0, const int q1, const int r0,
                               const int r1, const int r2)
{
    const int plane = get_global_id(1), lines = i0 * i1, evens = (i2 + 1) / 2, odds = i2 / 2;
    const int first = get_global_id(0) * SPAN;
    const int last = first + SPAN < lines ? first + SPAN : lines;
    const T fill = has_bias ? bias[plane % channels] : (T)0;
    phases += plane * lines * i2;
    x += plane * lines * i2;
    for (int line = first; line < last; ++line) {
        const int x0 = line / i1, x1 = line % i1, a = x0 % q0, b = x1 % q1;
        const int rows = count(i0, q0, a), width = count(i1, q1, b);
        const int at = before(i0, q0, a) * i1 * i2 + rows * before(i1, q1, b) * i2;
        const int inside = x0 / q0 * width + x1 / q1;
        const int reached = (r0 >> a & 1) & (r1 >> b & 1);
        const int even = reached & r2, odd = reached & r2 >> 1;
        __global const T *from_even = phases + at + inside * evens;
        __global const T *from_odd = phases + at + rows * width * evens + inside * odds;
        __global T *to = x + line * i2;
        /* The last vector overlaps the one before. */
        for (int j = 0; odds >= V && j < odds; j += V) {
            const int k = j + V < odds ? j : odds - V;
            const stored e = even ? LOAD(from_even + k) : (stored)fill;
            const stored o = odd ? LOAD(from_odd + k) : (stored)fill;
            STORE(to + 2 * k, ((stored)(e.s0, o.s0, e.s1, o.s1)));
            STORE(to + 2 * k + V, ((stored)(e.s2, o.s2, e.s3, o.s3)));
        }
        for (int j = odds >= V ? odds : 0; j < evens; ++j) {
            to[2 * j] = even ? from_even[j] : fill;
            if (j < odds) to[2 * j + 1] = odd ? from_odd[j] : fill;
        }
    }
}
