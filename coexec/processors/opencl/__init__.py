"""Any OpenCL 1.2+ device: GPUs of phones and boards, and CPUs through PoCL or Intel's runtime."""
