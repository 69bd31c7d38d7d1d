"""A server asked over the network, in the Open Inference Protocol (V2) over HTTP with JSON."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deploy.errors import BuildError, one_line

# the protocol's names of element types
_TYPES = {
    "float32": "FP32",
    "float16": "FP16",
    "float64": "FP64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "bool": "BOOL",
}
_DTYPES = {theirs: ours for ours, theirs in _TYPES.items()}
_TIMEOUT_S = 60.0


class Server:
    """One model on a V2 server. url: http://host:port."""

    def __init__(self, url: str, model: str, timeout_s: float = _TIMEOUT_S) -> None:
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise BuildError(f"{url}: not an address of a server; give http://127.0.0.1:8000")
        quoted = urllib.parse.quote(model, safe="")
        self.url = f"{url.rstrip('/')}/v2/models/{quoted}/infer"
        self._timeout_s = timeout_s

    def infer(
        self, feeds: Mapping[str, np.ndarray], outputs: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """The named outputs; BuildError when the server doesn't answer or answers otherwise."""
        request = {
            "inputs": [_tensor(name, x) for name, x in feeds.items()],
            "outputs": [{"name": name} for name in outputs],
        }
        answer = self._post(json.dumps(request).encode())
        try:
            found = {row["name"]: _array(row) for row in answer["outputs"]}
        except (KeyError, TypeError, ValueError) as error:
            raise BuildError(
                f"{self.url}: not an answer of the Open Inference Protocol ({error!r}); is it a V2 "
                "server?"
            ) from None
        missing = [name for name in outputs if name not in found]
        if missing:
            raise BuildError(
                f"{self.url}: the answer lacks {', '.join(missing)}; is it this bundle's model?"
            )
        return {name: found[name] for name in outputs}

    def _post(self, body: bytes) -> dict[str, Any]:
        asked = urllib.request.Request(
            self.url, data=body, headers={"Content-Type": "application/json"}, method="POST"
        )
        try:
            with urllib.request.urlopen(asked, timeout=self._timeout_s) as answer:
                found = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            said = one_line(error.read().decode(errors="replace"))
            raise BuildError(f"{self.url}: HTTP {error.code}: {said}") from None
        except OSError as error:
            reason = one_line(getattr(error, "reason", error))
            raise BuildError(f"{self.url}: no answer ({reason}); is the server up?") from None
        except ValueError as error:
            raise BuildError(f"{self.url}: the answer is not JSON ({one_line(error)})") from None
        if not isinstance(found, dict):
            raise BuildError(f"{self.url}: the answer is no JSON object; is it a V2 server?")
        return found


def _tensor(name: str, x: np.ndarray) -> dict[str, Any]:
    kind = _TYPES.get(str(x.dtype))
    if kind is None:
        raise BuildError(f"input {name!r} is {x.dtype}, which the protocol doesn't carry as JSON")
    return {"name": name, "shape": list(x.shape), "datatype": kind, "data": x.reshape(-1).tolist()}


def _array(row: Mapping[str, Any]) -> np.ndarray:
    dtype = np.dtype(_DTYPES[row["datatype"]])
    return np.asarray(row["data"], dtype).reshape(row["shape"])
