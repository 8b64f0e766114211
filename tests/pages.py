"""Code in Markdown pages: found block by block, and executed as a reader would."""

import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import arspec as ar
from arspec import cli

ROOT = Path(__file__).parent.parent
_FENCE = re.compile(r"^( *)```([\w-]*)[^\n]*\n(.*?)^\1``` *$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"^    ((?:make|arspec|python|pip|git) .*)$", re.MULTILINE)
_NUMBER = re.compile(r"≈ ?-?\d+(?:\.\d+)?%?|-?\d+\.\d+(?:e[-+]\d+)?%?")
_FILE = re.compile(r"# (\w+\.py)\n")
_ALLOWED = ("cd", "export", "git", "source")
_MODULES = (["python", "-m", "venv"], ["python", "-m", "build"])
_PYTHON = ("python", "torchrun")
_SHELLS = ("bash", "sh", "shell")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block, or one indented command."""

    language: str
    text: str


def blocks(markdown: str) -> list[Block]:
    """Return the blocks of a page in order."""
    found = [Block(met[2], textwrap.dedent(met[3])) for met in _FENCE.finditer(markdown)]
    bare = _FENCE.sub("", markdown)
    return found + [Block("bash", met[1]) for met in _INDENTED.finditer(bare)]


class Reader:
    """Does what a page says, in a folder: its blocks of Python are one program, its commands are run."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.names: dict[str, Any] = {"__name__": "page"}
        self.printed: str | None = None

    def read(self, page: list[Block]) -> None:
        """Follow a page; raises where something does not do what is shown."""
        for block, following in zip(page, [*page[1:], None], strict=True):
            shown = following is not None and following.language == "text"
            follow = self.unknown
            if block.language in _SHELLS:
                follow = self.bash
            elif block.language in ("python", "json", "text", "toml"):
                follow = getattr(self, block.language)
            follow(block.text, shown)

    def python(self, code: str, shown: bool) -> None:
        if named := _FILE.match(code):
            compile(code, named[1], "exec")
            (self.folder / named[1]).write_text(code, encoding="utf-8")
            return
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(code, self.name, "exec"), self.names)
        self.printed = output.getvalue()
        assert shown or not self.printed, f"this prints, and the page does not show it: {self.printed}"

    def text(self, shown_text: str, shown: bool) -> None:
        assert self.printed is not None, f"no program prints this: {shown_text}"
        same_output(self.printed, shown_text)
        self.printed = None

    def json(self, code: str, shown: bool) -> None:
        document = json.loads(code)
        if "arspec" in document:
            ar.Spec.from_json(code)
            (self.folder / "spec.json").write_text(code, encoding="utf-8")

    def toml(self, code: str, shown: bool) -> None:
        tomllib.loads(code)

    def bash(self, code: str, shown: bool) -> None:
        lines = [line for line in code.replace("\\\n", " ").splitlines() if line.split("#")[0].strip()]
        for line in lines:
            self.command(line, shown and line is lines[-1])

    def unknown(self, code: str, shown: bool) -> None:
        pytest.fail(f"a block of code without a language that is executed: say python, bash, json, text:\n{code}")

    def command(self, line: str, shown: bool) -> None:
        """Run a command, or at least see that it is one."""
        words = shlex.split(line, comments=True)
        environment = {}
        while "=" in words[0]:
            key, _, environment[key] = words.pop(0).partition("=")
        if words[:3] == ["python", "-m", "pip"] or words[0] == "pip":
            check_extras(line)
        elif words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), line
        elif words[0] == "arspec":
            self.arspec(words[1:], shown)
        elif words[0] in _PYTHON and words[1:2] != ["-m"]:
            self.script(words, environment)
        else:
            assert words[0] in _ALLOWED or words[:3] in _MODULES, f"not known here: {line}"

    def arspec(self, arguments: list[str], shown: bool) -> None:
        """Run the command if its output is shown, else parse it."""
        if shown:
            result = CliRunner().invoke(cli.build(), arguments)
            assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
            self.printed = result.stdout
        else:
            parsed(typer.main.get_command(cli.build()), arguments)

    def script(self, words: list[str], environment: dict[str, str]) -> None:
        """Run a program that the page wrote before."""
        (script,) = (word for word in words if word.endswith(".py"))
        assert (self.folder / script).exists(), f"the page does not show {script}"
        command = [sys.executable, *(["-m", "torch.distributed.run"] if words[0] == "torchrun" else []), *words[1:]]
        settings = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1", **environment}
        done = subprocess.run(
            command, cwd=self.folder, env=settings, capture_output=True, encoding="utf-8", timeout=200
        )
        assert done.returncode == 0, done.stderr
        self.printed = done.stdout


def same_output(printed: str, shown: str) -> None:
    """Compare word by word; numbers with a point to three digits, because libraries round as they like.

    A number behind ≈ comes from training, which goes its own way on every machine: a fifth.
    """
    assert _NUMBER.sub("#", printed).split() == _NUMBER.sub("#", shown).split(), printed
    for mine, theirs in zip(_NUMBER.findall(printed), _NUMBER.findall(shown), strict=True):
        assert _number(mine) == pytest.approx(_number(theirs), rel=0.2 if "≈" in theirs else 1e-3), printed


def _number(text: str) -> float:
    return float(text.strip("≈ %"))


def check_extras(line: str) -> None:
    """See that the extras that pip is asked for exist."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for named in re.findall(r"(?:arspec|\.|\.whl)\[([\w,]+)\]", line):
        assert set(named.split(",")) <= set(project["optional-dependencies"]), line


def parsed(command: Any, arguments: list[str]) -> None:
    """Parse arguments as the command line does; nothing runs."""
    children = getattr(command, "commands", {})
    if arguments and arguments[0] in children:
        parsed(children[arguments[0]], arguments[1:])
    elif arguments not in (["--help"], ["--install-completion"]):
        assert not children, f"no such command: {arguments}"
        command.make_context(command.name, list(arguments))
