"""Tells what is for an event loop and what is for synchronous code apart, where they are given."""


def expect(given: object, kind: type, instead: str) -> None:
    """TypeError for what is not of this kind; it names what is for it."""
    if not isinstance(given, kind):
        told = f"{_name(kind)} is wanted here, and {_name(type(given))} is not: "
        raise TypeError(f"{told}see {instead}")


def refuse(given: object, kind: type, instead: str) -> None:
    """TypeError for what is of this kind; it names what is for it."""
    if isinstance(given, kind):
        raise TypeError(f"{_name(type(given))} is not for this: use {instead}")


def _name(kind: type) -> str:
    return f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
