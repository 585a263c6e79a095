"""Paths as OpenAPI wants them: one name for one place, and no dots in it.

`/api/features/{id}` and `/api/features/{feature.id}` are one path to a router, and
have to be one here, under the name that the contract's first route gives it.
"""

import re
from collections.abc import Sequence
from typing import Final

from gateway.routes import Route
from gateway.templates import parse_template

_VARIABLE: Final = re.compile(r"\{([^}=]+)(?:=[^}]*)?\}")


class Paths:
    """The paths of all routes and the names of their variables."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._names: dict[str, list[str]] = {}
        for route in routes:
            self._names.setdefault(_shape(route), _short_names(path_fields(route)))

    def path(self, route: Route) -> str:
        """The path of `route`."""
        names = iter(self._names[_shape(route)])
        return _VARIABLE.sub(lambda _: "{" + next(names) + "}", route.path)

    def variables(self, route: Route) -> list[tuple[str, str]]:
        """The fields that the path fills, each with its name there."""
        return list(zip(path_fields(route), self._names[_shape(route)], strict=True))


def path_fields(route: Route) -> list[str]:
    """The fields that the path fills, in its order."""
    return [variable.field_path for variable in parse_template(route.path).variables]


def _shape(route: Route) -> str:
    return _VARIABLE.sub("{}", route.path)


def _short_names(fields: Sequence[str]) -> list[str]:
    last = [field.rpartition(".")[2] for field in fields]
    if len(set(last)) == len(last):
        return last
    return [field.replace(".", "_") for field in fields]
