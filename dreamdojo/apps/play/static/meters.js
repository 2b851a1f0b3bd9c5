// What the session costs: frame rate, step time, latencies, drops. Drawn four times a second, so that it can be read.

const WINDOW = 2000; // ms over which the frame rate is counted
const NUM_STEPS = 90;

export class Meters {
  #find = (id) => document.getElementById(id);
  #drawn = []; // when frames were drawn
  #steps = [];
  #latencies = [];
  #trips = [];
  #lastSequence = null;
  dropped = 0;

  constructor() {
    setInterval(() => this.#refresh(), 250);
  }

  // A new connection numbers its frames from somewhere else; what was missed before is not a drop.
  rejoin() {
    this.#lastSequence = null;
  }

  still() {
    this.#drawn = [];
  }

  arrived({ sequence }) {
    if (this.#lastSequence !== null) this.dropped += Math.max(0, sequence - this.#lastSequence - 1);
    this.#lastSequence = sequence;
  }

  drew({ time, views }) {
    const now = performance.now();
    this.#drawn.push(now);
    while (this.#drawn[0] < now - WINDOW) this.#drawn.shift();
    const times = views.map((view) => view.step_ms).filter((ms) => ms !== null);
    if (times.length) keep(this.#steps, times.reduce((a, b) => a + b, 0), NUM_STEPS);
    this.#find("clock").textContent = time.toFixed(1);
  }

  latency(ms) {
    keep(this.#latencies, ms, 15);
  }

  trip(ms) {
    keep(this.#trips, ms, 5);
  }

  #refresh() {
    const recent = this.#drawn.filter((at) => at > performance.now() - WINDOW);
    const span = recent.length > 2 ? recent.at(-1) - recent[0] : 0;
    const alive = recent.length > 2 && performance.now() - recent.at(-1) < WINDOW / 2;
    this.#find("fps").textContent = alive ? ((1000 * (recent.length - 1)) / span).toFixed(1) : "–";
    this.#find("step").textContent = shown(median(this.#steps.slice(-15)));
    this.#find("latency").textContent = shown(median(this.#latencies));
    this.#find("trip").textContent = shown(median(this.#trips));
    this.#find("dropped").textContent = this.dropped;
    this.#find("dropped").classList.toggle("raised", this.dropped > 0);
    this.#plot();
  }

  #plot() {
    const canvas = this.#find("steps");
    const scale = devicePixelRatio;
    canvas.width = canvas.clientWidth * scale;
    canvas.height = canvas.clientHeight * scale;
    if (this.#steps.length < 2) return;
    const context = canvas.getContext("2d");
    const sorted = [...this.#steps].sort((a, b) => a - b);
    const top = 1.5 * sorted[Math.floor(0.95 * (sorted.length - 1))]; // a rare spike is cut off
    context.strokeStyle = getComputedStyle(canvas).getPropertyValue("--tone");
    context.lineWidth = 1.5 * scale;
    context.beginPath();
    this.#steps.forEach((ms, i) => {
      const ago = this.#steps.length - 1 - i;
      context.lineTo(canvas.width * (1 - ago / (NUM_STEPS - 1)), canvas.height * (1 - Math.min(1, ms / top)));
    });
    context.stroke();
  }
}

function keep(list, value, most) {
  list.push(value);
  if (list.length > most) list.shift();
}

function median(list) {
  return list.length ? [...list].sort((a, b) => a - b)[list.length >> 1] : null;
}

function shown(ms) {
  return ms === null ? "–" : ms < 10 ? ms.toFixed(1) : ms.toFixed(0);
}
