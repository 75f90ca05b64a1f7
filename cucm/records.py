"""`dataclass` for values: the standard one, but a frozen class with slots is made in a quarter of the time.

The standard library compiles six methods for each class; the lab has more than three hundred such classes, which was
a quarter of its start. Only `__init__` depends on the names of the fields, so only that is compiled here; the others
are closures over an `attrgetter`. What a class can do is the same: fields, replace, asdict, match, hash, copies,
pickles; a class that asks for more (fields that are not in `__init__`, or hashed otherwise than compared) is refused.
It leans on inner parts of the standard module, so it steps aside on every Python that its tests have not seen.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

__all__ = ["dataclass"]

if TYPE_CHECKING or sys.version_info[:2] != (3, 11):
    from dataclasses import dataclass
else:
    import dataclasses
    from operator import attrgetter

    _SET = object.__setattr__

    def dataclass(cls=None, /, **options):
        """As `dataclasses.dataclass`. Raises TypeError for a field that the quick form cannot have."""
        if options.get("frozen") and options.get("slots") and options.keys() <= {"frozen", "slots", "kw_only"}:
            return lambda plain: _frozen(plain, kw_only=options.get("kw_only", False))
        return dataclasses.dataclass(cls, **options)

    def _frozen(plain, *, kw_only):
        own = set(plain.__dict__)
        known = (base.__dict__.get("__dataclass_params__") for base in plain.__mro__)
        bases = [params for params in known if params is not None and params.frozen]
        for params in bases:
            params.frozen = False  # for a moment: the standard decorator is to leave `__setattr__` to us
        try:
            made = dataclasses.dataclass(init=False, repr=False, eq=False, slots=True, kw_only=kw_only)(plain)
        finally:
            for params in bases:
                params.frozen = True
        made.__dataclass_params__.frozen = True
        fields = dataclasses.fields(made)
        _require_plain(made)
        methods = {
            "__init__": _init(fields, made),
            "__repr__": _repr([field.name for field in fields if field.repr]),
            "__setattr__": _refuse_to_set,
            "__delattr__": _refuse_to_delete,
            **_comparison([field.name for field in fields if field.compare]),
            **_copying([field.name for field in fields]),
        }
        for name, method in methods.items():
            if name not in own:
                setattr(made, name, method)
        return made

    def _require_plain(cls):
        """Also those of its bases: what is not known here would be ignored in silence."""
        for name, field in cls.__dataclass_fields__.items():
            if field._field_type is dataclasses._FIELD_INITVAR:
                what = "an InitVar"
            elif not field.init:
                what = "field(init=False)"
            elif field.hash is not None and field.hash != field.compare:
                what = "field(hash=...) other than its compare"
            else:
                continue
            whose = f"{cls.__module__}.{cls.__qualname__}.{name}"
            raise TypeError(f"{whose} is {what}: use dataclasses.dataclass for this class, or leave it out")

    def _init(fields, cls):
        """The only method that has to be compiled: its parameters are the fields."""
        known = {"_factory": _FACTORY}
        places, words, body = [], [], []
        for field in fields:
            value = name = field.name
            if field.default is not dataclasses.MISSING:
                known[f"_default_{name}"] = field.default
                name = f"{name}=_default_{name}"
            elif field.default_factory is not dataclasses.MISSING:
                known[f"_make_{name}"] = field.default_factory
                value = f"_make_{name}() if {name} is _factory else {name}"
                name = f"{name}=_factory"
            (words if field.kw_only else places).append(name)
            # the slot's own setter, which has nothing to look up: a third less than `object.__setattr__` by name
            known[f"_set_{field.name}"] = getattr(cls, field.name).__set__
            body.append(f"_set_{field.name}(self, {value})")
        if hasattr(cls, "__post_init__"):
            body.append("self.__post_init__()")
        parameters = ", ".join(["self", *places, *(["*", *words] if words else [])])
        exec(f"def __init__({parameters}):\n " + "\n ".join(body or ["pass"]), known)  # noqa: S102 (our own names)
        method = known["__init__"]
        method.__qualname__ = f"{cls.__qualname__}.__init__"
        return method

    _FACTORY = object()

    def _values(names):
        """A function that gives the values of these attributes as a tuple."""
        if len(names) > 1:
            return attrgetter(*names)
        return (lambda self: (getattr(self, names[0]),)) if names else (lambda self: ())  # noqa: ARG005

    def _comparison(names):
        values = _values(names)

        def __eq__(self, other):  # noqa: N807
            if other.__class__ is self.__class__:
                return values(self) == values(other)
            return NotImplemented

        def __hash__(self):  # noqa: N807
            return hash(values(self))

        return {"__eq__": __eq__, "__hash__": __hash__}

    def _copying(names):
        """For copies and pickles, which cannot set attributes one by one."""
        values = _values(names)

        def __getstate__(self):  # noqa: N807
            return values(self)

        def __setstate__(self, state):  # noqa: N807
            for name, value in zip(names, state, strict=True):
                _SET(self, name, value)

        return {"__getstate__": __getstate__, "__setstate__": __setstate__}

    def _repr(names):
        def __repr__(self):  # noqa: N807
            told = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
            return f"{self.__class__.__qualname__}({told})"

        return __repr__

    def _refuse_to_set(_self, name, _value):
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")

    def _refuse_to_delete(_self, name):
        raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
