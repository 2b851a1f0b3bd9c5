// The cockpit: what `dreamdojo teleop` adds to the page of `dreamdojo play`.

import { element } from "../dom.js";
import { Latency } from "./latency.js";
import { Webcam } from "./webcam.js";
import { Headset } from "./xr.js";

const HOLD = "KeyX";
const STOP = "Escape";
const ACCEPT = "KeyN";
const HEARTBEAT = 200; // ms between two words that the deadman switch is held
const HOLD_BUTTON = 4; // of a gamepad: left shoulder
const STATUS = {
  driving: ["good", "Robot drives"],
  waiting: ["warn", "Waiting for the first order"],
  released: ["warn", "Deadman switch released"],
  "link lost": ["bad", "Link lost: the robot stands still"],
  stopped: ["bad", "Emergency stop"],
};
const SHOWS = { ghost: "Ghost", beside: "Side by side", prediction: "Prediction alone" };

export class Cockpit {
  #page;
  #told; // what the hello says
  #holders = new Set(); // what holds the deadman switch: key, button, gamepad, headset
  #heard = 0;
  #notes = null;
  #suggested = null;
  #prediction = new Latency();
  #camera = new Latency();
  #frames = 0;
  #stale = 0;
  #shows = "ghost";
  #webcam;
  #headset;
  #parts = {};

