/* Several tensors side by side in one (Concat) or one cut into several (Split), in one launch.
 * Layout: whole (rows, width); piece i (rows, run_i) is columns start_i, start_i + 1, ... of it.
 * Pieces are cut into chunks of CHUNK elements; a work-item has a share of all chunks, in order.
 * Geometry: one work-item per share, work-groups of one. */

#ifndef T
#define T uint /* a word as wide as an element */
#endif
#ifndef V
#define V 8 /* elements of a vector */
#endif
#ifndef CHUNK
#define CHUNK 4096 /* elements of a chunk */
#endif
#ifndef CUT
#define CUT 0 /* 1: pieces are read from the whole, 0: written to it */
#endif
#ifndef TENSORS
/* For each piece its elements, the number of its first chunk, its run and its start. */
#define TENSORS                                                                                    \
    __global const T *piece0, const int size0, const int first0, const int run0, const int start0
/* Sets piece, size, first, run, start to those of the piece that holds a chunk. */
#define PICK(chunk) { piece = piece0; size = size0; first = first0; run = run0; start = start0; }
#endif

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
typedef JOIN(T, V) vec __attribute__((aligned(sizeof(T))));
typedef JOIN(T, 4) vec4 __attribute__((aligned(sizeof(T))));

#if CUT
#define WHOLE __global const T
#define PIECE __global T
#define FROM (whole + there)
#define TO (piece + at)
#else
#define WHOLE __global T
#define PIECE __global const T
#define FROM (piece + at)
#define TO (whole + there)
#endif
#define LEAST(a, b) ((a) < (b) ? (a) : (b))
#define SHARE(item) ((int)((long)chunks * (item) / get_global_size(0)))
/* The last vector of a run overlaps its neighbour. */
#define COPY(type, lanes)                                                                          \
    {                                                                                              \
        for (int i = 0; i < count - lanes; i += lanes)                                             \
            *(__global type *)(to + i) = *(__global const type *)(from + i);                       \
        *(__global type *)(to + count - lanes) = *(__global const type *)(from + count - lanes);   \
    }

__kernel __attribute__((reqd_work_group_size(1, 1, 1), vec_type_hint(JOIN(T, V)))) void pieces(
    WHOLE *whole, const int width, const int chunks, TENSORS)
{
    const int end = SHARE(get_global_id(0) + 1);
    for (int chunk = SHARE(get_global_id(0)); chunk < end; ++chunk) {
        PIECE *piece;
        int size, first, run, start;
        PICK(chunk)
        int at = (chunk - first) * CHUNK;
        const int stop = LEAST(at + CHUNK, size);
        while (at < stop) {
            const int column = at % run, there = at / run * width + start + column;
            const int count = LEAST(run - column, stop - at);
            __global const T *from = FROM;
            __global T *to = TO;
            if (count >= V) COPY(vec, V)
            else if (count >= 4) COPY(vec4, 4)
            else
                for (int i = 0; i < count; ++i) to[i] = from[i];
            at += count;
        }
    }
}
