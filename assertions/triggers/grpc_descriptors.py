"""Descriptors of gRPC methods, from the reflection service of the server or from a descriptor set."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError

from spanproof.assertions.triggers.context import TriggerFailed, first_line
from spanproof.query_lang.syntax.diagnostics import suggest_names

REFLECTION_VERSIONS: Final = ("v1", "v1alpha")  # of the reflection service; they differ only in name
NOT_FOUND: Final = grpc.StatusCode.NOT_FOUND.value[0]
FileDescriptors = dict[str, descriptor_pb2.FileDescriptorProto]
_FieldDescriptor = descriptor_pb2.FieldDescriptorProto


def read_descriptor_set(content: bytes, name: str) -> FileDescriptors:
    """Parse a file that `protoc --descriptor_set_out` has written."""
    try:
        descriptor_set = descriptor_pb2.FileDescriptorSet.FromString(content)
    except DecodeError:
        raise TriggerFailed(
            f"{name} is not a descriptor set; protoc --include_imports --descriptor_set_out writes one"
        ) from None
    return {file.name: file for file in descriptor_set.file}


class ReflectionClient:
    """Client of a server's reflection service."""

    def __init__(self, channel: grpc.Channel, address: str, timeout_s: float) -> None:
        self._channel = channel
        self._address = address
        self._timeout_s = timeout_s
        self._version = REFLECTION_VERSIONS[0]

    def find_files(self, service: str) -> FileDescriptors:
        """Return the files that describe a service, and their dependencies."""
        response = self._send_request(file_containing_symbol=service)
        if response.HasField("error") and response.error.code == NOT_FOUND:
            raise TriggerFailed(_describe_unknown_service(self._address, service, self._list_services()))
        files = self._parse_files(response)
        while missing := sorted({name for file in files.values() for name in file.dependency} - files.keys()):
            for name in missing:
                response = self._send_request(file_by_filename=name)
                known = _find_well_known_file(name) if response.HasField("error") else None
                files |= {name: known} if known is not None else self._parse_files(response)
                if name not in files:
                    raise TriggerFailed(f"{self._address} does not return {name}, which another file imports")
        return files

    def _parse_files(self, response: Any) -> FileDescriptors:
        if response.HasField("error"):
            raise TriggerFailed(f"{self._address} does not describe its services: {first_line(response.error.message)}")
        files = [descriptor_pb2.FileDescriptorProto.FromString(each) for each in response.files.file]
        return {file.name: file for file in files}

    def _list_services(self) -> list[str]:
        return [each.name for each in self._send_request(list_services="*").services.service]

    def _send_request(self, **question: str) -> Any:
        """Send one request to the newest available version of the reflection service. Return its response."""
        request, response = _make_message_classes()
        while True:
            call = self._channel.stream_stream(
                f"/grpc.reflection.{self._version}.ServerReflection/ServerReflectionInfo",
                request_serializer=request.SerializeToString,
                response_deserializer=response.FromString,
            )
            try:
                return next(iter(call(iter([request(**question)]), timeout=self._timeout_s)))
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                    reason = first_line(error.details() or "") or error.code().name
                    raise TriggerFailed(f"{self._address} does not describe its services: {reason}") from None
            except StopIteration:
                raise TriggerFailed(f"{self._address} does not describe its services: no response") from None
            if self._version == REFLECTION_VERSIONS[-1]:
                raise TriggerFailed(
                    f'{self._address} has no reflection service: name a descriptor set, `descriptors "shop.binpb"`'
                ) from None
            self._version = REFLECTION_VERSIONS[-1]


def find_method(files: FileDescriptors, service: str, name: str, origin: str) -> MethodDescriptor:
    """Return a unary method from the files of `origin`, a server or a file. Raises TriggerFailed."""
    pool = _make_pool(files, origin)
    try:
        descriptor: ServiceDescriptor = pool.FindServiceByName(service)
    except KeyError:
        names = [f"{file.package}.{each.name}".lstrip(".") for file in files.values() for each in file.service]
        raise TriggerFailed(_describe_unknown_service(origin, service, names)) from None
    method: MethodDescriptor | None = descriptor.methods_by_name.get(name)
    if method is None:
        raise TriggerFailed(f"`{service}` has no method `{name}`; {_suggest_names(name, descriptor.methods_by_name)}")
    if method.client_streaming or method.server_streaming:
        raise TriggerFailed(f"`{service}/{name}` is a stream; `when grpc` makes unary calls")
    return method