  // page: { hello, link, inputs, stage, toast(text, detail, tone), driving(), session(), take() }
  constructor(page) {
    this.#page = page;
    this.#told = page.hello.cockpit;
    document.body.classList.add("teleoperated");
    if (!document.querySelector('link[href="cockpit/cockpit.css"]')) {
      document.head.append(element("link", { rel: "stylesheet", href: "cockpit/cockpit.css" }));
    }
    this.#webcam = new Webcam(page.hello.rate, (jpeg) => page.link.send({ type: "hand", jpeg }));
    this.#headset = new Headset({
      push: (amounts) => page.inputs.push("headset", amounts),
      toggle: () => page.inputs.toggle(),
      hold: (held) => this.#hold("headset", held),
      ended: () => page.toast("The headset was taken off", "", "good"),
      picture: () => page.stage.of("prediction")[0].canvas,
    });
    this.#build();
    this.#show(this.#shows);
    setInterval(() => this.#refresh(), 250);
  }

  // Called by the page

  follow(session) {
    const robot = session.mode === "robot";
    for (const [mode, button] of Object.entries(this.#parts.modes)) {
      button.setAttribute("aria-pressed", mode === session.mode);
      button.disabled = !session.driving;
    }
    for (const part of document.querySelectorAll(".robot-only")) part.hidden = !robot;
    for (const input of document.querySelectorAll(".operator-only")) input.disabled = !session.driving;
    if (!robot) this.#parts.release.hidden = true;
    this.#prediction.forget();
    this.#camera.forget();
  }

  commanded(id, at) {
    this.#prediction.asked(id, at);
    this.#camera.asked(id, at);
  }

  drew(header) {
    const notes = header.notes;
    // the picture is on the canvas; it is on the screen at the next frame of the display
    // where nothing was predicted the late picture stands in its place, and answers as late as the camera
    const predicted = !notes || header.views.some(({ world, step_ms }) => world === "prediction" && step_ms !== null);
    requestAnimationFrame((now) => {
      this.#prediction.answered(predicted ? header.command.id : notes.camera_command, now);
      if (notes) this.#camera.answered(notes.camera_command, now);
    });
    if (!notes) return;
    this.#notes = notes;
    this.#frames += 1;
    if (!notes.fresh) this.#stale += 1;
    this.#warn();
  }

  press(event) {
    if (event.code === STOP) {
      this.#stop();
      return true;
    }
    if (!this.#page.driving()) return false;
    if (event.code === HOLD) this.#hold("key", true);
    if (event.code === ACCEPT && this.#suggested) this.#page.inputs.push("suggestion", this.#suggested);
    return event.code === HOLD || event.code === ACCEPT;
  }

  lift(event) {
    if (event.code === HOLD) this.#hold("key", false);
    if (event.code === ACCEPT) this.#page.inputs.push("suggestion", null);
  }

  // once per frame of the display, while this page drives
  poll() {
    const pad = navigator.getGamepads?.().find((candidate) => candidate?.connected);
    this.#hold("gamepad", pad?.buttons[HOLD_BUTTON]?.pressed ?? false); // one that is unplugged lets go
    if (this.#holders.size && performance.now() - this.#heard > HEARTBEAT) this.#sayHeld();
  }

  release() {
    if (!this.#holders.size) return;
    this.#holders.clear();
    this.#sayHeld();
  }

  // What it does

  #hold(who, held) {
    if (held === this.#holders.has(who)) return;
    if (held) this.#holders.add(who);
    else this.#holders.delete(who);
    this.#sayHeld();
  }

  #sayHeld() {
    this.#heard = performance.now();
    this.#page.link.send({ type: "hold", held: this.#holders.size > 0 });
    this.#parts.hold.setAttribute("aria-pressed", this.#holders.size > 0);
  }

  #stop() {
    this.#page.link.send({ type: "stop" });
  }

  #show(shows) {
    this.#shows = shows;
    const [camera] = this.#page.stage.of("camera");
    const [prediction] = this.#page.stage.of("prediction");
    const { stage } = this.#page;
    stage.cover(prediction, shows === "ghost" ? camera : null);
    stage.cover(camera, shows === "prediction" ? prediction : null);
    camera.canvas.classList.toggle("under", shows === "prediction");
    this.#parts.opacity.hidden = shows !== "ghost";
    for (const [name, button] of Object.entries(this.#parts.shows)) button.setAttribute("aria-pressed", name === shows);
  }

  #changeLink() {
    const { round_trip, jitter, loss } = this.#parts.link;
    this.#page.link.send({
      type: "link",
      round_trip: round_trip.input.valueAsNumber / 1000,
      jitter: jitter.input.valueAsNumber / 1000,
      loss: loss.input.valueAsNumber / 100,
    });
  }

  async #use(source) {
    this.#page.link.send({ type: "source", source });
    if (source !== "hand") {
      this.#webcam.stop();
      return;
    }
    try {
      this.#parts.webcam.replaceChildren(await this.#webcam.start());
    } catch (error) {
      this.#page.toast("The webcam could not be opened", error.message);
    }
  }

  // What it shows

  #warn() {
    const { status, sure, divergence, hazards, suggestion, level, ahead, late_ms } = this.#notes;
    const [tone, words] = STATUS[status];
    document.body.dataset.level = level;
    this.#parts.status.dataset.tone = tone;
    this.#parts.status.textContent = words;
    this.#parts.release.hidden = !this.#notes.stopped;
    const unknown = sure !== null && !sure.knows;
    document.body.classList.toggle("unknown", unknown);
    document.body.classList.toggle("diverged", Boolean(divergence?.alarm));
    const warnings = hazards.map((text) => ["hazard", text]);
    if (unknown) warnings.unshift(["unknown", "The prediction does not know"]);
    if (divergence?.alarm) warnings.unshift(["diverged", "Prediction and robot part: trust the late picture"]);
    if (level > 1) warnings.push(["slow", `The model is too slow: prediction cut to level ${level} of ${this.#told.levels - 1} (fewer --steps, a smaller model or a GPU)`]);
    this.#suggested = suggestion ? this.#roles(suggestion) : null;
    if (this.#suggested) warnings.push(["hint", `Rather ${this.#inWords(this.#suggested)} (hold N)`]);
    const made = warnings.map(([kind, text]) => element("li", { class: kind }, text));
    this.#parts.warnings.replaceChildren(...made);
    this.#parts.age.textContent = `${late_ms} ms old`;
    this.#parts.ahead.textContent = `${ahead} frames ahead`;
    this.#parts.sure.textContent = sure === null ? "–" : `±${(255 * sure.bound).toFixed(1)} of 255`;
    this.#parts.diverging.textContent = divergence ? divergence.ratio.toFixed(2) : "–";
  }

  #roles(values) {
    const amounts = {};
    this.#page.hello.controls.forEach(({ role, sign, mode }, i) => {
      if (role && mode === "rate") amounts[role] = sign * values[i];
    });
    return amounts;
  }

  #inWords(amounts) {
    const names = { right: ["left", "right"], forward: ["back", "forward"], up: ["down", "up"], yaw: ["turn right", "turn left"] };
    const parts = Object.entries(amounts).filter(([role, amount]) => names[role] && Math.abs(amount) > 0.1);
    return parts.map(([role, amount]) => names[role][amount > 0 ? 1 : 0]).join(", ") || "stand still";
  }

  #refresh() {
    for (const [name, latency] of [["prediction", this.#prediction], ["camera", this.#camera]]) {
      const summary = latency.summary;
      for (const key of ["p50", "p95", "p99", "jitter"]) {
        this.#parts[`${name} ${key}`].textContent = summary[key] === null ? "–" : summary[key].toFixed(0);
      }
    }
    this.#parts.stale.textContent = this.#frames ? `${Math.round((100 * this.#stale) / this.#frames)} %` : "–";
  }

  #build() {
    const button = (text, attributes, act) => {
      const made = element("button", { class: "button", ...attributes }, text);
      made.addEventListener("click", act);
      return made;
    };
    const parts = this.#parts;
    const names = { robot: "Robot", dream: "Dream" };
    parts.modes = Object.fromEntries(
      this.#told.modes.map((mode) => [mode, button(names[mode], { class: "button mode" }, () => this.#page.link.send({ type: "mode", mode }))]),
    );
    parts.status = element("p", { class: "pill robot-only", id: "robot", role: "status" }, "–");
    parts.warnings = element("ul", { class: "warnings robot-only", role: "alert" });
    parts.hold = button("Hold to drive", { class: "button hold robot-only operator-only", "aria-pressed": "false" }, () => {});
    parts.hold.append(element("kbd", {}, "X"));
    parts.hold.addEventListener("pointerdown", (event) => {
      parts.hold.setPointerCapture(event.pointerId);
      this.#hold("button", true);
    });
    for (const type of ["pointerup", "pointercancel", "lostpointercapture"]) {
      parts.hold.addEventListener(type, () => this.#hold("button", false));
    }
    const stop = button("STOP", { class: "button stop robot-only", id: "stop", title: "Emergency stop (Esc)" }, () => this.#stop());
    parts.release = button("Release the stop", { class: "button operator-only", id: "release", hidden: true }, () => this.#page.link.send({ type: "release" }));
    parts.shows = Object.fromEntries(Object.entries(SHOWS).map(([name, text]) => [name, button(text, { class: "button show robot-only" }, () => this.#show(name))]));
    parts.opacity = element("input", { type: "range", min: 0, max: 1, step: 0.05, value: 0.55, class: "opacity robot-only", "aria-label": "Strength of the ghost" });
    parts.opacity.addEventListener("input", () => document.body.style.setProperty("--ghost", parts.opacity.value));

    const bar = element("div", { class: "cockpit-bar" }, ...(this.#told.modes.length > 1 ? Object.values(parts.modes) : []), parts.status, ...(this.#told.deadman ? [parts.hold] : []), parts.release, stop);
    const views = element("div", { class: "cockpit-bar quiet-bar robot-only" }, ...Object.values(parts.shows), parts.opacity);
    const cockpit = document.getElementById("cockpit");
    cockpit.replaceChildren(bar, views, parts.warnings);
    cockpit.hidden = false;
    this.#buildInstruments(button);
  }

  #buildInstruments(button) {
    const parts = this.#parts;
    const cell = (key) => (parts[key] = element("td", {}, "–"));
    const row = (name, title) => element("tr", {}, element("th", { scope: "row" }, title), ...["p50", "p95", "p99", "jitter"].map((key) => cell(`${name} ${key}`)));
    const head = element("tr", {}, ...["Input to pixel, ms", "p50", "p95", "p99", "jitter"].map((text) => element("th", { scope: "col" }, text)));
    const latency = element("table", { class: "latency" }, element("thead", {}, head), element("tbody", {}, row("prediction", "Prediction"), row("camera", "Camera")));
    const figure = (key, title) => element("div", { class: "robot-only" }, element("dt", {}, title), (parts[key] = element("dd", { id: key }, "–")));
    const figures = element("dl", { class: "figures" }, figure("age", "Camera"), figure("ahead", "Prediction"), figure("stale", "Stale frames"), figure("sure", "Error bound"), figure("diverging", "Error / bound"));
    parts.link = {};
    const sliders = [["round_trip", "Round trip", 2000, 50, "ms", 1000], ["jitter", "Jitter", 300, 10, "ms", 1000], ["loss", "Loss", 50, 1, "%", 100]].map(([key, title, most, step, unit, scale]) => {
      const input = element("input", { type: "range", min: 0, max: most, step, value: this.#told.link[key] * scale, class: "operator-only" });
      const value = element("span", { class: "value" }, `${Math.round(this.#told.link[key] * scale)} ${unit}`);
      input.addEventListener("input", () => {
        value.textContent = `${input.value} ${unit}`;
        this.#changeLink();
      });
      parts.link[key] = { input };
      return element("label", { class: "slider" }, element("span", { class: "label" }, title), input, value);
    });
    const sources = { page: "This page", leader: "Leader arm", hand: "Hand (webcam)" };
    const chosen = this.#told.sources.map((source) => button(sources[source], { class: "button operator-only" }, () => this.#use(source)));
    parts.webcam = element("div", { class: "webcam" });
    const worn = button("Headset", { class: "button operator-only", id: "headset", hidden: true }, () => this.#headset.start().catch((error) => this.#page.toast("The headset could not be used", error.message)));
    Headset.supported().then((supported) => (worn.hidden = !supported));
    const link = element("div", { class: "robot-only link" }, element("h2", {}, "Simulated link"), ...sliders);
    const input = element("div", { class: "robot-only sources" }, ...(chosen.length > 1 ? chosen : []), worn, parts.webcam);
    const instruments = document.getElementById("instruments");
    instruments.replaceChildren(latency, figures, link, input);
    instruments.hidden = false;
  }
}
