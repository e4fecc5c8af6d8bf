"""What a program pays before its first message: importing, opening, starting a server."""

import subprocess
import sys
import tempfile
import time

from .disk import PREFIX
from .disk import folder as disk
from .serving import Serving

MODULES = ["penstock", "penstock.engine", "penstock.server.cli", "penstock.server.app"]


class Import:
    """An import in a fresh interpreter, and how many modules it brings along."""

    params = MODULES
    param_names = ("module",)
    # The processes' own start is in it; timeraw would hide what a user waits for.
    number = 1

    def time_import(self, module):
        subprocess.run([sys.executable, "-c", f"import {module}"], check=True)

    def track_modules(self, module):
        count = f"import sys, {module}; print(len(sys.modules))"
        done = subprocess.run([sys.executable, "-c", count], capture_output=True, check=True)
        return int(done.stdout)

    track_modules.unit = "modules"


class Start:
    number = 1
    repeat = 5
    warmup_time = 0

    def time_new_store(self):
        work = ("import sys; from penstock.engine import Store\n"
                "with Store.open(sys.argv[1]) as s: s.queue('q').append(b'x')")
        with tempfile.TemporaryDirectory(prefix=PREFIX, dir=disk()) as folder:
            subprocess.run([sys.executable, "-c", work, f"{folder}/store"], check=True)

    def track_server_ready(self):
        taken = []
        for _ in range(3):
            began = time.perf_counter()
            server = Serving()
            taken.append(time.perf_counter() - began)
            server.close()
        return min(taken)

    track_server_ready.unit = "seconds"
