"""The routes of the REST API, read from the contract's own descriptors.

A route is a `google.api.http` rule of an RPC. Nothing here is written down twice:
an RPC that is annotated in its .proto is served once its stubs are installed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Final

import zaaz
from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor

SERVICE_STUBS: Final = "*/v*/*_service_pb2.py"
"""Where the package `zaaz` keeps the services of each domain."""


@dataclass(frozen=True, slots=True)
class Route:
    """One way to call an RPC over HTTP."""

    method: MethodDescriptor
    verb: str
    """In capitals, as in "GET"."""
    path: str
    """The template, as in "/api/packages/{id}"."""
    body: str
    """What the body becomes: "" nothing, "*" the request, else that field of it."""
    response_body: str
    """The field of the response that is sent; "" for all of it."""
    primary: bool
    """False for what stands under additional_bindings."""


def contract_files() -> tuple[FileDescriptor, ...]:
    """The files of all services for which stubs are installed, by name."""
    names = {_module(path) for root in zaaz.__path__ for path in Path(root).glob(SERVICE_STUBS)}
    return tuple(import_module(name).DESCRIPTOR for name in sorted(names))


def routes_of(files: Iterable[FileDescriptor]) -> tuple[Route, ...]:
    """Every route of the services in `files`, in the order of the contract."""
    return tuple(
        route
        for file in files
        for service in file.services_by_name.values()
        for method in service.methods
        for route in _routes_of_method(method)
    )


def _module(path: Path) -> str:
    return ".".join(("zaaz", *path.parts[-3:-1], path.stem))


def _routes_of_method(method: MethodDescriptor) -> Iterator[Route]:
    options = method.GetOptions()
    if not options.HasExtension(annotations_pb2.http):
        return
    rule = options.Extensions[annotations_pb2.http]
    yield _route(method, rule, primary=True)
    for additional in rule.additional_bindings:
        yield _route(method, additional, primary=False)


def _route(method: MethodDescriptor, rule: http_pb2.HttpRule, *, primary: bool) -> Route:
    verb, path = _verb_and_path(rule)
    return Route(method, verb, path, rule.body, rule.response_body, primary)


def _verb_and_path(rule: http_pb2.HttpRule) -> tuple[str, str]:
    pattern = rule.WhichOneof("pattern")
    if pattern is None:
        raise ValueError("an http rule without a verb and a path")
    if pattern == "custom":
        return rule.custom.kind.upper(), rule.custom.path
    return pattern.upper(), getattr(rule, pattern)
