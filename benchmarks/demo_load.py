"""Many visitors at once: every request to the Gradio demo is answered right, or told that the demo is busy.

    python benchmarks/demo_load.py
    python benchmarks/demo_load.py --clients 10 --seconds 5 --no-record

Clients in a process of their own send pictures to `/compare` on the loopback address as fast as they are answered. An
answer is right if every probability is that which the picture got before the load, to 1e-4. Memory is the resident
set of the server's process, in MB: before, at most, and a while after.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from PIL import Image

sys.path.append(str(Path(__file__).parents[1]))
sys.path.append(str(Path(__file__).parents[1] / "tests"))

from demo_server import DemoServer
from records import RESULTS, command_line, commit

from app.demo.worker import BUSY

_TOLERANCE = 1e-4
_PICTURES, _REST_SECONDS = 8, 20.0


@dataclass
class Tally:
    """What became of the requests.

    Attributes:
        right: Seconds that each right answer took, upload included.
        busy: Requests that were told the demo is busy.
        wrong: What went otherwise, in words.
    """

    right: list[float] = field(default_factory=list)
    busy: int = 0
    wrong: list[str] = field(default_factory=list)


def main() -> None:
    """Load a demo, print what came back and record it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rounds", type=int, default=2, help="times the load comes; memory must not grow with it")
    parser.add_argument("--no-record", action="store_true", help="print alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = DemoServer(Path(folder))
        try:
            rounds = [
                asyncio.run(load(server, clients=options.clients, seconds=options.seconds))
                for _ in range(options.rounds)
            ]
        finally:
            server.end()
    found = {
        "command": command_line("demo_load.py"),
        "commit": commit(),
        "gradio": version("gradio"),
        "cores": psutil.cpu_count(),
        "clients": options.clients,
        "seconds": options.seconds,
        "rounds": rounds,
    }
    text = json.dumps(found, indent=2)
    print(text)
    wrong = sum(len(one["wrong"]) for one in rounds)
    if wrong:
        raise SystemExit(f"{wrong} requests were answered otherwise than right or busy")
    if not options.no_record:
        (RESULTS / "demo_load.json").write_text(text + "\n", encoding="utf-8")


async def load(server: DemoServer, *, clients: int, seconds: float) -> dict[str, Any]:
    """Send pictures from many clients for a time and return what came of it."""
    process = psutil.Process(server.pid)
    pictures = [_picture(seed) for seed in range(_PICTURES)]
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=server.url, timeout=120, limits=limits) as web:
        expected = [await _ask(web, picture) for picture in pictures]
        assert all(isinstance(answer, dict) for answer in expected), expected
        before = _megabytes(process)
        tally, until = Tally(), time.monotonic() + seconds
        watching = asyncio.create_task(_most_memory(process, until))
        await asyncio.gather(*(_client(web, number, pictures, expected, tally, until) for number in range(clients)))
        most = await watching
        again = [await _ask(web, picture) for picture in pictures]
        serving = all(_same(a, b) for a, b in zip(again, expected, strict=True))
    await asyncio.sleep(_REST_SECONDS)
    times = sorted(tally.right)
    return {
        "right": len(times),
        "busy": tally.busy,
        "wrong": tally.wrong,
        "median_seconds": round(statistics.median(times), 3) if times else None,
        "slowest_in_20_seconds": round(times[int(0.95 * len(times))], 3) if times else None,
        "right_per_second": round(len(times) / seconds, 1),
        "serving_right_afterwards": serving,
        "memory_mb": {"before": before, "most": most, "after": _megabytes(process)},
    }


async def _client(
    web: httpx.AsyncClient,
    number: int,
    pictures: list[bytes],
    expected: list[Any],
    tally: Tally,
    until: float,
) -> None:
    turn = number
    while time.monotonic() < until:
        place, begun = turn % len(pictures), time.monotonic()
        answer = await _ask(web, pictures[place])
        turn += 1
        if answer == BUSY:
            tally.busy += 1
            await asyncio.sleep(0.5)
        elif isinstance(answer, dict) and _same(answer, expected[place]):
            tally.right.append(time.monotonic() - begun)
        else:
            tally.wrong.append(str(answer)[:300])


async def _ask(web: httpx.AsyncClient, picture: bytes) -> Any:
    """Return the answer, or what was said in its place."""
    sent = await web.post("/gradio_api/upload", files={"files": ("x.png", picture)})
    if sent.status_code != 200:
        return sent.json()["detail"]
    file = {"path": sent.json()[0], "meta": {"_type": "gradio.FileData"}}
    call = await web.post("/gradio_api/call/compare", json={"data": [file]})
    if call.status_code != 200:
        return call.json()["detail"]
    text = (await web.get(f"/gradio_api/call/compare/{call.json()['event_id']}")).text
    lines = [line for line in text.splitlines() if line]
    found = json.loads(lines[-1].removeprefix("data: "))
    return found[0] if lines[-2] == "event: complete" else found["error"]


def _same(a: Any, b: Any) -> bool:
    return all(
        abs(a[side]["probabilities"][name] - value) <= _TOLERANCE
        for side in "ab"
        for name, value in b[side]["probabilities"].items()
    )


async def _most_memory(process: psutil.Process, until: float) -> int:
    most = 0
    while time.monotonic() < until:
        most = max(most, _megabytes(process))
        await asyncio.sleep(0.25)
    return most


def _megabytes(process: psutil.Process) -> int:
    return round(process.memory_info().rss / 1e6)


def _picture(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (240, 320, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


if __name__ == "__main__":
    main()
