"""``parallel-core completion``: what a shell offers, and that it knows every option."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from parallel_core.cli import main
from parallel_core.cli.arguments import make_parser
from parallel_core.cli.completion import commands_of


def script_for(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


def offered(script: str, *words: str) -> list[str]:
    """Return what bash offers for the last of `words`."""
    quoted = " ".join(f"'{word}'" for word in words)
    asks = f"""
        {script}
        COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}
        _parallel_core
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", asks], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_commands_options_and_values(capsys: pytest.CaptureFixture[str]) -> None:
    script = script_for("bash", capsys)
    assert offered(script, "parallel-core", "ma") == ["map"]
    assert {"map", "info", "completion", "--version"} <= set(offered(script, "parallel-core", ""))
    assert offered(script, "parallel-core", "map", "--re") == ["--retries", "--report"]
    assert offered(script, "parallel-core", "map", "--prefer", "") == ["processes", "threads"]
    assert offered(script, "parallel-core", "map", "--on-error", "s") == ["stop", "skip"]
    assert offered(script, "parallel-core", "completion", "f") == ["fish"]
    # The shell's own completion takes over: names of files.
    assert offered(script, "parallel-core", "map", "--journal", "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_option_is_there(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    script = script_for(shell, capsys)
    commands = commands_of(make_parser()[1])
    assert {"map", "info", "completion"} <= {command.name for command in commands}
    for command in commands:
        assert command.help
        for option in command.options:
            name = option.names[-1]
            assert (f"-l {name[2:]}" if shell == "fish" else name) in script, (command.name, name)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_can_read_it(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    script = script_for(shell, capsys)
    if shutil.which(shell) is None:  # what is quoted is closed, at least
        assert all(line.count("'") % 2 == 0 for line in script.replace("'\\''", "").splitlines())
        return
    done = subprocess.run([shell, "-n", "-c", script], capture_output=True, text=True, check=False)
    assert (done.stderr, done.returncode) == ("", 0)


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "cmd"]) == 2
    assert "cmd" in capsys.readouterr().err
