"""What one compressed stream costs: `python -m benchmarks.compression`. Each row is a process of its own."""

import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import brotli

STREAMS: Final = 200
EVENTS: Final = 50
ROWS: Final = ("br 1", "br 3", "br 4", "br 5", "gzip 1", "gzip 4")
_EVENT: Final = (
    'data: {"id":"job_0355","object":"chat.completion.chunk","created":1,"model":"default","choices":[{'
    '"index":0,"logprobs":null,"delta":{"content":"word%d"},"finish_reason":null}]}\n\n'
)


def encoder(kind: str, level: int) -> Callable[[bytes], bytes]:
    """Compresses and flushes, as the middleware does with an event."""
    if kind == "br":
        flow: Any = brotli.Compressor(quality=level)
        return lambda event: bytes(flow.process(event) + flow.flush())
    gzip = zlib.compressobj(level, zlib.DEFLATED, 31)
    return lambda event: gzip.compress(event) + gzip.flush(zlib.Z_SYNC_FLUSH)


def measure(kind: str, level: int) -> None:
    before, begun, sent = _resident(), time.perf_counter(), 0
    encoders = [encoder(kind, level) for _ in range(STREAMS)]
    for number in range(EVENTS):
        event = (_EVENT % number).encode()
        sent += sum(len(encode(event)) for encode in encoders)
    took, events = time.perf_counter() - begun, STREAMS * EVENTS
    memory = (_resident() - before) // STREAMS
    print(
        f"{kind:4} {level}  {memory:5} kB  {took / events * 1e6:5.1f} µs  {sent // events:4} bytes an event"
    )


def _resident() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


def main() -> None:
    if len(sys.argv) > 1:
        measure(sys.argv[1], int(sys.argv[2]))
        return
    for row in ROWS:
        subprocess.run([sys.executable, "-m", "benchmarks.compression", *row.split()], check=True)


if __name__ == "__main__":
    main()
