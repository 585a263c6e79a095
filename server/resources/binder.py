"""Fills a servicer's RPCs for resources from the service's descriptor.

`CreateFeature` is Create of the resource whose message is Feature; a List or a BatchDelete is known
by what its answer repeats. A method that is written in the servicer wins.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from server.resources.engine import Resources
from server.resources.model import Resource
from server.resources.verbs import Verbs
from server.rpc.kinds import is_written

_MANY: Final = {"List": "list", "BatchDelete": "batch_delete"}
_ONE: Final = {
    "Get": "get",
    "Create": "create",
    "Update": "update",
    "Delete": "delete",
    "Restore": "restore",
    "Purge": "purge",
}
_READS: Final = frozenset(("list", "get"))


def bind(
    servicer: object, service: ServiceDescriptor, resources: Resources, *declared: Resource
) -> None:
    """Give `servicer` the verbs of these resources and their histories that it does not have.

    What stays unbound, RpcServer.add(..., complete=True) refuses.
    """
    histories = [one.history.resource() for one in declared if one.history is not None]
    for resource in (*declared, *histories):
        for method in service.methods:
            verb = _verb(method, resource)
            if verb and not is_written(getattr(servicer, method.name, None)):
                setattr(servicer, method.name, _rpc(method, Verbs(resources, resource), verb))


def _verb(method: MethodDescriptor, resource: Resource) -> str:
    """Which of the resource's verbs the method is; "" for none."""
    message = resource.message.DESCRIPTOR
    for name, verb in _ONE.items():
        if method.name == name + message.name and not (resource.read_only and verb not in _READS):
            return verb
    repeated = {field.message_type for field in method.output_type.fields if field.is_repeated}
    for name, verb in _MANY.items():
        if method.name.startswith(name) and message in repeated:
            return verb
    return ""


def _rpc(method: MethodDescriptor, verbs: Verbs, verb: str) -> Callable[..., Awaitable[Any]]:
    answer = message_factory.GetMessageClass(method.output_type)
    run = getattr(verbs, verb)

    async def rpc(request: Any, _context: Any) -> Any:
        return await run(request, answer)

    return rpc
