"""An outgoing HTTPS proxy as an institution's network has one: it makes tunnels to names that only
it can resolve, asks for a password, and writes down who wanted to go where."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

PASSWORD = "office:let me out"


@dataclass
class ConnectProxy:
    """Answers on 127.0.0.1. Make one with ``serve``."""

    ports: Mapping[str, int]
    """Port of this machine by the name that leads to it."""
    port: int = 0
    asked: list[str] = field(default_factory=list)
    """First lines of all requests."""
    bytes_out: int = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Make a tunnel, or refuse."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            line, *headers = head.splitlines()
            self.asked.append(line)
            verb, target, _ = line.split()
            token = base64.b64encode(PASSWORD.encode()).decode()
            if f"proxy-authorization: basic {token}".lower() not in [header.lower() for header in headers]:
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            elif verb != "CONNECT" or (port := self.ports.get(target.partition(":")[0])) is None:
                writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            else:
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await asyncio.gather(self._pass(reader, far_writer, count=True), self._pass(far_reader, writer))
        writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: bool = False) -> None:
        with contextlib.suppress(OSError):
            while part := await reader.read(65536):
                self.bytes_out += len(part) if count else 0
                writer.write(part)
                await writer.drain()
        writer.close()


@contextmanager
def serve(ports: Mapping[str, int]) -> Iterator[ConnectProxy]:
    """Run a proxy in a thread."""
    proxy, loop = ConnectProxy(ports), asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(proxy.answer, "127.0.0.1", 0))
    proxy.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
