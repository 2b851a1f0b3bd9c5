// A hand before the webcam: a small picture for the server several times a second, as base64 JPEG.

const SIDE = 96; // px
const QUALITY = 0.7;

export class Webcam {
  #video = null;
  #timer = 0;

  constructor(rate, send) {
    this.rate = rate;
    this.send = send;
  }

  async start() {
    this.stop();
    const stream = await navigator.mediaDevices.getUserMedia({ video: { width: 320, height: 240 } });
    this.#video = document.createElement("video");
    this.#video.muted = true;
    this.#video.srcObject = stream;
    await this.#video.play();
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SIDE;
    const context = canvas.getContext("2d");
    this.#timer = setInterval(() => {
      const { videoWidth: w, videoHeight: h } = this.#video;
      const side = Math.min(w, h);
      context.drawImage(this.#video, (w - side) / 2, (h - side) / 2, side, side, 0, 0, SIDE, SIDE);
      this.send(canvas.toDataURL("image/jpeg", QUALITY).split(",")[1]);
    }, 1000 / this.rate);
    return this.#video;
  }

  stop() {
    clearInterval(this.#timer);
    for (const track of this.#video?.srcObject.getTracks() ?? []) track.stop();
    this.#video = null;
  }
}
