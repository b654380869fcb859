"""What the comparison with the Go chain makes of its samples, pieces and rounds."""

from pathlib import Path

import pytest

from perf import reference
from perf.control.driver import Sample
from perf.dataplane.packets import times_of
from perf.versus import record, table
from perf.versus.measured import Measured, of_json, of_samples, pooled
from perf.versus.record import Piece, Record

MACHINE = {
    "processor": "P",
    "cores": 2,
    "kernel": "6.1",
    "vpp": "vpp v26.06",
    "commit": "abc",
    "changed": False,
}


def calls(chain: str, *values: float, work: str = "Request", failed: int = 0) -> Measured:
    return Measured("local", work, chain, "ms", values, failed, "no answer" if failed else "", 10.0)


def piece(*measured: Measured, at: str = "2026-01-02T03:04:05+00:00") -> Piece:
    return Piece(at, MACHINE, measured)


def test_calls_that_failed_or_were_not_made_count_as_failed_and_give_no_value() -> None:
    samples = [Sample(0, 0.010), Sample(1, 15.0, "no answer"), Sample(2, 0.030)]
    found = of_samples(samples, calls("Go"), asked=5)
    assert found.values == (10.0, 30.0)
    assert (found.failed, found.attempts, found.reason) == (3, 5, "no answer")


@pytest.mark.parametrize(("percent", "value"), [(50, 50.0), (90, 90.0), (99, 99.0), (100, 99.0)])
def test_percentiles(percent: int, value: float) -> None:
    shuffled = [float(number * 37 % 100) for number in range(100)]
    assert calls("Go", *shuffled).at(percent) == value


def test_a_percentile_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="local Request on Go: no value"):
        calls("Go", failed=3).at(50)


def test_rounds_of_one_work_and_chain_are_pooled_and_others_kept_apart() -> None:
    found = pooled(
        [calls("Go", 1.0), calls("vpp", 9.0), calls("Go", 2.0, failed=1), calls("Go", work="Close")]
    )
    assert [(one.chain, one.work, one.values, one.failed) for one in found] == [
        ("Go", "Request", (1.0, 2.0), 1),
        ("vpp", "Request", (9.0,), 0),
        ("Go", "Close", (), 0),
    ]
    assert found[0].reason == "no answer"


def test_the_times_of_every_ping_are_read() -> None:
    text = (
        "PING 172.16.0.0 (172.16.0.0) 56(84) bytes of data.\n"
        "64 bytes from 172.16.0.0: icmp_seq=1 ttl=64 time=0.215 ms\n"
        "64 bytes from 172.16.0.0: icmp_seq=2 ttl=64 time=1.3 ms\n\n"
        "2 packets transmitted, 2 received, 0% packet loss, time 5ms\n"
        "rtt min/avg/max/mdev = 0.215/0.757/1.300/0.5 ms\n"
    )
    assert times_of(text) == (0.215, 1.3)


def test_a_record_survives_the_file(tmp_path: Path) -> None:
    file = tmp_path / "versus.json"
    kept = Record({"one-by-one": piece(calls("Go", 1.5, 2.25, failed=1), calls("vpp", 3.0))})
    record.save(kept, file)
    assert record.load(file) == kept
    assert of_json(calls("Go", 1.0).json()) == calls("Go", 1.0)


def test_there_may_be_no_file_yet_but_not_another_one(tmp_path: Path) -> None:
    file = tmp_path / "versus.json"
    assert record.load(file) == Record()
    file.write_text('{"one-by-one": {"at": "x"}}')
    with pytest.raises(ValueError, match="is no record of a comparison: 'machine'"):
        record.load(file)


def test_a_newer_run_replaces_its_chains_in_its_section_alone() -> None:
    first = Record(
        {"one-by-one": piece(calls("Go", 1.0), calls("vpp", 2.0)), "at-once-local": piece(calls("Go", 7.0))}
    )
    merged = first.having("one-by-one", piece(calls("vpp", 5.0), at="2026-02-01T00:00:00+00:00"))
    shown = {(one.chain, one.values) for one in merged.pieces["one-by-one"].measured}
    assert shown == {("Go", (1.0,)), ("vpp", (5.0,))}
    assert merged.pieces["at-once-local"] == first.pieces["at-once-local"]
    assert merged.pieces["one-by-one"].at == "2026-02-01T00:00:00+00:00"


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (calls("Go", 10.0, 11.0, 12.0), "11.0 / 12.0 / 12.0"),
        (calls("Go", 10.0, 11.0, 12.0, failed=2), "11.0 / 12.0 / 12.0 (3 of 5)"),
        (calls("Go", failed=20), "0 of 20"),
        (Measured("local", "TCP, MTU 1500", "Go", "Gbit/s", (1.8, 1.5, 2.0)), "1.80 (1.50 to 2.00)"),
        (Measured("local", "manager, resident", "Go", "MiB", (37.25,)), "37.2"),
        (calls("Go", 1260.6), "1,261"),
    ],
)
def test_a_cell(one: Measured, text: str) -> None:
    assert table.cell(one) == text


def test_the_table_has_a_row_for_each_work_and_an_empty_cell_for_what_was_not_measured() -> None:
    kept = Record({"one-by-one": piece(calls("Go", 1.0), calls("vpp", 2.0), calls("Go", 3.0, work="Close"))})
    lines = table.markdown(kept, ["one-by-one"]).splitlines()
    assert lines[0] == "P, 2 cores, Linux 6.1, vpp v26.06, commit abc, 2026-01-02"
    assert lines[2:6] == [
        "| place | work | Go | vpp |",
        "| --- | --- | ---: | ---: |",
        "| local | Request (ms) | 1.00 | 2.00 |",
        "| local | Close (ms) | 3.00 |  |",
    ]
    assert "meanwhile: one-by-one 10 %;" in lines[-1]


def test_the_chains_of_go_come_first() -> None:
    assert table.chains([calls("vpp"), calls("Go"), calls("linux"), calls("Go, other")]) == [
        "Go",
        "Go, other",
        "vpp",
        "linux",
    ]


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (calls("Go", 10.0, 11.0, 12.0), "11.0 | 12.0"),
        (calls("Go", 10.0, failed=2), "10.0 | 10.0 (2 failed)"),
        (calls("Go", failed=20), "0 of 20"),
        (Measured("local", "TCP, MTU 1500", "Go", "Gbit/s", (1.8, 1.5, 2.0)), "1.80"),
    ],
)
def test_the_go_chain_beside_the_columns_of_the_benchmark(one: Measured, text: str) -> None:
    assert reference.text(one) == text
