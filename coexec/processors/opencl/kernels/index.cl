/* Gather, Scatter, OneHot, TopK, CumSum, ArgMax. */
