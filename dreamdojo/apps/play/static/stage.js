// The pictures: one per world and camera. The newest frame wins; a frame is acknowledged once it is on the screen.

import { element } from "./dom.js";
import { Pad } from "./pad.js";

export class Stage {
  #root;
  #mediaType;
  #views = []; // { world, mode, depth, canvas, context, ms, badge, figure }
  #mode = null;
  #depth = true;
  #next = null;
  #busy = false;

  // on: { shown(header), skipped(header), dragged(amounts or null), failed(reason) }
  constructor(root, hello, on) {
    this.#root = root;
    this.#mediaType = hello.media_type;
    this.on = on;
    root.replaceChildren();
    hello.worlds.forEach((world, tone) => {
      // the last `depth` pictures of a world are its depth, in colours
      const cameras = world.cameras.length - world.depth;
      world.cameras.forEach((name, i) => {
        const depth = i >= cameras;
        const part = cameras > 1 ? name : depth ? "depth" : "";
        this.#add(world, part ? `${world.label}, ${part}` : world.label, tone, depth);
      });
    });
    this.showDepth(true);
  }

  get hasDepth() {
    return this.#views.some(({ depth }) => depth);
  }

  // the views of a world, in order
  of(world) {
    return this.#views.filter((view) => view.world === world);
  }

  setMode(mode) {
    this.#mode = mode;
    this.#arrange();
  }

  showDepth(wanted) {
    this.#depth = wanted;
    this.#arrange();
  }

  #arrange() {
    for (const { mode, depth, figure, covered } of this.#views) {
      figure.hidden = (depth && !this.#depth) || (this.#mode !== null && mode !== this.#mode) || Boolean(covered);
    }
    const count = this.#views.filter(({ figure }) => !figure.hidden).length;
    this.#root.style.setProperty("--count", count);
    this.#root.style.setProperty("--narrow-count", Math.min(2, count));
  }

  show(header, pictures) {
    // what this page had no time to draw still counts as shown: its place is free again
    if (this.#next) this.on.skipped(this.#next[0]);
    this.#next = [header, pictures];
    if (!this.#busy) this.#draw();
  }

  // Lay one view over another, or (over null) put it back beside the others.
  cover(view, over) {
    view.covered = Boolean(over);
    (over ?? view).screen.append(view.canvas);
    view.canvas.classList.toggle("ghost", Boolean(over));
    this.#arrange();
  }

  badge(text) {
    for (const { badge } of this.#views) badge.textContent = text;
  }

  async #draw() {
    this.#busy = true;
    while (this.#next) {
      const [header, pictures] = this.#next;
      this.#next = null;
      try {
        const blobs = pictures.map((bytes) => new Blob([bytes], { type: this.#mediaType }));
        const bitmaps = await Promise.all(blobs.map((blob) => createImageBitmap(blob)));
        for (const { world, step_ms: ms } of header.views) {
          const views = this.of(world);
          for (const view of views) this.#paint(view, bitmaps.shift());
          views[0].ms.textContent = ms === null ? "" : `${ms.toFixed(1)} ms`;
        }
      } catch (error) {
        this.on.failed(`A picture could not be read: ${error.message}`);
      }
      this.on.shown(header);
    }
    this.#busy = false;
  }

  #paint({ canvas, context, screen }, bitmap) {
    if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
      canvas.width = bitmap.width;
      canvas.height = bitmap.height;
      screen.style.aspectRatio = `${bitmap.width} / ${bitmap.height}`;
    }
    context.drawImage(bitmap, 0, 0);
    bitmap.close();
  }

  #add(world, title, tone, depth) {
    const canvas = element("canvas", { role: "img", "aria-label": title });
    canvas.width = canvas.height = 1;
    const badge = element("span", { class: "badge" });
    const screen = element("div", { class: "screen" }, canvas, badge);
    const ms = element("span", { class: "ms quiet" });
    const caption = element("figcaption", {}, element("span", { class: "name" }, title), ms);
    const figure = element("figure", { class: `view tone-${tone % 4}` }, caption, screen);
    this.#root.append(figure);
    this.#views.push({ world: world.name, mode: world.mode, depth, canvas, context: canvas.getContext("2d"), ms, badge, screen, figure });
    this.#listen(screen);
  }

  // Dragging on a picture is a stick that starts wherever the drag does.
  #listen(screen) {
    let puck = null;
    Pad.track(screen, {
      begin: (x, y) => {
        puck = element("div", { class: "drag" }, element("i", {}));
        puck.style.left = `${x}px`;
        puck.style.top = `${y}px`;
        puck.style.setProperty("--reach", `${screen.clientWidth / 5}px`);
        screen.append(puck);
      },
      move: (dx, dy) => {
        const reach = screen.clientWidth / 5;
        const scale = Math.min(1, reach / Math.hypot(dx, dy || 1e-9)) / reach;
        const [right, down] = [dx * scale, dy * scale];
        puck.firstChild.style.transform = `translate(${right * reach}px, ${down * reach}px)`;
        this.on.dragged({ right, forward: -down });
      },
      end: () => {
        puck.remove();
        this.on.dragged(null);
      },
    });
  }
}
