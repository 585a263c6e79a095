"""A protoc plugin that writes `*_pb2_grpc.py`, for `buf generate`.

grpcio-tools carries this generator inside its own protoc only, and buf has no
way to ask for it there; so the request is handed on as a descriptor set.
"""

import sys
import tempfile
from pathlib import Path

from google.protobuf.compiler import plugin_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc


def generate(request: plugin_pb2.CodeGeneratorRequest) -> plugin_pb2.CodeGeneratorResponse:
    """The answer for the request's files that have services."""
    response = plugin_pb2.CodeGeneratorResponse(
        supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    )
    wanted = set(request.file_to_generate)
    files = [f.name for f in request.proto_file if f.name in wanted and f.service]
    if not files:
        return response
    with tempfile.TemporaryDirectory() as folder:
        descriptors = Path(folder, "descriptors.binpb")
        descriptors.write_bytes(FileDescriptorSet(file=request.proto_file).SerializeToString())
        arguments = [f"--descriptor_set_in={descriptors}", f"--grpc_python_out={folder}"]
        if protoc.main(["protoc", *arguments, *files]):
            response.error = "grpc_tools.protoc failed"
            return response
        for made in sorted(Path(folder).rglob("*_pb2_grpc.py")):
            name = str(made.relative_to(folder))
            response.file.add(name=name, content=made.read_text())
    return response


if __name__ == "__main__":
    asked = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    sys.stdout.buffer.write(generate(asked).SerializeToString())
