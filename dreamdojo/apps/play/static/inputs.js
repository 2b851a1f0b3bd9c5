// From keys, sticks, sliders and gamepads to a command: one number in -1..1 per action column.
//
// Every source pushes roles (right, forward, up, yaw, ...) by an amount in -1..1; what several push adds up.
// A rate column springs back to its rest, a target column is moved by the push and stays, a toggle flips.

const SLEW = 0.8; // how far a full push moves a target in one second
const FINE = 0.3; // what Shift leaves of a push
const DEAD_ZONE = 0.12;

const clamp = (value, low = -1, high = 1) => Math.min(high, Math.max(low, value));

export class Inputs {
  keys = new Set();
  selected = -1; // the column that the selection keys move
  fine = false;
  #columns;
  #rest = [];
  #values = [];
  #pushes = new Map(); // source -> { role: amount }
  #held = new Map(); // column -> value, while its slider is held
  #buttons = []; // of the gamepad, at the last poll

  constructor(columns) {
    this.#columns = columns;
    this.sliders = columns.flatMap((column, i) => (column.role === null && column.mode !== "fixed" ? [i] : []));
    this.selected = this.sliders[0] ?? -1;
    this.begin(columns.map(() => 0), columns.map(() => 0));
  }

  get values() {
    return this.#values;
  }

  // whether a velocity is asked for: then the server wants to hear from us, or it lets go
  get moving() {
    return this.#columns.some((column, i) => column.mode === "rate" && this.#values[i] !== this.#rest[i]);
  }

  // Go on from `values`, with velocities springing back to `rest`.
  begin(rest, values) {
    this.#rest = [...rest];
    this.#values = [...values];
    this.#held.clear();
  }

  release() {
    this.keys.clear();
    this.#pushes.clear();
    this.#held.clear();
    this.fine = false;
  }

  // the amount of a role in the values as they are, e.g. to draw a stick
  amount(role) {
    const i = this.#columns.findIndex((column) => column.role === role);
    if (i < 0) return 0;
    const { mode, sign } = this.#columns[i];
    const rest = mode === "rate" ? this.#rest[i] : 0;
    const offset = this.#values[i] - rest;
    return (sign * offset) / (offset > 0 ? 1 - rest : 1 + rest || 1);
  }

  push(source, amounts) {
    if (amounts) this.#pushes.set(source, amounts);
    else this.#pushes.delete(source);
  }

  hold(column, value) {
    if (this.#columns[column].mode === "target") this.#values[column] = value;
    else this.#held.set(column, value);
  }

  letGo(column) {
    this.#held.delete(column);
  }

  toggle() {
    this.#columns.forEach((column, i) => {
      if (column.mode === "toggle") this.#values[i] = this.#values[i] >= 0 ? -1 : 1;
    });
  }

  select(step) {
    if (!this.sliders.length) return;
    const at = this.sliders.indexOf(this.selected);
    this.selected = this.sliders[(at + step + this.sliders.length) % this.sliders.length];
  }

  // a key is used up if it means something here
  press(code, repeats) {
    if (this.#columns.some((column) => column.mode === "toggle" && column.positive.includes(code))) {
      if (!repeats) this.toggle();
      return true;
    }
    const select = this.#selection(code);
    if (select?.step) this.select(select.step);
    if (!select && !this.#drives(code)) return false;
    this.keys.add(code);
    return true;
  }

  lift(code) {
    this.keys.delete(code);
  }

  // Move the values on by `seconds`.
  advance(seconds) {
    this.#columns.forEach((column, i) => {
      if (column.mode === "fixed" || column.mode === "toggle") return;
      const push = clamp(this.#push(column, i)) * (this.fine ? FINE : 1);
      if (column.mode === "target") {
        this.#values[i] = clamp(this.#values[i] + push * SLEW * seconds);
      } else {
        const rest = this.#rest[i];
        this.#values[i] = this.#held.get(i) ?? clamp(rest + push * (push > 0 ? 1 - rest : 1 + rest));
      }
    });
  }

  // Returns the names of the buttons pressed since the last poll; the sticks push like any other source.
  poll() {
    const pad = navigator.getGamepads?.().find((candidate) => candidate?.connected);
    if (!pad) {
      this.push("gamepad", null);
      return [];
    }
    const axis = (i) => (Math.abs(pad.axes[i] ?? 0) < DEAD_ZONE ? 0 : pad.axes[i]);
    this.push("gamepad", { right: axis(0), forward: -axis(1), yaw: -axis(2), up: -axis(3) });
    const now = pad.buttons.map((button) => button.pressed);
    const pressed = now.flatMap((down, i) => (down && !this.#buttons[i] ? [i] : []));
    this.#buttons = now;
    return pressed.map((i) => ({ 0: "toggle", 8: "reset", 9: "pause" })[i]).filter(Boolean);
  }

  #drives(code) {
    return this.#columns.some(({ negative, positive }) => negative.includes(code) || positive.includes(code));
  }

  // [ and ] choose a slider, - and = move it; where no column has the arrows, they do the same
  #selection(code) {
    if (!this.sliders.length) return null;
    const arrows = !this.#drives("ArrowUp") && !this.#drives("ArrowLeft");
    const key = { step: { BracketLeft: -1, BracketRight: 1 }, move: { Minus: -1, Equal: 1 } };
    if (arrows) {
      Object.assign(key.step, { ArrowUp: -1, ArrowDown: 1 });
      Object.assign(key.move, { ArrowLeft: -1, ArrowRight: 1 });
    }
    if (code in key.step) return { step: key.step[code], move: 0 };
    return code in key.move ? { step: 0, move: key.move[code] } : null;
  }

  #push({ role, sign, negative, positive }, i) {
    let push = 0;
    for (const code of this.keys) {
      push += positive.includes(code) - negative.includes(code);
      if (i === this.selected) push += this.#selection(code)?.move ?? 0;
    }
    for (const amounts of this.#pushes.values()) push += sign * (amounts[role] ?? 0);
    return push;
  }
}
