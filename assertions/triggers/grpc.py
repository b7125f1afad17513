"""Trigger that makes unary gRPC calls, each with its own trace; messages are written and shown as JSON."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
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
    ("grpc.enable_retries", 0),  # retries must be those of the proof
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),  # avoids the reconnection backoff of earlier channels
)


class GrpcResponse(TriggerResponse, frozen=True):
    """The response to a gRPC call: its status code, and the message as JSON or the status details."""

    headers: Mapping[str, str]  # initial and trailing metadata

    def read(self, part: str, keys: tuple[str | int, ...]) -> Constant | None:
        """Return a part of the response, or None if it has no such part."""
        if part == "headers":
            value = self.headers.get(str(keys[0]).lower())
            return None if value is None else Constant(value, "text")
        return TriggerResponse.read(self, part, keys)


@contextmanager
def open_grpc(request: TriggerRequest) -> Iterator[SendRequest]:
    """Connect, look up the method of a ``when``, and yield a function that calls it. Both raise TriggerFailed."""
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
            metadata_pairs = tuple(
                (key, base64.b64decode(value) if key.endswith("-bin") else value)
                for key, value in context.merge_headers(metadata).items()
            )
            started_ns = time.perf_counter_ns()
            try:
                payload_received, completed_call = call.with_call(payload, timeout=timeout, metadata=metadata_pairs)
            except grpc.RpcError as rpc_error:
                duration_ns, error = time.perf_counter_ns() - started_ns, cast(grpc.Call, rpc_error)
                headers = _read_metadata(error.initial_metadata(), error.trailing_metadata())
                return GrpcResponse(error.code().value[0], error.details() or "", duration_ns, headers)
            duration_ns = time.perf_counter_ns() - started_ns
            return GrpcResponse(
                0,
                _render_message(payload_received, method),
                duration_ns,
                _read_metadata(completed_call.initial_metadata(), completed_call.trailing_metadata()),
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
    else:  # connect to the checked address, under the name that the certificate is checked against
        checked = request.allowed_targets.resolve(bare, int(port))
        target = f"ipv6:[{checked}]:{port}" if ":" in checked else f"ipv4:{checked}:{port}"
        options += [("grpc.default_authority", address), ("grpc.ssl_target_name_override", bare)]
    tls = request.when.option("tls")
    if tls is None:
        return grpc.insecure_channel(target, options=options)
    roots = request.read_file(tls) if tls.value is not None else None
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(roots), options=options)


def _wait_until_ready(channel: grpc.Channel, address: str, timeout_s: float) -> None:
    """Wait for the connection, to tell an unreachable server from one that responds with `UNAVAILABLE`."""
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
    """Return why a channel has no connection; the error of any call contains the reason."""
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/grpc.health.v1.Health/Check")
    try:
        call(b"", timeout=1)
    except grpc.RpcError as error:
        return first_line(error.details() or "") or str(error.code().name)
    return "the connection was lost"


def _read_metadata(*parts: Iterable[Any] | None) -> dict[str, str]:
    return {
        key: base64.b64encode(value).decode() if isinstance(value, bytes) else value
        for part in parts
        for key, value in part or ()
    }


# ## Messages


def _build_message(request: TriggerRequest, method: MethodDescriptor) -> Message:
    """Return the request message of a method, built from the JSON of the request."""
    descriptor: Descriptor = method.input_type
    option = request.when.option("json")
    message: Message = message_factory.GetMessageClass(descriptor)()
    if option is None:
        return message
    _check_fields(option.value, descriptor, request)
    value = build_json(option.value, request.bindings)
    if not isinstance(value, dict):
        raise TriggerFailed(f"a `{descriptor.full_name}` is written as a JSON object", option.at)
    try:
        json_format.ParseDict(value, message, descriptor_pool=descriptor.file.pool)
    except (json_format.ParseError, ValueError, TypeError) as error:
        reason = first_line(str(error))
        raise TriggerFailed(f"this is not a `{descriptor.full_name}`: {reason}", option.at) from None
    return message


def _check_fields(node: object, descriptor: Descriptor, request: TriggerRequest) -> None:
    """Raise TriggerFailed, with the position in the proof, for a field that the message does not have."""
    if isinstance(node, s.JsonArray):
        for item in node.items:
            _check_fields(item, descriptor, request)
    if not isinstance(node, s.JsonObject) or descriptor.file.name.startswith("google/protobuf/"):
        return  # well-known types have their own JSON forms
    fields: dict[str, FieldDescriptor] = {}
    for field in descriptor.fields:
        fields |= {field.name: field, field.json_name: field}
    for key, value in node.pairs:
        name = interpolate(key, request.bindings)
        matched_field = fields.get(name)
        if matched_field is None:
            names = sorted({field.name for field in descriptor.fields})
            hint = suggest_names(name, names) or "its fields are " + (
                ", ".join(f"`{each}`" for each in names) or "none"
            )
            raise TriggerFailed(f"`{descriptor.full_name}` has no field `{name}`; {hint}", key.at)
        message_type = matched_field.message_type
        if message_type is not None and message_type.GetOptions().map_entry:
            value_type = message_type.fields_by_name["value"].message_type
            if value_type is not None and isinstance(value, s.JsonObject):
                for _, item in value.pairs:
                    _check_fields(item, value_type, request)
        elif message_type is not None:
            _check_fields(value, message_type, request)


def _render_message(payload: bytes, method: MethodDescriptor) -> str:
    """Return a message as JSON, including fields without a value."""
    message_class: Any = message_factory.GetMessageClass(method.output_type)
    try:
        message = message_class.FromString(payload)
    except DecodeError:
        raise TriggerFailed(f"the response is not a `{method.output_type.full_name}`") from None
    return json.dumps(
        json_format.MessageToDict(
            message, always_print_fields_with_no_presence=True, descriptor_pool=method.output_type.file.pool
        )
    )
