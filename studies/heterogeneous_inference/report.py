"""From the cells of a run to what stands here: python report.py OUT.

Writes table.md, the figures and results.csv (a row per context: the fastest processor alone, the
fastest plan on several, every strategy) beside this file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from data import contexts, read
from figures import draw
from tables import markdown

from coexec.base.disk import write_atomically

HERE = Path(__file__).parent


def main() -> None:
    """Write tables, figures and compact results of a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="--out of coexec study run")
    parser.add_argument("--to", type=Path, default=HERE, help="folder to write to")
    arguments = parser.parse_args()
    rows = read(arguments.out)
    table = contexts(rows)
    counts = rows["outcome"].fillna("").value_counts()
    head = f"{len(rows):,} cells, {counts.get('refused', 0):,} of them refused.\n\n"
    text = head + "\n".join(markdown(rows, table))
    compact = table.to_csv(index=False, float_format="%.4g")
    write_atomically(arguments.to / "table.md", lambda file: file.write(text.encode()))
    write_atomically(arguments.to / "results.csv", lambda file: file.write(compact.encode()))
    draw(rows, table, arguments.to)


if __name__ == "__main__":
    main()
