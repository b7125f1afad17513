"""Makes unary gRPC calls that start a trace of their own; messages are given and shown as JSON."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Final, cast

import grpc
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import DecodeError, Message

from spanproof.assertions.triggers.context import TraceContext, TriggerFailed, first_line
from spanproof.assertions.triggers.grpc_descriptors import ReflectionClient, find_method, read_descriptor_set
from spanproof.assertions.triggers.request import TriggerRequest, build_json
from spanproof.assertions.triggers.responses import SendRequest, TriggerResponse
from spanproof.query_lang.check.constants import Constant, interpolate
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.diagnostics import suggest_names

CHANNEL_OPTIONS: Final = (
    ("grpc.enable_retries", 0),  # each attempt would be one of ours
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),  # an earlier failure to connect is no reason to wait
)


@dataclass(frozen=True, slots=True)
class GrpcResponse(TriggerResponse):
    """What a call was answered with: its status code, and the message as JSON, or what the status says."""

    headers: Mapping[str, str]  # initial and trailing metadata

    def read(self, part: str, keys: tuple[str | int, ...]) -> Constant | None:
        """Return a part of the response, or None where it has no such part."""
        if part == "headers":
            value = self.headers.get(str(keys[0]).lower())
            return None if value is None else Constant(value, "text")
        return TriggerResponse.read(self, part, keys)


@contextmanager
def open_grpc(request: TriggerRequest) -> Iterator[SendRequest]:
    """Connect, and find out what the method of a ``when`` takes. Raises TriggerFailed; so may what it yields."""
    address, timeout = request.read_target(0), request.read_timeout_s()
    service, _, name = request.read_target(1).lstrip("/").rpartition("/")
    metadata = {key.lower(): value for key, value in request.read_headers().items()}
    with closing(_make_channel(request, address)) as channel:
        _wait_until_ready(channel, address, timeout)
        option = request.when.option("descriptors")
        if option is not None:
            origin = str(request.resolve_path(option))
            files = read_descriptor_set(request.read_file(option), origin)
        else:
            origin = address
            files = ReflectionClient(channel, address, timeout).find_files(service)
        method = find_method(files, service, name, origin)
        payload = _build_message(request, method).SerializeToString()
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{service}/{name}")

        def send(context: TraceContext) -> GrpcResponse:
            sent = tuple(
                (key, base64.b64decode(value) if key.endswith("-bin") else value)
                for key, value in context.merge_headers(metadata).items()
            )
            started_ns = time.perf_counter_ns()
            try:
                answered, done = call.with_call(payload, timeout=timeout, metadata=sent)
            except grpc.RpcError as raised:
                took, error = time.perf_counter_ns() - started_ns, cast(grpc.Call, raised)  # which it is, too
                headers = _read_metadata(error.initial_metadata(), error.trailing_metadata())
                return GrpcResponse(error.code().value[0], error.details() or "", took, headers)
            took = time.perf_counter_ns() - started_ns
            return GrpcResponse(
                0,
                _render_message(answered, method),
                took,
                _read_metadata(done.initial_metadata(), done.trailing_metadata()),
            )

        yield send


def _make_channel(request: TriggerRequest, address: str) -> grpc.Channel:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise TriggerFailed(f"`{address}` is not an address such as 127.0.0.1:50051", request.when.targets[0].at)
    bare = host.strip("[]")
    options: list[tuple[str, str | int]] = list(CHANNEL_OPTIONS)
    if request.allowed_targets is None:
        target = f"dns:///{address}"
    else:  # what was checked is what is asked, under the name that the certificate must have
        checked = request.allowed_targets.resolve(bare, int(port))
        target = f"ipv6:[{checked}]:{port}" if ":" in checked else f"ipv4:{checked}:{port}"
        options += [("grpc.default_authority", address), ("grpc.ssl_target_name_override", bare)]
    tls = request.when.option("tls")
    if tls is None:
        return grpc.insecure_channel(target, options=options)
    roots = request.read_file(tls) if tls.value is not None else None
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(roots), options=options)


def _wait_until_ready(channel: grpc.Channel, address: str, timeout_s: float) -> None:
    """Wait for the connection, so that a server which is not there is told from one that answers `UNAVAILABLE`."""
    states: SimpleQueue[grpc.ChannelConnectivity] = SimpleQueue()
    channel.subscribe(states.put, try_to_connect=True)
    deadline = time.monotonic() + timeout_s
    try:
        while (
            state := states.get(timeout=max(0.0, deadline - time.monotonic()))
        ) is not grpc.ChannelConnectivity.READY:
            if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                raise TriggerFailed(f"{address} cannot be reached: {_explain_connection_failure(channel)}")
    except Empty:
        raise TriggerFailed(f"{address} was not reached within {timeout_s:g}s") from None
    finally:
        channel.unsubscribe(states.put)


def _explain_connection_failure(channel: grpc.Channel) -> str:
    """Ask for anything, as what the channel says of a call is why it has no connection."""
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/grpc.health.v1.Health/Check")
    try:
        call(b"", timeout=1)
    except grpc.RpcError as error:
        return first_line(error.details() or "") or str(error.code().name)
    return "it was lost"


def _read_metadata(*parts: Iterable[Any] | None) -> dict[str, str]:
    return {
        key: base64.b64encode(value).decode() if isinstance(value, bytes) else value
        for part in parts
        for key, value in part or ()
    }


# ## Messages


def _build_message(request: TriggerRequest, method: MethodDescriptor) -> Message:
    """Make the message that a method takes of the request's JSON."""
    described: Descriptor = method.input_type
    option = request.when.option("json")
    message: Message = message_factory.GetMessageClass(described)()
    if option is None:
        return message
    _check_fields(option.value, described, request)
    value = build_json(option.value, request.bindings)
    if not isinstance(value, dict):
        raise TriggerFailed(f"a `{described.full_name}` is written as a JSON object", option.at)
    try:
        json_format.ParseDict(value, message, descriptor_pool=described.file.pool)
    except (json_format.ParseError, ValueError, TypeError) as error:
        said = first_line(str(error))
        raise TriggerFailed(f"this is no `{described.full_name}`: {said}", option.at) from None
    return message


