/* What norm_planes.cl and norm_flat.cl share: operands of fused activations, and streams. No kernel
 * stands here.
 *
 * Planes (or images) are walked TOGETHER at a time, each a stream of its own: memory serves several
 * at a time better than one; with many operands more of them would drive each other out of the first
 * cache. Where fewer are left, streams repeat the last one: their results are the same, their
 * sums are dropped. So each loop is written once, and programs build fast. */

#ifndef TP
#define TP float /* element type of scale, bias and their gradients */
#endif
#ifndef TS
#define TS float /* element type of running statistics */
#endif
#ifndef GRADIENT
#define GRADIENT 0 /* 1: the gradient */
#endif
#ifndef ACTIVATE
#define ACTIVATE(type, v) (v) /* what becomes of a result v of that type (ACC or a vector) */
#endif
/* RESIDUAL: defined where a tensor like x is added before ACTIVATE.
 * MASK_GRADIENT(type, g, y): defined where dy passes an activation with result y first: the
 * gradient of its operand, of g = dy. With RESIDUAL the kernels also write that gradient. */

/* BITS: defined where tensors are there, or are kept, as blocks of codes (compress.cl), which begin
 * and end with runs. X_CODES, RESULT_CODES: x, or the activation's result, is read as codes, by the
 * gradient. KEEP_X, KEEP_Y: codes of x, or of the result, are written beside the result. */

#include "lanes.cl"

#ifdef BITS
#include "blocks.cl"
#include "block_vectors.cl"
#endif

#ifdef X_CODES
#define X_ARGUMENT __global const uint *x, __global const E *x_ends,
#define X x, x_ends
#define X_AT(i) expand_at(x, x_ends, i)
#else
#define X_ARGUMENT __global const T *x,
#define X x
#define X_AT(i) GET(x + (i))
#endif

#ifdef KEEP_X
#define KEEP_X_ARGUMENT __global uint *x_words, __global E *x_ends,
#define KEEP_X_TARGETS x_words, x_ends,
#define KEEP_X_BLOCKS(at, n) keep_blocks(x, x_words, x_ends, at, n, min(left, TOGETHER), stride);
#else
#define KEEP_X_ARGUMENT
#define KEEP_X_TARGETS
#define KEEP_X_BLOCKS(at, n)
#endif
#ifdef KEEP_Y
#define KEEP_Y_ARGUMENT __global uint *y_words, __global E *y_ends,
#define KEEP_Y_TARGETS y_words, y_ends,
#define KEEP_Y_BLOCKS(at, n) keep_blocks(y, y_words, y_ends, at, n, min(left, TOGETHER), stride);
#else
#define KEEP_Y_ARGUMENT
#define KEEP_Y_TARGETS
#define KEEP_Y_BLOCKS(at, n)
#endif

#if defined(KEEP_X) || defined(KEEP_Y)
/* Codes of `n` elements from `at` on, of some planes; they are in a cache. */
INLINE void keep_blocks(__global const T *from, __global uint *words, __global E *ends,
                        const int at, const int n, const int planes, const int stride)
{
    for (int plane = 0; plane < planes; ++plane)
        for (int f = 0; f < n; f += BLOCK) {
            const int block = (at + plane * stride + f) / BLOCK;
            compress_block(from + block * BLOCK, words + block * WORDS, ends + 2 * block);
        }
}
#endif

#ifdef RESIDUAL
#define RESIDUAL_ARGUMENT __global const T *residual,
#define MASKED_ARGUMENT __global T *masked,
#else
#define RESIDUAL_ARGUMENT
#define MASKED_ARGUMENT
#endif
#ifdef RESULT_CODES
#define RESULT_ARGUMENT __global const uint *activated, __global const E *activated_ends,
#define ACTIVATED activated, activated_ends
#define ACTIVATED_AT(i) expand_at(activated, activated_ends, i)
#elif defined(MASK_GRADIENT)
#define RESULT_ARGUMENT __global const T *activated,
#define ACTIVATED activated
#define ACTIVATED_AT(i) GET(activated + (i))
#endif
#ifdef MASK_GRADIENT
#define FLOW(i) MASK_GRADIENT(fetched, GET(dy + (i)), ACTIVATED_AT(i))
#else
#define RESULT_ARGUMENT
#define FLOW(i) GET(dy + (i))
#endif

