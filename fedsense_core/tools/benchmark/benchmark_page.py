"""What a benchmark leaves to be read: ``table.md``, ``summary.json``, ``report.html`` and its
``plots``."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment

from fedsense_core import __version__
from fedsense_core.atomic_io import write_whole
from fedsense_core.run_folder.folder import write_json
from fedsense_core.run_folder.paths import safe_name
from fedsense_core.tools.benchmark.benchmark_plots import draw
from fedsense_core.tools.benchmark.benchmark_tables import HOW, flatness_of, score_table, tables
from fedsense_core.tools.benchmark.flatness_summary import HOW as MEASURED
from fedsense_core.tools.benchmark.summary import Summary
from fedsense_core.tools.reporting.canvas import Curve
from fedsense_core.tools.reporting.template import STYLE

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ summary.title }}</title>
<style>{{ style | safe }} main { margin-top:1rem; }</style>
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
<header><div>
<h1>{{ summary.title }}</h1>
<p>{{ subtitle }}</p>
</div></header>
<main id="content">
<section><h2>How to read it</h2>
<p>{{ how }}</p>
{% if measured %}<p>{{ measured }}</p>
{% endif %}
{% for task in summary.tasks.values() if task.note %}<p class="why">{{ task.label }}: {{ task.note }}</p>
{% endfor %}
{% if summary.missing %}<p><strong>{{ summary.missing | length }} trials are not finished.</strong></p>{% endif %}
{% if summary.sources > 1 %}<p>The trials were made by {{ summary.sources }} versions of the code.</p>{% endif %}
</section>
{% for curve in curves %}<section>
<h2>{{ curve.title }}</h2>
<p class="why">{{ curve.explanation }}</p>
<figure class="plot"><img src="{{ curve.source }}" alt="{{ curve.alt }}"></figure>
</section>
{% endfor %}
{% for title, head_cells, lines in tables %}<section><h2>{{ title }}</h2>
<div class="scroll"><table>
<thead><tr>{% for head in head_cells %}<th scope="col"{% if not loop.first %} class="num"{% endif %}>{{ head }}</th>
{% endfor %}</tr></thead>
<tbody>{% for row in lines %}
<tr><th scope="row">{{ row[0] }}</th>
{% for cell in row[1:] %}<td class="num">{{ cell }}</td>{% endfor %}</tr>{% endfor %}
</tbody></table></div></section>
{% endfor %}
</main>
<footer>Written by FedSense {{ version }}.</footer>
</body>
</html>
"""


def write_results(folder: Path, summary: Summary) -> list[Path]:
    """Write all of them and return their paths. The page holds everything it shows; plots are also
    files, as SVG."""
    paths = [folder / name for name in ("table.md", "summary.json", "report.html", "plots")]
    curves = draw(summary)
    write_whole(paths[0], tables(summary).encode())
    write_json(paths[1], summary)
    write_whole(paths[2], _page(summary, curves).encode())
    paths[3].mkdir(exist_ok=True)
    files = {f"{number}-{safe_name(curve.title)}.svg": curve.svg for number, curve in enumerate(curves, start=1)}
    for name, svg in files.items():
        write_whole(paths[3] / name, svg)
    for old in paths[3].glob("[0-9]*-*.svg"):
        if old.name not in files:
            old.unlink(missing_ok=True)
    return paths


def _page(summary: Summary, curves: Sequence[Curve]) -> str:
    seeds = {seed for row in summary["rows"] for seed in row["seeds"]}
    compressions = ", ".join(summary["compressions"])
    environment = Environment(autoescape=True, trim_blocks=True)
    return environment.from_string(PAGE).render(
        style=STYLE,
        version=__version__,
        summary=summary,
        how=HOW.replace("`", ""),
        measured=MEASURED if flatness_of(summary) else "",
        subtitle=f"{len(summary['tasks'])} tasks, compressions {compressions}, {len(seeds)} seeds",
        curves=[{**vars(curve), "source": _source(curve.svg)} for curve in curves],
        tables=[
            *(
                (f"Compression {compression}", *score_table(summary, compression))
                for compression in summary["compressions"]
            ),
            *((title, lines[0], lines[1:]) for title, lines in flatness_of(summary)),
        ],
    )


def _source(svg: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
