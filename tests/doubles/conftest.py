"""A Xavier and an H100 with the TensorRT they have."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from doubles import Gpu, installed
from doubles.works import Work


@pytest.fixture
def xavier() -> Iterator[Work]:
    with installed("8.5.2", gpu=Gpu(72, dla_cores=2)) as here:
        yield Work(here)


@pytest.fixture
def h100() -> Iterator[Work]:
    with installed("11.4.0", gpu=Gpu(90, "H100"), memory="cuda-python") as here:
        yield Work(here)
