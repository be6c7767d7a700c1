"""Which CPU model PoCL is told where its LLVM does not know the CPU."""

from __future__ import annotations

import pytest

from coexec.processors.opencl.pocl_cpu import MODELS, better_model

AVX512, AVX2, PLAIN = (flags | {"sse2"} for _, flags in MODELS)


@pytest.mark.parametrize(
    ("answer", "flags", "model"),
    [
        (b"generic", AVX512, "skylake-avx512"),
        (b"generic", AVX2, "haswell"),
        (b"generic", PLAIN, "x86-64"),
        (b"znver3", AVX512, "skylake-avx512"),
        (b"znver3", AVX2, None),
        (b"icelake-server", AVX512, None),
    ],
)
def test_a_model_is_named_only_where_the_answer_will_not_do(
    answer: bytes, flags: set[str], model: str | None
) -> None:
    assert better_model(answer, flags) == model
