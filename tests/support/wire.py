"""Who listens on a node's cable: every packet, put together to what was said on each connection."""

import socket
import struct
import threading
from collections import defaultdict

ETH_P_ALL, ETH_P_IP = 0x0003, 0x0800
SO_RCVBUFFORCE, SOL_PACKET, PACKET_STATISTICS = 33, 263, 6
TCP = 6
# The lab's links take segments that the kernel has not cut up yet.
PACKET = 1 << 17


class Wiretap:
    """Hears all that passes a network device of this host while `with` lasts."""

    def __init__(self, device):
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 256 << 20)
        self._socket.bind((device, 0))
        self._socket.settimeout(0.2)
        self._segments = defaultdict(dict)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._over.set()
        self._thread.join()
        _, dropped = struct.unpack("II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        self._socket.close()
        assert dropped == 0, f"{dropped} packets went by unheard"

    def _listen(self):
        while True:
            try:
                self._hear(self._socket.recv(PACKET))
            except TimeoutError:
                if self._over.is_set():
                    return

    def _hear(self, frame):
        if frame[12:14] != ETH_P_IP.to_bytes(2, "big") or frame[23] != TCP:
            return
        packet = frame[14 : 14 + int.from_bytes(frame[16:18], "big")]
        segment = packet[4 * (packet[0] & 15) :]
        source, target, number = struct.unpack_from("!HHI", segment)
        said = segment[4 * (segment[12] >> 4) :]
        if said:
            self._segments[packet[12:16], source, packet[16:20], target].setdefault(number, said)

    def said(self, *ports):
        """What was said on each connection from or to these ports (none: any), each way for itself."""
        return [
            b"".join(said for _, said in sorted(segments.items()))
            for (_, source, _, target), segments in self._segments.items()
            if not ports or source in ports or target in ports
        ]


def unmasked(said):
    """What a WebSocket's client said shows here as `shape` of it, whatever its mask (RFC 6455, 5.3).

    The mask is four bytes that repeat, so a byte and the fourth after it, taken together by XOR, are the same with it
    and without.
    """
    whole, later = (int.from_bytes(text, "big") for text in (said[:-4], said[4:]))
    return (whole ^ later).to_bytes(max(0, len(said) - 4), "big")
