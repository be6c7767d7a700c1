"""Which CPU this is, by what Linux says of it."""

from __future__ import annotations

from pathlib import Path

from coexec.base.cpu import cpu_flags, cpu_identity, cpu_name

X86 = """processor\t: 0
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC
flags\t\t: fpu avx2 avx512f

processor\t: 1
flags\t\t: fpu
"""
ARM = "processor\t: 0\nBogoMIPS\t: 38.40\nFeatures\t: fp asimd asimddp\nCPU part\t: 0xd41\n"


def file_of(folder: Path, text: str) -> Path:
    path = folder / "cpuinfo"
    path.write_text(text)
    return path


def test_family_and_model_tell_cpus_of_one_name_apart(tmp_path: Path) -> None:
    assert cpu_name(file_of(tmp_path, X86)) == "AMD EPYC (family 25, model 17)"


def test_flags_are_those_of_the_first_logical_cpu(tmp_path: Path) -> None:
    assert cpu_flags(file_of(tmp_path, X86)) == {"fpu", "avx2", "avx512f"}
    assert cpu_flags(file_of(tmp_path, ARM)) == {"fp", "asimd", "asimddp"}


def test_where_nothing_is_told_there_is_still_a_name(tmp_path: Path) -> None:
    assert cpu_name(file_of(tmp_path, ARM)) == cpu_name(tmp_path / "missing") != ""
    assert cpu_flags(tmp_path / "missing") == frozenset()


def test_the_identity_names_the_cpu_and_its_instructions() -> None:
    assert cpu_identity().startswith(cpu_name() + ", ")
