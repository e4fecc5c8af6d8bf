"""Filters of any text: compiled or refused with a column, and harmless to the store either way."""

from __future__ import annotations

from pathlib import Path

from mutation import Mutator
from trials import Trials

from penstock.engine import Store
from penstock.engine.attributes import Attributes
from penstock.engine.errors import FilterError
from penstock.engine.filters import compile_filter

CORPUS = {
    "tag": ["paid || shipped", "*", "a||b||c", "grün || 名", " a "],
    "routing": ["orders.*.eu", "#", "a.#.b || *.c", "a.b.c", "*.*.*"],
    "sql": [
        "a > 3 AND b <= 4.5 OR NOT (c = 'x')", "name LIKE 'a\\_%' ESCAPE '\\\\'",
        "p BETWEEN -1 AND 1e3 AND q IN ('a', 'b', 'c')", "x IS NOT NULL AND TAGS = 'T'",
        "(((a = 1)))", "a NOT IN (1, 2) AND b NOT BETWEEN 1 AND 2 OR c NOT LIKE '%%_%'",
        "a = TRUE OR b <> 'it''s'",
    ],
}
MESSAGES = [
    Attributes(),
    Attributes(tag="paid", routing_key="orders.x.eu", properties={"a": "4", "b": "2"}),
    Attributes(tag="名", key="k", routing_key="a",
               properties={"a": "x" * 5000, "name": "a_b", "p": "0"}),
    Attributes(routing_key="." * 300, properties={str(at): "1e999" for at in range(50)}),
]


def test_any_text_is_compiled_or_refused_and_judged(trials: Trials, tmp_path: Path) -> None:
    with Store.open(tmp_path, durability="kernel", segment_size=16 << 20) as store:
        queue = store.queue("q")
        for attributes in MESSAGES:
            queue.append(b"", attributes=attributes, durability="kernel")
        queue.append(b"", durability="disk")
        group = queue.group("g")
        kinds = list(CORPUS)
        mutators = {
            kind: Mutator(trials.seed, [source.encode() for source in sources])
            for kind, sources in CORPUS.items()
        }
        judged = 0
        for number in trials.numbers(4000):
            kind = kinds[number % 3]
            raw = mutators[kind].mutant()[:3000]
            source = raw.decode("utf-8", "surrogateescape" if number % 2 else "replace")
            try:
                compiled = compile_filter(kind, source)
            except FilterError as error:
                assert str(error)
                continue
            assert len(compiled) <= 4080
            if number % 10 < 3:
                group.filter(kind, source)
                batch = group.receive(10, lease_ms=60_000)
                group.confirm(batch.receipts) if len(batch) else None
                group.seek(offset=0)
                judged += 1
        assert judged or trials.seconds
