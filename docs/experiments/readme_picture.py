"""Draw the picture of the README from a finished run: the top of its report, and some of its
pictures.

python docs/experiments/readme_picture.py runs/fedsense-seed0 --out docs/results/readme.png

Chromium or Chrome must be installed. Nothing is drawn anew: the page is the run's own report with
most sections left out.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image, ImageChops

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SHOWN = ("Quality of the encoder", "Sample chips", "Features as colours")
"""Sections of the report, by their headings, that stay."""
WIDTH, TALLEST, SCALE = 1056, 2000, 1.3
"""Of the page in CSS pixels, and how many pixels of the picture are one of them."""
MOST_BYTES = 300_000

# The same look on every machine, and the two sections of pictures beside each other.
STYLE = """
body { font-family: "Liberation Sans", Arial, Helvetica, sans-serif; }
footer, section.chips .row:last-child, section.chips li:nth-child(n+6) { display: none; }
header { padding-top: 1.4rem; }
main { display: grid; grid-template-columns: 25rem 1fr; column-gap: 1rem; padding-bottom: 1rem; }
main > * { margin: 0; } main > section { margin-top: 1rem; }
.cards, section.wide { grid-column: 1 / -1; }
section.chips .rows { gap: .5rem; } section.chips .tiles { gap: .4rem; } section.chips .tiles figure { width: 4.1rem; }
section.chips h3 { margin: 0 0 .15rem; font-weight: 400; font-size: .9rem; }
.rows.pairs { grid-template-columns: 1fr 1fr; gap: .7rem .9rem; }
.rows.pairs .tiles { flex-wrap: nowrap; gap: .4rem; } .rows.pairs figure { width: 7.9rem; }
"""


def main() -> None:
    """Write the picture, or say why it cannot be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run with report.html")
    parser.add_argument("--out", type=Path, required=True, help="PNG to write")
    args = parser.parse_args()
    page = excerpt((args.run / "report.html").read_text(encoding="utf-8"))
    browser = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if browser is None:
        raise SystemExit(f"none of {', '.join(BROWSERS)} is installed")
    with tempfile.TemporaryDirectory() as folder:
        shot = photograph(browser, page, Path(folder))
        write_small(trimmed(shot), args.out)
    print(f"{args.out}: {args.out.stat().st_size:,} bytes")


def excerpt(report: str) -> str:
    """Return the page of a report with its head, its cards and the sections SHOWN."""
    missing = [title for title in SHOWN if f"<h2>{title}</h2>" not in report]
    if missing:
        raise SystemExit(f"the report has no section {', '.join(missing)}")
    page = re.sub(r"<section>.*?</section>\n?", lambda found: _section(found[0]), report, flags=re.DOTALL)
    return page.replace("</style>", f"{STYLE}</style>", 1)


def _section(text: str) -> str:
    title = next((title for title in SHOWN if f"<h2>{title}</h2>" in text), None)
    kind = {SHOWN[0]: "wide", SHOWN[1]: "chips"}.get(title or "", "")
    return text.replace("<section>", f'<section class="{kind}">', 1) if title else ""


def photograph(browser: str, page: str, folder: Path) -> Image.Image:
    """Return what ``browser`` shows of ``page``, with empty space below."""
    (folder / "page.html").write_text(page, encoding="utf-8")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses root otherwise; the page has no scripts
    command = [
        browser,
        "--headless",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={folder / 'profile'}",
        f"--force-device-scale-factor={SCALE}",
        f"--window-size={WIDTH},{TALLEST}",
        f"--screenshot={folder / 'shot.png'}",
        *sandbox,
        (folder / "page.html").as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if not (folder / "shot.png").exists():
        raise SystemExit(f"{browser} made no picture: {done.stderr[-500:]}")
    return Image.open(folder / "shot.png").convert("RGB")


def trimmed(shot: Image.Image) -> Image.Image:
    """Return ``shot`` without the even rows at its foot."""
    even = Image.new("RGB", shot.size, shot.getpixel((0, shot.height - 1)))
    box = ImageChops.difference(shot, even).getbbox()
    return shot.crop((0, 0, shot.width, min(shot.height, box[3] + round(16 * SCALE)) if box else shot.height))


def write_small(picture: Image.Image, out: Path) -> None:
    """Write ``picture`` in 256 colours, which nobody sees and which takes a third of the bytes."""
    out.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(256, kmeans=3).save(out, optimize=True)
    if out.stat().st_size > MOST_BYTES:
        raise SystemExit(f"{out} has {out.stat().st_size:,} bytes, more than {MOST_BYTES:,}")


if __name__ == "__main__":
    main()
