"""Draw docs/training.svg: what a training looks like in the terminal, from a real run.

Run `make demo` first, then: python examples/training_picture.py
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

COMMAND = (
    "coexec train out/untrained.onnx --data out/train.npz --validation out/validation.npz "
    "--optimizer adam --learning-rate 0.001 --epochs 15 --out out/digits.onnx"
)
WIDTH = 100


def main() -> None:
    """Run the demo's training and write its terminal as SVG."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/training.svg"))
    out = parser.parse_args().out
    terminal = {"FORCE_COLOR": "1", "COLUMNS": str(WIDTH), "TERM": "xterm-256color"}
    program = Path(sys.executable).parent / "coexec"
    finished = subprocess.run(  # noqa: S603  our own command
        [program, *COMMAND.split()[1:]],
        env={**os.environ, **terminal},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    # A live progress bar is redrawn over itself: its last state is what stays on a terminal.
    lines = [line.rsplit("\r", 1)[-1] for line in finished.stdout.splitlines()]
    last_bar = max(index for index, line in enumerate(lines) if "epoch" in line)
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(Text(f"$ {COMMAND}", style="bold"))
    for line in lines[last_bar:]:
        console.print(Text.from_ansi(line))
    console.save_svg(str(out), title="coexec train")


if __name__ == "__main__":
    main()
