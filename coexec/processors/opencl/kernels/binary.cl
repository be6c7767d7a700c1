/* Elementwise operators of two or more operands, with broadcasting. */
