"""Let schemathesis ask a server what its own OpenAPI document says can be asked.

    python tests/fuzz/api.py SCHEMATHESIS [arguments for its run]

What the document cannot say (exactly one of two fields, a cursor that a list gave) is refused with
400 although the document allows it, so that is not held against the server. Everything else is: an
error of the server's own, a status, a body or a method that the document does not have.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.request import urlopen

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from server_process import Server, Wire, send_payload

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance,unsupported_method"
)
WAIT_MS = 20


def main() -> int:
    """The exit code of schemathesis."""
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder, "store")) as server:
        with Wire(server.tcp) as wire:
            for name in ("0", "orders"):
                wire.call(3, send_payload(wire.open(name), b"a message"))
        url = f"http://127.0.0.1:{server.http}"
        document = Path(folder, "openapi.json")
        with urlopen(f"{url}/openapi.json") as answer:
            document.write_text(json.dumps(patient(json.load(answer))))
        command = [
            sys.argv[1], "run", str(document), "--url", url, "--checks", CHECKS,
            "--request-timeout", "30", "--phases", "examples,coverage,fuzzing",
            "--suppress-health-check", "all", *sys.argv[2:],
        ]
        return subprocess.run(command, check=False).returncode


def patient(part: Any) -> Any:
    """The document, with no wait that is longer than we have time for."""
    if isinstance(part, list):
        return [patient(one) for one in part]
    if not isinstance(part, dict):
        return part
    part = {name: patient(one) for name, one in part.items()}
    if "wait_ms" in part and "maximum" in part["wait_ms"]:
        part["wait_ms"]["maximum"] = WAIT_MS
    if part.get("name") == "wait_ms" and "schema" in part:
        part["schema"]["maximum"] = WAIT_MS
    return part


if __name__ == "__main__":
    sys.exit(main())
