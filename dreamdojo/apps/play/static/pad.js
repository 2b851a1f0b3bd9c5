// On-screen sticks. They push while a pointer drags them, and show the command whoever gives it.

import { element } from "./dom.js";

export class Pad {
  #knob;
  #track;
  #across;
  #along;

  // across and along: { role, sign } for the knob's way right and up, or null where it does not move;
  // keys: { n, e, s, w } -> key codes; move(amounts or null) while dragged
  constructor({ kind, label, across, along, keys, move }) {
    this.#across = across;
    this.#along = along;
    this.#knob = element("i");
    this.#track = element("div", { class: "track" }, this.#knob);
    const caps = Object.entries(keys).map(([side, codes]) => element("div", { class: `keys ${side}` }, ...codes.map(keyCap)));
    const children = label ? [element("span", { class: "label" }, label), ...caps] : caps;
    // the keys do all that a stick does, so a screen reader need not meet it
    this.root = element("div", { class: `pad ${kind}`, "aria-hidden": "true" }, this.#track, ...children);
    Pad.track(this.#track, {
      begin: () => {},
      move: (dx, dy) => move(this.#amounts(dx, dy)),
      end: () => move(null),
    });
  }

  show(amount) {
    const x = this.#across ? this.#across.sign * amount(this.#across.role) : 0;
    const y = this.#along ? this.#along.sign * amount(this.#along.role) : 0;
    const far = Math.max(1, Math.hypot(x, y));
    const [reachX, reachY] = this.#reach();
    this.#knob.style.transform = `translate(${(x / far) * reachX}px, ${(-y / far) * reachY}px)`;
    this.#track.classList.toggle("moved", Math.abs(x) + Math.abs(y) > 0.01);
  }

  // Follow a pointer from where it goes down: move(dx, dy) in CSS pixels.
  static track(target, { begin, move, end }) {
    let from = null;
    target.addEventListener("pointerdown", (event) => {
      if (from || event.button !== 0) return;
      event.preventDefault();
      target.setPointerCapture(event.pointerId);
      from = { x: event.clientX, y: event.clientY, id: event.pointerId };
      const box = target.getBoundingClientRect();
      begin(event.clientX - box.left, event.clientY - box.top);
    });
    target.addEventListener("pointermove", (event) => {
      if (from?.id === event.pointerId) move(event.clientX - from.x, event.clientY - from.y);
    });
    const stop = (event) => {
      if (from?.id !== event.pointerId) return;
      from = null;
      end();
    };
    for (const type of ["pointerup", "pointercancel", "lostpointercapture"]) target.addEventListener(type, stop);
  }

  #reach() {
    const { clientWidth, clientHeight } = this.#track;
    const knob = this.#knob.offsetWidth;
    return [(clientWidth - knob) / 2 - 2, (clientHeight - knob) / 2 - 2];
  }

  #amounts(dx, dy) {
    const [reachX, reachY] = this.#reach();
    let x = this.#across ? dx / reachX : 0;
    let y = this.#along ? -dy / reachY : 0;
    const far = Math.max(1, Math.hypot(x, y));
    [x, y] = [x / far, y / far];
    const amounts = {};
    if (this.#across) amounts[this.#across.role] = this.#across.sign * x;
    if (this.#along) amounts[this.#along.role] = this.#along.sign * y;
    return amounts;
  }
}

const NAMES = {
  ArrowUp: "↑", ArrowDown: "↓", ArrowLeft: "←", ArrowRight: "→",
  BracketLeft: "[", BracketRight: "]", Minus: "−", Equal: "=",
};

export function keyCap(code) {
  return element("kbd", { "data-code": code }, NAMES[code] ?? code.replace(/^(Key|Digit)/, ""));
}
