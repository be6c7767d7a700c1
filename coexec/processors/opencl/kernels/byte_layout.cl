/* Bytes (batch, channels, positions) with channels last and back: at the borders of what is computed
 * on bytes. MIDDLE is 128 where the bytes outside are signed, else 0.
 *
 * to_last:    one work-item per position; channels that are not there get `fill`.
 * from_last:  the same the other way round.
 * blocks_to_last, blocks_from_last: blocks of 16 positions and 16 channels; geometry (blocks of
 *             positions, batch). The last block of an image begins where it ends with it. */

#ifndef MIDDLE
#define MIDDLE 0
#endif
#define SIDE 16

typedef uchar16 LINE __attribute__((aligned(1)));

#define SIZES const int positions, const int channels, const int stored

__kernel void to_last(__global const uchar *x, __global uchar *y, const int size, SIZES,
                      const int fill)
{
    const int n = get_global_id(0);
    if (n >= size) return;
    __global const uchar *from = x + n / positions * channels * positions + n % positions;
    __global uchar *to = y + n * stored;
    for (int c = 0; c < stored; ++c)
        to[c] = c < channels ? from[c * positions] ^ MIDDLE : (uchar)fill;
}

__kernel void from_last(__global const uchar *x, __global uchar *y, const int size, SIZES)
{
    const int n = get_global_id(0);
    if (n >= size) return;
    __global const uchar *from = x + n * stored;
    __global uchar *to = y + n / positions * channels * positions + n % positions;
    for (int c = 0; c < channels; ++c) to[c * positions] = from[c] ^ MIDDLE;
}

/* One of four steps of a transposition: lines of both halves in turns. */
#define MEET(b, a)                                                                              \
    for (int i = 0; i < SIDE / 2; ++i) {                                                        \
        b[2 * i] = (uchar16)(a[i].s0, a[i + 8].s0, a[i].s1, a[i + 8].s1, a[i].s2, a[i + 8].s2,  \
                             a[i].s3, a[i + 8].s3, a[i].s4, a[i + 8].s4, a[i].s5, a[i + 8].s5,  \
                             a[i].s6, a[i + 8].s6, a[i].s7, a[i + 8].s7);                       \
        b[2 * i + 1] = (uchar16)(a[i].s8, a[i + 8].s8, a[i].s9, a[i + 8].s9, a[i].sa,           \
                                 a[i + 8].sa, a[i].sb, a[i + 8].sb, a[i].sc, a[i + 8].sc,       \
                                 a[i].sd, a[i + 8].sd, a[i].se, a[i + 8].se, a[i].sf,           \
                                 a[i + 8].sf);                                                  \
    }
#define TURN(a, b) MEET(b, a) MEET(a, b) MEET(b, a) MEET(a, b)

__kernel void blocks_to_last(__global const uchar *x, __global uchar *y, SIZES, const int fill)
{
    const int start = min((int)get_global_id(0) * SIDE, positions - SIDE);
    __global const uchar *from = x + get_global_id(1) * channels * positions + start;
    __global uchar *to = y + (get_global_id(1) * positions + start) * stored;
    for (int c = 0; c < stored; c += SIDE) {
        uchar16 lines[SIDE], turned[SIDE];
        for (int i = 0; i < SIDE; ++i)
            lines[i] = c + i < channels
                           ? *(__global const LINE *)(from + (c + i) * positions) ^ (uchar16)MIDDLE
                           : (uchar16)fill;
        TURN(lines, turned)
        for (int i = 0; i < SIDE; ++i) *(__global LINE *)(to + i * stored + c) = lines[i];
    }
}

__kernel void blocks_from_last(__global const uchar *x, __global uchar *y, SIZES)
{
    const int start = min((int)get_global_id(0) * SIDE, positions - SIDE);
    __global const uchar *from = x + (get_global_id(1) * positions + start) * stored;
    __global uchar *to = y + get_global_id(1) * channels * positions + start;
    for (int c = 0; c < stored; c += SIDE) {
        uchar16 lines[SIDE], turned[SIDE];
        for (int i = 0; i < SIDE; ++i)
            lines[i] = *(__global const LINE *)(from + i * stored + c) ^ (uchar16)MIDDLE;
        TURN(lines, turned)
        const int count = min(SIDE, channels - c);
        for (int i = 0; i < count; ++i)
            *(__global LINE *)(to + (c + i) * positions) = lines[i];
    }
}
