"""The gate: counts stay under what is kept, the same tree passes, a planted regression does not."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks" / "gate"))

import gate  # noqa: E402
from counting import COUNTERS, FEW, Counting, MissingError  # noqa: E402
from works import WORKS, counted  # noqa: E402

# What a tree would look like whose author made every append look at the file system once more.
PLANTED = """
import os as _os

class _Queue:
    def __init__(self, queue):
        self._queue = queue

    def __getattr__(self, name):
        return getattr(self._queue, name)

    def append(self, *words, **named):
        _os.{call}
        return self._queue.append(*words, **named)

_open = Store.open

class _Store:
    def __init__(self, store):
        self._store = store

    def __getattr__(self, name):
        return getattr(self._store, name)

    def queue(self, *words, **named):
        return _Queue(self._store.queue(*words, **named))

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        self._store.close()

    @staticmethod
    def open(*words, **named):
        return _Store(_open(*words, **named))

Store = _Store
"""


def planted(folder: Path, call: str) -> Path:
    """The tree as it is built, but for one thing."""
    names = folder / "build" / "names" / "penstock"
    names.mkdir(parents=True)
    for link in (ROOT / "build" / "names" / "penstock").iterdir():
        if link.name != "engine":
            (names / link.name).symlink_to(link.resolve())
    (names / "engine").mkdir()
    for source in (ROOT / "engine").iterdir():
        if source.name not in ("__init__.py", "__pycache__"):
            (names / "engine" / source.name).symlink_to(source)
    text = (ROOT / "engine" / "__init__.py").read_text()
    (names / "engine" / "__init__.py").write_text(text + PLANTED.format(call=call))
    return folder


def available(name: str) -> None:
    try:
        COUNTERS[name].run(ROOT, "append-1", 1)
    except MissingError as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("work", WORKS)
def test_syncs_and_bytes_stay_under_their_ceilings(work, tmp_path):
    counter, calls = COUNTERS["own"], COUNTERS["own"].between(work)
    few = counted(work, FEW, str(tmp_path / "few"))
    many = counted(work, FEW + calls, str(tmp_path / "many"))
    figures = {name: (many[told] - few[told]) / calls
               for name, told in (("fdatasyncs", "fsyncs"), ("bytes", "bytes_written"))}
    verdicts = gate.judge(counter, work, gate.ceilings()[work], figures)
    assert {verdict.figure for verdict in verdicts} == {"fdatasyncs", "bytes"}
    assert not [verdict.line() for verdict in verdicts if verdict.worse]


@pytest.fixture
def short(monkeypatch):
    """Fewer calls and rounds than the gate itself takes: enough for one call more in each."""
    monkeypatch.setattr(gate, "ROUNDS", 1)
    monkeypatch.setattr(gate, "MORE_ROUNDS", 1)
    for name in ("syscalls", "allocations", "copies"):
        monkeypatch.setitem(COUNTERS, name, replace(COUNTERS[name], calls=300))


def test_system_calls_stay_under_their_ceilings(short, work="append-1"):
    available("syscalls")
    verdicts = gate.against(COUNTERS["syscalls"], work, gate.ceilings()[work], ROOT)
    assert verdicts
    assert not [verdict.line() for verdict in verdicts if verdict.worse]


@pytest.mark.soak
@pytest.mark.parametrize("work", WORKS)
@pytest.mark.parametrize("counter", ["syscalls", "allocations", "copies"])
def test_all_counts_stay_under_their_ceilings(counter, work):
    available(counter)
    verdicts = gate.against(COUNTERS[counter], work, gate.ceilings()[work], ROOT)
    assert verdicts
    assert not [verdict.line() for verdict in verdicts if verdict.worse]


def test_the_gate_passes_a_tree_beside_itself(short, capsys):
    available("syscalls")
    assert gate.main(["--base", str(ROOT), "--works", "append-1",
                      "--counters", "syscalls"]) == 0
    assert "none that counts has grown" in capsys.readouterr().out


def test_the_gate_catches_one_more_system_call_in_every_append(tmp_path, short, capsys):
    available("syscalls")
    tree = planted(tmp_path, "stat('/')")
    assert gate.main(["--base", str(ROOT), "--candidate", str(tree), "--works", "append-1",
                      "--counters", "syscalls"]) == 1
    assert "FAILED: append-1 syscalls" in capsys.readouterr().out


@pytest.mark.parametrize(("counter", "call", "figure"), [
    ("allocations", "fspath(str(id(self)))", "allocations"),
    ("copies", "fsencode(bytes(bytearray(64)).decode())", "copied"),
])
def test_the_gate_catches_one_more_allocation_or_copy_in_every_append(
    counter, call, figure, tmp_path, short, capsys
):
    available(counter)
    tree = planted(tmp_path, call)
    assert gate.main(["--base", str(ROOT), "--candidate", str(tree), "--works", "append-1",
                      "--counters", counter]) == 1
    assert f"FAILED: append-1 {figure}" in capsys.readouterr().out


@pytest.mark.soak
def test_the_gate_catches_a_call_more_by_its_instructions(tmp_path, capsys):
    available("instructions")
    assert gate.main(["--base", str(ROOT), "--works", "append-1", "--counters",
                      "instructions"]) == 0
    tree = planted(tmp_path, "fspath('/')")
    assert gate.main(["--base", str(ROOT), "--candidate", str(tree), "--works", "append-1",
                      "--counters", "instructions"]) == 1
    assert "FAILED: append-1 instructions" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "more", "worse"), [
    ("allocations", 0.0, False), ("allocations", 1.0, True), ("instructions", 0.01, False),
    ("instructions", 0.05, True), ("copies", 128.0, True), ("syscalls", 1.0, True),
])
def test_what_is_exact_has_little_room(name, more, worse):
    base = {"allocations": 4.887, "instructions": 7826.0, "copies": 128.0, "syscalls": 2.0}[name]
    grown = base * (1 + more) if name == "instructions" else base + more
    assert COUNTERS[name].worse("append-1", base, grown) is worse


@pytest.mark.parametrize("words", [
    ["--base", "no-such-branch"], ["--works", "no-such-work", "--ceilings"],
    ["--counters", "nothing", "--ceilings"], [],
])
def test_what_cannot_be_compared_is_told(words, capsys):
    with pytest.raises(SystemExit) as ended:
        gate.main(words)
    assert ended.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_gate_that_compared_nothing_does_not_pass(monkeypatch, capsys):
    def missing(*_):
        raise MissingError("no such tool")

    monkeypatch.setitem(COUNTERS, "syscalls", replace(COUNTERS["syscalls"], run=missing))
    assert gate.main(["--ceilings", "--works", "append-1", "--counters", "syscalls"]) == 1
    told = capsys.readouterr().out
    assert "not compared here: syscalls" in told and "nothing was compared" in told


def test_a_time_only_warns():
    counter = COUNTERS["seconds"]
    verdicts = gate.judge(counter, "append-1", {"seconds": 1.0}, {"seconds": 2.0})
    assert [(verdict.worse, verdict.fails) for verdict in verdicts] == [(True, False)]
    assert "slower" in verdicts[0].line()


@pytest.mark.parametrize(("now", "worse"), [(100.0, False), (104.0, False), (106.0, True)])
def test_a_few_per_cent_are_allowed(now, worse):
    assert COUNTERS["syscalls"].worse("append-1", 100.0, now) is worse


def test_what_others_do_in_one_round_is_not_counted():
    found = iter([20, 2020, 20, 9020])
    counting = Counting(_Told(found), ROOT, "append-1")
    counting.round()
    counting.round()
    assert counting.per_call() == {"allocations": 1.0}


class _Told:
    from_start = False

    def __init__(self, found):
        self.found = found

    def between(self, _):
        return 2000

    def run(self, *_):
        return {"allocations": next(self.found)}
