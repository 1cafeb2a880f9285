"""The style sheet of the report page: one column on a phone, two pictures a row on a desk, ink on white on paper."""

from leap.report.drawing import DARK_GREY, DARK_PALETTE, GREY, GRID, INK, MUTED, PALETTE
from leap.report.matrix_table import matrix_style


def style_sheet() -> str:
    """The page's CSS; the colours of the pictures are its variables, so that they follow the theme."""
    light = _variables(INK, MUTED, GRID, GREY, PALETTE) + "--paper:#ffffff;--panel:#f7f7f9;--accent:#0b5cad;"
    dark = _variables("#eceef1", "#a4aab3", "#343840", DARK_GREY, DARK_PALETTE)
    dark += "--paper:#15171b;--panel:#1d2025;--accent:#8cc4ff;"
    return (
        f":root{{{light}color-scheme:light dark}}\n"
        f"@media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n{_RULES}{matrix_style()}\n"
        f"@media print{{:root{{{light}color-scheme:light}}{_PRINT}}}\n"
    )


def _variables(ink: str, muted: str, grid: str, grey: str, palette: tuple[str, ...]) -> str:
    named = {"ink": ink, "muted": muted, "grid": grid, "none": grey} | {f"c{i}": c for i, c in enumerate(palette)}
    return "".join(f"--{name}:{colour};" for name, colour in named.items())


