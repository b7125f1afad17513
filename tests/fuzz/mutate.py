"""Mutations: of any bytes, of JSON, and of the framing of HTTP."""

from __future__ import annotations

import json
from random import Random

# lengths that overflow, tags of nothing, what ends or begins something
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


def mutate_bytes(chance: Random, data: bytes, other: bytes) -> bytes:
    """Change some bytes, a few times over."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8, 30))):
        at = chance.randrange(len(changed) + 1)
        end = min(len(changed), at + chance.choice((1, 1, 2, 4, 16, 200)))
        match chance.randrange(8):
            case 0 if at < len(changed):
                changed[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(changed):
                changed[at] = chance.randrange(256)
            case 2:
                changed[at:at] = chance.choice(_ODD_BYTES)
            case 3:
                del changed[at:end]
            case 4:
                changed[at:at] = changed[at:end] * chance.choice((1, 2, 50))
            case 5:
                del changed[at:]
            case 6 if other:
                begin = chance.randrange(len(other))
                changed[at:end] = other[begin : begin + chance.choice((1, 8, 64, 500))]
            case 7:
                changed[at:end] = chance.choice(_ODD_BYTES)
    return bytes(changed)


def mutate_json(chance: Random, data: bytes) -> bytes:
    """Change values and keys of a JSON text, which remains one."""
    document = json.loads(data)
    for _ in range(chance.choice((1, 1, 2, 5))):
        document = _mutate_value(chance, document)
    return json.dumps(document, ensure_ascii=chance.random() < 0.5).encode(errors="surrogatepass")


def nest(chance: Random) -> bytes:
    """Nest a JSON value, deeper than anybody means to."""
    opening, closing = chance.choice((("[", "]"), ('{"a":', "}"), ('{"arrayValue":{"values":[', "]}}")))
    depth = chance.choice((50, 99, 1_000, 50_000))
    inside = opening * depth + (closing * depth if chance.random() < 0.7 else "")
    return f'{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"k","value":{inside}}}]}}}}]}}'.encode()


def frame(chance: Random, path: str, body: bytes, media_type: str, packing: str) -> bytes:
    """Write an HTTP request whose framing is wrong in some way, or only unusual."""
    fields = [b"host: x", f"content-type: {media_type}".encode(), b"connection: close"]
    if packing:
        fields.append(f"content-encoding: {packing}".encode())
    if chance.random() < 0.5:
        length = len(body) + chance.choice((0, 0, 0, 1, -1, 10**6, 10**12))
        fields.append(b"content-length: %d" % length)
        sent = body
    else:
        fields.append(b"transfer-encoding: chunked")
        cut = chance.randrange(len(body) + 1)
        sent = b"".join(
            b"%x\r\n%b\r\n" % (len(piece) + chance.choice((0, 0, 0, 0, 1, -1, 10**9)) % 2**40, piece)
            for piece in (body[:cut], body[cut:], b"")
        )
    if chance.random() < 0.3:
        fields.append(
            chance.choice(
                (
                    b"expect: 100-continue", b"content-length: 3", b"transfer-encoding: gzip", b"upgrade: h2c",
                    b"connection: upgrade", b"content-encoding: gzip", b"x: " + b"y" * 20_000, b"a b: c", b" folded",
                    b"host: y", b"content-type: \xff", b"authorization: \xff\xfe", b"origin: null",
                )
            )
        )  # fmt: skip
    chance.shuffle(fields)
    method = chance.choice(("POST", "POST", "POST", "GET", "OPTIONS", "HEAD", "X" * 100))
    version = chance.choice(("HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0"))
    target = chance.choice((path, path, path, "*", f"{path}?x=%ff", f"{path}/%2e%2e", "http://[::", "/%"))
    head = f"{method} {target} {version}\r\n".encode() + b"\r\n".join(fields) + b"\r\n\r\n"
    if chance.random() < 0.3:
        head = mutate_bytes(chance, head, body)
    return head + sent


def _mutate_value(chance: Random, value: object) -> object:
    if chance.random() < 0.15 or not isinstance(value, dict | list) or not value:
        return chance.choice(_ODD_VALUES)
    if isinstance(value, list):
        at = chance.randrange(len(value))
        return [*value[:at], _mutate_value(chance, value[at]), *value[at + chance.choice((0, 1)) :]]
    key = chance.choice(list(value))
    if chance.random() < 0.1:
        return {chance.choice(_KEYS) if each == key else each: content for each, content in value.items()}
    return {**value, key: _mutate_value(chance, value[key])}
