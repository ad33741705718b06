"""The figures in the documents, made from the results: ``python -m bench.document``.

A document has marks, ``<!-- figures: python -m bench.NAME -->`` and ``<!-- end of figures -->``;
what stands between them is made anew from docs/benchmarks/NAME.json.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.measure import figure, paired
from bench.path import STEPS
from bench.result import RESULTS, ROOT
from bench.target import Target, from_plain

END = "<!-- end of figures -->"
Result = Mapping[str, Any]
SCENARIOS = ("one flow", "65536 flows", "1048576 flows", "miss", "miss without SYN")
LOADS = ("1 %", "50 %", "90 %")
# Of "tuning": the names of a table's columns; columns of the result, and how they are written.
TUNING: tuple[tuple[tuple[str, ...], dict[str, str]], ...] = (
    (("setting", "rate"), {"rate": ".2f"}),
    (("setting", "intake"), {"intake": ".2f"}),
    (
        ("setting", "burst: packets held", "burst: ms", "slow: ms"),
        {"held_burst_packets": ".0f", "held_burst_ms": ".0f", "held_slow_ms": ".0f"},
    ),
    (
        ("setting", "p50, ms", "p99, ms", "share of the core"),
        {"delay_p50_ms": ".3f", "delay_p99_ms": ".3f", "delay_core": ".2f"},
    ),
)
ENOUGH = 5  # rounds; see docs/benchmarks.md
CONTESTANTS = ("lbfwd", "linear reflector", "plain reflector", "testpmd io")
HEADLINES = (
    "lbfwd / linear reflector",
    "lbfwd / testpmd io",
    "÷ one flow",
    "added",
    "instructions a packet",
    "population",
)


def begin(name: str) -> str:
    """Return the mark that a benchmark's figures begin with."""
    return f"<!-- figures: python -m bench{name and '.' + name} -->"


def replaced(text: str, name: str, block: str) -> str:
    """Return the text with another block between a benchmark's marks.

    Raises ValueError where the marks are not there exactly once.
    """
    before, mark, rest = text.partition(begin(name))
    _, end, after = rest.partition(END)
    if not end or text.count(begin(name)) != 1:
        raise ValueError(f"the document needs the marks {begin(name)!r} and {END!r} once")
    return f"{before}{mark}\n\n{block}\n{END}{after}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table, Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def cell(plain: Mapping[str, float], form: str = ".4g") -> str:
    """Write a median and its interval."""
    return "{} ({} to {})".format(*(format(plain[key], form) for key in ("median", "low", "high")))


def targets_table(targets: Iterable[Target]) -> str:
    """Return what was wanted and what came out."""
    rows = (
        (
            target.name,
            f"{'≥' if target.at_least else '≤'} {target.bound:g}",
            cell(target.figure.plain(), ".3g"),
            "reached" if target.reached else "**not reached**",
        )
        for target in targets
    )
    return table(("target", "wanted", "median of the rounds", ""), rows)


def path_tables(result: Result) -> str:
    """Return the packet path's nanoseconds, its steps, and its instructions."""
    times, counted = result["figures"]["nanoseconds"], result["figures"]["instructions"]
    by_shape = (
        (label, *(cell(times[label][name]["all"], ".1f") for name in SCENARIOS)) for label in times
    )
    steps = (
        (name, *(cell(times["IPv4 TCP"][name][step], ".1f") for step in STEPS))
        for name in SCENARIOS
    )
    instructions = ((label, f"{counted[label]['all']:.0f}") for label in counted)
    files = sorted(counted["IPv4 TCP"].items(), key=lambda item: -item[1])[1:]
    return "\n".join(
        (
            table(("ns a packet", *SCENARIOS), by_shape),
            table(("ns by step, IPv4 TCP", *STEPS), steps),
            table(("one flow", "instructions a packet"), instructions),
            table(("IPv4 TCP, written in", "instructions"), ((f, f"{n:.0f}") for f, n in files)),
        )
    )


