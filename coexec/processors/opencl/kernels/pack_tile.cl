/* A tile of the left operand of packed.cl: included by pack.cl and packed.cl. No kernel stands here.
 *
 * MR rows, of which `height` are there and the others 0, in [channel][t0][t1][t2][MR], type ACC. `from`
 * is the first row's first element; row, channel and taps lie a_row, a_channel, a_0, a_1 and a_2
 * elements apart. */

#ifndef JOIN
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#endif
typedef JOIN(ACC, 2) pair __attribute__((aligned(sizeof(ACC))));
typedef JOIN(ACC, 4) quad __attribute__((aligned(sizeof(ACC))));
typedef JOIN(ACC, 8) eight __attribute__((aligned(sizeof(ACC))));
#define MOVE(type, at) *(__global type *)(tap + at) = *(__global const type *)(first + at);
#define MOVE_4 MOVE(quad, 0)
#define MOVE_6 MOVE(quad, 0) MOVE(pair, 4)
#define MOVE_8 MOVE(eight, 0)
#define MOVE_12 MOVE(eight, 0) MOVE(quad, 8)

inline void pack_tile(__global const T *from, __global ACC *to, const int a_row,
                      const int a_channel, const int a_0, const int a_1, const int a_2,
                      const int height, const int channels, const int k0, const int k1,
                      const int k2)
{
    /* Channels innermost: loops over taps are short, and the lines that they share stay in cache. */
    const int taps = k0 * k1 * k2;
    for (int t = 0; t < taps; ++t) {
        __global const T *first = from + t / (k1 * k2) * a_0 + t / k2 % k1 * a_1 + t % k2 * a_2;
        __global ACC *tap = to + t * MR;
#if SAME
        if (a_row == 1 && height == MR) {
            for (int channel = 0; channel < channels; ++channel) {
                JOIN(MOVE_, MR)
                first += a_channel;
                tap += taps * MR;
            }
            continue;
        }
#endif
        for (int channel = 0; channel < channels; ++channel) {
            if (height == MR)
                for (int i = 0; i < MR; ++i) tap[i] = (ACC)first[i * a_row];
            else
                for (int i = 0; i < MR; ++i) tap[i] = i < height ? (ACC)first[i * a_row] : (ACC)0;
            first += a_channel;
            tap += taps * MR;
        }
    }
}
