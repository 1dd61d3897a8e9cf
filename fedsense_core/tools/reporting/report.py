"""One self-contained page about a run: what it cost, what it gave, and what the encoder sees."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment
from matplotlib.image import imsave

from fedsense_core import __version__
from fedsense_core.atomic_io import write_whole
from fedsense_core.run_folder.folder import RunFolder, read_json, write_json
from fedsense_core.run_folder.formatting import (
    clean,
    fewer,
    first_probe,
    first_weights,
    float32_bytes,
    human_bytes,
    human_seconds,
    number,
    probed,
    with_error,
)
from fedsense_core.tools.reporting import flatness_curves, flatness_section, template
from fedsense_core.tools.reporting.canvas import Curve, History
from fedsense_core.tools.reporting.plots import draw_all
from fedsense_core.tools.reporting.tiles import ReportPictures, Row, Tile

COLUMNS = ("round", "loss", "linear F1", "kNN F1", "up", "down", "seconds", "accepted", "rejected")


def write_report(run: RunFolder, pictures: ReportPictures | None = None) -> Path:
    """Write ``report.html`` of ``run``, at any point of its life, and return its path.

    The page holds everything it shows. What comes from clients is escaped. ``pictures`` are stored
    in ``pictures.json``: a report that is written again without any shows the same ones.
    """
    history = run.read_metrics()
    if pictures is not None:
        write_json(run.pictures_file, {"groups": _picture_groups(pictures)})
    environment = Environment(autoescape=True, trim_blocks=True)
    page = environment.from_string(template.PAGE).render(
        style=template.STYLE,
        version=__version__,
        folder=str(run.path),
        curves=[_curve(one) for one in draw_all(history)],
        flatness=_flatness(run),
        pictures=(read_json(run.pictures_file) or {"groups": []})["groups"],
        columns=COLUMNS,
        rounds=[_table_row(m) for m in history if m["round"] > 0],
        rejected=_words(history, "rejected", "node", "reason"),
        alarms=_words(history, "alarms", "site", "reason"),
        notes=_words(history, "notes", "site", "note"),
        **_head(run, history),
    )
    write_whole(run.report_file, page.encode())
    return run.report_file


def _curve(one: Curve) -> dict[str, Any]:
    return {**vars(one), "source": _source(one.svg, "svg+xml")}


def _flatness(run: RunFolder) -> dict[str, Any] | None:
    """Return the section about the analysis, None where there was none."""
    analysis = read_json(run.analysis_file)
    if analysis is None:
        return None
    return {
        "summary": clean(flatness_section.summary(analysis)),
        "rows": flatness_section.rows(analysis),
        "curves": [_curve(one) for one in flatness_curves.draw_all(analysis)],
    }


def _head(run: RunFolder, history: History) -> dict[str, Any]:
    config = run.read_config()
    done = max((m["round"] for m in history), default=0)
    asked = config.get("run", {}).get("rounds", done)
    state = "finished" if run.is_finished else "not finished"
    total = sum((m.get("seconds") or {}).get("total") or 0 for m in history)
    sites = {site for m in history for site in m.get("accepted") or ()}
    return {
        "title": f"FedSense run: {config.get('preset', run.path.name)}",
        "subtitle": f"{len(sites)} institutions, {done} of {asked} rounds, {human_seconds(total)}, {state}"
        + _continued(run),
        "cards": [_quality_card(history), *_byte_cards(history), _reply_card(history)],
        "config": _config_sections(config),
    }


def _continued(run: RunFolder) -> str:
    """Return which run this one goes on from; its rounds come first in every curve and table."""
    before = read_json(run.continued_file)
    return f"; rounds 1 to {before['rounds']} are those of {before['folder']}" if before else ""


def _card(name: str, value: str, note: str) -> dict[str, str]:
    return {"name": name, "value": value, "note": note}


def _quality_card(history: History) -> dict[str, str]:
    lines, before, weights = probed(history), first_probe(history) or {}, first_weights(history)
    name = "Linear probe, macro F1"
    if not lines:
        base = with_error(before.get("linear_macro_f1"), before.get("linear_macro_f1_se"))
        return _card(name, "–", f"no probe yet; {weights} {base}" if before else "no probe was made")
    final = lines[-1]["probe"]
    value = with_error(final.get("linear_macro_f1"), final.get("linear_macro_f1_se"))
    return _card(name, value, _against_first(final, before, weights))


def _against_first(final: Mapping[str, float], before: Mapping[str, float], weights: str) -> str:
    """Return the gain over the weights before training, in standard errors of the difference as if
    the two were independent."""
    key = "linear_macro_f1"
    if before.get(key) is None or final.get(key) is None:
        return f"{weights} were not probed"
    gain = final[key] - before[key]
    error = math.hypot(final.get(f"{key}_se") or 0, before.get(f"{key}_se") or 0)
    base = with_error(before[key], before.get(f"{key}_se"))
    return f"{weights} {base}: {gain:+.3f}" + (f", {gain / error:+.1f} standard errors" if error else "")


def _byte_cards(history: History) -> list[dict[str, str]]:
    plain = [float32_bytes(m) for m in history if m["round"] > 0]
    cards = []
    for index, (key, name) in enumerate([("bytes_up", "Sent by institutions"), ("bytes_down", "Sent to institutions")]):
        sent = sum(m.get(key) or 0 for m in history)
        known = sum(pair[index] for pair in plain if pair) if all(plain) else 0
        cards.append(_card(name, human_bytes(sent), fewer(known, sent)))
    return cards


def _reply_card(history: History) -> dict[str, str]:
    accepted = sum(len(m.get("accepted") or ()) for m in history)
    rejected = sum(len(m.get("rejected") or ()) for m in history)
    rounds = sum(1 for m in history if m["round"] > 0)
    return _card("Replies accepted", f"{accepted}", f"in {rounds} rounds; {rejected} rejected")


def _words(history: History, kind: str, who: str, what: str) -> list[dict[str, str]]:
    """Return round, institution and words of every entry of one kind, fit for a page."""
    entries = [(line["round"], entry) for line in history for entry in line.get(kind) or ()]
    return [{"round": str(n), "who": clean(e.get(who, "")), "what": clean(e.get(what, ""))} for n, e in entries]


def _table_row(metrics: Mapping[str, Any]) -> list[str]:
    probe = metrics.get("probe") or {}
    return [
        str(metrics["round"]),
        number(metrics.get("loss")),
        with_error(probe.get("linear_macro_f1"), probe.get("linear_macro_f1_se")),
        number(probe.get("knn_macro_f1")),
        human_bytes(metrics.get("bytes_up") or 0),
        human_bytes(metrics.get("bytes_down") or 0),
        number((metrics.get("seconds") or {}).get("total"), 1),
        str(len(metrics.get("accepted") or ())),
        str(len(metrics.get("rejected") or ())),
    ]


def _config_sections(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the settings section by section; those that stand alone come first."""
    alone = [(key, json.dumps(value)) for key, value in config.items() if not isinstance(value, Mapping)]
    sections = [{"name": "general", "settings": alone}] if alone else []
    for name, section in config.items():
        if isinstance(section, Mapping) and section:
            settings = [(f"{name}.{k}", json.dumps(v, ensure_ascii=False)) for k, v in section.items()]
            sections.append({"name": name, "settings": settings})
    return sections


