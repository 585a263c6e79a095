"""The REST API's description of itself: /openapi.json, and /docs to read and try it.

    routes + descriptors + comments --document--> OpenAPI 3.1

All of /docs is served from here, Swagger UI's scripts too, so it works offline
and under a policy that runs no inline script.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Final

import orjson
from starlette.types import ASGIApp

from gateway.openapi.assets import Asset
from gateway.openapi.comments import load_comments
from gateway.openapi.document import document
from gateway.routes import Route

__all__ = ["pages"]

PAGES: Final = Path(__file__).parent / "pages"

DOCS_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""Nothing inline, no style either: policies do not mind what a script sets."""

_SWAGGER_UI: Final = {
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "favicon-32x32.png": "image/png",
}


def pages(routes: Sequence[Route]) -> Mapping[str, ASGIApp]:
    """Exact paths to what answers them: /openapi.json, /docs and every file of it."""
    made: dict[str, ASGIApp] = {
        "/openapi.json": Asset(lambda: _rendered(routes), "application/json"),
        "/docs": Asset((PAGES / "docs.html").read_bytes, "text/html; charset=utf-8", DOCS_POLICY),
        "/docs/start.js": Asset(
            (PAGES / "start.js").read_bytes, _SWAGGER_UI["swagger-ui-bundle.js"]
        ),
    }
    for name, content_type in _SWAGGER_UI.items():
        made[f"/docs/{name}"] = Asset(_vendored(name), content_type)
    return made


def _rendered(routes: Sequence[Route]) -> bytes:
    return orjson.dumps(document(routes, load_comments()))


def _vendored(name: str) -> Callable[[], bytes]:
    def read() -> bytes:
        vendor = resources.files("swagger_ui_bundle") / "vendor"
        [folder] = [each for each in vendor.iterdir() if each.name.startswith("swagger-ui-")]
        return (folder / name).read_bytes()

    return read
