"""The page's one style sheet."""

CSS = """
:root { --ink: #1d2530; --soft: #667085; --line: #e4e7ec; --wash: #f7f8fa; --accent: #2563c9; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 28px 24px 80px; color: var(--ink); background: #fff;
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans",
    "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif; }
h1 { font-size: 26px; margin: 0 0 2px; }
p.about { margin: 0; }
h2 { font-size: 19px; margin: 44px 0 12px; padding-bottom: 6px; border-bottom: 1px solid var(--line); }
h3 { font-size: 15px; margin: 18px 0 6px; }
p.soft, .soft { color: var(--soft); }
code { font: 13px/1.5 ui-monospace, Menlo, Consolas, monospace; background: var(--wash); padding: 1px 5px; border-radius: 4px; }
.synthetic { margin: 16px 0 0; padding: 10px 14px; border-left: 4px solid #d97706; background: #fff7e8; }
.facts { display: flex; flex-wrap: wrap; gap: 10px; margin: 18px 0 0; padding: 0; }
.facts div { flex: 1 1 140px; padding: 10px 14px; border: 1px solid var(--line); border-radius: 8px; }
.facts b { display: block; font-size: 18px; white-space: nowrap; font-weight: 600; font-variant-numeric: tabular-nums; }
.facts span { color: var(--soft); font-size: 13px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); gap: 14px; }
figure { margin: 0; padding: 10px 12px 6px; border: 1px solid var(--line); border-radius: 8px; }
figcaption { display: flex; justify-content: space-between; font-weight: 600; margin-bottom: 4px; }
.legend { font-weight: 400; font-size: 13px; color: var(--soft); }
.legend span { margin-left: 14px; white-space: nowrap; }
.legend i { display: inline-block; width: 12px; height: 3px; margin-right: 5px; vertical-align: middle; }
svg { max-width: 100%; height: auto; display: block; }
svg text { font: 11px system-ui, sans-serif; fill: var(--soft); }
svg .grid { stroke: var(--line); }
svg.score { max-width: none; height: 22px; }
svg .bar { fill: #b9d0f5; }
svg .whisker { stroke: var(--ink); fill: none; stroke-width: 1.3; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: 5px 10px; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { font-size: 13px; color: var(--soft); font-weight: 600; white-space: nowrap; }
th i { display: inline-block; width: 10px; height: 10px; margin-right: 5px; border-radius: 2px; }
.scores td { vertical-align: middle; white-space: nowrap; }
.scores th.n, td.n { text-align: right; font-variant-numeric: tabular-nums; }
td .soft { font-size: 13px; }
.ahead { font-weight: 700; color: #14713d; }
.card { border: 1px solid var(--line); border-radius: 8px; padding: 12px 16px; margin: 0 0 12px; }
.card dl { display: grid; grid-template-columns: 92px 1fr; gap: 3px 12px; margin: 0; }
.card dt { color: var(--soft); font-size: 13px; padding-top: 2px; }
.card dd { margin: 0; overflow-wrap: anywhere; white-space: pre-line; }
.card dd.written { font-weight: 500; }
mark { background: #e3efd9; color: inherit; padding: 0 1px; border-radius: 2px; }
details { border: 1px solid var(--line); border-radius: 8px; padding: 8px 16px; margin: 0 0 10px; }
summary { cursor: pointer; font-weight: 600; }
.config { display: grid; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); gap: 0 26px; margin: 8px 0; }
.config div { display: flex; justify-content: space-between; gap: 12px; border-bottom: 1px solid var(--line);
  font-size: 13.5px; padding: 3px 0; }
.config div.set { font-weight: 700; }
.config span:last-child { overflow-wrap: anywhere; text-align: right; }
footer { margin-top: 40px; color: var(--soft); font-size: 13px; }
@media (max-width: 560px) { body { padding: 18px 12px 60px; } .charts { grid-template-columns: 1fr; } }
@media print { details, figure, .card { break-inside: avoid; } }
"""
