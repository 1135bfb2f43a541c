"""Registries: things of one kind are declared in one, and found in it by name."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Generic, TypeVar

from ablate.errors import ConfigError
from ablate.problem.near import no_such_choice
from ablate.problem.section import Section


class Choice(Section):
    """One option of a configuration group: its name, and the keys it adds to those of its group.

    `also_called` are names by which it is known elsewhere, for the error message of someone who uses them.
    """

    also_called: ClassVar[tuple[str, ...]] = ()

    name: str

    @classmethod
    def field_names(cls) -> Iterator[str]:
        """The names of its keys: its own first, then those that all options of the group share."""
        seen = dict.fromkeys(key for kind in cls.__mro__ for key in inspect.get_annotations(kind))
        return (key for key in seen if key in cls.model_fields)

    @classmethod
    def incomplete(cls) -> str | None:
        """What the declaration lacks; None if it is complete."""
        if inspect.isabstract(cls):
            return f"needs {', '.join(sorted(cls.__abstractmethods__))}"
        without = [key for key, field in cls.model_fields.items() if field.is_required()]
        return f"needs a default for {', '.join(without)}" if without else None

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The option with its default values, as the configuration holds it."""
        return {key: cls.model_fields[key].get_default(call_default_factory=True) for key in cls.field_names()}


C = TypeVar("C", bound=Choice)
T = TypeVar("T")

_REGISTRIES: dict[str, "Registry[Any]"] = {}


class Registry(Generic[T]):
    """Things of one kind by name, in the order of their declaration.

    `kind` is what the configuration calls them: the key or the group that chooses one.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._known: dict[str, T] = {}
        _REGISTRIES[kind] = self

    def add(self, name: str, thing: T) -> T:
        """Declare a thing. Raises ValueError if another has the same name."""
        if self._known.get(name, thing) is not thing:
            raise ValueError(f"{self.kind}={name}: declared twice")
        self._known[name] = thing
        return thing

    def replace(self, name: str, thing: T) -> None:
        """Declare a thing, replacing any other of that name."""
        self._known[name] = thing

    @contextmanager
    def temporarily(self) -> Iterator[None]:
        """A context in which declarations are temporary: they are removed at its end."""
        before = dict(self._known)
        try:
            yield
        finally:
            self._known = before

    def names(self) -> list[str]:
        return list(self._known)

    def __iter__(self) -> Iterator[T]:
        return iter(self._known.values())

    def get(self, name: str) -> T:
        """Raises ConfigError, which lists the names, if there is no such thing."""
        if name not in self._known:
            raise ConfigError(no_such_choice(self.kind, name, self._known, self.also_called))
        return self._known[name]

    @property
    def also_called(self) -> Mapping[str, Sequence[str]]:
        """By name, the other names of the things that have any."""
        return {name: getattr(thing, "also_called", ()) for name, thing in self._known.items()}


def also_called(kind: str) -> Mapping[str, Sequence[str]]:
    """The other names of what the key `kind` chooses, by name; none where no registry has its choices."""
    return _REGISTRIES[kind].also_called if kind in _REGISTRIES else {}


class Group(Registry[type[C]]):
    """The options of a configuration group, each a class."""

    def declare(self, choice: type[C]) -> type[C]:
        """Class decorator: register an option under the default of its field `name`.

        Raises TypeError for a declaration that something is missing from, which would show much later.
        """
        if missing := choice.incomplete():
            raise TypeError(f"{self.kind}: {choice.__name__} {missing}")
        return self.add(str(choice.model_fields["name"].default), choice)

    def read(self, values: Mapping[str, Any]) -> C:
        """The option that a resolved configuration describes.

        Raises ConfigError if the group has no option of that name, pydantic's ValidationError if a value is wrong.
        """
        return self.get(str(values.get("name"))).model_validate(values)


# By kind and name.
Declarations = Sequence[tuple[str, str, Any]]


def declared_outside() -> Declarations:
    """What modules outside of ablate have declared, to be declared again in another process."""
    every = ((kind, name, registry.get(name)) for kind, registry in _REGISTRIES.items() for name in registry.names())
    return [each for each in every if not _module(each[2]).startswith(f"{__package__.partition('.')[0]}.")]


def declare_again(declared: Declarations) -> None:
    """Declare in this process what `declared_outside` returned in another."""
    for kind, name, thing in declared:
        _REGISTRIES[kind].replace(name, thing)


def _module(thing: Any) -> str:
    return str((thing if isinstance(thing, type) else type(thing)).__module__)
