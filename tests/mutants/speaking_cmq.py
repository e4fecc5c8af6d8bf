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
    Mutant(
        "no two workers give one name to two messages of CMQ",
        "server/_wire_names.pxi",
        "            first = max(last + 1, now_us - min(now_us, CMQ_EPOCH_US))\n",
        "            first = now_us - min(now_us, CMQ_EPOCH_US)\n",
        ("tests/unit/test_cmq_words.py",),
    ),
    Mutant(
        "a batch that was published by old subscriptions is published again once",
        "server/_wire_cmq_topics.pxi",
        "        flight.left -= 1\n        if flight.left:\n            return 0\n"
        "        # The subscriptions",
        "        flight.left -= 1\n        # The subscriptions",
        ("tests/unit/test_cmq_tcp_topics.py",),
    ),
    Mutant(
        "messages that are fanned out together are whole or absent after a crash",
        "engine/_fanout.pxi",
        "    for index in range(many):\n        # What is reserved",
        "    for index in range(many - (many > 2)):\n        # What is reserved",
        ("tests/unit/test_engine_fanout.py",),
    ),
    Mutant(
        "a signature in a form of API 3.0 lasts five minutes",
        "server/protocols/cmq_http/api3.py",
        "            self.timely(form.needed(\"Timestamp\"), now_us)\n",
        "            pass\n",
        ("tests/unit/test_cmq_api3.py",),
    ),
    Mutant(
        "a batch of CMQ that comes again is done once, whichever worker it comes to",
        "server/protocols/cmq_http/repeated.py",
        "        if result:\n            return answer_of(result, form)\n",
        "",
        ("tests/unit/test_cmq_http.py",),
    ),
    Mutant(
        "a queue gets what any of its subscriptions wants",
        "server/broker/cmq/topics.py",
        "[*beside, made])",
        "[made])",
        ("tests/unit/test_cmq_topics.py",),
    ),
)
