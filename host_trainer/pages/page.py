"""Holds the page around reports: one file, no address outside it, light and dark, for screen and paper."""

from collections.abc import Sequence

from host_trainer.pages.figures import text

# Nothing is fetched and nothing is run, whatever the names in a record say.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"

STYLE = """
:root { color-scheme: light dark;
  --paper: #f5f6f8; --card: #fff; --ink: #1b1f27; --soft: #5b6472; --rule: #dfe3e9; --good: #0b7a53;
  --s0: #1f6fd1; --s1: #d0580a; --s2: #0d8a63; --s3: #a6418a; --s4: #8a6d00; --s5: #5a5fc7; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #12151a; --card: #1b2027; --ink: #e8ebf0; --soft: #9aa5b4; --rule: #313945; --good: #4fd3a2;
  --s0: #62a8ff; --s1: #ff9a55; --s2: #3fcf9f; --s3: #ec8fd0; --s4: #e0c04c; --s5: #a7abff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif;
  overflow-wrap: anywhere; -webkit-text-size-adjust: 100%; }
main { max-width: 1160px; margin: 0 auto; padding: 28px 16px 48px; }
h1 { font-size: 1.65rem; line-height: 1.2; margin: 0 0 4px; letter-spacing: -.01em; }
h2 { font-size: 1.15rem; margin: 36px 0 12px; }
h3 { font-size: .95rem; margin: 0 0 10px; }
p { margin: 0 0 12px; max-width: 72ch; }
.soft { color: var(--soft); font-size: .875rem; }
figcaption { color: var(--soft); font-size: .8125rem; line-height: 1.4; margin-top: 6px; }
.warning { border-left: 4px solid var(--s1); padding: 8px 12px; background: var(--card); }
.grid { display: grid; gap: 14px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); }
.figures { display: grid; gap: 12px;
  grid-template-columns: repeat(auto-fit, minmax(min(46%, 230px), 1fr)); margin: 22px 0 0; }
.card, .figures > div { background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  padding: 14px 16px; margin: 0; min-width: 0; }
.figures > div { display: flex; flex-direction: column; }
.figures dt { color: var(--soft); font-size: .8125rem; line-height: 1.35; }
.figures dd { margin: 0; }
.figures .value { font-size: 1.35rem; font-weight: 650; line-height: 1.3;
  font-variant-numeric: tabular-nums; }
.figures .note { color: var(--soft); font-size: .8125rem; line-height: 1.35; }
.full { grid-column: 1 / -1; }
.chart { display: block; width: 100%; height: auto; overflow: visible; font: 11px system-ui, sans-serif;
  fill: var(--ink); }
.chart .rule { stroke: var(--rule); } .chart .axis { stroke: var(--soft); }
.chart .bound { stroke: var(--soft); stroke-dasharray: 1 3; opacity: .7; }
.chart .tick, .chart .of, .chart .part { fill: var(--soft); } .chart .part { font-size: 9px; }
.chart .tick { text-anchor: middle; } .chart .up, .chart .name { text-anchor: end; }
.chart .number { text-anchor: middle; font-size: 10px; font-weight: 700; fill: var(--card); }
.chart .near { opacity: .45; } .chart .unseen { opacity: 0; }
.chart .mark { stroke: var(--card); stroke-width: 1.5; }
polyline, .legend line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.l0 { stroke: var(--s0); } .l1 { stroke: var(--s1); stroke-dasharray: 6 3; }
.l2 { stroke: var(--s2); stroke-dasharray: 2 3; }
.l3 { stroke: var(--s3); stroke-dasharray: 8 3 2 3; } .l4 { stroke: var(--s4); } .l5 { stroke: var(--s5); }
.c0 { fill: var(--s0); } .c1 { fill: var(--s1); } .c2 { fill: var(--s2); }
.c3 { fill: var(--s3); } .c4 { fill: var(--s4); } .c5 { fill: var(--s5); }
.legend { display: flex; flex-wrap: wrap; gap: 2px 16px; list-style: none; margin: 0 0 6px; padding: 0;
  font-size: .8125rem; }
.legend svg { margin-right: 6px; vertical-align: middle; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums;
  overflow-wrap: normal; }
caption { text-align: left; color: var(--soft); font-size: .8125rem; padding-bottom: 6px; }
th, td { padding: 5px 8px; text-align: right; border-bottom: 1px solid var(--rule); vertical-align: top; }
th:first-child { text-align: left; font-weight: 500; }
thead th { color: var(--soft); font-weight: 500; vertical-align: bottom; }
.words td, .words thead th { text-align: left; }
.words td:last-child { overflow-wrap: anywhere; min-width: 11rem; }
.heat { border-collapse: separate; border-spacing: 2px; } .heat th, .heat td { border: 0; }
.heat td { text-align: center; border-radius: 4px; print-color-adjust: exact;
  -webkit-print-color-adjust: exact; }
.heat thead th + th { text-align: center; } .heat .none { color: var(--soft); }
.heat tbody th { white-space: nowrap; }
.close td { white-space: nowrap; }
.close th:first-child { min-width: 9.5rem; position: sticky; left: 0; background: var(--card); }
td strong { color: var(--good); }
details { margin-top: 8px; } summary { cursor: pointer; color: var(--soft); font-size: .8125rem; }
pre { margin: 0; padding: 12px; background: var(--paper); border: 1px solid var(--rule); border-radius: 8px;
  white-space: pre-wrap; font: .875rem/1.5 ui-monospace, monospace; }
@media print { :root { --paper: #fff; --card: #fff; --ink: #000; --soft: #444; --rule: #ccc;
  color-scheme: light;
  --s0: #1f6fd1; --s1: #d0580a; --s2: #0d8a63; --s3: #a6418a; --s4: #8a6d00; --s5: #5a5fc7; }
  main { max-width: none; padding: 0; } body { font-size: 11pt; } h2 { break-after: avoid; }
  .card, .figures > div { break-inside: avoid; } .grid { grid-template-columns: 1fr 1fr; }
  details:not([open]) { display: none; } }
"""


def page(title: str, parts: Sequence[str]) -> str:
    """Return a whole HTML page of these parts."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head>\n<body><main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main></body></html>\n"
    )


def section(title: str, cards: Sequence[str]) -> str:
    """Return a heading and its cards side by side; nothing where there are none."""
    shown = [one for one in cards if one]
    return (
        f'<section><h2>{text(title)}</h2><div class="grid">{"".join(shown)}</div></section>' if shown else ""
    )


def card(title: str, inner: str, note: str = "", numbers: str = "", full: bool = False) -> str:
    """Return a figure: a heading, a chart or table, a note, and the numbers for who would rather read."""
    caption = f"<figcaption>{text(note)}</figcaption>" if note else ""
    folded = f"<details><summary>The numbers</summary>{numbers}</details>" if numbers else ""
    place = "card full" if full else "card"
    return f'<figure class="{place}"><h3>{text(title)}</h3>{inner}{caption}{folded}</figure>'


def headline(figures: Sequence[tuple[str, str, str]]) -> str:
    """Return the figures that come first: (name, value, note) each."""
    shown = "".join(
        f'<div><dt>{text(name)}</dt><dd class="value">{text(value)}</dd>'
        f'<dd class="note">{text(note)}</dd></div>'
        for name, value, note in figures
    )
    return f'<dl class="figures">{shown}</dl>'
