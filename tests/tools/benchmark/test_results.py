"""From trials to tables: made-up results whose differences are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fedsense_core.errors import FedSenseError
from fedsense_core.tools.benchmark.benchmark_page import write_results
from fedsense_core.tools.benchmark.collection import collect
from fedsense_core.tools.benchmark.manifest import Manifest
from fedsense_core.tools.benchmark.matrix import Matrix
from fedsense_core.tools.benchmark.summary import Summary, summarise
from fedsense_core.tools.benchmark.trial_evaluation import RESULTS
from fedsense_core.tools.benchmark.trials import trials_of
from fedsense_core.tools.downstream.result import load_results, save_results

Fill = Callable[..., Manifest]


def summary_of(matrix: Matrix, manifest: Manifest) -> Summary:
    return summarise(matrix, collect(matrix, trials_of(matrix), manifest))


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory, matrix: Matrix, fill: Fill) -> Summary:
    return summary_of(matrix, fill(tmp_path_factory.mktemp("out"), matrix))


def row(summary: Summary, key: str) -> Summary:
    (found,) = [row for row in summary["rows"] if row["key"] == key]
    return found


def comparison(summary: Summary, reference: str) -> dict[str, Summary]:
    (found,) = [one for one in summary["comparisons"] if one["reference"] == reference]
    return {row["key"]: row for row in found["rows"]}


def test_differences_are_the_known_ones_without_error_where_all_else_is_equal(summary: Summary) -> None:
    against = comparison(summary, "fedavg@32")
    assert against["fedsense@32"]["pooled"]["mean"] == pytest.approx(10.0)
    assert against["fedsense@32"]["pooled"]["error"] == pytest.approx(0.0, abs=1e-6), "same seeds, same draws"
    assert against["random@any"]["pooled"]["mean"] == pytest.approx(-30.0)
    assert against["fedsense@32"]["tasks"]["masks"]["mean"] == pytest.approx(10.0)
    assert "fedsense@1" not in against


def test_a_reference_at_one_compression_is_compared_with_those_of_every_compression(summary: Summary) -> None:
    against = comparison(summary, "plus@1")
    assert {"fedavg@32", "fedavg@1", "plus@32", "centralised@any"} < against.keys()
    assert against["fedavg@32"]["pooled"]["mean"] == pytest.approx(-15.0)
    assert [one["reference"] for one in summary["comparisons"]] == ["fedavg@32", "fedavg@1", "plus@1"]
    assert summary["comparisons"][2]["family"] == len(against)


def test_pooled_scores_are_weighted_and_shares_are_of_centralised(summary: Summary) -> None:
    plain = row(summary, "fedsense@1")
    assert summary["tasks"]["masks"]["weight"] == 0.75
    assert plain["pooled"] == pytest.approx(0.25 * plain["mean"]["scenes"] + 0.75 * plain["mean"]["masks"])
    assert plain["deviation"]["scenes"] == pytest.approx(0.01)
    assert row(summary, "centralised@any")["of_centralised"] == pytest.approx(1.0)
    assert row(summary, "random@any")["gain_of_centralised"] == pytest.approx(0.0)
    assert plain["gain_of_centralised"] == pytest.approx((0.7 - 0.3) / (0.8 - 0.3), abs=0.02)


def test_standalone_is_the_mean_of_the_sites_and_the_best_of_them(summary: Summary) -> None:
    mean, best = row(summary, "standalone@any"), row(summary, "standalone@any:best")
    assert best["pooled"] - mean["pooled"] == pytest.approx(0.025)
    assert (mean["bytes_up"], mean["seconds"]) == (None, 10.0), "nothing travels; two runs of 5 s"


def test_bytes_are_those_of_the_metrics(summary: Summary) -> None:
    assert [row(summary, key)["bytes_up"] for key in ("fedavg@32", "fedavg@1")] == [32000, 1000]


def test_trials_that_are_missing_are_named_and_seeds_are_paired_without_them(
    tmp_path: Path, matrix: Matrix, fill: Fill
) -> None:
    manifest = fill(tmp_path / "out", matrix, "fed*@32/seed[01]")
    fill(tmp_path / "out", matrix, "fedavg@32/seed2")
    summary = summary_of(matrix, Manifest.open(manifest.folder))
    assert "fedsense@32/seed2" in summary["missing"]
    assert row(summary, "fedavg@32")["seeds"] == [0, 1, 2]
    assert comparison(summary, "fedavg@32")["fedsense@32"]["pooled"]["seeds"] == 2
    assert row(summary, "fedavg@32")["of_centralised"] is None


def test_no_finished_trial_is_an_error_that_says_so(tmp_path: Path, matrix: Matrix) -> None:
    with pytest.raises(FedSenseError, match="no finished trial"):
        collect(matrix, trials_of(matrix), Manifest.open(tmp_path))


def test_a_score_that_is_not_defined_is_in_no_comparison_and_breaks_no_table(
    tmp_path: Path, matrix: Matrix, fill: Fill
) -> None:
    manifest = fill(tmp_path / "out", matrix, "*@32/*")
    for trial in trials_of(matrix, "fedsense@32"):
        folder = manifest.trial_folder(trial)
        results = load_results(folder / RESULTS)
        for one in results:
            one.evidence[0].counts_GKK[:] = 0
        save_results(folder / RESULTS, results)
    summary = summary_of(matrix, manifest)
    against = comparison(summary, "fedavg@32")
    assert "fedsense@32" not in against
    assert "no-distillation@32" in against
    table, _, page, _ = write_results(tmp_path, summary)
    assert "| fedsense | nan" in table.read_text(encoding="utf-8")
    assert page.exists()


def test_versions_of_the_code_are_counted_also_within_a_trial(tmp_path: Path, matrix: Matrix, fill: Fill) -> None:
    manifest = fill(tmp_path / "out", matrix, "fedavg@32/seed0")
    manifest.records["fedavg@32/seed0"].source = "0123+4567"
    assert summary_of(matrix, manifest)["sources"] == 2


def test_tables_and_page_hold_the_metrics_and_need_nothing_else(tmp_path: Path, summary: Summary) -> None:
    (tmp_path / "plots").mkdir()
    for name in ("9-Of_an_earlier_time.svg", "mine.svg"):
        (tmp_path / "plots" / name).write_text("<svg/>", encoding="utf-8")
    table, metrics, page, plots = write_results(tmp_path, summary)
    text, html = table.read_text(encoding="utf-8"), page.read_text(encoding="utf-8")
    assert "+10.00 [+10.00, +10.00]" in text
    assert "PROXY labels" in text
    titles = [line for line in text.splitlines() if line.startswith("## Each")]
    assert titles == [
        "## Each method less fedavg at compression 32",
        "## Each method less fedavg at compression 1",
        "## Each method, at every compression, less FedSense+ at compression 1",
    ]
    assert "7 comparisons" in text, "fedsense, plus, no distillation, centralised, random, and standalone twice"
    assert json.loads(metrics.read_text(encoding="utf-8"))["title"] == "Made up"
    assert html.count("data:image/svg+xml") == 3 + 1 + 1
    assert all("<svg" in path.read_text(encoding="utf-8") for path in plots.iterdir())
    assert len(list(plots.iterdir())) == 3 + 1 + 1 + 1
    assert (plots / "mine.svg").exists()
    assert "FedSense+" in html
    assert 'src="http' not in html
    assert "PROXY labels" in html
