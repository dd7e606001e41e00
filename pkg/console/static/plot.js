// The plot of a job's progress.

import uPlot from './vendor/uPlot.esm.js';
import { count, show, empty } from './dom.js';

const height = 220;
const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 28_800, 43_200, 86_400, 172_800, 345_600]; // seconds: labels have no less

// Plot draws how many items were answered and failed over time. Colours are those of the style sheet, in either scheme.
export class Plot {
  constructor(box, signal) {
    this.box = box;
    this.data = null;
    this.resize = new ResizeObserver(() => this.chart?.setSize({ width: this.width(), height }));
    this.resize.observe(box);
    const scheme = matchMedia('(prefers-color-scheme: dark)');
    const redraw = () => { this.drop(); this.paint(); };
    scheme.addEventListener('change', redraw, { signal });
    signal.addEventListener('abort', () => { this.resize.disconnect(); this.drop(); }, { once: true });
    show(box, empty('Nothing has come back yet.'));
  }

  draw(points, total) {
    const kept = points.filter((p, i) => i === points.length - 1 || p.at < points[i + 1].at);
    if (kept.length === 1 && kept[0].completed + kept[0].failed > 0) kept.unshift({ at: kept[0].at - 1, completed: 0, failed: 0 }); // all within a second
    if (kept.length < 2) return;
    this.data = [kept.map((p) => p.at), kept.map((p) => p.completed), kept.map((p) => p.failed)];
    this.total = total;
    this.box.setAttribute('role', 'img');
    this.box.setAttribute('aria-label', `Answered ${count(kept.at(-1).completed)} and failed ${count(kept.at(-1).failed)} of ${count(total)} items over time`);
    this.paint();
  }

  paint() {
    if (!this.data) return;
    if (this.chart) {
      this.chart.setData(this.data);
      return;
    }
    this.box.replaceChildren();
    this.chart = new uPlot(this.options(), this.data, this.box);
  }

  drop() {
    this.chart?.destroy();
    this.chart = null;
  }

  width() {
    return Math.max(200, Math.floor(this.box.clientWidth));
  }

  options() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const axis = { stroke: colour('--muted'), grid: { stroke: colour('--line'), width: 1 }, ticks: { show: false }, font: '12px system-ui' };
    const two = (n) => String(n).padStart(2, '0');
    const clock = (at) => { const d = new Date(at * 1000); return `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`; };
    // What is below a line is so faint that the other line shows through.
    const line = (label, name) => ({ label, stroke: colour(name), fill: `${colour(name)}1c`, width: 2, points: { show: false }, value: (_, v) => (v === null ? '–' : count(v)) });
    return {
      width: this.width(), height,
      cursor: { drag: { x: false, y: false } },
      scales: { y: { range: (_, __, most) => [0, Math.max(1, most * 1.05)] } },
      axes: [{ ...axis, space: 80, incrs: steps, values: (_, all) => all.map(clock) }, { ...axis, size: 56, values: (_, all) => all.map((v) => (Number.isInteger(v) ? count(v) : '')) }],
      series: [{ label: 'Time', value: (_, v) => (v === null ? '–' : clock(v)) }, line('Answered', '--good'), line('Failed', '--bad')],
    };
  }
}
