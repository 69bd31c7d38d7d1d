"""A module with exactly the names that a TensorRT version has, behaving where it is told to.

`assemble("8.5.2", implementations)` makes one from the facts table: classes with those members and
no others, enums with those values, calls that take those parameters. As in pybind11, an unknown
name is an AttributeError, an unknown or unfitting argument a TypeError, attributes can't be added,
and what only the library creates can't be called. A name without an implementation is there, and
raises NotImplementedError when it is used, so that no test passes by it.
"""

from __future__ import annotations

import functools
import re
import types
from collections.abc import Callable
from typing import Any

import tensorrt_facts

from doubles.arguments import bind, overloads
from doubles.part import Part

_ABSENT = object()


class _Module(types.ModuleType):
    """Records in `_touched` what is used: "Builder.create_network", and its keywords as
    "Builder.create_network(flags)"; what is asked for and isn't there, in `_missed`."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__dict__.update({"_touched": set(), "_missed": set()})

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_"):
            own = types.ModuleType.__getattribute__(self, "__dict__")
            own["_touched" if name in own else "_missed"].add(name)
        return types.ModuleType.__getattribute__(self, name)


class _EnumType(type):
    """Records which members are asked for."""

    def __getattribute__(cls, name: str) -> Any:
        if not name.startswith("_"):
            there = name in type.__getattribute__(cls, "__members__")
            seen = type.__getattribute__(cls, "_touched" if there else "_missed")
            seen.add(f"{cls.__qualname__}.{name}")
        return type.__getattribute__(cls, name)


class EnumMember:
    """As pybind11's: converts to int, equals only itself, can't be shifted or added."""

    def __init__(self, name: str, value: int) -> None:
        self.__dict__.update(name=name, value=value)

    def __int__(self) -> int:
        return int(self.__dict__["value"])

    __index__ = __int__

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and int(self) == int(other)

    def __hash__(self) -> int:
        return int(self)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"can't set attribute {name!r}")

    def __repr__(self) -> str:
        return f"<{self}: {int(self)}>"

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self.__dict__['name']}"


class _ObjectType(type):
    """Makes objects as pybind11 does: a subclass has to call the constructor of its base."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        made = type.__call__(cls, *args, **kwargs)
        if not made.__dict__.get("_constructed"):
            base = next(b.__name__ for b in cls.__mro__ if "_fact" in vars(b))
            raise TypeError(f"{base}.__init__() must be called when overriding __init__")
        return made


