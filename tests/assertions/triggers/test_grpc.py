"""`when grpc` against real servers, with both versions of reflection and without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from google.protobuf import descriptor_pb2, message_factory, text_format, timestamp_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection

from spanproof.assertions.findings.verdict import Outcome
from spanproof.assertions.triggers.allowed_targets import read_allowed_targets
from spanproof.tests.assertions.traced_service import Prove, TracedService

SHOP = text_format.Parse(
    """
    name: "shop.proto" package: "shop" syntax: "proto3" dependency: "google/protobuf/timestamp.proto"
    message_type {
      name: "Card"
      field { name: "number" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
    }
    message_type {
      name: "Charge"
      field { name: "order_id" json_name: "orderId" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
      field { name: "amount" json_name: "amount" number: 2 type: TYPE_INT32 label: LABEL_OPTIONAL }
      field { name: "card" json_name: "card" number: 3 type: TYPE_MESSAGE type_name: ".shop.Card"
              label: LABEL_OPTIONAL }
      field { name: "at" json_name: "at" number: 4 type: TYPE_MESSAGE type_name: ".google.protobuf.Timestamp"
              label: LABEL_OPTIONAL }
      field { name: "parts" json_name: "parts" number: 5 type: TYPE_MESSAGE type_name: ".shop.Charge"
              label: LABEL_REPEATED }
      field { name: "cards" json_name: "cards" number: 6 type: TYPE_MESSAGE type_name: ".shop.Charge.CardsEntry"
              label: LABEL_REPEATED }
      nested_type {
        name: "CardsEntry" options { map_entry: true }
        field { name: "key" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
        field { name: "value" number: 2 type: TYPE_MESSAGE type_name: ".shop.Card" label: LABEL_OPTIONAL }
      }
    }
    message_type {
      name: "Receipt"
      field { name: "state" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
      field { name: "amount_paid" json_name: "amountPaid" number: 2 type: TYPE_INT32 label: LABEL_OPTIONAL }
      field { name: "flagged" json_name: "flagged" number: 3 type: TYPE_BOOL label: LABEL_OPTIONAL }
    }
    service {
      name: "Payments"
      method { name: "Charge" input_type: ".shop.Charge" output_type: ".shop.Receipt" }
      method { name: "Watch" input_type: ".shop.Charge" output_type: ".shop.Receipt" server_streaming: true }
    }
    """,
    descriptor_pb2.FileDescriptorProto(),
)
TIMESTAMP = descriptor_pb2.FileDescriptorProto.FromString(timestamp_pb2.DESCRIPTOR.serialized_pb)
POOL = DescriptorPool()
POOL.Add(TIMESTAMP)
POOL.Add(SHOP)
CHARGE, RECEIPT = (
    message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"shop.{name}")) for name in ("Charge", "Receipt")
)


@dataclass
class Payments:
    """The service and its address."""

    service: TracedService
    address: str = ""

    def charge(self, charge: Any, context: grpc.ServicerContext) -> Any:
        headers = {key: str(value) for key, value in context.invocation_metadata()}
        with self.service.serve("shop.Payments/Charge", headers):
            context.set_trailing_metadata((("x-shop", charge.order_id),))
            if charge.amount < 0:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "an amount is positive")
            return RECEIPT(state="paid", amount_paid=charge.amount + sum(part.amount for part in charge.parts))


class RenamedHandler(grpc.GenericRpcHandler):
    """A handler that serves under the name of another service."""

    def __init__(self, handler: grpc.GenericRpcHandler, name: str, alias: str) -> None:
        self._handler, self._name, self._alias = handler, name, alias

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if not details.method.startswith(f"/{self._alias}/"):
            return None
        method = details.method.replace(self._alias, self._name)
        return self._handler.service(type("Details", (), {"method": method, "invocation_metadata": ()})())


@pytest.fixture
def payments(trace: Callable[[str], TracedService], request: pytest.FixtureRequest) -> Iterator[Payments]:
    """Serve on a free port; the parameter chooses the version of reflection, or TLS."""
    mode = getattr(request, "param", "v1alpha")
    payments = Payments(trace("payments"))
    server = grpc.server(ThreadPoolExecutor(8))
    handler = grpc.unary_unary_rpc_method_handler(
        payments.charge, request_deserializer=CHARGE.FromString, response_serializer=RECEIPT.SerializeToString
    )
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("shop.Payments", {"Charge": handler})])
    names = ("shop.Payments", reflection.SERVICE_NAME)
    if mode in ("v1alpha", "tls"):
        reflection.enable_server_reflection(names, server, POOL)
    elif mode == "v1":
        servicer = reflection.ReflectionServicer(names, POOL)
        reflection_handlers: list[grpc.GenericRpcHandler] = []
        catcher = type(
            "Catcher",
            (),
            {
                "add_generic_rpc_handlers": lambda self, each: reflection_handlers.extend(each),
                "add_registered_method_handlers": lambda *_: None,
            },
        )()
        reflection._reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, catcher)
        server.add_generic_rpc_handlers(
            [
                RenamedHandler(each, reflection.SERVICE_NAME, "grpc.reflection.v1.ServerReflection")
                for each in reflection_handlers
            ]
        )
    if mode == "tls":
        authority = trustme.CA()
        issued = authority.issue_cert("localhost", "127.0.0.1")
        credentials = grpc.ssl_server_credentials(
            [(issued.private_key_pem.bytes(), b"".join(each.bytes() for each in issued.cert_chain_pems))]
        )
        authority.cert_pem.write_to_path(request.getfixturevalue("tmp_path") / "ca.pem")
        payments.address = f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', credentials)}"
    else:
        payments.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield payments
    server.stop(0).wait()


CALL = 'when grpc "%s" "shop.Payments/Charge" { %s }\nexpect response.status == 0'
CALL_WITH_OPTIONS = """
when grpc "{address}" "shop.Payments/Charge" {{
  header "X-Fault": "none"
  timeout 5s
  json {{ "orderId": "o-1", "amount": 1999, "at": "2026-01-31T12:00:00Z", "parts": [{{ "amount": 1 }}],
         "cards": {{ "first": {{ "number": "42" }} }} }}
}}
expect response.status == 0
expect response.json.state == "paid"
expect response.json.amountPaid == 2000
expect response.json.flagged == false
expect response.headers["X-Shop"] == "o-1"
expect count(payments "shop.Payments/Charge") == 1
"""


@pytest.mark.parametrize("payments", ["v1alpha", "v1"], indirect=True)
def test_reflection_describes_call(payments: Payments, prove: Prove) -> None:
    result = prove(CALL_WITH_OPTIONS.format(address=payments.address))
    assert result.outcome is Outcome.PASS, (result.reasons, result.finished.error)
    (headers,) = payments.service.received_headers
    assert headers["traceparent"].endswith("-01")
    assert headers["baggage"] == f"spanproof.run_id=r1.{headers['traceparent'].split('-')[2]}"
    assert headers["x-fault"] == "none"


@pytest.mark.parametrize("payments", ["none"], indirect=True)
def test_descriptor_set_describes_call(payments: Payments, prove: Prove, tmp_path: Path) -> None:
    descriptors = descriptor_pb2.FileDescriptorSet(file=[TIMESTAMP, SHOP])
    (tmp_path / "shop.binpb").write_bytes(descriptors.SerializeToString())
    result = prove(CALL_WITH_OPTIONS.format(address=payments.address).replace("timeout 5s", 'descriptors "shop.binpb"'))
    assert result.outcome is Outcome.PASS, (result.reasons, result.finished.error)


@pytest.mark.parametrize("payments", ["tls"], indirect=True)
def test_grpc_call_over_tls(payments: Payments, prove: Prove) -> None:
    assert prove(CALL % (payments.address, 'tls "ca.pem"')).outcome is Outcome.PASS
    assert "cannot be reached: " in prove(CALL % (payments.address, "tls")).error
    assert "cannot be reached: " in prove(CALL % (payments.address, "")).error


def test_grpc_error_status_is_a_response(payments: Payments, prove: Prove) -> None:
    result = prove(
        f'when grpc "{payments.address}" "shop.Payments/Charge" {{ json {{ "amount": -1 }} }}\n'
        'expect response.status == 3\nexpect response.body == "an amount is positive"\nexpect some payments'
    )
    assert result.outcome is Outcome.PASS, result.reasons


def test_hook_requires_ok_status(payments: Payments, prove: Prove) -> None:
    call = f'when grpc "{payments.address}" "shop.Payments/Charge" {{ json {{ "amount": %d }} }}'
    judged = f"{call % 1}\nexpect count(payments) == 1"
    assert prove(f"before {{ {call % 1} }}\n{judged}").outcome is Outcome.PASS
    assert prove(f"after {{ {call % -1} }}\n{judged}").error.endswith("`after` was answered with 3")


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("shop.Payment/Charge", "", "has no service `shop.Payment`; did you mean `shop.Payments`?"),
        ("shop.Payments/Charg", "", "`shop.Payments` has no method `Charg`; did you mean `Charge`?"),
        ("shop.Payments/Watch", "", "`shop.Payments/Watch` is a stream; `when grpc` makes unary calls"),
        (
            "shop.Payments/Charge",
            '\n  json { "amout": 1 }\n',
            "it.proof:4:10: `shop.Charge` has no field `amout`; did you mean `amount`?",
        ),
        (
            "shop.Payments/Charge",
            '\n  json { "parts": [{ "card": { "numbr": "1" } }] }\n',
            "it.proof:4:32: `shop.Card` has no field `numbr`; did you mean `number`?",
        ),
        (
            "shop.Payments/Charge",
            '\n  json { "cards": { "a": { "numbr": "1" } } }\n',
            "it.proof:4:28: `shop.Card` has no field `numbr`",
        ),
        ("shop.Payments/Charge", '\n  json { "amount": "much" }\n', "it.proof:4:3: this is not a `shop.Charge`: "),
        ("shop.Payments/Charge", "\n  json [1]\n", "it.proof:4:3: a `shop.Charge` is written as a JSON object"),
        ("shop.Payments/Charge", '\n  descriptors "no.binpb"\n', "no.binpb cannot be read: No such file"),
        ("shop.Payments/Charge", '\n  descriptors "it.proof"\n', "it.proof is not a descriptor set"),
    ],
)
def test_invalid_call_is_explained(payments: Payments, prove: Prove, method: str, options: str, message: str) -> None:
    result = prove(f'when grpc "{payments.address}" "{method}" {{{options}}}\nexpect response.status == 0')
    assert result.outcome is Outcome.ERROR
    assert message in result.error


@pytest.mark.parametrize("payments", ["none"], indirect=True)
def test_missing_reflection_suggests_descriptor_set(payments: Payments, prove: Prove, tmp_path: Path) -> None:
    assert "has no reflection service: name a descriptor set" in prove(CALL % (payments.address, "")).error
    (tmp_path / "part.binpb").write_bytes(descriptor_pb2.FileDescriptorSet(file=[SHOP]).SerializeToString())
    assert (
        prove(CALL % (payments.address, 'descriptors "part.binpb"')).outcome is Outcome.PASS
    )  # protobuf includes the missing file


def test_unreachable_grpc_server_fails_fast(prove: Prove) -> None:
    result = prove(CALL % ("127.0.0.1:1", ""))
    assert "127.0.0.1:1 cannot be reached: " in result.error
    assert "Connection refused" in result.error
    assert result.finished.duration_ns < 5_000_000_000


def test_grpc_target_must_be_listed(payments: Payments, prove: Prove) -> None:
    allowed = read_allowed_targets([payments.address])
    assert prove(CALL % (payments.address, ""), targets=allowed).outcome is Outcome.PASS
    rejected = prove(CALL % ("127.0.0.1:1", ""), targets=allowed)
    assert rejected.error == "127.0.0.1:1 is not a target that this server may call"
    port = payments.address.split(":")[1]
    named = prove(CALL % (f"localhost:{port}", ""), targets=read_allowed_targets([f"localhost:{port}"]))
    assert "localhost resolves to " in named.error
