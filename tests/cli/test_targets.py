"""`deploy targets`: the list, and how far one of them was proven."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Deploy = Callable[..., Any]


def test_list_has_every_target_once(deploy: Deploy) -> None:
    lines = deploy("targets").out.splitlines()
    names = [line.split()[0] for line in lines]
    assert names == sorted(set(names))
    assert {"cpu", "xavier", "xavier-dla", "rtx50"} <= set(names)


@pytest.mark.parametrize(
    ("name", "proven", "remains"),
    [
        ("xavier", "checked against the vendor's real API", "python3 finish.py"),
        ("rtx40", "built by the vendor's compiler", "it loads the engine"),
        ("thor", "predicted", "python3 finish.py"),
        ("cpu", "ran on the device", "Nothing"),
    ],
)
def test_one_says_how_far_it_was_proven(
    deploy: Deploy, name: str, proven: str, remains: str
) -> None:
    ran = deploy("targets", name, "--json")
    said = {line.split(":")[0]: line for line in ran.err.splitlines() if ":" in line}
    assert f"proven: {proven}. " in said["proven"]
    assert remains in said["remains"]
    assert ran.json["targets"][0]["proven"] in ("api", "compiler", "predicted", "device")
