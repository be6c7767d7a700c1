/* Vectors written out in kernels of lone work-items: included by gather.cl, depthwise.cl, pool_*.cl.
 * T is what tensors hold, ACC what is computed with; WIDEN and NARROW turn vectors of one into
 * vectors of the other. No kernel stands here. */

#ifndef T
#define T float /* element type of tensors */
#endif
#ifndef ACC
#define ACC float /* type of sums and scratch */
#endif
#ifndef V
#define V 16 /* lanes of a vector: 64 bytes of ACC */
#endif
#ifndef SAME
#define SAME 1 /* 1: T and ACC are one type; 0: convert */
#endif

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
typedef JOIN(T, V) stored __attribute__((aligned(sizeof(T)))); /* anywhere in a tensor */
typedef JOIN(ACC, V) fetched __attribute__((aligned(sizeof(ACC)))); /* anywhere in scratch */

/* One work-item a group, vectors written out: a compiler that vectorises across work-items need not
 * try (and takes a sixth of the time to build). */
#define ALONE __attribute__((reqd_work_group_size(1, 1, 1), vec_type_hint(JOIN(ACC, V))))

/* Conversions are calls on some runtimes: none where the types agree. */
#if SAME
#define WIDEN(v) (v)
#define NARROW(v) (v)
#else
#define CONVERT_(type) convert_##type
#define CONVERT(type) CONVERT_(type)
#define WIDEN(v) CONVERT(JOIN(ACC, V))(v)
#define NARROW(v) CONVERT(JOIN(T, V))(v)
#endif
