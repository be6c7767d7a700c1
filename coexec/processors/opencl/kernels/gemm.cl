/* Matrix products: Gemm, MatMul. */