_RULES = """
:root{--font:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
  --mono:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 var(--font);overflow-wrap:anywhere}
main{max-width:70rem;margin:0 auto;padding:clamp(1.5rem,5vw,4rem) clamp(1.1rem,4vw,3rem) 4rem}
h1{font-size:clamp(1.7rem,4.6vw,2.6rem);line-height:1.15;letter-spacing:-.02em;font-weight:650;margin:.35rem 0 1rem;
  max-width:32ch;text-wrap:balance}
h2{font-size:1.2rem;line-height:1.3;font-weight:620;letter-spacing:-.01em;margin:0 0 .35rem}
h3{font-size:1rem;font-weight:620;margin:1.6rem 0 .4rem}
p{margin:.4rem 0;max-width:68ch}
a{color:var(--accent)}
section{margin-top:clamp(2.6rem,6vw,4.2rem)}
.eyebrow,.note,figcaption{color:var(--muted);font-size:.9rem}
.eyebrow{margin:0}
.answer{display:grid;gap:1.5rem 3.5rem;align-items:start}
.verdicts{list-style:none;margin:1.2rem 0 0;padding:0;display:grid;gap:.9rem;max-width:62ch}
.verdicts li{padding-left:1rem;border-left:3px solid var(--grid)}
.verdicts li.settled{border-color:var(--accent)}
.verdicts strong{font-weight:620}
.verdicts small{display:block;color:var(--muted);font-size:.88rem}
.lead{font-size:1.08rem;max-width:62ch}
.second{color:var(--muted);max-width:62ch;margin-top:.8rem}
.skip{position:absolute;left:-100vw;background:var(--paper);padding:.5rem 1rem}
.skip:focus{left:.5rem;top:.5rem;z-index:2}
nav ul{display:flex;flex-wrap:wrap;gap:.35rem 1.3rem;list-style:none;margin:2.2rem 0 0;padding:.9rem 0 0;
  border-top:1px solid var(--grid);font-size:.9rem}
a:focus-visible{outline:2px solid var(--accent);outline-offset:3px}
img{display:block;max-width:100%;height:auto;background:#fff;border-radius:.4rem}
.pair{display:grid;gap:2.6rem 3rem}
.pair .scroll{margin-top:0}
.tasks th,.tasks td{padding-right:.9rem}
.tasks tbody th{min-width:7.5rem}
.tasks th .key{flex-direction:column;align-items:flex-end;gap:0}
.pair>*,.answer>*{min-width:0}
figure{margin:0}
figure svg{display:block;width:100%;height:auto;max-width:34rem;overflow:visible}
figure svg *{stroke-linejoin:round;stroke-linecap:butt}
figure svg text{font-family:var(--font)}
figcaption{margin-top:.5rem;max-width:60ch}
.legend{display:flex;flex-wrap:wrap;gap:.25rem 1.2rem;list-style:none;margin:.8rem 0 1rem;padding:0;font-size:.9rem}
.key{display:inline-flex;align-items:center;gap:.5rem}
.key svg{flex:none;width:2rem;height:.9rem}
.scroll{overflow-x:auto;margin:.9rem 0;-webkit-overflow-scrolling:touch}
.scroll:focus-visible,pre:focus-visible{outline:2px solid var(--accent);outline-offset:3px}
table{border-collapse:separate;border-spacing:0;font-size:.93rem;font-variant-numeric:tabular-nums;min-width:100%;overflow-wrap:normal}
th,td{padding:.55rem 1.4rem .55rem 0;text-align:left;vertical-align:baseline;border-bottom:1px solid var(--grid)}
th{font-weight:600}
tbody th{position:sticky;left:0;background:var(--paper)}
thead th{color:var(--muted);font-weight:500;font-size:.86rem;vertical-align:bottom}
td.n,th.n{text-align:right;white-space:nowrap}
thead th.n{white-space:normal;min-width:7.5rem}
td small,th small{color:var(--muted);font-weight:400;font-size:.86em}
tr.best th,tr.best td{font-weight:650}
.wide td{min-width:7rem}
.pair>.whole{grid-column:1/-1}
.matrix{font-size:.78rem;min-width:0}
.matrix th,.matrix td{padding:.3rem .35rem;text-align:center;border:0}
.matrix td{min-width:2.3rem;box-shadow:inset 0 0 0 1px var(--paper)}
.matrix tbody th{text-align:right;white-space:nowrap;padding-right:.6rem;font-weight:400}
.matrix thead th{color:var(--ink);font-weight:400;font-size:1em}
.matrix thead th:first-child{color:var(--muted);text-align:right;font-size:.9em;vertical-align:bottom}
.matrix thead span{writing-mode:vertical-rl;transform:rotate(180deg);white-space:nowrap}
.matrix .own{color:var(--muted);background:var(--panel)}
.matrix tbody tr:hover th{font-weight:650}
.matrix td:hover{outline:2px solid var(--ink);outline-offset:-2px}
.dense th,.dense td{padding-right:1rem}
.dense thead th.n{min-width:0;white-space:nowrap}
.dense tbody th{min-width:9rem;max-width:15rem}
.held thead th.n{min-width:0}
.held th,.held td{padding:.34rem 1.1rem .34rem 0}
.held td small{display:inline-block;min-width:6.3rem;text-align:left}
.held td small+small{display:block;text-align:right}
.held td.best{font-weight:650}
.held .set th{padding-top:1.3rem;border-bottom-color:var(--muted);font-size:1rem}
@media (max-width:640px){.held{font-size:.82rem}.held th,.held td{padding-right:.45rem}
  .held td small{display:block;min-width:0;text-align:right;font-size:.76em}
  .held .key{display:inline}.held .key svg{display:none}}
.beside{margin:1.2rem 0}
details{margin:.9rem 0;border-top:1px solid var(--grid);padding-top:.5rem}
summary{cursor:pointer;color:var(--accent);font-size:.93rem}
summary:focus-visible{outline:2px solid var(--accent);outline-offset:3px}
details>.pair{margin-top:1.2rem}
pre{margin:.4rem 0;padding:.8rem 1rem;background:var(--panel);border-radius:.4rem;overflow-x:auto;
  font:.84rem/1.6 var(--mono);overflow-wrap:normal}
code{font:.9em var(--mono)}
@media (min-width:900px){.pair{grid-template-columns:1fr 1fr}.answer{grid-template-columns:1.05fr 1fr}}
"""

_PRINT = """
body{font-size:10.5pt;background:none}
main{max-width:none;padding:0}
section{margin-top:1.6rem;break-inside:avoid-page}
section.long{break-inside:auto}
.answer,.pair{grid-template-columns:1fr 1fr;gap:1.2rem}
h2,h3{break-after:avoid}
tbody th{position:static;background:none}
.pair.tasks{grid-template-columns:1fr}
.scroll,pre{overflow:visible}
pre{white-space:pre-wrap;overflow-wrap:anywhere}
figure,tr,.pair>div{break-inside:avoid}
.matrix{font-size:min(7.5pt,calc(250pt/var(--tasks)))}
.matrix th,.matrix td{padding:.2em .15em}
.matrix td{min-width:0;print-color-adjust:exact;-webkit-print-color-adjust:exact}
nav,.skip{display:none}
details::details-content{content-visibility:visible;display:block}
.key svg,figure svg{print-color-adjust:exact;-webkit-print-color-adjust:exact}
"""
