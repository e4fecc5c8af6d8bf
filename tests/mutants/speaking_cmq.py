"""One mutant for each rule that clients of CMQ rely on."""

from mutant import Mutant

CMQ = (
    Mutant(
        "a CMQ request is done only if its signature is right",
        "server/_wire_cmq_http.pxi",
        "        if not base64_is(<const uint8_t*>PyBytes_AS_STRING(mac), "
        "<uint32_t>PyBytes_GET_SIZE(mac), &self.hot.signature):\n            return False\n",
        "",
        ("tests/unit/test_cmq_http.py",),
    ),
    Mutant(
        "a signed CMQ request that comes again is done once",
        "server/_wire_cmq_http.pxi",
        "            self.repeats.begin(self.repeat, epoch_s())\n        route.room -= 1\n",
        "            pass\n        route.room -= 1\n",
        ("tests/unit/test_cmq_http.py",),
    ),
    Mutant(
        "without a key CMQ is open to this machine only, and with one to nobody without it",
        "server/_wire_cmq_http.pxi",
        "        if not self.keys:\n            return endpoint.local\n",
        "        if True:\n            return endpoint.local\n",
        ("tests/unit/test_cmq_http.py",),
    ),
    Mutant(
        "a rewind by time leaves what stands before it as it is",
        "engine/_consumer.pxi",
        "        kept = [(first, min(count, target - first)) "
        "for first, count in now[3] if first < target]\n",
        "        kept = []\n",
        ("tests/unit/test_cmq_queues.py",),
    ),
    Mutant(
        "what nobody confirmed in time is moved to the queue of dead letters",
        "server/broker/aging.py",
        "        if version != self.version:\n",
        "        if False:\n",
        ("tests/unit/test_broker_aging.py",),
    ),
)
