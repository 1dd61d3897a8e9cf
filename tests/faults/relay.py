"""A TCP relay on 127.0.0.1 that misbehaves on command: it delays, resets, loses, or leaves a
connection half open. It sees bytes alone, so TLS goes through it unbroken."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

CHUNK = 16_384
LINGER_0 = struct.pack("ii", 1, 0)
"""Close with a reset, not with a goodbye."""


@dataclass
class Weather:
    """How the network is at the moment; changed from any thread."""

    delay_s: float = 0.0
    """Before each chunk, each way."""
    refuses: bool = False
    """New connections are closed at once."""
    swallows: bool = False
    """What comes is taken and goes nowhere, on connections old and new: the other end is gone and
    has said nothing."""


@dataclass(eq=False)
class _Pair:
    """One connection through the relay."""

    ends: list[asyncio.StreamWriter]
    swallows: bool = False
    """For ever: a peer that has been away does not come back on an old connection."""


@dataclass
class Relay:
    """Listens on ``port`` and passes on to ``target``, in a thread of its own."""

    target: int
    port: int = 0
    weather: Weather = field(default_factory=Weather)
    connections: int = 0
    bytes_there: int = 0
    """From who connects to the target."""
    bytes_back: int = 0
    _pairs: set[_Pair] = field(default_factory=set)

    def start(self) -> Relay:
        """Listen; return once the port is open."""
        self._loop, ready = asyncio.new_event_loop(), threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    def stop(self) -> None:
        """Close everything and end the thread."""
        self.reset()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def reset(self) -> None:
        """End all connections with a reset."""
        self._call(self._end_all(abruptly=True))

    def lose(self) -> None:
        """End all connections as a peer does that goes away."""
        self._call(self._end_all(abruptly=False))

    def _call(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(10)

    def _serve(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", self.port))
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.weather.refuses:
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        pair = _Pair([writer, back])
        self._pairs.add(pair)
        with contextlib.suppress(OSError):
            await asyncio.gather(self._pass(reader, back, pair, True), self._pass(there, writer, pair, False))
        self._pairs.discard(pair)
        for end in pair.ends:
            end.close()

    async def _pass(self, source: asyncio.StreamReader, to: asyncio.StreamWriter, pair: _Pair, out: bool) -> None:
        while data := await source.read(CHUNK):
            if self.weather.delay_s:
                await asyncio.sleep(self.weather.delay_s)
            pair.swallows |= self.weather.swallows
            if pair.swallows:
                continue
            self.bytes_there += len(data) * out
            self.bytes_back += len(data) * (not out)
            to.write(data)
            await to.drain()
        if not pair.swallows and to.can_write_eof():
            to.write_eof()

    async def _end_all(self, abruptly: bool) -> None:
        for pair in list(self._pairs):
            for end in pair.ends:
                if abruptly:
                    end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
                    end.transport.abort()
                else:
                    end.close()
