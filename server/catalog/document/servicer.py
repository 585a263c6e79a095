"""The whole catalog at once: the RPCs that apply a document, and that make one."""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from zaaz.catalog.v1 import catalog_document_pb2 as pb

from server.catalog.document.applying import apply_steps
from server.catalog.document.existing import load_all, load_existing
from server.catalog.document.exporting import export
from server.catalog.document.planning import Plan, Step, make_plan
from server.catalog.document.reading import Entry, Reader
from server.resources.changes import Changes
from server.resources.engine import MAX_PAGE_BYTES, Resources

ROWS_PER_TURN: Final = 50
"""Rows that are read before others have their turn: about 10 ms."""

_NO_REQUEST: Final = pb.ApplyCatalogRequest()
"""Of a transaction that only reads: nothing is remembered of it."""


class DocumentServicer:
    """Its parts of zaaz.catalog.v1.CatalogService."""

    def __init__(self, resources: Resources) -> None:
        self._document_rows = resources

    async def ApplyCatalog(
        self, request: pb.ApplyCatalogRequest, context: Any
    ) -> pb.ApplyCatalogResponse:
        """Make the catalog like a document, or tell what that would change."""
        return await apply_document(self._document_rows, request)

    async def ExportCatalog(
        self, request: pb.ExportCatalogRequest, context: Any
    ) -> pb.ExportCatalogResponse:
        """All live rows as a document."""

        # In one transaction, so that what names what agrees.
        async def work(changes: Changes) -> pb.ExportCatalogResponse:
            existing = await load_all(changes)
            document = await asyncio.to_thread(export, existing)
            return pb.ExportCatalogResponse(document=document)

        return await self._document_rows.run(_NO_REQUEST, pb.ExportCatalogResponse, work)


class _OnlyAsked(Exception):  # noqa: N818 - it is the way out of a transaction that is given up
    """What a document would change."""

    def __init__(self, answer: pb.ApplyCatalogResponse) -> None:
        super().__init__()
        self.answer = answer


async def apply_document(
    resources: Resources, request: pb.ApplyCatalogRequest, author: str = ""
) -> pb.ApplyCatalogResponse:
    """What the request asks for, in one transaction; `author` as in Resources.run.

    A dry run does it all and gives the transaction up, so that what it tells is what an
    application would do, and whatever would refuse that refuses this.
    """
    entries = await _read(request.document)

    async def work(changes: Changes) -> pb.ApplyCatalogResponse:
        existing = await load_existing(changes, entries, whole=request.prune)
        plan = await asyncio.to_thread(make_plan, entries, existing, whole=request.prune)
        await apply_steps(changes, plan.steps, existing)
        answer = _answer(plan, applied=not request.dry_run)
        if request.dry_run:
            await changes.finish()
            raise _OnlyAsked(answer)
        return answer

    try:
        return await resources.run(request, pb.ApplyCatalogResponse, work, author)
    except _OnlyAsked as asked:
        return asked.answer


async def _read(document: pb.CatalogDocument) -> list[Entry]:
    reader = Reader()
    for number, _ in enumerate(reader.rows(document), start=1):
        if number % ROWS_PER_TURN == 0:
            await asyncio.sleep(0)
    return reader.done()


def _answer(plan: Plan, *, applied: bool) -> pb.ApplyCatalogResponse:
    return pb.ApplyCatalogResponse(
        differences=_told(plan.steps), unchanged=plan.unchanged, applied=applied
    )


def _told(steps: Iterable[Step]) -> list[pb.CatalogDifference]:
    """Every step; its fields as long as they fit a message."""
    told: list[pb.CatalogDifference] = []
    left = MAX_PAGE_BYTES
    for step in steps:
        one = pb.CatalogDifference(
            action=step.action, resource=step.kind.collection, name=step.name, fields=step.fields
        )
        left -= one.ByteSize()
        if left < 0:
            one.ClearField("fields")
        told.append(one)
    return told