def _describe_unknown_service(origin: str, service: str, known: Iterable[str]) -> str:
    return f"{origin} has no service `{service}`; {_suggest_names(service, known)}"


def _suggest_names(name: str, known: Iterable[str]) -> str:
    listed = sorted(known)
    return suggest_names(name, listed) or ("it has " + (", ".join(f"`{each}`" for each in listed) or "none"))


def _make_pool(files: FileDescriptors, origin: str) -> DescriptorPool:
    """Return a new pool with the files, each added after its dependencies."""
    pool = DescriptorPool()
    added: set[str] = set()

    def add(name: str) -> None:
        if name in added:
            return
        added.add(name)
        file = files.get(name) or _find_well_known_file(name)
        if file is None:
            raise TriggerFailed(f"{origin} lacks {name}, which it needs; protoc --include_imports adds it")
        for dependency in file.dependency:
            add(dependency)
        pool.Add(file)

    try:
        for name in sorted(files):
            add(name)
    except TypeError as error:
        raise TriggerFailed(f"{origin} has invalid message descriptors: {first_line(str(error))}") from None
    return pool


def _find_well_known_file(name: str) -> descriptor_pb2.FileDescriptorProto | None:
    """Return a file that protobuf includes, such as google/protobuf/timestamp.proto, or None."""
    try:
        file = descriptor_pool.Default().FindFileByName(name)
    except KeyError:
        return None
    return descriptor_pb2.FileDescriptorProto.FromString(file.serialized_pb) if name.startswith("google/") else None


@cache
def _make_message_classes() -> tuple[Any, Any]:
    """Return the request and response classes of the reflection service, reduced to the needed fields."""
    file = descriptor_pb2.FileDescriptorProto(name="spanproof/reflection.proto", package="spanproof", syntax="proto3")
    request_fields = {3: "file_by_filename", 4: "file_containing_symbol", 7: "list_services"}
    _add_message(
        file,
        "Request",
        [(number, name, _FieldDescriptor.TYPE_STRING, "") for number, name in request_fields.items()],
        oneof=True,
    )
    _add_message(file, "Files", [(1, "file", _FieldDescriptor.TYPE_BYTES, "*")])
    _add_message(file, "Service", [(1, "name", _FieldDescriptor.TYPE_STRING, "")])
    _add_message(file, "Services", [(1, "service", _FieldDescriptor.TYPE_MESSAGE, "*Service")])
    _add_message(
        file, "Error", [(1, "code", _FieldDescriptor.TYPE_INT32, ""), (2, "message", _FieldDescriptor.TYPE_STRING, "")]
    )
    response_fields = {4: ("files", "Files"), 6: ("services", "Services"), 7: ("error", "Error")}
    _add_message(
        file,
        "Response",
        [(number, name, _FieldDescriptor.TYPE_MESSAGE, type_) for number, (name, type_) in response_fields.items()],
    )
    pool = DescriptorPool()
    pool.Add(file)
    make: Callable[[str], Any] = lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name))  # noqa: E731
    return make("spanproof.Request"), make("spanproof.Response")


def _add_message(
    file: descriptor_pb2.FileDescriptorProto, name: str, fields: list[tuple[int, str, Any, str]], *, oneof: bool = False
) -> None:
    """Add a message. A field is its number, name, type and message name; `*` before the message name means repeated."""
    message = file.message_type.add(name=name)
    if oneof:
        message.oneof_decl.add(name="question")
    for number, field, type_, message_name in fields:
        added = message.field.add(name=field, number=number, type=type_)
        added.label = (
            _FieldDescriptor.LABEL_REPEATED if message_name.startswith("*") else _FieldDescriptor.LABEL_OPTIONAL
        )
        if message_name.strip("*"):
            added.type_name = f".spanproof.{message_name.strip('*')}"
        if oneof:
            added.oneof_index = 0
