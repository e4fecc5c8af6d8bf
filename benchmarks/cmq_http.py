"""Signed SendMessage over HTTP: wrk with 64 connections against a server of its own, durable.

    .venv/bin/python benchmarks/cmq_http.py [--seconds 5] [--rounds 3] [--size 128]

Every request is signed beforehand and sent once, so that none is answered as a repetition. The load
generator runs on the same processors as the server.
"""

import argparse
import base64
import hmac
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import quote_plus

ROOT = Path(__file__).parents[1]
KEY, SECRET = "AKIDbench", "a-secret-of-the-benchmark"
CONNECTIONS = 64
PREPARED_A_SECOND = 130_000

SCRIPT = """
local at, sent = 0, {}
function init(args)
  local file = io.open(args[1], "rb")
  while true do
    local size = file:read(8)
    if not size then break end
    sent[#sent + 1] = file:read(tonumber(size))
  end
end
function request()
  at = at + 1
  return sent[at] or sent[#sent]
end
function done(summary, latency)
  io.write(string.format("DONE %d %d %d %d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99)))
end
"""


def prepared(host: str, queue: str, body: str, count: int, path: Path, first: int) -> None:
    """Write so many requests, each behind its size in eight digits."""
    moment = int(time.time())
    with path.open("wb") as file:
        for nonce in range(first, first + count):
            pairs = [
                ("Action", "SendMessage"), ("Nonce", str(nonce)), ("SecretId", KEY),
                ("SignatureMethod", "HmacSHA1"), ("Timestamp", str(moment)), ("msgBody", body),
                ("queueName", queue),
            ]
            said = f"POST{host}/v2/index.php?" + "&".join(f"{k}={v}" for k, v in pairs)
            mac = base64.b64encode(hmac.digest(SECRET.encode(), said.encode(), "sha1")).decode()
            form = "&".join(f"{k}={quote_plus(v)}" for k, v in [*pairs, ("Signature", mac)])
            whole = (
                f"POST /v2/index.php HTTP/1.1\r\nHost: {host}\r\n"
                "Content-Type: application/x-www-form-urlencoded\r\n"
                f"Content-Length: {len(form)}\r\n\r\n{form}"
            )
            file.write(b"%08d%s" % (len(whole), whole.encode()))


def ask(host: str, **fields: str) -> str:
    """One signed request, by the same rules; the number of messages if the answer tells it."""
    from http.client import HTTPConnection

    pairs = sorted({"Nonce": "1", "SecretId": KEY, "Timestamp": str(int(time.time())),
                    **fields}.items())
    said = f"POST{host}/v2/index.php?" + "&".join(f"{k}={v}" for k, v in pairs)
    mac = base64.b64encode(hmac.digest(SECRET.encode(), said.encode(), "sha1")).decode()
    form = "&".join(f"{k}={quote_plus(v)}" for k, v in [*pairs, ("Signature", mac)])
    connection = HTTPConnection(host)
    connection.request("POST", "/v2/index.php", form)
    answer = connection.getresponse().read()
    connection.close()
    if b'"code":0' not in answer:
        raise RuntimeError(answer.decode())
    told = re.search(rb'"activeMsgNum":(\d+)', answer)
    return told[1].decode() if told else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=128)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        print("wrk is not installed", file=sys.stderr)
        return 2
    environment = {**os.environ, "PENSTOCK_ACCESS_KEY": KEY, "PENSTOCK_SECRET_KEY": SECRET}
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "send.lua")
        script.write_text(SCRIPT)
        server = subprocess.Popen(
            [ROOT / ".venv/bin/penstock", "serve", "--data", f"{folder}/store",
             "--tcp", "127.0.0.1:0", "--http", "127.0.0.1:0"],
            stdout=subprocess.PIPE, text=True, env=environment)
        try:
            assert server.stdout is not None
            found = re.search(r"http=(\S+)", server.stdout.readline())
            assert found is not None
            return measured(found[1], Path(folder), script, server.pid, options)
        finally:
            server.terminate()
            server.wait(30)


def used_us(process: int) -> float:
    """Processor time that the process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") * 1e6


def measured(
    host: str, folder: Path, script: Path, process: int, options: argparse.Namespace
) -> int:
    ask(host, Action="CreateQueue", queueName="bench")
    rates, stored, count = [], 0, PREPARED_A_SECOND * options.seconds
    for turn in range(options.rounds):
        requests = folder / "requests"
        prepared(host, "bench", "x" * options.size, count, requests, 1_000_000 + turn * count)
        began = used_us(process)
        said = subprocess.run(
            ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{options.seconds}s", "-s", script,
             f"http://{host}", "--", requests],
            capture_output=True, text=True, check=True).stdout
        done = re.search(r"DONE (\d+) (\d+) (\d+) (\d+)", said)
        assert done is not None, said
        sent, span_us, p50, p99 = map(int, done.groups())
        rates.append(sent / span_us * 1e6)
        # What was answered has to be there; what was under way at the end may be.
        before, stored = stored, int(ask(host, Action="GetQueueAttributes", queueName="bench"))
        if not sent <= stored - before <= sent + CONNECTIONS:
            print(f"{sent} were answered, and {stored - before} are there", file=sys.stderr)
            return 1
        each = (used_us(process) - began) / sent
        print(f"{rates[-1]:,.0f} requests/s, p50 {p50} µs, p99 {p99} µs, "
              f"{each:.1f} µs of the server's processor each", flush=True)
    print(f"median {statistics.median(rates):,.0f} requests/s of {options.size} B, "
          f"{CONNECTIONS} connections, every reply after fdatasync")
    return 0


if __name__ == "__main__":
    sys.exit(main())
