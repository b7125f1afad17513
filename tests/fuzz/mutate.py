"""Mutations of bytes, of JSON, and of HTTP framing."""

from __future__ import annotations

import json
from random import Random

# overflowing lengths, invalid tags, delimiters
_ODD_BYTES = (
    b"\x00", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\xff\x0f", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80", b"\x0a\x00", b"\x0b", b"\x0c", b"\x12", b"\x2a", b"\x32",
    b'"', b"{", b"}", b"[", b"]", b",", b"\\u0000", b"\\ud800", b"\r\n", b"\r\n\r\n", b":", b"0", b"-1", b"1e999",
    b"\xc3\x28", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"null",
)  # fmt: skip
_ODD_VALUES: tuple[object, ...] = (
    None, True, 0, -1, 2**63, 2**64, 1.5, 1e300, "", "x", "5B8EFFF798038103D269B633813FC60C", "NaN", "-5", "\ud800",
    "\x00", [], {}, [[]], [None], {"intValue": "1"},
    {"arrayValue": {"values": [{}]}}, {"stringValue": "a", "intValue": 1},
)  # fmt: skip
_KEYS = (
    "traceId",
    "spanId",
    "kind",
    "value",
    "attributes",
    "arrayValue",
    "kvlistValue",
    "values",
    "bytesValue",
    "spans",
)


def mutate_bytes(random: Random, data: bytes, other: bytes) -> bytes:
    """Change some bytes, a few times."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 3, 8, 30))):
        at = random.randrange(len(changed) + 1)
        end = min(len(changed), at + random.choice((1, 1, 2, 4, 16, 200)))
        match random.randrange(8):
            case 0 if at < len(changed):
                changed[at] ^= 1 << random.randrange(8)
            case 1 if at < len(changed):
                changed[at] = random.randrange(256)
            case 2:
                changed[at:at] = random.choice(_ODD_BYTES)
            case 3:
                del changed[at:end]
            case 4:
                changed[at:at] = changed[at:end] * random.choice((1, 2, 50))
            case 5:
                del changed[at:]
            case 6 if other:
                begin = random.randrange(len(other))
                changed[at:end] = other[begin : begin + random.choice((1, 8, 64, 500))]
            case 7:
                changed[at:end] = random.choice(_ODD_BYTES)
    return bytes(changed)


def mutate_json(random: Random, data: bytes) -> bytes:
    """Change values and keys of a JSON text; the result is JSON."""
    document = json.loads(data)
    for _ in range(random.choice((1, 1, 2, 5))):
        document = _mutate_value(random, document)
    return json.dumps(document, ensure_ascii=random.random() < 0.5).encode(errors="surrogatepass")


def nest(random: Random) -> bytes:
    """Return a deeply nested JSON value."""
    opening, closing = random.choice((("[", "]"), ('{"a":', "}"), ('{"arrayValue":{"values":[', "]}}")))
    depth = random.choice((50, 99, 1_000, 50_000))
    nested = opening * depth + (closing * depth if random.random() < 0.7 else "")
    return f'{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"k","value":{nested}}}]}}}}]}}'.encode()


def frame(random: Random, path: str, body: bytes, media_type: str, encoding: str) -> bytes:
    """Return an HTTP request with invalid or unusual framing."""
    fields = [b"host: x", f"content-type: {media_type}".encode(), b"connection: close"]
    if encoding:
        fields.append(f"content-encoding: {encoding}".encode())
    if random.random() < 0.5:
        length = len(body) + random.choice((0, 0, 0, 1, -1, 10**6, 10**12))
        fields.append(b"content-length: %d" % length)
        framed_body = body
    else:
        fields.append(b"transfer-encoding: chunked")
        split = random.randrange(len(body) + 1)
        framed_body = b"".join(
            b"%x\r\n%b\r\n" % (len(chunk) + random.choice((0, 0, 0, 0, 1, -1, 10**9)) % 2**40, chunk)
            for chunk in (body[:split], body[split:], b"")
        )
    if random.random() < 0.3:
        fields.append(
            random.choice(
                (
                    b"expect: 100-continue", b"content-length: 3", b"transfer-encoding: gzip", b"upgrade: h2c",
                    b"connection: upgrade", b"content-encoding: gzip", b"x: " + b"y" * 20_000, b"a b: c", b" folded",
                    b"host: y", b"content-type: \xff", b"authorization: \xff\xfe", b"origin: null",
                )
            )
        )  # fmt: skip
    random.shuffle(fields)
    method = random.choice(("POST", "POST", "POST", "GET", "OPTIONS", "HEAD", "X" * 100))
    version = random.choice(("HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0"))
    target = random.choice((path, path, path, "*", f"{path}?x=%ff", f"{path}/%2e%2e", "http://[::", "/%"))
    head = f"{method} {target} {version}\r\n".encode() + b"\r\n".join(fields) + b"\r\n\r\n"
    if random.random() < 0.3:
        head = mutate_bytes(random, head, body)
    return head + framed_body


def _mutate_value(random: Random, value: object) -> object:
    if random.random() < 0.15 or not isinstance(value, dict | list) or not value:
        return random.choice(_ODD_VALUES)
    if isinstance(value, list):
        at = random.randrange(len(value))
        return [*value[:at], _mutate_value(random, value[at]), *value[at + random.choice((0, 1)) :]]
    key = random.choice(list(value))
    if random.random() < 0.1:
        return {random.choice(_KEYS) if each == key else each: content for each, content in value.items()}
    return {**value, key: _mutate_value(random, value[key])}