def _picture_groups(pictures: ReportPictures) -> list[dict[str, Any]]:
    groups = [
        ("Sample chips", "Some chips of each institution, every band stretched on its own.", "named", pictures.chips),
        (
            "Nearest neighbours",
            "First a query, then the chips whose features are nearest, with their cosine; a solid frame marks the "
            "query's own class, a dashed one another.",
            "plain",
            pictures.neighbours,
        ),
        (
            "Features as colours",
            "Principal components of the feature map beside the image: alike colours are alike to the encoder.",
            "pairs",
            pictures.pca,
        ),
        (
            "Reconstructions",
            "A chip, the part the encoder saw, and what the decoder made of the rest.",
            "trios",
            pictures.reconstructions,
        ),
    ]
    return [
        {"title": title, "explanation": why, "kind": kind, "rows": [_row(r, title) for r in rows]}
        for title, why, kind, rows in groups
        if rows
    ]


def _row(row: Row, title: str) -> dict[str, Any]:
    return {"name": clean(row.name), "tiles": [_tile(t, row, i, title) for i, t in enumerate(row.tiles)]}


def _tile(tile: Tile, row: Row, index: int, title: str) -> dict[str, str]:
    buffer = io.BytesIO()
    imsave(buffer, np.ascontiguousarray(tile.image), format="png")
    verdict = {True: " (same class)", False: " (another class)", None: ""}[tile.agrees]
    what = tile.caption or f"chip {index + 1}"
    css = {True: "yes", False: "no", None: ""}[tile.agrees]
    return {
        "source": _source(buffer.getvalue(), "png"),
        "caption": clean(tile.caption),
        "alt": clean(f"{title}: {row.name + ', ' if row.name else ''}{what}{verdict}"),
        "css": "query" if tile.caption.startswith("query") else css,
    }


def _source(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
