"""The tables of a benchmark, in Markdown, from its summary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedsense_core.run_folder.formatting import human_bytes
from fedsense_core.tools.benchmark.flatness_summary import HOW as MEASURED
from fedsense_core.tools.benchmark.flatness_summary import flatness_tables
from fedsense_core.tools.benchmark.matrix import NO_TRAFFIC
from fedsense_core.tools.benchmark.summary import Summary

HOW = (
    "Scores in per cent: mean ± deviation over seeds. Differences in percentage points, paired by seed and pooled over "
    "the tasks by their weights, with a 95 % interval: the spread over seeds and a cluster bootstrap of the test sets, "
    "the same draws for both methods. `p` is two-sided; `p, Holm` is corrected for all comparisons of its table. "
    "`> 1 SE`: above by more than one standard error. Share: of the score of `centralised`, and of its gain over "
    "random weights."
)


def tables(summary: Summary) -> str:
    """Return all tables with what must be said of them."""
    parts = [f"# {summary['title']}", HOW, _remarks(summary)]
    parts += [_scores(summary, compression) for compression in summary["compressions"]]
    parts += [_comparison(summary, comparison) for comparison in summary["comparisons"]]
    measured = flatness_of(summary)
    parts += [f"## {title}\n\n{_table(lines[0], lines[1:])}" for title, lines in measured]
    parts += [MEASURED] if measured else []
    return "\n\n".join(part for part in parts if part) + "\n"


def flatness_of(summary: Summary) -> list[tuple[str, list[list[str]]]]:
    """Return title and lines of each table on flatness; none where nothing was analysed."""
    return flatness_tables(summary["rows"], summary["comparisons"])


def rows_beside(summary: Summary, compression: str) -> list[Summary]:
    """Return the rows of a compression and those that stand beside every compression, families
    together."""
    rows = [row for row in summary["rows"] if row["compression"] in (compression, NO_TRAFFIC)]
    families = list(dict.fromkeys(row["family"] for row in rows))
    return [row for family in families for row in rows if row["family"] == family]


def _remarks(summary: Summary) -> str:
    lines = [f"- {one['label']}: {one['note']}" for one in summary["tasks"].values() if one["note"]]
    if summary["missing"]:
        names = ", ".join(summary["missing"][:4]) + (", …" if len(summary["missing"]) > 4 else "")
        lines.append(f"- **Not finished**: {len(summary['missing'])} trials are missing ({names}).")
    if summary["sources"] > 1:
        lines.append(f"- The trials were made by {summary['sources']} versions of the code.")
    return "\n".join(lines)


def _scores(summary: Summary, compression: str) -> str:
    heads, lines = score_table(summary, compression)
    counts = sorted({len(row["seeds"]) for row in rows_beside(summary, compression)})
    if not counts:
        return ""
    text = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    return f"## Compression {compression}: {text} seed{'s' * (counts[-1] > 1)}\n\n{_table(heads, lines)}"


def score_table(summary: Summary, compression: str) -> tuple[list[str], list[list[str]]]:
    """Return heads and lines of the table of scores at one compression."""
    first = _first(summary, compression)
    pooled = {row["key"]: row["pooled"] for one in first for row in one["rows"]}
    heads = ["method", *(f"{one['label']}, {one['metric']}" for one in summary["tasks"].values()), "pooled"]
    heads += [*(f"less {one['label']}" for one in first), "share", "up", "down", "s"]
    lines = [
        [
            row["label"],
            *(spread(row["mean"][name], row["deviation"][name]) for name in summary["tasks"]),
            spread(row["pooled"], row["pooled_deviation"]),
            *(interval(pooled[row["key"]]) if row["key"] in pooled else "" for _ in first),
            " / ".join(percent(row[key]) for key in ("of_centralised", "gain_of_centralised")),
            *("–" if row[key] is None else human_bytes(row[key]) for key in ("bytes_up", "bytes_down")),
            "–" if row["seconds"] is None else f"{row['seconds']:.0f}",
        ]
        for row in rows_beside(summary, compression)
    ]
    return heads, lines


def _first(summary: Summary, compression: str) -> list[Summary]:
    return [one for one in summary["comparisons"] if one["compression"] == compression][:1]


def comparison_title(comparison: Summary) -> str:
    """Return what is compared, in words, unlike for the methods of one compression and those of
    all."""
    everywhere = ", at every compression," if spans_compressions(comparison) else ""
    return f"Each method{everywhere} less {comparison['label']} at compression {comparison['compression']}"


def spans_compressions(comparison: Summary) -> bool:
    """Return whether methods of several compressions are compared with the one."""
    return len({row["compression"] for row in comparison["rows"]} - {NO_TRAFFIC}) > 1


def _comparison(summary: Summary, comparison: Summary) -> str:
    names = list(summary["tasks"])
    heads = [
        "method",
        "compression",
        *(summary["tasks"][name]["label"] for name in names),
        "pooled",
        "SE",
        "p",
        "p, Holm",
        "> 1 SE",
    ]
    lines = []
    for row in sorted(comparison["rows"], key=lambda row: -row["pooled"]["mean"]):
        pooled = row["pooled"]
        lines.append(
            [
                row["label"],
                row["compression"],
                *(f"{row['tasks'][name]['mean']:+.2f}" for name in names),
                interval(pooled),
                _number(pooled["error"], ".2f"),
                _number(pooled["p"], ".3f"),
                _number(pooled["p_holm"], ".3f"),
                "yes" if pooled["above"] else "",
            ]
        )
    count = comparison["family"]
    title = f"## {comparison_title(comparison)}"
    return f"{title}\n\nPercentage points; {count} comparison{'s' * (count != 1)}.\n\n{_table(heads, lines)}"


def spread(mean: float, deviation: float | None) -> str:
    """Return a score in per cent with its deviation."""
    return f"{100 * mean:.1f}" + (f" ± {100 * deviation:.1f}" if deviation is not None else "")


def interval(found: Summary) -> str:
    """Return a difference with its interval."""
    if found["low"] is None:
        return f"{found['mean']:+.2f}"
    return f"{found['mean']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}]"


def percent(value: float | None) -> str:
    """Return a share in per cent."""
    return "–" if value is None else f"{100 * value:.0f} %"


def _number(value: Any, form: str) -> str:
    return "–" if value is None else format(value, form)


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [heads, ["---", *["---:"] * (len(heads) - 1)], *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows)
