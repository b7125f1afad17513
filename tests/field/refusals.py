"""Refused connections, read from the loopback interface: a port that nothing listens on answers SYN with RST."""

from __future__ import annotations

import ctypes
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Self

ETH_P_IP: Final = 0x0800
PACKET_OUTGOING: Final = 4  # each packet is seen twice on the loopback interface
SOL_PACKET, PACKET_STATISTICS = 263, 6
RST_ACK: Final = 0x14
BUFFER_BYTES: Final = 16 << 20
SO_ATTACH_FILTER: Final = 26
# A packet filter (see bpf(4)) that passes TCP packets with the flags RST and ACK alone, so that the kernel drops the
# others before they fill the buffer: code, jump if true, jump if false, operand.
FILTER: Final = (
    (0x30, 0, 0, 9),  # the protocol
    (0x15, 0, 5, socket.IPPROTO_TCP),
    (0xB1, 0, 0, 0),  # the length of the IP header
    (0x50, 0, 0, 13),  # the flags of TCP
    (0x54, 0, 0, 0x3F),
    (0x15, 0, 1, RST_ACK),
    (0x06, 0, 0, 0xFFFF),
    (0x06, 0, 0, 0),
)

Address = tuple[str, int]


class Refusals:
    """Watcher of refused connections; calls back for each one to a watched address.

    It needs the right to read packets (root, or CAP_NET_RAW); `PermissionError` otherwise.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in FILTER))
        self._socket.setsockopt(
            socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", len(FILTER), ctypes.addressof(code))
        )
        self._socket.bind(("lo", ETH_P_IP))
        self._socket.settimeout(0.1)
        self._watched: dict[Address, Callable[[], None]] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read, name="refusals", daemon=True)
        self.dropped = 0

    def watch(self, address: Address, refused: Callable[[], None]) -> None:
        self._watched[address] = refused

    def forget(self, address: Address) -> None:
        self._watched.pop(address, None)

    def flush(self) -> None:
        """Wait until all earlier refusals are reported: cause one, and wait for it."""
        seen = threading.Event()
        with socket.socket() as silent, socket.socket() as probe:
            silent.bind(("127.0.0.1", 0))
            self.watch(silent.getsockname(), seen.set)
            probe.connect_ex(silent.getsockname())
            assert seen.wait(10), "a refused connection was not seen"
            self.forget(silent.getsockname())

    def _read(self) -> None:
        while not self._stopped.is_set():
            with suppress(TimeoutError):
                packet, (_, _, kind, *_) = self._socket.recvfrom(256)
                if kind != PACKET_OUTGOING and (address := _read_refusing_address(packet)) is not None:
                    watcher = self._watched.get(address)
                    if watcher is not None:
                        watcher()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        _, self.dropped = struct.unpack("II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        self._socket.close()


def _read_refusing_address(packet: bytes) -> Address | None:
    """Return the sender of a packet that refuses a connection: RST and ACK, with the sequence number 0."""
    if len(packet) < 40 or packet[9] != socket.IPPROTO_TCP:
        return None
    header = (packet[0] & 0xF) * 4
    port, _, sequence = struct.unpack_from("!HHI", packet, header)
    if packet[header + 13] & 0x3F != RST_ACK or sequence != 0:
        return None
    return socket.inet_ntoa(packet[12:16]), port
