import { FrameChannel } from "./channel.js";

// The WebSocket: connects, notices when the server is gone, and comes back to the same session by itself.

const PING_EVERY = 1000; // ms
const SILENT_AFTER = 4000; // ms without an answer to a ping: the connection is dead although nobody closed it
const RETRY_FIRST = 300; // ms, doubled up to the next
const RETRY_MOST = 3000;
const CLOSE_FOREIGN = 4403;

export class Link {
  #socket = null;
  #page = crypto.getRandomValues(new Uint32Array(4)).join("-");
  #retry = RETRY_FIRST;
  #heard = 0;
  #asked = 0;
  #timer = 0;
  #channel = null;
  #newest = -1; // sequence of the newest frame: a channel may deliver them out of order

  // on: { open(), lost(whether it tries again), text(message), frame(header, pictures), trip(ms) }
  constructor(on) {
    this.on = on;
    setInterval(() => this.#ping(), PING_EVERY);
    addEventListener("online", () => this.#hurry());
    document.addEventListener("visibilitychange", () => this.#hurry());
    this.#connect();
  }

  send(message) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  #connect() {
    clearTimeout(this.#timer);
    const url = new URL("ws", location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    url.searchParams.set("page", this.#page);
    const token = new URLSearchParams(location.search).get("token");
    if (token) url.searchParams.set("token", token);
    const socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    this.#asked = 0;
    socket.onmessage = ({ data }) => {
      if (socket !== this.#socket) return;
      this.#heard = performance.now();
      if (typeof data === "string") this.#hear(JSON.parse(data));
      else this.#show(data);
    };
    socket.onopen = () => {
      this.#retry = RETRY_FIRST;
      this.on.open();
      this.#ping();
    };
    socket.onclose = ({ code }) => {
      if (socket === this.#socket) this.#lose(code !== CLOSE_FOREIGN);
    };
  }

  #show(data) {
    const [header, pictures] = unpack(data);
    if (header.sequence < this.#newest) return;
    this.#newest = header.sequence;
    this.on.frame(header, pictures);
  }

  #open(socket) {
    this.#channel = new FrameChannel({
      offer: (sdp) => this.send({ type: "offer", sdp }),
      frame: (data) => {
        if (socket !== this.#socket) return;
        document.body.dataset.frames = "webrtc";
        this.#show(data);
      },
    });
  }

  #hear(message) {
    if (message.type === "hello" && message.webrtc) this.#open(this.#socket);
    if (message.type === "pong") {
      this.#asked = 0;
      this.on.trip(performance.now() - message.time);
    } else if (message.type === "answer") {
      this.#channel?.answer(message.sdp);
    } else {
      this.on.text(message);
    }
  }

  #ping() {
    const now = performance.now();
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    if (this.#asked && this.#heard < this.#asked && now - this.#asked > SILENT_AFTER) {
      const silent = this.#socket;
      this.#socket = null;
      silent.close();
      this.#lose(true);
      return;
    }
    if (!this.#asked) this.#asked = now;
    this.send({ type: "ping", time: now });
  }

  #lose(again) {
    this.#socket = null;
    this.#channel?.close();
    this.#channel = null;
    this.#newest = -1;
    this.on.lost(again);
    clearTimeout(this.#timer);
    this.#timer = 0;
    if (!again) return;
    this.#timer = setTimeout(() => this.#connect(), this.#retry);
    this.#retry = Math.min(2 * this.#retry, RETRY_MOST);
  }

  #hurry() {
    if (this.#timer && !this.#socket && !document.hidden) this.#connect();
  }
}

// 4 bytes of header length, the header as JSON, then the pictures back to back.
function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const pictures = [];
  let at = 4 + length;
  for (const view of header.views) {
    for (const picture of view.pictures) {
      pictures.push(new Uint8Array(buffer, at, picture.bytes));
      at += picture.bytes;
    }
  }
  return [header, pictures];
}
