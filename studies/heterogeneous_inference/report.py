"""From the cells of a run to what stands here: python report.py OUT.

Writes table.md, the figures and results.csv (a row per context: the fastest processor alone, the
fastest plan on several, every strategy) beside this file, and between its marks in README.md all
answers and verdicts: no figure there is written by hand.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import findings
from answers import answers
from data import contexts, read, read_calls
from figures import draw
from tables import markdown, tables

from coexec.base.disk import write_atomically

HERE = Path(__file__).parent
README = "README.md"
BEGIN, END = "<!-- {}: written by report.py -->", "<!-- end -->"


def main() -> None:
    """Write tables, figures, compact results and answers of a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="--out of coexec study run")
    parser.add_argument("--to", type=Path, default=HERE, help="folder to write to")
    arguments = parser.parse_args()
    rows, calls = read(arguments.out), read_calls(arguments.out)
    table = contexts(rows)
    text = "\n".join(markdown(tables(rows, table)))
    _write(arguments.to / "table.md", text)
    _write(arguments.to / "results.csv", table.to_csv(index=False, float_format="%.4g"))
    draw(rows, table, arguments.to)
    page = (HERE / README).read_text(encoding="utf-8")
    page = between(page, "answers", "\n".join(answers(rows, calls)))
    page = between(page, "findings", findings.markdown(findings.findings(rows)))
    _write(arguments.to / README, page)


def between(page: str, name: str, text: str) -> str:
    """A page with other text between the marks of that name.

    Raises:
        ValueError: the marks are not there.
    """
    head, mark, rest = page.partition(BEGIN.format(name))
    _, end, tail = rest.partition(END)
    if not mark or not end:
        raise ValueError(f"{README} lacks {BEGIN.format(name)} with {END} behind it")
    return f"{head}{mark}\n\n{text}\n\n{end}{tail}"


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))


if __name__ == "__main__":
    main()
