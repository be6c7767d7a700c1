/* Tiles of TILE positions times VECS vectors, written out: compilers do not keep arrays of them in
 * registers. Included by kernels that compute on bytes. No kernel stands here.
 *
 * POSITIONS(F) is F(p) for each position, EACH(G, p) is G(p, v) for each vector of position p. */

/* F for each number below n. */
#define TIMES1(F) F(0)
#define TIMES2(F) TIMES1(F) F(1)
#define TIMES3(F) TIMES2(F) F(2)
#define TIMES4(F) TIMES3(F) F(3)
#define TIMES5(F) TIMES4(F) F(4)
#define TIMES6(F) TIMES5(F) F(5)
#define TIMES7(F) TIMES6(F) F(6)
#define TIMES8(F) TIMES7(F) F(7)
#define TIMES9(F) TIMES8(F) F(8)
#define TIMES10(F) TIMES9(F) F(9)
#define TIMES11(F) TIMES10(F) F(10)
#define TIMES12(F) TIMES11(F) F(11)
#define TIMES13(F) TIMES12(F) F(12)
#define TIMES14(F) TIMES13(F) F(13)
#define POSITIONS(F) CAT(TIMES, TILE)(F)

/* G(p, v) for each vector of position p. */
#define EACH1(G, p) G(p, 0)
#define EACH2(G, p) EACH1(G, p) G(p, 1)
#define EACH3(G, p) EACH2(G, p) G(p, 2)
#define EACH4(G, p) EACH3(G, p) G(p, 3)
#define EACH(G, p) CAT(EACH, VECS)(G, p)
