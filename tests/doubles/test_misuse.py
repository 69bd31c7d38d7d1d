"""What pybind11 refuses, a double refuses: names of other versions, wrong arguments."""

from __future__ import annotations

from typing import Any

import pytest

from doubles.works import Work


def test_a_name_of_another_version_is_not_there(xavier: Work, h100: Work) -> None:
    with pytest.raises(AttributeError, match="STRONGLY_TYPED"):
        xavier.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED  # noqa: B018
    with pytest.raises(AttributeError, match="IInt8EntropyCalibrator2"):
        h100.trt.IInt8EntropyCalibrator2  # noqa: B018
    assert h100.parse()
    with pytest.raises(AttributeError, match="set_dynamic_range"):
        h100.network.get_input(0).set_dynamic_range(-1.0, 1.0)


def test_an_attribute_that_is_not_there_cannot_be_set(h100: Work) -> None:
    with pytest.raises(AttributeError, match="max_workspace_size"):
        h100.config.max_workspace_size = 1
    assert h100.parse()
    with pytest.raises(AttributeError, match="dtype"):  # it can be up to 10.x
        h100.network.get_input(0).dtype = h100.trt.DataType.HALF


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((1.5,), {}),
        ((), {"flag": 1}),
        ((1, 2), {}),
        (("1",), {}),
    ],
    ids=["a float", "another name", "too many", "a string"],
)
def test_an_unfitting_argument_is_a_type_error(xavier: Work, args: Any, kwargs: Any) -> None:
    with pytest.raises(TypeError, match="incompatible function arguments"):
        xavier.builder.create_network(*args, **kwargs)


def test_an_enum_member_is_no_number(xavier: Work) -> None:
    flag = xavier.trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH
    with pytest.raises(TypeError):
        1 << flag
    assert int(flag) == 0 and flag != 0


def test_what_the_library_makes_cannot_be_constructed(xavier: Work) -> None:
    with pytest.raises(TypeError, match="No constructor defined"):
        xavier.trt.IBuilderConfig()


def test_a_subclass_has_to_call_its_base(xavier: Work) -> None:
    class Log(xavier.trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            pass

    with pytest.raises(TypeError, match=r"ILogger.__init__\(\) must be called"):
        Log()


def test_what_is_not_written_fails_a_test(xavier: Work) -> None:
    with pytest.raises(NotImplementedError, match=r"IBuilderConfig\.set_tactic_sources"):
        xavier.config.set_tactic_sources(1)