class Made(Part, metaclass=_ObjectType):
    """Base of every class of the double."""

    @classmethod
    def _create(cls, *args: Any) -> Any:
        """An object as the library makes them, by `_setup`, without a public constructor."""
        made = cls.__new__(cls, *args) if issubclass(cls, bytes) else object.__new__(cls)
        made.__dict__["_constructed"] = True
        made._setup(*args)
        return made

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_"):
            self._state["missed"].add(f"{type(self).__name__}.{name}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        ours = "_fact" in vars(type(self))
        if ours and not name.startswith("_") and not hasattr(type(self), name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        object.__setattr__(self, name, value)


def assemble(version: str, implementations: dict[str, type], said: str = "") -> Any:
    """The module of one version. implementations: a plain class per class name, whose public
    members are used where the version has them; `functions` in it holds module functions.
    said: the version it goes by, a patch of `version`."""
    facts = tensorrt_facts.names(version)
    module = _Module("tensorrt_rtx" if version.startswith("rtx") else "tensorrt")
    made: dict[str, Any] = {}
    module.__dict__.update(
        {"__version__": said or version, "_own": made, "_state": {"missed": module._missed}}
    )
    for key, fact in facts.items():
        if fact == "enum":
            made[key] = _enumeration(module, key, facts)
    for key in sorted(
        (k for k, f in facts.items() if str(f).startswith("class(")), key=_depth(version)
    ):
        made[key] = _class(module, key, version, made, implementations.get(key, object))
    for key, fact in facts.items():
        if "." in key or key in made:
            continue
        if str(fact).startswith("("):
            function = vars(implementations["functions"]).get(key)
            made[key] = _guarded(module, key, str(fact), function, method=False)
        else:
            owner, _, member = str(fact).partition(".")
            made[key] = made[owner].__members__[member]
    for key, thing in made.items():
        owner, _, member = key.rpartition(".")
        if owner:
            type.__setattr__(made[owner], member, thing)
        else:
            setattr(module, key, thing)
    if "Logger" in made:  # 8.5: Logger.Severity is ILogger.Severity
        type.__setattr__(made["Logger"], "Severity", made["ILogger.Severity"])
    return module


def _depth(version: str) -> Callable[[str], tuple[int, str]]:
    """Sorts base classes before what inherits from them."""
    return lambda name: (len(tensorrt_facts.bases_of(version, name)), name)


def _enumeration(module: Any, name: str, facts: dict[str, Any]) -> Any:
    short = name.rpartition(".")[2]
    space = {"_touched": module._touched, "_missed": module._missed, "__qualname__": name}
    made = _EnumType(short, (EnumMember,), space)
    members = {k[len(name) + 1 :]: v for k, v in facts.items() if k.startswith(name + ".")}
    objects = {member: made(member, value) for member, value in members.items()}
    for member, thing in objects.items():
        type.__setattr__(made, member, thing)
    type.__setattr__(made, "__members__", objects)
    return made


def _class(module: Any, name: str, version: str, made: dict[str, Any], source: type) -> Any:
    facts = tensorrt_facts.names(version)
    bases = tuple(made[b] for b in tensorrt_facts.bases_of(version, name)[:1] if b in made)
    space: dict[str, Any] = {"_fact": facts[name], "_own": made, "_state": module._state}
    space["_version"] = module.__dict__["__version__"]
    sources = [base for base in reversed(source.__mro__) if base not in (object, Part)]
    written = {k: v for base in sources for k, v in vars(base).items()}
    space.update({k: v for k, v in written.items() if k.startswith("_") and not _dunder(k)})
    space.update(
        {k: v for k, v in written.items() if k in ("__repr__", "__str__", "__eq__", "__hash__")}
    )
    for key, fact in facts.items():
        owner, _, member = key.rpartition(".")
        if owner != name:
            continue
        if member == "__init__":
            space[member] = _constructor(module, name, str(fact))
        elif fact in ("ro", "rw"):
            space[member] = _property(key, str(fact), written.get(member, _ABSENT), module._touched)
        elif fact == "value":
            space[member] = made["ILogger.Severity"].__members__[member]
        elif str(fact).startswith("("):
            function = written.get(member, _SPECIAL.get(member))
            space[member] = _guarded(module, key, str(fact), function, method=True)
    return _ObjectType(name, (bases or (Made,)) + tuple(written.get("_built_on", ())), space)


_SPECIAL = {"__enter__": lambda self: self, "__exit__": lambda self, *_, **__: None}


def _dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _constructor(module: Any, name: str, fact: str) -> Callable[..., None]:
    if fact == "none":

        def refuse(self: Any, *_: Any, **__: Any) -> None:
            raise TypeError(f"tensorrt.tensorrt.{name}: No constructor defined!")

        return refuse

    def setup(self: Any, *args: Any, **kwargs: Any) -> None:
        self.__dict__["_constructed"] = True
        self._setup(*args, **kwargs)

    guarded = _guarded(module, f"{name}.__init__", fact, setup, method=True)
    return functools.wraps(setup)(guarded)


def _property(key: str, fact: str, found: Any, touched: set[str]) -> property:
    """found: a property, a plain value that is the attribute's first value, or nothing."""
    short = key.rpartition(".")[2]

    def get(self: Any) -> Any:
        touched.add(key)
        if found is _ABSENT:
            raise NotImplementedError(f"the double of TensorRT doesn't do {key}; write it there")
        if isinstance(found, property):
            return found.__get__(self)
        return self.__dict__.get(f"_value_{short}", found)

    def change(self: Any, value: Any) -> None:
        touched.add(f"{key}=")
        if found is _ABSENT or (isinstance(found, property) and found.fset is None):
            raise NotImplementedError(f"the double of TensorRT can't set {key}; write it there")
        if isinstance(found, property):
            found.__set__(self, value)
        else:
            self.__dict__[f"_value_{short}"] = value

    return property(get, change if fact == "rw" else None)


def _guarded(module: Any, key: str, fact: str, function: Any, *, method: bool) -> Any:
    """A call that takes what the real one takes."""
    short = key.rpartition(".")[2]

    def call(*args: Any, **kwargs: Any) -> Any:
        owner, given = (args[:1], args[1:]) if method else ((), args)
        module._touched.add(key)
        module._touched.update(f"{key}({name})" for name in kwargs)
        for parameters in overloads(fact):
            bound = bind(module, parameters, given, kwargs)
            if bound is not None:
                break
        else:
            raise TypeError(
                f"{short}(): incompatible function arguments. The following argument types are "
                f"supported: {fact}. Invoked with: {given!r}, {kwargs!r}"
            )
        if function is None:
            raise NotImplementedError(f"the double of TensorRT doesn't do {key}; write it there")
        inner = function.__func__ if isinstance(function, staticmethod) else function
        positional = [v for k, v in bound.items() if re.match(r"arg\d", k)]
        named = {k: v for k, v in bound.items() if not re.match(r"arg\d", k)}
        return inner(*(owner if method else (module,)), *positional, **named)

    call.__name__ = short
    return call
