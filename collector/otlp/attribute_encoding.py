"""Encoding of stored attributes: two lists, of keys and of texts, and the marker of texts that need decoding."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

ATTRIBUTES_TYPE: Final = pa.struct([("keys", pa.list_(pa.string())), ("texts", pa.list_(pa.string()))])
# Precedes the kind letter in a text that cannot be compared directly.
KIND_MARKER: Final = "\x01"
