// A WebXR controller: squeeze to take hold, move it to move the gripper, pull the trigger to open and close it.
// Both eyes see what the page shows.

const REACH = 0.12; // metres of the hand that are a full push

export class Headset {
  #origin = null;
  #trigger = false;

  // on: { push(amounts or null), toggle(), hold(held), ended(), picture() -> canvas }
  constructor(on) {
    this.on = on;
  }

  static async supported() {
    return Boolean(await navigator.xr?.isSessionSupported("immersive-vr").catch(() => false));
  }

  async start() {
    const session = await navigator.xr.requestSession("immersive-vr");
    // pictures are copied with a blit, which a multisampled framebuffer refuses
    const gl = document.createElement("canvas").getContext("webgl2", { xrCompatible: true, antialias: false });
    const layer = new XRWebGLLayer(session, gl, { antialias: false });
    session.updateRenderState({ baseLayer: layer });
    const space = await session.requestReferenceSpace("local");
    const texture = gl.createTexture();
    const source = gl.createFramebuffer();
    session.addEventListener("end", () => {
      this.on.push(null);
      this.on.hold(false);
      this.on.ended();
    });
    const step = (_, frame) => {
      session.requestAnimationFrame(step);
      this.#follow(session, frame, space);
      this.#draw(gl, layer, texture, source, frame.getViewerPose(space));
    };
    session.requestAnimationFrame(step);
  }

  #follow(session, frame, space) {
    const hand = [...session.inputSources].find(({ gripSpace, gamepad }) => gripSpace && gamepad);
    const pose = hand && frame.getPose(hand.gripSpace, space);
    const squeezed = Boolean(pose && hand.gamepad.buttons[1]?.pressed); // a hand out of sight lets go
    const { x, y, z } = pose?.transform.position ?? {};
    if (squeezed !== Boolean(this.#origin)) {
      this.#origin = squeezed ? { x, y, z } : null;
      this.on.hold(squeezed);
    }
    const share = (value) => Math.max(-1, Math.min(1, value / REACH));
    this.on.push(
      this.#origin && {
        right: share(x - this.#origin.x),
        up: share(y - this.#origin.y),
        forward: share(this.#origin.z - z),
      },
    );
    const pulled = hand?.gamepad.buttons[0]?.pressed ?? false;
    if (pulled && !this.#trigger) this.on.toggle();
    this.#trigger = pulled;
  }

  #draw(gl, layer, texture, source, viewer) {
    const canvas = this.on.picture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.pixelStorei(gl.UNPACK_FLIP_Y_WEBGL, true);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, canvas);
    gl.bindFramebuffer(gl.READ_FRAMEBUFFER, source);
    gl.framebufferTexture2D(gl.READ_FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
    gl.bindFramebuffer(gl.DRAW_FRAMEBUFFER, layer.framebuffer);
    for (const view of viewer?.views ?? []) {
      const { x, y, width, height } = layer.getViewport(view);
      const side = Math.min(width, height) / 2;
      const [left, low] = [x + (width - side) / 2, y + (height - side) / 2];
      const far = [left + side, low + side];
      gl.blitFramebuffer(0, 0, canvas.width, canvas.height, left, low, ...far, gl.COLOR_BUFFER_BIT, gl.LINEAR);
    }
  }
}
