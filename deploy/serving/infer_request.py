"""What a request asks for, whichever way it came, and the reply's tensors in V2's terms."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deploy.serving.ports import Port, named
from deploy.serving.refusals import invalid

MOST_ID_LENGTH = 1024
# a parameter that would change the answer in a way this server doesn't do
_REFUSED = {
    "sequence_id": "it keeps no state between requests",
    "sequence_start": "it keeps no state between requests",
    "sequence_end": "it keeps no state between requests",
    "shared_memory_region": "it has no shared memory; send the data",
    "classification": "it ranks no classes; take the scores",
}


@dataclass
class InferRequest:
    """The tensors of one request and the outputs it wants.

    outputs: (port, as bytes) in the order asked for. timeout_s: the caller's own, 0 for none.
    """

    feeds: dict[str, np.ndarray]
    outputs: list[tuple[Port, bool]]
    id: str = ""
    timeout_s: float = 0.0
    model: str = ""
    version: str = ""
    started: float = field(default_factory=time.monotonic)

    def deadline(self, most_s: float) -> float:
        """The moment, of time.monotonic, after which nobody waits any more."""
        return self.started + (min(most_s, self.timeout_s) if self.timeout_s > 0 else most_s)


def check_parameters(parameters: Any, where: str) -> Mapping[str, Any]:
    """A table of parameters; refused when one of them asks for what isn't done here."""
    if not parameters and isinstance(parameters, dict):
        return parameters
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise invalid(f"{where}: parameters is no JSON object")
    for name, why in _REFUSED.items():
        # 0 and false are how clients say "none"
        if parameters.get(name):
            raise invalid(f"{where}: parameter {name!r} isn't served: {why}")
    return parameters


def timeout_s(parameters: Mapping[str, Any]) -> float:
    """The request's own timeout, which V2 has in microseconds; 0 for none."""
    given = parameters.get("timeout", 0)
    if isinstance(given, str) and given.isascii() and given.isdigit() and len(given) < 19:
        given = int(given)
    if not isinstance(given, int) or isinstance(given, bool) or given < 0:
        raise invalid(f"parameter timeout: {str(given)[:40]!r}; give whole microseconds")
    return given / 1e6


def wanted_output(ports: tuple[Port, ...], name: Any, taken: list[tuple[Port, bool]]) -> Port:
    """The output of that name, asked for once."""
    port = named(ports, name, "output")
    if any(other is port for other, _ in taken):
        raise invalid(f"output {port.name!r} is asked for twice")
    return port
