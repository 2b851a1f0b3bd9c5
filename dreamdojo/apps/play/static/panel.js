// The control panel of one embodiment: sticks for the columns that have a role, sliders for the others.

import { element } from "./dom.js";
import { keyCap, Pad } from "./pad.js";

const TURNS = { yaw: "Turn", pitch: "Pitch", roll: "Roll" };

export class Panel {
  #inputs;
  #columns;
  #pads = [];
  #sliders = new Map(); // column -> { row, input, value }
  #gripper = null;
  #root;

  constructor(root, hint, columns, inputs) {
    this.#root = root;
    this.#columns = columns;
    this.#inputs = inputs;
    root.replaceChildren();
    const rig = element("div", { class: "rig" });
    this.#addPlane(rig);
    this.#addLift(rig);
    for (const role of Object.keys(TURNS)) this.#addTurn(rig, role);
    this.#addGripper(rig);
    if (rig.children.length) root.append(rig);
    this.#addSliders();
    hint.replaceChildren(...this.#hint());
  }

  // Draw a command: one's own, or the operator's when one watches.
  show(amount, values) {
    for (const pad of this.#pads) pad.show(amount);
    if (this.#gripper) {
      const value = values[this.#gripper.column];
      this.#gripper.label.textContent = value <= -0.5 ? "Gripper closed" : value >= 0.5 ? "Gripper open" : "Gripper";
      this.#gripper.button.setAttribute("aria-pressed", value <= -0.5);
    }
    for (const [i, { row, input, value }] of this.#sliders) {
      const { low, high, unit } = this.#columns[i];
      if (document.activeElement !== input || Math.abs(input.value - values[i]) > 0.01) input.value = values[i];
      const physical = low + ((values[i] + 1) / 2) * (high - low);
      value.textContent = `${physical.toFixed(Math.abs(high - low) < 10 ? 2 : 0)}${unit === "1" ? "" : ` ${unit}`}`;
      const selected = i === this.#inputs.selected;
      if (selected && !row.classList.contains("selected")) row.scrollIntoView({ block: "nearest" });
      row.classList.toggle("selected", selected);
    }
  }

  light(code, down) {
    for (const cap of this.#root.querySelectorAll(`kbd[data-code="${code}"]`)) cap.classList.toggle("down", down);
  }

  darken() {
    for (const cap of this.#root.querySelectorAll("kbd.down")) cap.classList.remove("down");
  }

  enable(enabled) {
    for (const input of this.#root.querySelectorAll("input, button")) input.disabled = !enabled;
  }

  #column(role) {
    return this.#columns.find((column) => column.role === role && column.mode !== "fixed");
  }

  // the keys of a role's two ways: against it, along it
  #keys(role) {
    const column = this.#column(role);
    if (!column) return [[], []];
    return column.sign > 0 ? [column.negative, column.positive] : [column.positive, column.negative];
  }

  #add(rig, options) {
    const source = `pad ${options.label}`;
    const pad = new Pad({ ...options, move: (amounts) => this.#inputs.push(source, amounts) });
    this.#pads.push(pad);
    rig.append(pad.root);
  }

  #addPlane(rig) {
    const across = this.#column("right") ? { role: "right", sign: 1 } : null;
    const along = this.#column("forward") ? { role: "forward", sign: 1 } : null;
    if (!across && !along) return;
    const letters = (codes) => codes.slice(0, 1);
    const [left, right] = this.#keys("right").map(letters);
    const [back, ahead] = this.#keys("forward").map(letters);
    this.#add(rig, { kind: "plane", label: "", across, along, keys: { n: ahead, s: back, w: left, e: right } });
  }

  #addLift(rig) {
    if (!this.#column("up")) return;
    const [down, up] = this.#keys("up");
    const along = { role: "up", sign: 1 };
    this.#add(rig, { kind: "tall", label: "Lift", across: null, along, keys: { n: up, s: down } });
  }

  #addTurn(rig, role) {
    if (!this.#column(role)) return;
    const [against, along] = this.#keys(role);
    // counter-clockwise, which is positive, is to the left; a positive roll is to the right
    const sign = role === "yaw" ? -1 : 1;
    const keys = sign < 0 ? { w: along, e: against } : { w: against, e: along };
    this.#add(rig, { kind: "wide", label: TURNS[role], across: { role, sign }, along: null, keys });
  }

  #addGripper(rig) {
    const column = this.#columns.findIndex(({ mode }) => mode === "toggle");
    if (column < 0) return;
    const label = element("span", {}, "Gripper");
    const button = element("button", { class: "button gripper" }, label, ...this.#columns[column].positive.map(keyCap));
    button.addEventListener("click", () => this.#inputs.toggle());
    this.#gripper = { column, label, button };
    rig.append(button);
  }

  #addSliders() {
    if (!this.#inputs.sliders.length) return;
    const rows = this.#inputs.sliders.map((i) => {
      const { field, axis } = this.#columns[i];
      const fields = new Set(this.#inputs.sliders.map((other) => this.#columns[other].field));
      const name = `${fields.size > 1 ? `${field} ` : ""}${axis}`.replaceAll("_", " ");
      const value = element("span", { class: "value" });
      const input = element("input", { type: "range", min: -1, max: 1, step: 0.005, "aria-label": name });
      const row = element("label", { class: "slider" }, element("span", { class: "label" }, name), input, value);
      input.addEventListener("input", () => {
        this.#inputs.selected = i;
        this.#inputs.hold(i, input.valueAsNumber);
      });
      for (const type of ["pointerup", "blur", "keyup"]) input.addEventListener(type, () => this.#inputs.letGo(i));
      row.addEventListener("pointerdown", () => (this.#inputs.selected = i));
      this.#sliders.set(i, { row, input, value });
      return row;
    });
    this.#root.append(element("div", { class: "sliders" }, ...rows));
  }

  #hint() {
    if (!this.#columns.length) return ["This body takes no actions: the world goes on by itself."];
    const planar = this.#column("right") || this.#column("forward");
    const parts = [];
    if (planar) parts.push("The arrow keys move too.");
    if (this.#sliders.size) parts.push(planar ? "[ ] choose a slider, − = move it." : "↑ ↓ choose a slider, ← → move it.");
    parts.push("Hold Shift to go slowly. ");
    const typed = element("span", { class: "typed" }, parts.join(" "));
    return planar ? [typed, "Drag a picture to move, or use a gamepad."] : [typed];
  }
}
