// Times from an input event to the pixel that answers it: percentiles over the last few hundred, and their jitter.

const KEPT = 400;

export class Latency {
  #open = []; // { id, at } not answered yet
  #times = [];

  asked(id, at) {
    this.#open.push({ id, at });
    if (this.#open.length > KEPT) this.#open.shift();
  }

  // everything up to `id` is answered by what is on the screen now
  answered(id, now) {
    while (this.#open.length && this.#open[0].id <= id) {
      this.#times.push(now - this.#open.shift().at);
      if (this.#times.length > KEPT) this.#times.shift();
    }
  }

  forget() {
    this.#open = [];
  }

  // the last of them, ms
  get times() {
    return this.#times;
  }

  // { p50, p95, p99, jitter, count }, ms; jitter is the mean difference of neighbours
  get summary() {
    const times = this.#times;
    if (!times.length) return { p50: null, p95: null, p99: null, jitter: null, count: 0 };
    const sorted = [...times].sort((a, b) => a - b);
    const at = (share) => sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)];
    const steps = times.slice(1).map((time, i) => Math.abs(time - times[i]));
    const jitter = steps.length ? steps.reduce((a, b) => a + b, 0) / steps.length : 0;
    return { p50: at(0.5), p95: at(0.95), p99: at(0.99), jitter, count: times.length };
  }
}
