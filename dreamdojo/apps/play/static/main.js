// `dreamdojo play`: ties the connection, the inputs and what is on the page together.

import { element } from "./dom.js";
import { Inputs } from "./inputs.js";
import { Link } from "./link.js";
import { Meters } from "./meters.js";
import { Panel } from "./panel.js";
import { Stage } from "./stage.js";

const HEARTBEAT = 250; // ms between commands while the robot is to move: the server lets go of it after a silence
const TOAST = 7000; // ms

const find = (id) => document.getElementById(id);
const meters = new Meters();

let hello = null;
let session = null;
let stage = null;
let inputs = null;
let panel = null;
let commandId = 0;
let sent = { values: [], at: 0 };
let unanswered = []; // { id, at } of changed commands that no frame has answered yet
let stepped = performance.now();
let extension = null; // what an app adds to the page: a module with the methods that are called below, each optional

// an extension takes a moment to load, and nothing overtakes the hello; what fails does not hold up what follows
let queue = Promise.resolve();
const inTurn = (act) => (queue = queue.then(act).catch((error) => toast("The page failed", error.message)));

const link = new Link({
  open() {
    document.body.dataset.link = "open";
    meters.rejoin();
  },
  lost(again) {
    document.body.dataset.link = "lost";
    setState("bad", again ? "Reconnecting" : "Refused by the server");
    find("role").textContent = "";
    meters.still();
    if (!hello) return;
    stage.badge("Connection lost");
    extension?.release();
    inputs.release();
    inputs.advance(0);
    panel.darken();
    panel.show((role) => inputs.amount(role), inputs.values);
    enable(false);
  },
  text(message) {
    if (message.type === "hello") inTurn(() => greet(message));
    else if (message.type === "session") inTurn(() => follow(message));
    else if (message.type === "error") toast(message.message, `Expected ${message.expected}`);
  },
  frame(header, pictures) {
    inTurn(() => {
      meters.arrived(header);
      stage.show(header, pictures);
    });
  },
  trip: (ms) => meters.trip(ms),
});

// The server describes itself once per connection; the page is built anew only if it is another server.
async function greet(message) {
  const same = JSON.stringify(message) === JSON.stringify(hello);
  session = null;
  if (same) return;
  hello = message;
  inputs = new Inputs(hello.controls);
  stage = new Stage(find("views"), hello, {
    shown: drew,
    skipped: (header) => {
      meters.dropped += 1;
      link.send({ type: "shown", sequence: header.sequence });
    },
    dragged: (amounts) => inputs.push("drag", driving() ? amounts : null),
    failed: toast,
  });
  find("depth").hidden = !stage.hasDepth;
  setDepth(true);
  panel = new Panel(find("controls"), find("hint"), hello.controls, inputs);
  find("embodiment").textContent = hello.embodiment;
  showStarts();
  prepareReadout();
  if (message.cockpit) {
    const { Cockpit } = await import("./cockpit/cockpit.js");
    extension = new Cockpit({ hello, link, inputs, stage, toast, driving, session: () => session, take: advance });
  }
}

function follow(message) {
  const begins = message.episode !== session?.episode || message.driving !== session?.driving;
  session = message;
  if (begins) {
    inputs.release();
    inputs.begin(message.rest, message.command);
    panel.darken();
    commandId = Math.max(commandId, message.command_id);
    sent = { values: [...message.command], at: 0 };
    unanswered = [];
  }
  stage.setMode(message.mode);
  showSession();
  extension?.follow(message);
}

function drew(header) {
  link.send({ type: "shown", sequence: header.sequence });
  meters.drew(header);
  extension?.drew(header);
  const answered = unanswered.filter(({ id }) => id <= header.command.id);
  if (answered.length && driving()) meters.latency(performance.now() - answered[0].at);
  unanswered = unanswered.filter(({ id }) => id > header.command.id);
  if (!driving()) {
    inputs.begin(session?.rest ?? header.command.values, header.command.values);
    panel.show((role) => inputs.amount(role), inputs.values);
  }
  fillReadout(header);
}