def _check_fields(node: object, described: Descriptor, request: TriggerRequest) -> None:
    """Refuse a field that the message does not have, at its place in the proof."""
    if isinstance(node, s.JsonArray):
        for item in node.items:
            _check_fields(item, described, request)
    if not isinstance(node, s.JsonObject) or described.file.name.startswith("google/protobuf/"):
        return  # the messages that protobuf brings along are written in ways of their own
    fields: dict[str, FieldDescriptor] = {}
    for field in described.fields:
        fields |= {field.name: field, field.json_name: field}
    for key, value in node.pairs:
        name = interpolate(key, request.bindings)
        found = fields.get(name)
        if found is None:
            names = sorted({field.name for field in described.fields})
            hint = suggest_names(name, names) or "its fields are " + (
                ", ".join(f"`{each}`" for each in names) or "none"
            )
            raise TriggerFailed(f"`{described.full_name}` has no field `{name}`; {hint}", key.at)
        below = found.message_type
        if below is not None and below.GetOptions().map_entry:
            of_values = below.fields_by_name["value"].message_type
            if of_values is not None and isinstance(value, s.JsonObject):
                for _, item in value.pairs:
                    _check_fields(item, of_values, request)
        elif below is not None:
            _check_fields(value, below, request)


def _render_message(payload: bytes, method: MethodDescriptor) -> str:
    """Write a message as JSON, fields without a value too."""
    kind: Any = message_factory.GetMessageClass(method.output_type)
    try:
        message = kind.FromString(payload)
    except DecodeError:
        raise TriggerFailed(f"the answer is no `{method.output_type.full_name}`") from None
    return json.dumps(
        json_format.MessageToDict(
            message, always_print_fields_with_no_presence=True, descriptor_pool=method.output_type.file.pool
        )
    )
