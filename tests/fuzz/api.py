"""Let schemathesis ask a server what its own OpenAPI document says can be asked.

    python tests/fuzz/api.py SCHEMATHESIS [arguments for its run]

What the document cannot say (exactly one of two fields, a cursor that a list gave) is refused with
400 although the document allows it, so that is not held against the server. Everything else is: an
error of the server's own, a status, a body or a method that the document does not have.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from server_process import Server, Wire, send_payload

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance,unsupported_method"
)


def main() -> int:
    """The exit code of schemathesis."""
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder, "store")) as server:
        with Wire(server.tcp) as wire:
            for name in ("0", "orders"):
                wire.call(3, send_payload(wire.open(name), b"a message"))
        # A receive that waits is answered when its time is up, which may be minutes: those are cut.
        command = [
            sys.argv[1], "run", f"http://127.0.0.1:{server.http}/openapi.json",
            "--checks", CHECKS, "--request-timeout", "3", "--phases", "examples,coverage,fuzzing",
            "--suppress-health-check", "all", *sys.argv[2:],
        ]
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