function driving() {
  return document.body.dataset.link === "open" && Boolean(session?.driving);
}

// Commands

// `at` is when the event happened that moves the command
function advance(at = performance.now()) {
  if (!driving()) return;
  const now = performance.now();
  inputs.advance(Math.min(0.1, (now - stepped) / 1000));
  stepped = now;
  const changed = inputs.values.some((value, i) => value !== sent.values[i]);
  if (changed || (inputs.moving && now - sent.at > HEARTBEAT)) {
    commandId += 1;
    sent = { values: [...inputs.values], at: now };
    if (changed && session.state === "running") {
      unanswered.push({ id: commandId, at });
      extension?.commanded(commandId, at);
    }
    link.send({ type: "drive", episode: session.episode, id: commandId, time: now, values: sent.values });
  }
  panel.show((role) => inputs.amount(role), inputs.values);
}

function everyFrame() {
  if (driving()) {
    extension?.poll();
    for (const button of inputs.poll()) gamepadButtons[button]();
    advance();
  }
  requestAnimationFrame(everyFrame);
}

const gamepadButtons = {
  toggle: () => inputs.toggle(),
  reset: () => reset(null),
  pause: () => pause(),
};

const reset = (start) => link.send({ type: "reset", start });
const pause = () => link.send({ type: "pause", paused: !session.paused });
const speed = () => link.send({ type: "speed", unlimited: !session.unlimited });

function setPixels(pixelated) {
  document.body.classList.toggle("pixelated", pixelated);
  find("pixels").setAttribute("aria-pressed", pixelated);
  try {
    localStorage.setItem("pixelated", pixelated);
  } catch {
    // a browser that keeps nothing: the choice lasts as long as the page
  }
}

function wantsPixels() {
  try {
    return localStorage.getItem("pixelated") === "true";
  } catch {
    return false;
  }
}

function setDepth(wanted) {
  stage.showDepth(wanted);
  find("depth").setAttribute("aria-pressed", wanted);
}
const depth = () => setDepth(find("depth").getAttribute("aria-pressed") !== "true");
const pixels = () => setPixels(!document.body.classList.contains("pixelated"));

const operatorKeys = { Backspace: () => reset(null), KeyP: pause, KeyM: speed };

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const inSlider = event.target.matches("input") && /^Arrow|^Page|^Home|^End/.test(event.code);
  const onButton = event.target.matches("button, summary") && (event.code === "Space" || event.code === "Enter");
  if (inSlider || onButton) return;
  if (extension?.press(event)) return;
  if (event.code === "KeyV" && !event.repeat) pixels();
  if (event.code === "KeyB" && !event.repeat && stage?.hasDepth) depth();
  if (!driving()) return;
  inputs.fine = event.shiftKey;
  if (event.code in operatorKeys) {
    event.preventDefault();
    if (!event.repeat) operatorKeys[event.code]();
  } else if (inputs.press(event.code, event.repeat)) {
    event.preventDefault();
  }
  panel.light(event.code, true);
  advance(event.timeStamp);
});

addEventListener("keyup", (event) => {
  if (!inputs) return;
  extension?.lift(event);
  inputs.fine = event.shiftKey;
  inputs.lift(event.code);
  panel.light(event.code, false);
  advance(event.timeStamp);
});

// a key that goes up while the page is not looking would stay down
function letGo() {
  extension?.release();
  inputs?.release();
  panel?.darken();
  advance();
}
addEventListener("blur", letGo);
document.addEventListener("visibilitychange", () => document.hidden && letGo());

// after a click with the pointer the space bar belongs to the gripper again
addEventListener("click", (event) => event.detail > 0 && event.target.closest("button")?.blur());

