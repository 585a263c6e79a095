"""The application: the contract's routes behind the browser's guards.

    secured( Router( endpoints of the contract, /healthz, /readyz, /openapi.json, /docs ) )

What answers a route follows from its method's shape:

    one message -> one message          Unary
    a stream of bytes -> one message    Upload
    one message -> a stream of bytes    Download
    one message -> a stream             Events (server-sent)
    streams both ways                   gRPC only: HTTP cannot carry them to a browser
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from google.protobuf.descriptor import FileDescriptor
from starlette.types import ASGIApp

from gateway.binding import Binding
from gateway.decoding import Decoders
from gateway.encoding import Encoders
from gateway.health import health_pages
from gateway.open_streams import OpenStreams
from gateway.openapi import pages
from gateway.router import Endpoint, Router
from gateway.routes import Route, contract_files, routes_of
from gateway.security import SecuritySettings, secured
from gateway.sse import Events
from gateway.streaming import MAX_UPLOAD_BYTES, Download, Upload, is_download, is_upload
from gateway.templates import parse_template
from gateway.unary import Unary
from gateway.upstream import Upstream


def build(
    security: SecuritySettings,
    upstream: Upstream,
    files: Iterable[FileDescriptor] | None = None,
    streams: OpenStreams | None = None,
) -> ASGIApp:
    """The ASGI application for the services in `files`: all of the contract's, if none are named.

    `streams` is how whoever stops it ends its streams. ValueError if an annotation cannot be
    served: that is a defect of the contract.
    """
    routes = routes_of(contract_files() if files is None else files)
    endpoints = list(_endpoints(routes, upstream, OpenStreams() if streams is None else streams))
    served = [route for route, _ in endpoints]
    router = Router(endpoints, {**health_pages(upstream), **pages(served)})
    return secured(router, _with_upload_limits(security, served))


def _endpoints(
    routes: Iterable[Route], upstream: Upstream, streams: OpenStreams
) -> Iterator[tuple[Route, Endpoint]]:
    encoders, decoders = Encoders(), Decoders()
    for route in routes:
        if route.method.client_streaming and route.method.server_streaming:
            continue
        binding = Binding(route, parse_template(route.path), decoders)
        if is_upload(route):
            yield route, Upload(route, binding, encoders, upstream)
        elif is_download(route):
            yield route, Download(route, binding, upstream)
        elif route.method.server_streaming:
            yield route, Events(route, binding, encoders, upstream, streams)
        else:
            yield route, Unary(route, binding, encoders, upstream)


def _with_upload_limits(security: SecuritySettings, routes: Iterable[Route]) -> SecuritySettings:
    """Uploads are never held, so they may be larger than what is."""
    limits = (
        (_before_variables(each.path), MAX_UPLOAD_BYTES) for each in filter(is_upload, routes)
    )
    return replace(security, body_limits=(*limits, *security.body_limits))


def _before_variables(path: str) -> str:
    return path.partition("{")[0]
