"""What every class of the double can ask for."""

from __future__ import annotations

from typing import Any


class Part:
    """Base of what is written for a class of TensorRT's: `_setup` takes what its constructor takes,
    public members stand for TensorRT's. None of what it asks for here counts as used.

    _own: every class and enum of the module by name. _state: the "gpu", the plugin "registry".
    _version: as the module says it, "8.5.2".
    """

    _own: dict[str, Any]
    _state: dict[str, Any]
    _version: str

    def _setup(self, *args: Any) -> None:
        """Keep what the constructor was given."""

    def _make(self, name: str, *args: Any) -> Any:
        """An object of another class, as only the library makes it."""
        return self._own[name]._create(*args)

    def _set_to(self, attribute: str, otherwise: Any = None) -> Any:
        """What a plain attribute was set to."""
        return self.__dict__.get(f"_value_{attribute}", otherwise)

    def _members(self, enum: str) -> dict[str, Any]:
        """An enum's members by name; none where the version has no such enum."""
        if enum not in self._own:
            return {}
        members: dict[str, Any] = type.__getattribute__(self._own[enum], "__members__")
        return members

    def _value(self, enum: str, member: str) -> Any:
        return self._members(enum)[member]

    def _registry(self) -> Any:
        return self._state["registry"]
