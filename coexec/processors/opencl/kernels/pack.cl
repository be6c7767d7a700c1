/* Packs the left operand of packed.cl: tiles of MR rows, [batch][tile][depth][MR], zero-padded.
 * Source element (batch, m, channel, t0, t1, t2) lies at base + batch * a_batch + m * a_row +
 * channel * a_channel + t0 * a_0 + t1 * a_1 + t2 * a_2; depth = channels * k0 * k1 * k2.
 * Geometry: (tiles, blocks of SPAN channels, batches), one work-item each: neighbours read the same
 * lines of a source whose rows are contiguous, of which each takes vectors. */

#ifndef T
#define T float /* element type of the source */
#endif
#ifndef ACC
#define ACC float /* element type of the packed tiles */
#endif
#ifndef MR
#define MR 8 /* rows of a tile */
#endif
#ifndef SPAN
#define SPAN 16 /* channels of a work-item */
#endif

#ifndef SAME
#define SAME 1 /* 1: T and ACC are one type; 0: convert */
#endif

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
typedef JOIN(ACC, 2) pair __attribute__((aligned(sizeof(ACC))));
typedef JOIN(ACC, 4) quad __attribute__((aligned(sizeof(ACC))));
typedef JOIN(ACC, 8) eight __attribute__((aligned(sizeof(ACC))));
#define MOVE(type, at) *(__global type *)(tap + at) = *(__global const type *)(from + at);
#define MOVE_4 MOVE(quad, 0)
#define MOVE_6 MOVE(quad, 0) MOVE(pair, 4)
#define MOVE_8 MOVE(eight, 0)
#define MOVE_12 MOVE(eight, 0) MOVE(quad, 8)

/* Without the hint, compilers that vectorise across work-items gather elements of several tiles. */
__kernel __attribute__((vec_type_hint(JOIN(ACC, 8))))
void pack(__global const T *a, __global ACC *packed, const int base, const int a_batch,
          const int a_row, const int a_channel, const int a_0, const int a_1, const int a_2,
          const int rows, const int channels, const int k0, const int k1, const int k2)
{
    const int first = get_global_id(1) * SPAN, tile = get_global_id(0), batch = get_global_id(2);
    const int last = min(first + SPAN, channels), height = min(MR, rows - tile * MR);
    __global ACC *to =
        packed + ((batch * get_global_size(0) + tile) * channels + first) * (k0 * k1 * k2) * MR;
    a += base + batch * a_batch + tile * MR * a_row + first * a_channel;
    /* Channels innermost: loops over taps are short, and the lines that they share stay in cache. */
    const int taps = k0 * k1 * k2;
    for (int t = 0; t < taps; ++t) {
        __global const T *from = a + t / (k1 * k2) * a_0 + t / k2 % k1 * a_1 + t % k2 * a_2;
        __global ACC *tap = to + t * MR;
#if SAME
        if (a_row == 1 && height == MR) {
            for (int channel = first; channel < last; ++channel) {
                JOIN(MOVE_, MR)
                from += a_channel;
                tap += taps * MR;
            }
            continue;
        }
#endif
        for (int channel = first; channel < last; ++channel) {
            if (height == MR)
                for (int i = 0; i < MR; ++i) tap[i] = (ACC)from[i * a_row];
            else
                for (int i = 0; i < MR; ++i) tap[i] = i < height ? (ACC)from[i * a_row] : (ACC)0;
            from += a_channel;
            tap += taps * MR;
        }
    }
}
