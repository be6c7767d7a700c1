/* QuantizeLinear, DequantizeLinear. */
