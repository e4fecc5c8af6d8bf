"""One process with our asyncio client: 1,000 sends in flight, or batches of 1,000."""

from __future__ import annotations

import asyncio
import json
import sys
import time

import penstock

IN_FLIGHT = 1000
BATCH = 1000
BATCHES_IN_FLIGHT = 8


async def load(tcp: str, work: str, seconds: float, size: int) -> dict[str, float]:
    body = b"x" * size
    latencies: list[float] = []
    async with penstock.AsyncClient(tcp) as client:
        queue = await client.queue("bench")
        end = time.perf_counter() + seconds

        async def one_by_one() -> int:
            done = 0
            while (start := time.perf_counter()) < end:
                await queue.send(body)
                latencies.append(time.perf_counter() - start)
                done += 1
            return done

        async def in_batches() -> int:
            done = 0
            bodies = [body] * BATCH
            while (start := time.perf_counter()) < end:
                await queue.send_many(bodies)
                latencies.append(time.perf_counter() - start)
                done += BATCH
            return done

        start = time.perf_counter()
        works = [one_by_one() for _ in range(IN_FLIGHT)] if work == "send" else [
            in_batches() for _ in range(BATCHES_IN_FLIGHT)]
        messages = sum(await asyncio.gather(*works))
        elapsed = time.perf_counter() - start
    latencies.sort()
    return {
        "rate": messages / elapsed,
        "messages": messages,
        "p50_us": latencies[len(latencies) // 2] * 1e6,
        "p99_us": latencies[int(len(latencies) * 0.99)] * 1e6,
        "p999_us": latencies[int(len(latencies) * 0.999)] * 1e6,
    }


if __name__ == "__main__":
    tcp, work, seconds, size = sys.argv[1:]
    try:
        import uvloop
    except ImportError:
        run = asyncio.run
    else:
        run = uvloop.run
    print(json.dumps(run(load(tcp, work, float(seconds), int(size)))))
