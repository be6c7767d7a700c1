/* What elementwise operators fused with a product make of its results before they are stored:
 * included by kernels that finish their results. No kernel stands here.
 *
 * FINISH(v, at) is a vector of results v whose first one lies at element `at` of the result,
 * FINISH_ONE(v, at) a single one. Who includes this adds FINISH_PARAMETERS behind the parameters of
 * its kernel, and to functions on the way that call FINISH, which pass FINISH_ARGUMENTS on. */

#ifdef FINISH_STEPS
/* Written by the compiler of regions: FINISH_PARAMETERS and FINISH_ARGUMENTS, both with a comma in
 * front, are tensors like the result and numbers; FINISH_LOADS(V, LOAD, at) reads the tensors,
 * FINISH_STEPS(V, NUMBER) computes registers of type V from v0, FINISH_RESULT names the last. */
#define FINISH_LOAD(p) WIDEN(*(__global const stored *)(p))
#define FINISH_LOAD_ONE(p) ((ACC)*(p))
static inline __attribute__((always_inline)) fetched finish(
    const fetched FINISH_VALUE, const int at FINISH_PARAMETERS)
{
    FINISH_LOADS(fetched, FINISH_LOAD, at)
    FINISH_STEPS(fetched, FINISH_NUMBER)
    return FINISH_RESULT;
}
static inline __attribute__((always_inline)) ACC finish_one(
    const ACC FINISH_VALUE, const int at FINISH_PARAMETERS)
{
    FINISH_LOADS(ACC, FINISH_LOAD_ONE, at)
    FINISH_STEPS(ACC, FINISH_NUMBER)
    return FINISH_RESULT;
}
#define FINISH(v, at) finish(v, at FINISH_ARGUMENTS)
#define FINISH_ONE(v, at) finish_one(v, at FINISH_ARGUMENTS)
#else
#define FINISH_PARAMETERS
#define FINISH_ARGUMENTS
#define FINISH(v, at) (v)
#define FINISH_ONE(v, at) (v)
#endif
