"""A relay in front of a server that can lose a reply with its connection."""

from __future__ import annotations

import contextlib
import socket
import threading


class Relay:
    """Hands everything on; when armed, the next bytes from the server are lost and the connection
    that they were for is cut: what the server did, nobody is told."""

    def __init__(self, port: int) -> None:
        self.to = port
        self.armed = False
        self.cuts = 0
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listening.accept()
                far = socket.create_connection(("127.0.0.1", self.to))
                for pair in ((near, far, False), (far, near, True)):
                    threading.Thread(target=self.pump, args=pair, daemon=True).start()

    def pump(self, source: socket.socket, target: socket.socket, replies: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if replies and self.armed:
                    self.armed = False
                    self.cuts += 1
                    break
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def close(self) -> None:
        self.listening.close()
