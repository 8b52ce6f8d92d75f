"""A TCP proxy in front of PostgreSQL that counts round trips and cuts connections at a given byte."""

import contextlib
import socket
import threading

CLIENT, SERVER = "client", "server"
_MORE = 1 << 16
_REQUESTS = (80877103, 80877104)
"""Whether TLS or GSS is wanted: asked before a session begins."""


class Proxy:
    """Listens on `port`; everything goes on to `target`, until a cut that was armed is reached."""

    def __init__(self, target):
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._left = None
        self._side = None
        self._pairs = []
        self.cut_happened = threading.Event()
        self.trips = 0
        self.connections = 0
        self.seen = {CLIENT: bytearray(), SERVER: bytearray()}
        threading.Thread(target=self._accept, daemon=True).start()

    def record(self):
        """Forget what went through so far."""
        with self._lock:
            self.trips = 0
            self.seen = {CLIENT: bytearray(), SERVER: bytearray()}

    def arm(self, side, after):
        """Cut both ways as soon as `after` bytes of one side (the client's or the server's) have gone on."""
        self.cut_happened.clear()
        with self._lock:
            self._side, self._left = side, after
        if after == 0:
            self._cut()

    def close(self):
        self._listener.close()
        self._cut()

    def boundaries(self, side):
        """Where the messages recorded from one side end, in bytes."""
        data, at, ends = bytes(self.seen[side]), 0, []
        while at + 5 <= len(data):
            at += 1 + int.from_bytes(data[at + 1 : at + 5], "big")
            ends.append(at)
        return ends

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            with self._lock:
                self.connections += 1
                self._pairs.append((client, server))
            for side, source, sink in ((CLIENT, client, server), (SERVER, server, client)):
                threading.Thread(target=self._pump, args=(side, source, sink), daemon=True).start()

    def _pump(self, side, source, sink):
        buffered, started = b"", side == SERVER
        while True:
            try:
                data = source.recv(_MORE)
            except OSError:
                data = b""
            if not data:
                _end(source, sink)
                return
            with self._lock:
                self.seen[side] += data
                if side == CLIENT:
                    buffered, started = self._count(buffered + data, started)
                allowed = data
                cutting = side == self._side and self._left is not None and len(data) >= self._left
                if side == self._side and self._left is not None:
                    allowed = data[: self._left]
                    self._left = None if cutting else self._left - len(data)
                doomed = self._take_pairs() if cutting else []
            try:
                sink.sendall(allowed)
            except OSError:
                _end(source, sink)
            if cutting:
                self._end_all(doomed)

    def _count(self, data, started):
        """Count the Sync messages; returns the rest of a message that is not complete."""
        while len(data) >= (5 if started else 8):
            size = int.from_bytes(data[:4], "big") if not started else 1 + int.from_bytes(data[1:5], "big")
            if len(data) < size:
                break
            self.trips += started and data[:1] == b"S"
            started = started or int.from_bytes(data[4:8], "big") not in _REQUESTS
            data = data[size:]
        return data, started

    def _cut(self):
        with self._lock:
            pairs = self._take_pairs()
        self._end_all(pairs)

    def _take_pairs(self):
        """What a cut concerns: the connections there are when it is decided, and none that is made because of it."""
        pairs, self._pairs, self._left = self._pairs, [], None
        return pairs

    def _end_all(self, pairs):
        for pair in pairs:
            _end(*pair)
        self.cut_happened.set()


def _end(*ends):
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
