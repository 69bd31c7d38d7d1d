"""Every command of the examples' READMEs runs, in order, and prints what is shown there."""

from __future__ import annotations

import http.client
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deploy import registry
from deploy.cli import run
from deploy.errors import MissingBackendError
from deploy.plugin.build import cxx_compiler

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
# what a command needs that not every machine has: its module, by a part of the command
NEEDS = {"deploy serve": "uvicorn", "triton_client.py": "tritonclient.http"}
PORTS = ("8000", "8001")
# in what is shown, every number may be another one, and … stands for anything
FREE = re.compile(r"(…|-?\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class Step:
    """A command and the lines of its output that the README shows."""

    command: str
    shown: list[str] = field(default_factory=list)


def steps(readme: Path) -> list[Step]:
    """What stands behind `$ ` in the console blocks."""
    found: list[Step] = []
    text = readme.read_text(encoding="utf-8")
    for block in re.findall(r"^```console\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append(Step(line[2:]))
            else:
                found[-1].shown.append(line)
    return found


READMES = [path for path in sorted(EXAMPLES.glob("*/README.md")) if steps(path)]


class Console:
    """Runs commands as a shell would, `deploy` in this process; what a `&` starts is stopped."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self.capfd = capfd
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.server: subprocess.Popen[str] | None = None

    def run(self, command: str) -> str:
        """The command's output, of both kinds; AssertionError when it fails."""
        for written, free in self.ports.items():
            command = re.sub(rf"\b{written}\b", free, command)
        words = shlex.split(command)
        self.capfd.readouterr()
        if words[-1] == "&":
            return self.start(words[1:-1])
        if words == ["kill", "%1"]:
            return self.stop()
        code = run(words[1:]) if words[0] == "deploy" else subprocess.call(program(words))
        out, err = self.capfd.readouterr()
        assert code == 0, f"{command}\n{out}{err}"
        return f"{out}\n{err}"

    def start(self, arguments: list[str]) -> str:
        """The log of a server up to where it is ready, which its health has to say too."""
        command = [sys.executable, "-m", "deploy", *arguments]
        self.server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.server.stderr is not None
        log = ""
        for line in self.server.stderr:
            log += line
            if '"ready"' in line:
                break
        port = int(arguments[arguments.index("--http-port") + 1])
        with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
            try:
                connection.request("GET", "/v2/health/ready")
            except ConnectionRefusedError:
                pytest.fail(f"not ready: {log}")
            assert connection.getresponse().status == 200
        return log

    def stop(self) -> str:
        """The rest of the server's log; it ends by itself once told."""
        server, self.server = self.server, None
        assert server is not None
        server.terminate()
        _, log = server.communicate()
        assert server.returncode == 0, log
        return log

    def close(self) -> None:
        """Leave no server behind, whatever happened."""
        if self.server is not None:
            self.server.kill()
            self.server.communicate()


def free_ports(count: int) -> list[str]:
    """Ports that nobody listens on, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [str(each.getsockname()[1]) for each in sockets]


def program(words: list[str]) -> list[str]:
    """The words with the Python of this process."""
    return [sys.executable if words[0] == "python" else words[0], *words[1:]]


def skip_where_missing(command: str) -> None:
    """Skip the rest of the test where this machine lacks what the command needs."""
    for part, module in NEEDS.items():
        if part in command:
            pytest.importorskip(module, reason=f"{command}: {module} isn't installed")
    first = command.split()[0]
    if first not in ("deploy", "python", "kill") and shutil.which(first) is None:
        pytest.skip(f"{command}: {first} isn't on PATH")
    if command.startswith("deploy plugins build"):
        try:
            cxx_compiler()
        except MissingBackendError as error:
            pytest.skip(str(error))


def is_shown_by(line: str, output: str) -> bool:
    """Whether a line of a README is one of the output, but for numbers."""
    parts = FREE.split(line.strip())
    # every second part is what was split at
    free = {True: ".*", False: r"-?\d+(?:\.\d+)?"}
    parts[::2] = map(re.escape, parts[::2])
    parts[1::2] = [free[part == "…"] for part in parts[1::2]]
    return re.search(rf"^\s*{''.join(parts)}", output, flags=re.MULTILINE) is not None


@pytest.fixture
def console(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Console]:
    """A console in a folder with a copy of the examples."""
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    # --plugin-path and --fusion-path hold for a process, which here goes on
    monkeypatch.setattr(registry, "_added", [])
    monkeypatch.setattr(registry, "_fusions", {})
    with closing(Console(capfd)) as made:
        yield made


def test_the_examples_are_found() -> None:
    assert [path.parent.name for path in READMES] == [
        *("01_first_engine", "02_int8_your_images", "03_add_a_fusion"),
        *("04_add_a_plugin", "05_serve_it"),
    ]


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_commands_run_and_print_what_is_shown(readme: Path, console: Console) -> None:
    for step in steps(readme):
        skip_where_missing(step.command)
        output = console.run(step.command)
        for line in step.shown:
            assert is_shown_by(line, output), f"{step.command}: no {line!r} in\n{output}"


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_links_lead_somewhere(readme: Path) -> None:
    text = readme.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert links
    for link in links:
        assert (readme.parent / link).exists(), link
    for named in re.findall(r"`((?:deploy|plugins|tests|examples)/[\w./]+)`", text):
        assert (EXAMPLES.parent / named).exists() or named.endswith("drop_relu.py"), named


def test_another_output_is_noticed() -> None:
    assert is_shown_by("a 1 … of 2.5 dB", "x\n  a 10 thing of -3 dB!")
    assert not is_shown_by("a 1 … of 2.5 dB", "a 10 thing of dB")
    assert not is_shown_by("b", "a b")