find("reset").addEventListener("click", () => reset(null));
find("pause").addEventListener("click", pause);
find("speed").addEventListener("click", speed);
find("pixels").addEventListener("click", pixels);
find("depth").addEventListener("click", depth);
find("take").addEventListener("click", () => link.send({ type: "take" }));
addEventListener("gamepadconnected", ({ gamepad }) => toast(`Gamepad: ${gamepad.id}`, "Left stick moves, right stick lifts and turns, A grips", "good"));

// What the page shows

function setState(tone, text) {
  find("state").dataset.tone = tone;
  find("state").textContent = text;
}

function showSession() {
  const words = {
    resetting: ["warn", "Resetting"],
    running: ["good", session.unlimited ? "Live, full speed" : "Live"],
    paused: ["warn", "Paused"],
    failed: ["bad", "Stopped"],
  };
  setState(...words[session.state]);
  stage.badge({ resetting: "Resetting", paused: "Paused", failed: "Stopped", running: "" }[session.state]);
  if (session.state !== "running") meters.still();
  document.body.dataset.state = session.state;
  document.body.classList.toggle("watching", !session.driving);

  const others = session.pages - 1;
  const watching = others ? `, ${others} watching` : "";
  find("role").textContent = session.driving ? `You drive${watching}` : session.driven ? "Another page drives" : "Nobody drives";
  find("take").hidden = session.driven;

  find("notice").hidden = session.state !== "failed";
  find("notice").textContent = `The world stopped: ${session.failure}\nReset to try again.`;

  enable(session.driving);
  find("pause").setAttribute("aria-pressed", session.paused);
  find("speed").setAttribute("aria-pressed", session.unlimited);
  [...find("starts").children].forEach((button, i) => button.setAttribute("aria-pressed", i === session.start));
}

function enable(enabled) {
  panel.enable(enabled);
  for (const button of document.querySelectorAll(".transport button:not(#pixels, #depth), .start")) button.disabled = !enabled;
}

function showStarts() {
  const buttons = hello.starts.map(({ name, thumbnail }, i) => {
    const picture = element("img", { src: thumbnail, alt: "" });
    const button = element("button", { class: "start", title: name }, picture, element("span", {}, name));
    button.addEventListener("click", () => reset(i));
    return button;
  });
  find("starts").replaceChildren(...buttons);
}

function prepareReadout() {
  const readout = find("readout");
  const worlds = hello.worlds.filter(({ state }) => state.length);
  const names = [...new Set(worlds.flatMap(({ state }) => state))];
  readout.hidden = !names.length;
  readout.open = names.length <= 12 && innerWidth > 860;
  const titles = hello.worlds.map(({ label }, i) => element("th", { class: `tone-${i % 4}`, scope: "col" }, label));
  readout.querySelector("thead").replaceChildren(element("tr", {}, element("th"), ...titles));
  const rows = names.map((name) => {
    const cells = hello.worlds.map(() => element("td", {}, "–"));
    return element("tr", {}, element("th", { scope: "row" }, name.replaceAll("_", " ")), ...cells);
  });
  readout.querySelector("tbody").replaceChildren(...rows);
  readout.dataset.names = JSON.stringify(names);
}

function fillReadout({ views }) {
  const readout = find("readout");
  if (readout.hidden || !readout.open) return;
  const names = JSON.parse(readout.dataset.names);
  const rows = readout.querySelector("tbody").rows;
  views.forEach(({ world, state }) => {
    const column = hello.worlds.findIndex(({ name }) => name === world);
    hello.worlds[column].state.forEach((name, i) => {
      rows[names.indexOf(name)].cells[column + 1].textContent = state?.[i]?.toFixed(3) ?? "–";
    });
  });
}

function toast(text, detail = "", tone = "bad") {
  const known = [...find("toasts").children].find((child) => child.dataset.text === text);
  known?.remove();
  const made = element("div", { class: `toast ${tone}`, "data-text": text }, text, detail ? element("small", {}, detail) : "");
  find("toasts").append(made);
  setTimeout(() => made.remove(), TOAST);
}

setPixels(wantsPixels());
requestAnimationFrame(everyFrame);
