"""The command line as a whole: help, exit status, what is shown of errors and names."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from coexec import __version__
from coexec.session import Session
from tests.pipeline.command import coexec
from tests.pipeline.small import FEATURES, write_network

COMMANDS = ("devices", "run", "train", "zoo")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_network(tmp_path / "model.onnx")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command: str) -> None:
    done = coexec(command, "--help")
    assert done.status == 0
    assert f"Example: coexec {command} " in re.sub(r"\s+", " ", done.out)


def test_no_arguments_list_the_commands() -> None:
    done = coexec()
    assert done.status == 2
    for command in COMMANDS:
        assert re.search(rf"\b{command}\b", done.out + done.err)


SCRIPT, MODULE = [str(Path(sys.executable).parent / "coexec")], [sys.executable, "-m", "coexec"]


@pytest.mark.parametrize("program", [SCRIPT, MODULE], ids=["script", "module"])
def test_installed_command(program: list[str]) -> None:
    run = subprocess.run([*program, "zoo", "--json"], capture_output=True, text=True, check=False)
    assert run.returncode == 0
    assert run.stdout.startswith('{"models": {"mlp"')
    failed = subprocess.run([*program, "zoo", "nope", "--out", "x.onnx"], check=False)
    assert failed.returncode == 2


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["devices"], 0),
        (["zoo"], 0),
        (["nonsense"], 2),
        (["devices", "--nonsense"], 2),
        (["run"], 2),
        (["run", "missing.onnx"], 1),
        (["run", "missing.onnx", "--repeat", "0"], 2),
        (["zoo", "mlp"], 2),
        (["train", "missing.onnx"], 2),
        (["train", "missing.onnx", "--data", "missing.npz"], 1),
    ],
)
def test_exit_status(arguments: list[str], status: int) -> None:
    assert coexec(*arguments).status == status


def test_ctrl_c_exits_with_130(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "run", interrupt)
    done = coexec("run", model, "--shape", f"x=2x{FEATURES}", "-p", "reference")
    assert done.status == 130
    assert "Traceback" not in done.err


def test_errors_are_one_line_for_people_and_one_object_for_programs() -> None:
    done = coexec("run", "missing.onnx")
    assert (done.status, done.out) == (1, "")
    assert done.err == "error: missing.onnx: no such file\n"
    assert coexec("run", "missing.onnx", "--json").error == {
        "error": "missing.onnx: no such file",
        "kind": "ModelError",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "missing.onnx", "--repeat", "0"], "Invalid value for '--repeat'"),
        (["run", "missing.onnx", "--nonsense"], "No such option: --nonsense"),
        (["train", "missing.onnx"], "Missing option '--data'"),
        (["nonsense"], "No such command 'nonsense'"),
    ],
)
def test_what_the_parser_refuses_is_an_object_for_programs_too(
    arguments: list[str], message: str
) -> None:
    done = coexec(*arguments, "--json")
    assert done.status == 2
    assert done.error["kind"] == "UsageError"
    assert message in done.error["error"]
    assert message in done.err
    assert coexec(*arguments).out == ""


def test_version_is_that_of_the_package() -> None:
    assert (coexec("--version").status, coexec("--version").out) == (0, f"coexec {__version__}\n")
    assert coexec("run", "-h").out == coexec("run", "--help").out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no file that is always full here")
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_what_is_printed_onto_a_full_disk_ends_in_a_line(more: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*MODULE, "zoo", *more], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "error: cannot write to stdout: No space left on device\n"


def test_ctrl_c_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("coexec.cli.run.load", interrupted)
    done = coexec("run", tmp_path / "model.onnx")
    assert (done.status, done.out, done.err) == (130, "", "interrupted\n")


def test_names_in_square_brackets_are_shown_as_they_are(tmp_path: Path) -> None:
    """What users name is no markup of the terminal library."""
    path = write_network(tmp_path / "net[bold].onnx")
    done = coexec("run", path, "--shape", f"x=2x{FEATURES}", "-p", "reference")
    assert done.status == 0
    assert "net[bold].onnx" in re.sub(r"\s", "", done.out)
