/* Strided moves: Transpose, Slice, Concat, Pad, ... */
