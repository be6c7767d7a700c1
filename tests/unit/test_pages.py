"""What README.md and the pages name is there: files, headings, flags of the command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from coexec.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "bench" / "README.md",
    *sorted((ROOT / "studies").glob("*/README.md")),
]
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")
CALL = re.compile(r"\bcoexec ((?:study )?[a-z]+(?:-[a-z]+)*)\b([^\n`|]*)")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def headings(page: Path) -> set[str]:
    """The anchors that a page has, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for path, anchor in LINK.findall(page.read_text()):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        if anchor and target.suffix == ".md":
            assert anchor in headings(target), f"{path}#{anchor}"


def calls(page: Path) -> list[tuple[str, list[str]]]:
    """Commands on a page, with the flags that each is given."""
    found = CALL.findall(page.read_text().replace("\\\n", " "))
    return [(name, FLAG.findall(rest.partition("#")[0].partition(";")[0])) for name, rest in found]


def flags() -> dict[str, set[str]]:
    """The flags of each command, by its name behind ``coexec``."""
    found: dict[str, set[str]] = {}

    def add(command: Any, name: str) -> None:  # Typer has a Click of its own
        if isinstance(command, TyperGroup):
            for each, inner in command.commands.items():
                add(inner, f"{name} {each}".strip())
        else:
            options = [option for p in command.params for option in (*p.opts, *p.secondary_opts)]
            found[name] = {*options, "--help"}

    add(typer.main.get_command(app), "")
    return found


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_have_the_flags_that_pages_give_them(page: Path) -> None:
    known = flags()
    for name, given in calls(page):
        assert name not in known or set(given) <= known[name], name


def test_flags_are_looked_for() -> None:
    assert {"--resume", "--memory"} <= flags()["train"]
    given = {flag for name, found in calls(PAGES[0]) if name == "train" for flag in found}
    assert {"--epochs", "--checkpoint", "--processors"} <= given  # the second on a line of its own