def forward_table(result: Result) -> str:
    """Return the drained rates and lbfwd's ratio to each."""
    rows = []
    for scenario, rates in result["figures"]["packets_a_second"].items():
        cells = []
        for name in CONTESTANTS:
            rate = figure(rates[name]).median / 1000
            ratio = f"; {figure(paired(rates['lbfwd'], rates[name])).median:.2f}"
            cells.append(f"{rate:.0f}{ratio if name != 'lbfwd' else ''}")
        rows.append((scenario, *cells))
    head = ("1,000 packets a second; lbfwd ÷ it", *CONTESTANTS)
    return table(head, rows)


def population_table(result: Result) -> str:
    """Return how long tables take, the textbook's way and ours."""
    head = ("M", "backends", "textbook, ms", "ours, ms", "textbook ÷ ours")
    rows = (
        (
            str(row["size"]),
            f"{row['backends']:,}",
            cell(row["textbook_ms"], ".2f"),
            cell(row["ours_ms"], ".2f"),
            cell(row["ratio"], ".2f"),
        )
        for row in result["figures"]["population"]
    )
    return table(head, rows)


def latency_table(result: Result) -> str:
    """Return what each adds at each load: p50, p99 and p99.9 in microseconds."""
    rows: dict[tuple[str, str], list[str]] = {}
    for each in result["figures"]["cells"]:
        shares = each["added_ms"].values()
        added = " / ".join(f"{1000 * share['median']:.0f}" for share in shares)
        rows.setdefault((each["ring"], each["forwarder"]), []).append(added)
    head = ("ring", "forwarder", *(f"{load}: p50 / p99 / p99.9, µs" for load in LOADS))
    return table(head, ((*names, *cells) for names, cells in rows.items()))


def reload_table(result: Result) -> str:
    """Return how long each kind of change took, and what was lost meanwhile."""
    head = ("node", "change", "in service: p50, ms", "longest, ms", "lost of", "longest gap, ms")
    rows = (
        (
            node["title"],
            change,
            *(f"{took['in_service_ms'][key]:.0f}" for key in ("p50", "max")),
            f"{node['during']['lost']:,} of {node['during']['packets']:,}",
            f"{node['during']['gaps_ms']['max']:.0f}",
        )
        for node in result["figures"].values()
        for change, took in node["changes"].items()
    )
    return table(head, rows)


def failover_table(result: Result) -> str:
    """Return what clients noticed of each event: sums of all rounds, and median times."""
    head = ("noticed by", "event", "broken of", "lost of", "router, s", "silence, s", "exchange, s")
    rows = (
        (
            detection,
            event,
            "{} of {}".format(*(sum(r[key] for r in rounds) for key in ("broken", "connections"))),
            f"{sum(sum(r['lost'].values()) for r in rounds)} of "
            f"{sum(r['datagrams'] for r in rounds):,}",
            *(
                cell(figure([r[key] / 1000 for r in rounds]).plain(), ".2f")
                for key in ("noticed_ms", "silent_ms", "longest_ms")
            ),
        )
        for detection, events in result["figures"].items()
        for event, rounds in events.items()
    )
    return table(head, rows)


def memory_table(result: Result) -> str:
    """Return the MiB that a worker takes beside its rings and tables, and a bare Python."""
    worker, python = (result["figures"][key] for key in ("worker", "python_alone"))
    rows = (
        ("resident", cell(worker["Rss"], ".1f")),
        ("its share, where memory is shared (PSS)", cell(worker["Pss"], ".1f")),
        ("its own", cell(worker["Private_Dirty"], ".1f")),
        ("a Python that has imported nothing, resident", cell(python, ".1f")),
    )
    return table(("a worker", "MiB"), rows)


def overflow_table(result: Result) -> str:
    """Return the share of flows that find no room, by how full the table is."""
    head = ("bytes a flow", "so full", "flows without room, %")
    rows = (
        (f"{spare['bytes_a_flow']:g}", full, cell({k: 100 * v for k, v in share.items()}, ".3f"))
        for spare in result["figures"]["spares"]
        for full, share in spare["overflow"].items()
    )
    return table(head, rows)


