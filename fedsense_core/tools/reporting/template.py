"""The page of the report as Jinja text. A Python module, since Flower's app bundle carries no
.html."""

from __future__ import annotations

STYLE = """
:root { --ink:#1d2733; --soft:#56616e; --line:#dfe4ea; --back:#f4f6f8; --card:#fff; --accent:#0b5c8f; --bad:#a3341b; }
* { box-sizing: border-box; }
body { margin:0; background:var(--back); color:var(--ink); font:16px/1.5 system-ui,"Segoe UI",Roboto,sans-serif; }
.skip { position:absolute; left:-99em; } .skip:focus { left:1em; top:1em; background:#fff; padding:.5em; }
header { background:#10273a; color:#fff; padding:2rem 1rem 4.2rem; }
header > div, main, footer { max-width:64rem; margin:0 auto; padding:0 1rem; }
h1 { margin:0; font-size:1.7rem; font-weight:650; } header p { margin:.3rem 0 0; color:#c3d2df; }
h2 { font-size:1.2rem; margin:0 0 .2rem; } h3 { font-size:1rem; margin:1.2rem 0 .4rem; }
main { margin-top:-3rem; }
section, .cards > div { background:var(--card); border:1px solid var(--line); border-radius:10px; }
section { padding:1.2rem 1.4rem; margin:1rem 0; }
.cards { display:grid; gap:1rem; grid-template-columns:repeat(auto-fit,minmax(13.5rem,1fr)); margin:0; }
.cards > div { padding:1rem 1.2rem; display:flex; flex-direction:column; }
.cards dt { color:var(--soft); font-size:.86rem; } .cards dd { margin:0; }
.cards dd.main { font-size:1.55rem; font-weight:650; line-height:1.3; }
.cards dd.note { font-size:.86rem; color:var(--soft); }
.why { margin:0 0 .6rem; color:var(--soft); }
figure { margin:0; } figure.plot img { width:100%; height:auto; display:block; }
table { border-collapse:collapse; width:100%; font-size:.9rem; font-variant-numeric:tabular-nums; }
caption { text-align:left; color:var(--soft); padding-bottom:.4rem; }
th, td { text-align:left; padding:.32rem .7rem .32rem 0; border-bottom:1px solid var(--line); vertical-align:top; }
th { font-weight:600; } td.num, th.num { text-align:right; } .scroll { overflow-x:auto; }
td.reason { overflow-wrap:anywhere; }
summary { cursor:pointer; font-weight:600; }
summary:focus-visible { outline:3px solid var(--accent); outline-offset:3px; }
code { font:.88em ui-monospace,Menlo,Consolas,monospace; overflow-wrap:anywhere; }
.config { columns:2 26rem; column-gap:2.5rem; } .config > div { break-inside:avoid; padding-bottom:.6rem; }
.config table { table-layout:fixed; } .config th { font-weight:400; }
.rows { display:grid; gap:.7rem; } .rows.pairs { grid-template-columns:repeat(auto-fill,minmax(12.5rem,1fr)); }
.rows.trios { grid-template-columns:repeat(auto-fill,minmax(19rem,1fr)); }
.row h3 { margin:.2rem 0 .3rem; font-weight:600; }
.tiles { display:flex; flex-wrap:wrap; gap:.5rem; margin:0; padding:0; list-style:none; }
.tiles figure { width:5.8rem; } .tiles img { width:100%; display:block; border-radius:5px; image-rendering:pixelated; }
.tiles figcaption { font-size:.76rem; line-height:1.25; color:var(--soft); margin-top:.2rem; overflow-wrap:anywhere; }
.yes img { outline:3px solid #0b7a55; outline-offset:-3px; }
.no img { outline:3px dashed var(--bad); outline-offset:-3px; }
.query { margin-right:.6rem; } .empty { color:var(--soft); }
footer { color:var(--soft); font-size:.86rem; padding-bottom:2rem; }
@media (max-width:40rem) { figure.plot { overflow-x:auto; } figure.plot img { width:44rem; } }
@media print {
  header { background:none; color:#000; padding-bottom:1rem; }
  main { margin-top:0; } section { break-inside:avoid; }
}
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>{{ style | safe }}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
<header><div>
<h1>{{ title }}</h1>
<p>{{ subtitle }}</p>
</div></header>
<main id="content">
<dl class="cards" aria-label="Summary">
{% for card in cards %}<div><dt>{{ card.name }}</dt><dd class="main">{{ card.value }}</dd>
<dd class="note">{{ card.note }}</dd></div>
{% endfor %}</dl>
{% macro tiles(rows, kind) %}
<div class="rows {{ kind }}">
{% for row in rows %}<div class="row">{% if row.name and kind == "named" %}<h3>{{ row.name }}</h3>{% endif %}
<ul class="tiles">
{% for tile in row.tiles %}<li><figure class="{{ tile.css }}"><img src="{{ tile.source }}" alt="{{ tile.alt }}">
{% if tile.caption %}<figcaption>{{ tile.caption }}</figcaption>{% endif %}</figure></li>
{% endfor %}</ul></div>
{% endfor %}</div>
{% endmacro %}
{% if not rounds %}<section><h2>No round has ended yet</h2>
<p class="empty">Curves appear here after the first round.</p></section>{% endif %}
{% for curve in curves %}<section>
<h2>{{ curve.title }}</h2>
<p class="why">{{ curve.explanation }}</p>
<figure class="plot"><img src="{{ curve.source }}" alt="{{ curve.alt }}"></figure>
</section>
{% endfor %}
{% if flatness %}<section>
<h2>Flatness and drift of the global model</h2>
<p class="why">{{ flatness.summary }}</p>
<div class="scroll"><table><caption>The same values, and more, are in analysis.json.</caption>
<thead><tr><th scope="col">Measure</th><th scope="col" class="num">Value</th><th scope="col">Meaning</th></tr></thead>
<tbody>{% for row in flatness.rows %}
<tr><td>{{ row.what }}</td><td class="num">{{ row.value }}</td><td>{{ row.meaning }}</td></tr>{% endfor %}
</tbody></table></div>
{% for curve in flatness.curves %}<h3>{{ curve.title }}</h3>
<p class="why">{{ curve.explanation }}</p>
<figure class="plot"><img src="{{ curve.source }}" alt="{{ curve.alt }}"></figure>
{% endfor %}</section>
{% endif %}
{% for group in pictures %}<section>
<h2>{{ group.title }}</h2>
<p class="why">{{ group.explanation }}</p>
{{ tiles(group.rows, group.kind) }}
</section>
{% endfor %}
<section>
<h2>Rejected replies</h2>
{% if rejected %}<p class="why">Each was left out of its round, which then equals the round without that client.</p>
<div class="scroll"><table><caption>{{ rejected | length }} in all</caption>
<thead><tr><th scope="col" class="num">Round</th><th scope="col">Institution</th>
<th scope="col">Reason</th></tr></thead>
<tbody>{% for reply in rejected %}
<tr><td class="num">{{ reply.round }}</td><td>{{ reply.who }}</td>
<td class="reason">{{ reply.what }}</td></tr>{% endfor %}
</tbody></table></div>
{% else %}<p class="empty">None.</p>{% endif %}
</section>
{% if alarms %}<section>
<h2>Alarms</h2>
<p class="why">These replies count, bounded by what the run allows. They stand out from the others of their round.</p>
<div class="scroll"><table><caption>{{ alarms | length }} in all</caption>
<thead><tr><th scope="col" class="num">Round</th><th scope="col">Institution</th>
<th scope="col">Why</th></tr></thead>
<tbody>{% for alarm in alarms %}
<tr><td class="num">{{ alarm.round }}</td><td>{{ alarm.who }}</td>
<td class="reason">{{ alarm.what }}</td></tr>{% endfor %}
</tbody></table></div>
</section>{% endif %}
{% if notes %}<section>
<h2>Notes</h2>
<p class="why">These replies count. They left something out, such as an error-feedback residual.</p>
<div class="scroll"><table><caption>{{ notes | length }} in all</caption>
<thead><tr><th scope="col" class="num">Round</th><th scope="col">Institution</th>
<th scope="col">Note</th></tr></thead>
<tbody>{% for note in notes %}
<tr><td class="num">{{ note.round }}</td><td>{{ note.who }}</td>
<td class="reason">{{ note.what }}</td></tr>{% endfor %}
</tbody></table></div>
</section>{% endif %}
{% if rounds %}<section><details><summary>Metrics of every round</summary>
<div class="scroll"><table><caption>The same lines are in metrics.jsonl.</caption>
<thead><tr>{% for name in columns %}<th scope="col" class="num">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in rounds %}
<tr>{% for cell in row %}<td class="num">{{ cell }}</td>{% endfor %}</tr>{% endfor %}
</tbody></table></div></details></section>{% endif %}
<section><details><summary>Configuration</summary>
<div class="config">
{% for section in config %}<div><h3>{{ section.name }}</h3>
<table><tbody>{% for key, value in section.settings %}
<tr><th scope="row"><code>{{ key }}</code></th><td><code>{{ value }}</code></td></tr>{% endfor %}
</tbody></table></div>
{% endfor %}</div></details></section>
</main>
<footer>Written by FedSense {{ version }} from {{ folder }}.</footer>
</body>
</html>
"""
