"""When messages were first received, kept in the store over a restart."""

from penstock.engine._core import Store
from penstock.server._wire import FirstTimes

NOTE = "first-times/"
NOTE_BYTES = 65_536


def load(store: Store, firsts: FirstTimes) -> None:
    """Remember what was noted."""
    for value in store.notes(NOTE).values():
        firsts.restore(value)


def save(store: Store, firsts: FirstTimes) -> None:
    """Note what is remembered, and nothing else. After a clean stop the next server knows it."""
    saved, noted = firsts.saved(), store.notes(NOTE)
    pieces = {f"{NOTE}{at // NOTE_BYTES:03}": saved[at:at + NOTE_BYTES]
              for at in range(0, len(saved), NOTE_BYTES)}
    for name in sorted({*pieces, *noted}):
        if pieces.get(name) != noted.get(name):
            store.note(name, pieces.get(name))
