"""Draw docs/training.svg and docs/plan.svg: commands in the terminal, from real runs.

Run `make demo` first, then: python examples/terminal_pictures.py
(or one of them: python examples/terminal_pictures.py --only plan)
"""

from __future__ import annotations

import argparse
import io
import os
import shlex
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

TRAINING = (
    "coexec train out/untrained.onnx --data out/train.npz --validation out/validation.npz "
    "--optimizer adam --learning-rate 0.001 --epochs 15 --out out/digits.onnx"
)
PLAN = (
    "coexec plan out/resnet50.onnx "
    "--processors 'ort:cpu?threads=1&cores=0,opencl:intel?cores=1' --policy auto"
)
PICTURES = {"training": ("epoch", TRAINING), "plan": ("ms predicted", PLAN)}
"""Picture -> what the line has that it begins with (the last such one), and the command."""
WIDTH = 100


def terminal_lines(command: str) -> list[str]:
    """What the command leaves on a terminal of WIDTH columns, with its colours."""
    terminal = {"FORCE_COLOR": "1", "COLUMNS": str(WIDTH), "TERM": "xterm-256color"}
    program = Path(sys.executable).parent / "coexec"
    finished = subprocess.run(  # noqa: S603  our own command
        [program, *shlex.split(command)[1:]],
        env={**os.environ, **terminal},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    # A live progress bar is redrawn over itself: its last state is what stays on a terminal.
    return [line.rsplit("\r", 1)[-1] for line in finished.stdout.splitlines()]


def draw(name: str, out: Path) -> None:
    """Run the picture's command and write its terminal as SVG."""
    beginning, command = PICTURES[name]
    lines = [Text.from_ansi(line) for line in terminal_lines(command)]
    first = max(index for index, line in enumerate(lines) if beginning in line.plain)
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(Text(f"$ {command}", style="bold"))
    for line in lines[first:]:
        console.print(line)
    console.save_svg(str(out), title=" ".join(command.split()[:2]))


def main() -> None:
    """Draw the picture that is asked for, or both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PICTURES)
    parser.add_argument("--folder", type=Path, default=Path("docs"))
    wanted = parser.parse_args()
    names = [wanted.only] if wanted.only else [*PICTURES]
    if "plan" in names:
        terminal_lines("coexec zoo resnet50 --batch 1 --out out/resnet50.onnx")
    for name in names:
        draw(name, wanted.folder / f"{name}.svg")


if __name__ == "__main__":
    main()
