"""A model that runs: the same few calls whatever vendor built it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from deploy.artifacts.model import TensorSpec
from deploy.errors import BuildError, nearest


@dataclass(frozen=True)
class Layer:
    """One layer as the vendor executes it: what it became, in which type, by which kernel."""

    name: str
    kind: str
    precision: str
    kernel: str
    fused_from: tuple[str, ...]


class Engine(ABC):
    """A compiled model; a context manager. `run` checks, the backend's `_run` works."""

    def __init__(self, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self._closed = False

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs by name; BuildError when the feeds aren't exactly what `inputs` says."""
        self._check_open()
        self._check_feeds(feeds)
        return self._run(feeds)

    def run_many(self, feeds: Mapping[str, np.ndarray], runs: int) -> None:
        """`runs` inferences of the same feeds, as many at a time as the engine has streams."""
        self._check_open()
        self._check_feeds(feeds)
        self._run_many(feeds, runs)

    def prepare(self, feeds: Mapping[str, np.ndarray]) -> Callable[[], None]:
        """A call that runs these feeds once and does nothing else: what a benchmark times."""
        self._check_open()
        self._check_feeds(feeds)
        return self._prepare(feeds)

    def timed(self, feeds: Mapping[str, np.ndarray]) -> Callable[[], float | None]:
        """As `prepare`; the call gives the milliseconds by the device's own clock, None where it
        has none to tell them by."""
        self._check_open()
        self._check_feeds(feeds)
        return self._timed(feeds)

    def close(self) -> None:
        """Give the vendor's memory back; the engine can't be run after."""
        self._closed = True

    def properties(self) -> dict[str, str]:
        """What the vendor says it runs on and with: device, precision, threads, streams."""
        return {}

    def layers(self) -> tuple[Layer, ...]:
        """What the vendor executes; empty when it doesn't tell."""
        return ()

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the vendor's files into an existing folder."""

    @abstractmethod
    def _run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]: ...

    @abstractmethod
    def _prepare(self, feeds: Mapping[str, np.ndarray]) -> Callable[[], None]: ...

    def _timed(self, feeds: Mapping[str, np.ndarray]) -> Callable[[], float | None]:
        call = self._prepare(feeds)

        def untimed() -> None:
            call()  # what a vendor's call returns is no time

        return untimed

    def _run_many(self, feeds: Mapping[str, np.ndarray], runs: int) -> None:
        call = self._prepare(feeds)
        for _ in range(runs):
            call()

    def _check_open(self) -> None:
        if self._closed:
            raise BuildError("the engine is closed; load it again to run it")

    def _check_feeds(self, feeds: Mapping[str, np.ndarray]) -> None:
        names = [spec.name for spec in self.inputs]
        for name in feeds:
            if name not in names:
                raise BuildError(
                    f"no input {name!r}{nearest(name, names)}; the engine has: {', '.join(names)}"
                )
        for spec in self.inputs:
            if spec.name not in feeds:
                raise BuildError(f"input {spec.name!r} is missing; the engine needs {spec}")
            _check_array(spec, feeds[spec.name])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _check_array(spec: TensorSpec, x: np.ndarray) -> None:
    if x.dtype != spec.dtype:
        raise BuildError(f"input {spec.name!r} was fed {x.dtype}; the engine needs {spec}")
    fits = len(x.shape) == len(spec.shape) and all(
        wanted is None or wanted == given for wanted, given in zip(spec.shape, x.shape, strict=True)
    )
    if not fits:
        raise BuildError(
            f"input {spec.name!r} was fed shape {list(x.shape)}; the engine needs {spec}"
        )