def probes_table(result: Result) -> str:
    """Return what 2,000 checks a second cost, and how the supervisor answers meanwhile."""
    columns = {
        "probes_s": ".0f", "cpu": ".2f", "wait_p50": ".1f", "wait_p99": ".1f", "wait_most": ".0f",
        "status": ".0f",
    }  # fmt: skip
    rows = (
        (kind, *(cell(found[name], form) for name, form in columns.items()))
        for kind, found in result["figures"]["kinds"].items()
    )
    head = ("checks", "probes a second", "supervisor, cores", "answer: p50, ms", "p99, ms",
            "longest, ms", "status, ms")  # fmt: skip
    return table(head, rows)


def detection_table(result: Result) -> str:
    """Return how soon a dead server was out, by interval and fall."""
    rows = (
        (
            setting,
            f"{found['product_ms']:.0f}",
            cell(found["took_ms"], ".0f"),
            cell(found["ratio"], ".2f"),
            f"{found['ratio_most']:.2f}",
        )
        for setting, found in result["figures"].items()
    )
    head = ("interval, fall", "product, ms", "out after, ms", "÷ the product", "longest ÷ it")
    return table(head, rows)


def tuning_tables(result: Result) -> str:
    """Return what each setting gave."""
    found = result["figures"]
    tables = (table(names, setting_rows(found, columns)) for names, columns in TUNING)
    waiting = ("packets wait for a worker's successor, ms", cell(found["replaced_ms"], ".0f"))
    return "\n".join((*tables, table(waiting, ())))


def setting_rows(found: Result, columns: Mapping[str, str]) -> Iterable[tuple[str, ...]]:
    """Return a row a setting that these columns have."""
    for setting in found[next(iter(columns))]:
        cells = (cell(found[column][setting], form) for column, form in columns.items())
        yield (f"`{setting}`", *cells)


def few_rounds(found: Mapping[str, Result], name: str) -> str:
    """Return a remark if a benchmark had few rounds; "" stands for all that have targets."""
    several = [found[name]] if name else [each for each in found.values() if each["targets"]]
    few = [f"{each['bench']}: {each['rounds']}" for each in several if each["rounds"] < ENOUGH]
    if not few:
        return ""
    return f"\nFewer than {ENOUGH} rounds, so the intervals say little: {', '.join(few)}.\n"


def results() -> dict[str, Result]:
    """Read all results that are there."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}


def blocks(found: Mapping[str, Result]) -> dict[tuple[Path, str], str]:
    """Return what stands where: (document, name of the marks) → text."""
    benchmarks = ROOT / "docs" / "benchmarks.md"
    targets = [from_plain(plain) for result in found.values() for plain in result["targets"]]
    sizing = ROOT / "docs" / "sizing.md"
    headline = [t for t in targets if any(part in t.name for part in HEADLINES)]
    made = {
        (benchmarks, ""): targets_table(targets),
        (benchmarks, "path"): path_tables(found["path"]),
        (benchmarks, "forward"): forward_table(found["forward"]),
        (benchmarks, "tables"): population_table(found["tables"]),
        (benchmarks, "latency"): latency_table(found["latency"]),
        (benchmarks, "reload"): reload_table(found["reload"]),
        (ROOT / "docs" / "announce.md", "failover"): failover_table(found["failover"]),
        (sizing, "forward"): forward_table(found["forward"]),
        (sizing, "memory"): memory_table(found["memory"]),
        (sizing, "flow_table"): overflow_table(found["flow_table"]),
        (benchmarks, "probes"): probes_table(found["probes"]),
        (benchmarks, "detection"): detection_table(found["detection"]),
        (ROOT / "docs" / "tuning.md", "tuning"): tuning_tables(found["tuning"]),
    }
    remarked = {place: block + few_rounds(found, place[1]) for place, block in made.items()}
    return remarked | {(ROOT / "README.md", ""): targets_table(headline)}


def main() -> int:
    """Write all documents."""
    for (document, name), block in blocks(results()).items():
        text = document.read_text(encoding="utf-8")
        document.write_text(replaced(text, name, block), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
