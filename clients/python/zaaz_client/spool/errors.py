# ruff: noqa: N818 - named as the other errors are
"""What a spool on disk raises: see the tree in `zaaz_client.errors`."""

from zaaz_client.errors import ZaazError


class SpoolError(ZaazError):
    """The spool's directory cannot be used."""


class SpoolFull(SpoolError):
    """The spool or its disk takes no more events now; this one was not taken."""

    retryable = True


class SpoolInUse(SpoolError):
    """Another stream, here or in another process, has the directory."""

    retryable = True


class SpoolDamaged(SpoolError):
    """A file of the spool is not what was written to it. The message names file and byte."""


class SpoolOfAnotherWriter(SpoolError):
    """The directory holds the events of another writer_id, or of another client's."""
