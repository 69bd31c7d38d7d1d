"""`deploy serve` and `deploy-serve`: the same flags, which are the options."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from deploy.cli.serve import command
from deploy.errors import RecipeError
from deploy.serving.__main__ import main
from deploy.serving.options import Options

# not of the server's making: how long a stop lingers
_OWN = {"linger_s"}
# of every command of deploy, once it is registered
_EVERYWHERE = {"verbose"}


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[Options]:
    """What the server would have been started with."""
    found: list[Options] = []
    monkeypatch.setattr("deploy.serving.lifecycle.serve", found.append)
    return found


def run(*arguments: str) -> None:
    command.main(list(arguments), standalone_mode=False)


def test_flags_are_options() -> None:
    fields = {field.name for field in dataclasses.fields(Options)} - _OWN
    own = [p for p in command.params if p.name not in _EVERYWHERE]
    assert {parameter.name for parameter in own} - {"no_grpc"} == fields
    for parameter in own:
        if parameter.name not in ("bundle", "no_grpc"):
            assert parameter.opts == [f"--{str(parameter.name).replace('_', '-')}"]


def test_defaults_are_the_options_own_in_both_commands(given: list[Options]) -> None:
    run("b")
    main(["b"])
    assert given == [Options(Path("b"))] * 2


def test_every_flag_arrives_in_both_commands(given: list[Options]) -> None:
    values: dict[str, Any] = {}
    arguments = ["b"]
    for field in dataclasses.fields(Options):
        if field.name in ("bundle", *_OWN):
            continue
        flag = "--" + field.name.replace("_", "-")
        default = field.default
        if isinstance(default, bool):
            values[field.name] = True
            arguments.append(flag)
            continue
        if default is None:
            value: Any = Path("f")
        else:
            value = "n" if isinstance(default, str) else type(default)(7 + len(values))
        if field.name == "grpc_port":
            value = 7777
        values[field.name] = value
        arguments += [flag, str(value)]
    run(*arguments)
    main(arguments)
    assert given == [Options(Path("b"), **values)] * 2


def test_no_grpc(given: list[Options]) -> None:
    run("b", "--no-grpc")
    main(["b", "--no-grpc"])
    assert [options.grpc_port for options in given] == [None, None]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"queue": 0}, "--queue 0; give more than 0"),
        ({"timeout_s": -1.0}, "--timeout-s -1.0; give more than 0"),
        ({"http_port": 9, "grpc_port": 9}, "port 9 for both"),
        ({"tls_key": Path("k")}, "TLS needs both files"),
    ],
)
def test_options_that_cant_be(wrong: dict[str, Any], reason: str) -> None:
    with pytest.raises(RecipeError, match=reason):
        Options(Path("b"), **wrong)


def test_who_can_reach_it() -> None:
    assert all(Options(Path("b"), host=h).local() for h in ("127.0.0.1", "::1", "localhost"))
    assert not any(Options(Path("b"), host=h).local() for h in ("0.0.0.0", "::", "edge.lan"))
