"""What an embedded database begins with: the catalog of a file."""

import asyncio
import logging
from pathlib import Path
from typing import Final

from zaaz.catalog.v1.catalog_document_pb2 import ApplyCatalogRequest, CatalogDocument
from zaaz_client.catalog_files import CatalogFileError, read_catalog

from server.catalog.document.servicer import apply_document
from server.catalog.store import CatalogStore
from server.kernel.errors import DomainError
from server.resources.engine import Resources
from server.rpc.listening import CannotServeError

AUTHOR: Final = "demo"
"""The client that the history names for it."""

_log = logging.getLogger(__name__)


async def begin_with(resources: Resources, store: CatalogStore, file: Path) -> None:
    """Apply the file's catalog, unless there has ever been one: what became of it stays.

    CannotServeError for a file that is none, saying where it is wrong.
    """
    if await store.revision():
        return
    document = await asyncio.to_thread(_read, file)
    try:
        answer = await apply_document(resources, ApplyCatalogRequest(document=document), AUTHOR)
    except DomainError as error:
        raise CannotServeError(f"ZAAZ_DEMO_CATALOG: {file}: {error.message}") from error
    _log.info("the demo catalog was applied", extra={"fields": {"rows": len(answer.differences)}})


def _read(file: Path) -> CatalogDocument:
    try:
        return read_catalog(file.read_text(encoding="utf-8"), str(file)).document
    except CatalogFileError as error:
        raise CannotServeError(f"ZAAZ_DEMO_CATALOG: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise CannotServeError(f"ZAAZ_DEMO_CATALOG: {file} cannot be read: {error}") from error
