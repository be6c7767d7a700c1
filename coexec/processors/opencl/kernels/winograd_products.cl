/* Products of transformed data, point by point, for minimal filtering: included by winograd.cl and
 * winograd_weight.cl. A register tile is MR rows of one operand, read one element at a time, times
 * NV vectors of the other; the terms of a sum lie one after the other. No kernel stands here. */

#include "ask.cl"

#ifndef MR
#define MR 6 /* rows of a register tile: 4, 6, 8 or 12 */
#endif
#ifndef NV
#define NV 2 /* vectors in a register tile: 1 to 3 */
#endif
#define NR (NV * V)
#ifndef RIGHT
#define RIGHT float /* type of the operand that is read in vectors */
#define FROM_RIGHT(v) (v)
#endif
typedef JOIN(RIGHT, V) right_vec;

#define TILES_4(F) F(0) F(1) F(2) F(3)
#define TILES_6(F) TILES_4(F) F(4) F(5)
#define TILES_8(F) TILES_6(F) F(6) F(7)
#define TILES_12(F) TILES_8(F) F(8) F(9) F(10) F(11)
#define TILES(F) JOIN(TILES_, MR)(F)
#define VECTORS_1(F, i) F(i, 0)
#define VECTORS_2(F, i) VECTORS_1(F, i) F(i, 1)
#define VECTORS_3(F, i) VECTORS_2(F, i) F(i, 2)
#define VECTORS(F, i) JOIN(VECTORS_, NV)(F, i)

#define PLACE(i, v) (__global vec *)(to + i * NR + v * V)
#define ZERO_ONE(i, v) c##i##_##v = 0;
#define ZERO(i) VECTORS(ZERO_ONE, i)
#define DECLARE_ONE(i, v) vec c##i##_##v;
#define DECLARE(i) VECTORS(DECLARE_ONE, i)
#define RESUME_ONE(i, v) c##i##_##v = *PLACE(i, v);
#define RESUME(i) VECTORS(RESUME_ONE, i)
#define DUMP_ONE(i, v) *PLACE(i, v) = c##i##_##v;
#define DUMP(i) VECTORS(DUMP_ONE, i)
#define FETCH(i, v) const vec b##v = FROM_RIGHT(*(__global const right_vec *)(right + v * V));
#define MULTIPLY_ONE(i, v) c##i##_##v += e##i * b##v;
#define MULTIPLY(i)                                                                                \
    const float e##i = left[i];                                                                    \
    VECTORS(MULTIPLY_ONE, i)

/* Products of `points` points: [point][tile][NR] from [point][channel][pitch] and a panel of u. While
 * a block of u is multiplied, its tiles ask for the lines of the next one, or of `next` after the
 * last, as they may come from memory: one behind the other, since every second one first takes half
 * as long again. Always within the kernel: in a function that is passed no vectors, LLVM takes two
 * vectors of 32 bytes for one of 64 where a CPU is said to prefer them, and the tile does not fit
 * the registers. */
static inline __attribute__((always_inline)) void
multiply(__global const float *patches, __global const RIGHT *u, __global float *m,
         const int points, const int count, const int pitch, const int tiles, const int channels,
         const int depth, __global const RIGHT *next)
{
    for (int point = 0; point < points; ++point)
        for (int c = 0; c < channels; c += depth) {
            const int steps = min(depth, channels - c);
            __global const RIGHT *block = u + point * STEP(channels * NR) + c * NR;
            __global const RIGHT *ahead = c + depth < channels ? block + depth * NR
                                          : point + 1 < points ? block + STEP(steps * NR)
                                                               : next;
            for (int tile = 0; tile < count; tile += MR) {
                __global const float *left =
                    patches + point * STEP(channels * pitch) + c * pitch + tile;
                __global const RIGHT *right = block;
                __global const RIGHT *asked = ahead + min(tile / MR, NV - 1) * steps * V;
                __global float *to = m + point * STEP(tiles * NR) + tile * NR;
                TILES(DECLARE)
                if (c == 0) {
                    TILES(ZERO)
                } else {
                    TILES(RESUME)
                }
                for (int k = 0; k < steps; ++k) {
                    ASK_FOR(asked + k * V)
                    VECTORS(FETCH, 0)
                    TILES(MULTIPLY)
                    left += pitch;
                    right += NR;
                }
                TILES(DUMP)
            }
        }
}