#ifndef TOGETHER
#if GRADIENT || defined(RESIDUAL)
#define TOGETHER 2
#else
#define TOGETHER 4
#endif
#endif
#if TOGETHER == 1
#define EACH(F) F(0)
#elif TOGETHER == 2
#define EACH(F) F(0) F(1)
#else
#define EACH(F) F(0) F(1) F(2) F(3)
#endif

/* How far stream k is from the first one, of `left` that are left. */
#define STREAM(k) const int o##k = (k < left ? k : left - 1) * stride;

/* The vector at `f` of a run of n elements: the last one overlaps its neighbour. */
#define PLACE(f, n) ((f) + V <= (n) ? (f) : (n) - V)

/* Results are made of vectors that were fetched before their neighbours were stored, as those may
 * overlap and y may be the storage of an operand: FETCH(k) is what stream k needs of element `i`. */
#if GRADIENT
#define HOLD(k) fetched x##k, down##k;
#define FETCH(k)                                                                                \
    x##k = X_AT(i + o##k);                                                                   \
    down##k = FLOW(i + o##k);
#ifdef RESIDUAL
#define GIVE(k)                                                                                 \
    PUT(dx + to + o##k, result##k);                                                             \
    PUT(masked + to + o##k, flow##k);
#else
#define GIVE(k) PUT(dx + to + o##k, result##k);
#endif
#define RESULT(k)                                                                               \
    const fetched flow##k = down##k;                                                            \
    const fetched result##k = factor * (flow##k - level - slope * (x##k - mean));
#else
#ifdef RESIDUAL
#define HOLD(k) fetched x##k, more##k;
#define FETCH(k)                                                                                \
    x##k = X_AT(i + o##k);                                                                   \
    more##k = GET(residual + i + o##k);
#define NORMAL(k) (x##k - mean) * factor + shift + more##k
#else
#define HOLD(k) fetched x##k;
#define FETCH(k) x##k = X_AT(i + o##k);
#define NORMAL(k) (x##k - mean) * factor + shift
#endif
#define GIVE(k) PUT(y + to + o##k, result##k);
#define RESULT(k)                                                                               \
    const fetched normal##k = NORMAL(k);                                                        \
    const fetched result##k = ACTIVATE(fetched, normal##k);
#endif

/* Results of `n` elements from `first` on, of the streams; COEFFICIENTS_AT(f) declares what those of
 * the vector at f are made with. */
#define WRITE_RESULTS(first, n, COEFFICIENTS_AT)                                                \
    {                                                                                           \
        EACH(HOLD)                                                                              \
        int i = first;                                                                          \
        EACH(FETCH)                                                                             \
        for (int f = 0; f < (n); f += V) {                                                      \
            const int to = i;                                                                   \
            COEFFICIENTS_AT(PLACE(f, n))                                                        \
            EACH(RESULT)                                                                        \
            i = first + PLACE(f + V, n);                                                        \
            EACH(FETCH)                                                                         \
            EACH(GIVE)                                                                          \
        }                                                                                       \
    }

/* Running statistics: old * momentum + batch * (1 - momentum), the variance biased as in ONNX.
 * `running` is 1 for the mean, 2 for the variance, 3 for both; the operands of others are unused. */
#define BLEND(old, new) ((TS)((ACC)(old) * (ACC)momentum + (new) * (1 - (ACC)momentum)))
#define WRITE_RUNNING(mean, variance)                                                           \
    if (running & 1) new_means[channel] = BLEND(old_means[channel], mean);                      \
    if (running & 2) new_variances[channel] = BLEND(old_variances[channel], variance)
