"""The report says what the kept results say: medians, failures by name, nothing left out."""

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from peers import plots, report  # noqa: E402


def row(peer, setting, rates, durable=True, errors=0, **more):
    rounds = [{"rate": rate, "errors": 0, "p99_us": 10.0, "server_cpu_per_million": 2.0,
               "private_bytes": 1 << 20} for rate in rates]
    rounds += [{"rate": 1.0, "errors": 5}] * errors
    return {"peer": peer, "setting": setting, "durable": durable, "work": "W2", "size": 128,
            "delay_ms": 0.0, "rounds": rounds, **more}


@pytest.fixture
def keep(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setattr(report, "PLOTS", tmp_path / "plots")
    monkeypatch.setattr(report, "PAGE", tmp_path / "page.md")
    (tmp_path / "page.md").write_text("# Performance\n")

    def write(name, rows, **more):
        told = {"when": "2026", "cpus": 2, "kernel": "6", "commit": "abc", "rows": rows, **more}
        (tmp_path / name).write_text(json.dumps(told))

    return write


def test_medians_are_of_all_files_and_failed_rounds_are_told(keep):
    keep("a.json", [row("redis", "always", [100.0, 300.0], errors=1)])
    keep("b.json", [row("redis", "always", [200.0])])
    text = report.page()
    assert "| redis | always (1 of 4 rounds failed) | 200 | 100-300 |" in text


def test_what_answers_before_the_disk_stands_below_what_does_not(keep):
    keep("a.json", [row("redis", "everysec", [900.0], durable=False), row("nats", "always", [5.0])])
    text = report.page()
    assert text.index("| nats") < text.index("| redis")


def test_a_peer_that_is_missing_is_named(keep):
    keep("a.json", [row("redis", "always", [1.0])], missing={"kafka (default)": "no java"})
    assert "kafka (default): no java" in report.page()


def test_a_row_without_figures_says_why(keep):
    none = row("kafka", "default", [], missing="no java")
    keep("a.json", [row("redis", "always", [1.0]), none])
    assert "| kafka | default | *no java* |" in report.page()


def test_who_does_not_keep_up_with_what_is_due_is_told(keep):
    slow, fast = row("kafka", "default", [100.0]), row("redis", "always", [1990.0])
    for one in (*slow["rounds"], *fast["rounds"]):
        one["due"] = 2000.0
    keep("a.json", [slow, fast])
    text = report.page()
    assert "default (does not keep up with 2,000 a second) | 100" in text
    assert "| redis | always | 1,990" in text


def asked_line(text, start):
    return next(line for line in text.splitlines() if line.startswith(f"| {start}"))


def test_what_was_asked_is_judged_by_what_was_kept(keep):
    ours, redis = row("penstock", "disk (default)", [9.0]), row("redis", "always", [9.0])
    keep("a.json", [ours, redis])
    line = asked_line(report.page(), "W2: CPU seconds")
    assert "**missed**" in line and "lower: redis always 2.0" in line
    redis["rounds"][0]["server_cpu_per_million"] = 2.1
    keep("a.json", [ours, redis])
    assert "| reached |" in asked_line(report.page(), "W2: CPU seconds")
    assert "not measured" in asked_line(report.page(), "W1: CPU seconds")


@pytest.mark.parametrize(("ratio", "verdict"), [(1.49, "**missed**"), (1.5, "reached")])
def test_a_comparison_with_a_peer_is_judged(keep, tmp_path, ratio, verdict):
    contenders = [{"name": "penstock", "rate": 2.5e6}, {"name": "Redis", "rate": None}]
    rows = [{"key": key, "ratio": ratio, "contenders": contenders}
            for key in ("single-disk", "pipelined-disk")]
    told = {"when": "2026", "cpus": 2, "kernel": "6", "commit": "abc"}
    (tmp_path / "compare.json").write_text(json.dumps({"machine": told, "rows": rows}))
    assert verdict in asked_line(report.page(), "64 × 1 in flight")
    assert "2,500,000 /s | reached" in asked_line(report.page(), "8 connections × 64")


def test_what_one_run_reached_and_another_did_not_is_not_reached(keep, tmp_path):
    keep("a.json", [row("redis", "always", [1.0])])
    told = {"when": "2026", "cpus": 2, "kernel": "6", "commit": "abc"}
    for number, ratio in enumerate((0.57, 0.82)):
        rows = [{"key": "http-send", "ratio": ratio, "contenders": []}]
        (tmp_path / f"compare-{number}.json").write_text(
            json.dumps({"machine": told, "rows": rows}))
    assert "| not in every run |" in asked_line(report.page(), "HTTP, durable")


def test_a_plot_with_a_logarithmic_scale_puts_decades_at_equal_distances():
    tree = ElementTree.fromstring(plots.lines("T", "x", "y", {"a": [(1, 1.0), (2, 10.0),
                                                                    (3, 100.0)]}, log_y=True))
    heights = [float(one.get("cy")) for one in tree.iter("{http://www.w3.org/2000/svg}circle")]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.2)


def test_a_disturbed_machine_is_told(keep):
    quiet, loud = row("redis", "always", [9.0]), row("nats", "always", [9.0], work="W1")
    for one in quiet["rounds"]:
        one["others_share"] = 0.1
    for one in loud["rounds"]:
        one["others_share"] = 0.8
    keep("a.json", [quiet, loud])
    text = report.page()
    assert text.count("Other programs took") == 1 and "took 80 %" in text


def test_each_slower_disk_has_a_table_of_its_own(keep):
    keep("a.json", [row("redis", "always", [9.0]), row("redis", "always", [3.0], delay_ms=5.0)])
    text = report.page()
    assert text.count("### W2") == 2 and "each sync 5 ms longer" in text


def test_what_stands_around_the_tables_is_kept(keep, tmp_path):
    keep("a.json", [row("redis", "always", [9.0])])
    report.main()
    page = tmp_path / "page.md"
    page.write_text(page.read_text() + "behind\n")
    report.main()
    text = page.read_text()
    assert text.startswith("# Performance\n") and text.endswith("behind\n")
    assert text.count(report.BEGIN) == text.count(report.END) == 1


def test_plots_are_whole_and_name_everything(keep, tmp_path):
    series = {"one & two": [[1, 2.0], [1000, 3.0]]}
    keep("a.json", [row("penstock", "disk", [1e6]), row("redis", "always", [10.0])], plots=[
        {"name": "p", "title": "T", "x": "n", "y": "µs", "series": series, "command": "c"}])
    text = report.page()
    assert "plots/p.svg" in text and "plots/W2.svg" in text and "`c`, 2026" in text
    for name in ("p", "W2"):
        ElementTree.parse(tmp_path / "plots" / f"{name}.svg")
    assert "one &amp; two" in (tmp_path / "plots" / "p.svg").read_text()


def test_a_bar_is_longer_for_more(tmp_path):
    tree = ElementTree.fromstring(plots.bars("T", "u", [("a", 1e5, True, True),
                                                        ("b", 1e3, False, False)]))
    widths = [float(one.get("width")) for one in tree.iter("{http://www.w3.org/2000/svg}rect")
              if one.get("fill") in (plots.OURS, plots.THEIRS)]
    assert widths[0] > widths[1] > 0
