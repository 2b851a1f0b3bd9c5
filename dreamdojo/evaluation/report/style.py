"""How a report looks and moves: one style sheet and a few lines of script, inside the file."""

from __future__ import annotations

CSS = """
:root {
  color-scheme: light dark;
  --sans: ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif;
  --paper: #fbfaf7; --card: #ffffff; --ink: #1b1d1f; --ink-2: #5c6268; --ink-3: #8b9197; --rule: #e4e1d9;
  --good: #14754a; --good-wash: #e5f3ea; --bad: #b23a1e; --bad-wash: #fbe9e3; --open: #6b7178; --open-wash: #efeeea;
  --line-1: #0f6ab4; --line-2: #c8571b; --line-3: #6a4fb3; --line-4: #14754a; --line-5: #a3336f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #131517; --card: #1b1e21; --ink: #eceae5; --ink-2: #a9aeb4; --ink-3: #7c8288; --rule: #2e3236;
    --good: #5fc795; --good-wash: #17301f; --bad: #f08c6c; --bad-wash: #3a1f16; --open: #a9aeb4; --open-wash: #25282b;
    --line-1: #6bb3ee; --line-2: #f0965f; --line-3: #b29bf0; --line-4: #5fc795; --line-5: #ec8abb;
  }
}
* { box-sizing: border-box; }
figure { margin: 0; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 var(--sans); }
main, header.top { max-width: 1080px; margin: 0 auto; padding: 0 20px; }
header.top { padding-top: 56px; }
h1 { font-size: clamp(28px, 5vw, 42px); line-height: 1.15; letter-spacing: -0.02em; margin: 0 0 10px; }
.subtitle { font-size: clamp(17px, 2.2vw, 20px); color: var(--ink-2); margin: 0; max-width: 46em; }
.facts { display: flex; flex-wrap: wrap; gap: 4px 18px; list-style: none; margin: 18px 0 0; padding: 0;
  color: var(--ink-3); font-size: 14px; }
nav { display: flex; flex-wrap: wrap; gap: 6px 20px; margin-top: 26px; padding: 12px 0; font-size: 14px;
  border-top: 1px solid var(--rule); border-bottom: 1px solid var(--rule); }
nav a { color: var(--ink-2); text-decoration: none; }
nav a:hover { color: var(--ink); text-decoration: underline; }
section { padding-top: 52px; }
h3 { font-size: 17px; font-weight: 600; margin: 22px 0 10px; }
h2 { font-size: 24px; line-height: 1.25; letter-spacing: -0.01em; margin: 0; }
.lead { color: var(--ink-2); margin: 4px 0 20px; max-width: 46em; }
p.text { max-width: 46em; }
section > * + * { margin-top: 18px; }
section > .lead { margin-top: 4px; }

.verdict { display: flex; gap: 12px; align-items: baseline; padding: 11px 16px; border-radius: 10px; }
.verdict + .verdict { margin-top: 8px; }
.verdict b { flex: none; width: 1em; text-align: center; }
.good { background: var(--good-wash); } .good b { color: var(--good); }
.bad { background: var(--bad-wash); } .bad b { color: var(--bad); }
.open { background: var(--open-wash); } .open b { color: var(--open); }

.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 12px; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 12px; padding: 15px 18px 16px; }
.card .label { color: var(--ink-2); font-size: 14px; line-height: 1.35; }
.card .value { font-size: 30px; font-weight: 620; letter-spacing: -0.02em; line-height: 1.3; }
.card .note { color: var(--ink-3); font-size: 13px; line-height: 1.4; }
.card.is-good .value { color: var(--good); } .card.is-bad .value { color: var(--bad); }

figcaption, .caption { color: var(--ink-3); font-size: 14px; line-height: 1.45; margin-top: 9px; max-width: 52em; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--rule); border-radius: 12px; }
table { border-collapse: collapse; width: 100%; table-layout: fixed;
  min-width: max(540px, calc(var(--columns) * 112px));
  font-variant-numeric: tabular-nums; font-size: 15px; }
th, td { padding: 9px 16px; text-align: right; white-space: nowrap; vertical-align: top; }
thead th { font-weight: 500; font-size: 13px; color: var(--ink-3); border-bottom: 1px solid var(--rule); }
tbody tr + tr > * { border-top: 1px solid var(--rule); }
th:first-child { text-align: left; font-weight: 550; width: 30%; white-space: normal; }
tbody th { position: sticky; left: 0; background: var(--card); }
tr.quiet > * { color: var(--ink-3); } tr.quiet th { font-weight: 400; }
td .words { display: inline-block; text-align: left; white-space: normal; }
td .range { display: block; font-size: 12px; color: var(--ink-3); line-height: 1.3; }
td.is-good .number { color: var(--good); font-weight: 600; } td.is-bad .number { color: var(--bad); font-weight: 600; }
td svg { display: block; width: 92px; max-width: 100%; height: 12px; margin: 3px 0 0 auto; }

.bars { list-style: none; margin: 0; padding: 0; font-variant-numeric: tabular-nums; }
.bars li { display: grid; grid-template-columns: minmax(9em, 16em) 1fr 4.5em; gap: 2px 14px;
  padding: 5px 0; align-items: center; }
.bars i { display: block; height: 16px; } .bars u { display: block; height: 100%; border-radius: 4px;
  background: var(--line-1); min-width: 1px; }
.bars .is-good u { background: var(--good); } .bars .is-bad u { background: var(--bad); opacity: 0.75; }
.bars b { text-align: right; font-weight: 550; } .bars em { grid-column: 2 / -1; font-style: normal; font-size: 13px;
  color: var(--ink-3); } .bars em:empty { display: none; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 16px 12px; }
.sheet.wide { grid-template-columns: repeat(auto-fill, minmax(min(100%, 320px), 1fr)); }
.photo img { display: block; width: 100%; border-radius: 8px; background: #000; }
.photo b { display: block; font-size: 13px; font-weight: 550; line-height: 1.35; margin-top: 6px;
  overflow-wrap: anywhere; }
.photo span { font-size: 12px; line-height: 1.35; color: var(--ink-3); overflow-wrap: anywhere; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 16px; }
.figure { background: var(--card); border: 1px solid var(--rule); border-radius: 12px; padding: 12px 14px; }
.figure svg { display: block; width: 100%; height: auto; }

.clips { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 22px 20px; }
.clip .title { font-weight: 550; font-size: 15px; margin-bottom: 7px; display: flex; justify-content: space-between; }
.clip .now { color: var(--ink-3); font-weight: 400; font-variant-numeric: tabular-nums; }
.screen { position: relative; border-radius: 10px; overflow: hidden; background: #000; }
.screen video { display: block; width: 100%; height: auto; image-rendering: pixelated; cursor: pointer; }
.screen span { position: absolute; padding: 1px 8px 2px; margin: 6px; border-radius: 6px; font-size: 13px;
  color: #fff; background: rgba(10, 12, 14, 0.62); pointer-events: none; }
.time { height: 4px; margin-top: 6px; border-radius: 2px; background: var(--rule); position: relative; }
.time i { position: absolute; inset: 0 auto 0 0; border-radius: 2px; background: var(--line-1); width: 0; }
.time u { position: absolute; top: -3px; bottom: -3px; width: 2px; background: var(--ink-3); }

.strip { max-width: 800px; display: grid; grid-template-columns: auto 1fr; gap: 4px 10px;
  font-size: 13px; color: var(--ink-2); }
.strip img { width: 100%; display: block; image-rendering: pixelated; border-radius: 8px; }
.strip .heads { grid-column: 2; display: grid; grid-auto-flow: column; grid-auto-columns: 1fr; text-align: center; }
.strip .names { display: grid; grid-auto-rows: 1fr; align-items: center; max-width: 92px; line-height: 1.2; }

dl { display: grid; grid-template-columns: minmax(9em, 15em) 1fr; margin: 0; background: var(--card);
  border: 1px solid var(--rule); border-radius: 12px; padding: 4px 18px; font-size: 15px; }
dt, dd { padding: 8px 0; margin: 0; } dt { color: var(--ink-2); padding-right: 16px; }
dt:nth-of-type(n + 2), dd:nth-of-type(n + 2) { border-top: 1px solid var(--rule); }

.bar { display: flex; height: 26px; border-radius: 8px; overflow: hidden; gap: 2px; }
.bar i { display: block; min-width: 2px; }
.stages { list-style: none; padding: 0; display: grid; gap: 5px 28px; font-size: 14px; margin-top: 14px;
  grid-template-columns: repeat(auto-fit, minmax(220px, 1fr)); font-variant-numeric: tabular-nums; }
.stages li { display: flex; gap: 10px; align-items: baseline; }
.stages i { width: 10px; height: 10px; border-radius: 3px; flex: none; }
.stages span { margin-left: auto; color: var(--ink-2); }
footer { max-width: 1080px; margin: 60px auto 40px; padding: 16px 20px 0; color: var(--ink-3); font-size: 13px; }
@media (max-width: 560px) {
  header.top { padding-top: 32px; } section { padding-top: 40px; }
  .cards { grid-template-columns: 1fr 1fr; } .card { padding: 12px 14px; } .card .value { font-size: 25px; }
  table { min-width: calc((var(--columns) - 1) * 78px); font-size: 14px; } th, td { padding: 8px 5px; }
  th:first-child { width: 28%; padding-left: 12px; overflow-wrap: anywhere; } tbody th { font-size: 13px; }
  td:last-child, th:last-child { padding-right: 12px; } td .range { white-space: normal; font-size: 11px; }
  thead th { white-space: normal; font-size: 12px; }
  dl { grid-template-columns: 1fr; } dt { padding-bottom: 0; } dd { padding-top: 0; }
  dd:nth-of-type(n + 2) { border-top: 0; } .strip { gap: 4px 6px; font-size: 12px; } .strip .names { max-width: 58px; }
}
@media print { nav, .time, .now { display: none; } section { break-inside: avoid; } }
"""

SCRIPT = """
for (const clip of document.querySelectorAll(".clip")) {
  const video = clip.querySelector("video"), bar = clip.querySelector(".time i"), now = clip.querySelector(".now");
  const { fps, frames, context } = Object.fromEntries(Object.entries(clip.dataset).map(([k, v]) => [k, +v]));
  const show = () => {
    const frame = Math.min(Math.floor(video.currentTime * fps + 0.01), frames - 1);
    bar.style.width = 100 * (frame + 1) / frames + "%";
    now.textContent = frame < context ? "given" : "predicted +" + (frame - context + 1);
    requestAnimationFrame(show);
  };
  video.addEventListener("click", () => video.paused ? video.play() : video.pause());
  new IntersectionObserver(([seen]) => seen.isIntersecting ? video.play().catch(() => {}) : video.pause())
    .observe(video);
  show();
}
"""
