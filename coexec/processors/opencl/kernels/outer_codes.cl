/* How outer.cl reads an operand that is there as blocks of codes (compress.cl), where BITS is
 * defined: blocks are expanded to `window_at` of the slot. No kernel stands here.
 * COLUMNS 0: x, one image after the other, for the channels of a task, to places of `pitch`
 *   elements; `held` of them are there at a time, as many as the positions of a panel lie in.
 * COLUMNS 1 or 2: x or y of one tap, the positions of a panel, [row][LENGTH]; `held` is the rows of
 *   an image, whose planes, and the parts, are whole blocks; x_image, x_channel are the window's. */

#ifdef BITS
#include "blocks.cl"
#include "block_vectors.cl"
#define CODES_ARGUMENT                                                                             \
    __global const uint *words, __global const E *ends, const int window_at, const int held,       \
        const int pitch,
#else
#define COLUMNS -1
#endif
#if COLUMNS == 0 || COLUMNS == 1
#define X_ARGUMENT CODES_ARGUMENT
#else
#define X_ARGUMENT __global const ACC *x,
#endif
#if COLUMNS == 2
#define Y_ARGUMENT CODES_ARGUMENT
#else
#define Y_ARGUMENT __global const T *y,
#endif
#if COLUMNS == 0
#define WINDOW_ARGUMENTS const int held, const int pitch, const int x_first,
#define WINDOW held, pitch, x_first,
#define IMAGE_AT(image) ((image) % held * pitch + ((image) * x_image + x_first) % BLOCK)
#else
#define WINDOW_ARGUMENTS
#define WINDOW
#define IMAGE_AT(image) ((image) * x_image - (COLUMNS == 1 ? start : 0))
#endif

#if COLUMNS > 0
/* Positions `start` to `end` of `rows` rows from `first` on, of `held` in an image. */
inline void expand_columns(__global const uint *words, __global const E *ends,
                           __global T *window, const int start, const int end, const int first,
                           const int rows, const int held, const int pixels)
{
    for (int p = start; p < end; p += BLOCK) {
        const int image = p / pixels, pixel = p % pixels;
        for (int row = 0; row < rows; ++row) {
            const int block = ((image * held + first + row) * pixels + pixel) / BLOCK;
            expand_block(words + block * WORDS, ends + 2 * block,
                         window + row * LENGTH + p - start);
        }
    }
}
#endif
