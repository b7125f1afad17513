// Sends one HTTP request to itself and exports the spans of both sides: node emit.mjs grpc|http|proto ENDPOINT
//
// Prints {"traceId", "clientSpanId", "serverSpanId", "laterTraceId"} after the spans are acknowledged.

import http from "node:http";
import { once } from "node:events";
import { SpanKind, SpanStatusCode, context, propagation, trace } from "@opentelemetry/api";
import { NodeSDK } from "@opentelemetry/sdk-node";

const [protocol, endpoint] = process.argv.slice(2);
const url = protocol === "grpc" ? endpoint : `${endpoint}/v1/traces`;
const { OTLPTraceExporter } = await import(`@opentelemetry/exporter-trace-otlp-${protocol}`);
const exporter = new OTLPTraceExporter({ url, timeoutMillis: 5000 });
const sdk = new NodeSDK({ serviceName: "node-emitter", traceExporter: exporter, instrumentations: [] });
sdk.start();

const tracer = trace.getTracer("spanproof-interop", "1.2.3");

const EVERY_KIND = {
  "text": "grüße, 世界",
  "text.empty": "",
  "yes": true,
  "no": false,
  "int": 42,
  "int.negative": -7,
  "int.large": Number.MAX_SAFE_INTEGER,
  "double": 0.25,
  "texts": ["a", "b, c", ""],
  "ints": [1, 2, 3],
  "doubles": [0.5, 1.5],
  "bools": [true, false],
};

const server = http.createServer((request, response) => {
  const parent = propagation.extract(context.active(), request.headers);
  const span = tracer.startSpan("GET /teapot", { kind: SpanKind.SERVER, attributes: { "http.route": "/teapot" } }, parent);
  span.recordException(new TypeError("no coffee"));
  span.setStatus({ code: SpanStatusCode.ERROR, message: "I'm a teapot" });
  response.writeHead(418).end(span.spanContext().spanId);
  span.end();
});
server.listen(0, "127.0.0.1");
await once(server, "listening");

const client = tracer.startSpan("GET", { kind: SpanKind.CLIENT, attributes: EVERY_KIND });
const active = trace.setSpan(context.active(), client);
const headers = {};
propagation.inject(active, headers);
const response = await fetch(`http://127.0.0.1:${server.address().port}/teapot`, { headers });
const serverSpanId = await response.text();
client.addEvent("answered", { "http.response.status_code": response.status, "attempts": [1, 2] });
client.setStatus({ code: SpanStatusCode.OK });
client.end();

const linked = tracer.startSpan("later", { kind: SpanKind.INTERNAL, links: [{ context: client.spanContext(), attributes: { "why": "follows" } }] });
linked.end();

server.close();
await sdk.shutdown();
const { traceId, spanId } = client.spanContext();
const laterTraceId = linked.spanContext().traceId;
console.log(JSON.stringify({ traceId, clientSpanId: spanId, serverSpanId, laterTraceId }));
