// The map on the page: two canvases (the still map, the moving aircraft), the camera and the frame loop.
//
// Frames come only while the page is shown. When a frame is expensive, or nothing can move by a visible
// amount, the loop takes fewer of them; the still map is redrawn only when the camera or the theme changed.
import type { Fleet } from "../fleet/fleet.ts";
import type { Kind } from "../fleet/position.ts";
import { h } from "../dom.ts";
import { Basemap } from "./basemap.ts";
import { between, clampCamera, home, homeScale, pan, toWorld, zoomAt, type Camera, type Size } from "./camera.ts";
import { listen } from "./gestures.ts";
import { readPalette, type Palette } from "./palette.ts";
import { Painter, type Drawn } from "./painter.ts";
import { unproject, type Point } from "./projection.ts";

const FLIGHT_MS = 420;
const REACH_MOUSE = 16;
const REACH_TOUCH = 26;
/** Share of the time that drawing may take before frames are skipped. */
const BUDGET = 0.5;
const CALM_MS = 50;

export interface MapCallbacks {
  onSelect: (id: string | null) => void;
  onHover: (drawn: Drawn | null) => void;
}

export class MapView {
  readonly element: HTMLElement;
  private readonly still = h("canvas", { class: "map-canvas", "aria-hidden": true });
  private readonly moving = h("canvas", { class: "map-canvas", "aria-hidden": true });
  private readonly basemap = new Basemap();
  private readonly painter = new Painter();
  private readonly abort = new AbortController();
  private readonly calmMotion = window.matchMedia("(prefers-reduced-motion: reduce)");
  private palette: Palette = readPalette();
  private size: Size = { width: 0, height: 0 };
  private ratio = 1;
  private camera: Camera = { x: 0, y: 0, scale: 1 };
  private flight: { from: Camera; to: Camera; start: number } | null = null;
  private atHome = true;
  private stillDirty = true;
  private frame = 0;
  private nextFrame = 0;
  private cost = 4;
  private hovered: string | null = null;
  private pointer: Point | null = null;
  selected: string | null = null;
  follow = false;
  hidden: ReadonlySet<Kind> = new Set();

  constructor(
    private readonly fleet: Fleet,
    private readonly callbacks: MapCallbacks,
  ) {
    this.element = h(
      "div",
      {
        class: "map-surface",
        tabindex: 0,
        role: "application",
        "aria-label": "Live map of aircraft over the United States",
        "aria-describedby": "map-keys",
      },
      this.still,
      this.moving,
    );
    this.painter.setPalette(this.palette);
    this.listen();
    new ResizeObserver(() => { this.resize(); }).observe(this.element);
  }

  start(): void {
    if (this.frame === 0) this.frame = requestAnimationFrame(this.tick);
  }

  stop(): void {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
  }

  repaint(): void {
    this.palette = readPalette();
    this.painter.setPalette(this.palette);
    this.stillDirty = true;
  }

  get drawn(): readonly Drawn[] {
    return this.painter.drawn;
  }

  get zoom(): number {
    return this.size.width === 0 ? 1 : this.camera.scale / homeScale(this.size);
  }

  zoomBy(factor: number): void {
    const from = this.flight?.to ?? this.camera;
    this.flyTo(zoomAt(from, this.size, factor, { x: this.size.width / 2, y: this.size.height / 2 }));
  }

  goHome(): void {
    this.follow = false;
    this.flyTo(home(this.size), true);
  }

  /** Brings an aircraft to the middle; zooms in at least to where its motion can be seen. */
  centreOn(id: string): void {
    const aircraft = this.fleet.aircraft.get(id);
    if (!aircraft || this.size.width === 0) return;
    const { x, y } = aircraft.at(performance.now(), this.fleet.pace);
    this.flyTo({ x, y, scale: Math.max(this.camera.scale, homeScale(this.size) * 4) });
  }

  centreOnWorld({ x, y }: Point): void {
    this.flyTo({ x, y, scale: Math.max(this.camera.scale, homeScale(this.size) * 4) });
  }

  private listen(): void {
    listen(this.element, {
      pan: (dx, dy) => {
        this.follow = false;
        this.moveTo(pan(this.camera, this.size, dx, dy));
      },
      zoom: (factor, at, smooth) => {
        if (smooth) this.zoomBy(factor);
        else this.moveTo(zoomAt(this.camera, this.size, factor, at ?? { x: this.size.width / 2, y: this.size.height / 2 }));
      },
      home: () => { this.goHome(); },
      hover: (at) => { this.pointer = at; this.point(); },
      click: (at, touch) => { this.callbacks.onSelect(this.painter.nearest(at, touch ? REACH_TOUCH : REACH_MOUSE)?.aircraft.id ?? null); },
      pick: () => {
        const middle = { x: this.size.width / 2, y: this.size.height / 2 };
        this.callbacks.onSelect(this.painter.nearest(middle, Infinity)?.aircraft.id ?? null);
      },
      escape: () => { this.callbacks.onSelect(null); },
    }, this.abort.signal);
  }

  private moveTo(camera: Camera): void {
    this.flight = null;
    this.atHome = false;
    this.camera = camera;
    this.stillDirty = true;
    this.nextFrame = 0;
  }

  private flyTo(target: Camera, isHome = false): void {
    const to = clampCamera(target, this.size);
    if (this.calmMotion.matches) this.moveTo(to);
    else this.flight = { from: this.camera, to, start: performance.now() };
    this.atHome = isHome;
    this.nextFrame = 0;
  }

  private point(): void {
    const hit = this.pointer ? this.painter.nearest(this.pointer, REACH_MOUSE) : null;
    this.hovered = hit?.aircraft.id ?? null;
    this.element.classList.toggle("is-pointing", hit !== null);
    this.callbacks.onHover(hit);
  }

  private resize(): void {
    const box = this.element.getBoundingClientRect();
    if (box.width < 1 || box.height < 1) return;
    const size = { width: box.width, height: box.height };
    // What was in the middle stays there, and the zoom stays relative to the whole country.
    const zoom = this.zoom;
    const first = this.size.width === 0;
    this.size = size;
    this.ratio = Math.min(3, window.devicePixelRatio || 1);
    for (const canvas of [this.still, this.moving]) {
      canvas.width = Math.round(size.width * this.ratio);
      canvas.height = Math.round(size.height * this.ratio);
    }
    this.flight = null;
    this.camera = first || this.atHome ? home(size) : clampCamera({ ...this.camera, scale: zoom * homeScale(size) }, size);
    this.stillDirty = true;
    this.nextFrame = 0;
    this.render(performance.now());
  }

  private readonly tick = (): void => {
    this.frame = requestAnimationFrame(this.tick);
    const now = performance.now();
    if (now < this.nextFrame) return;
    this.render(now);
    const spent = performance.now() - now;
    this.cost += (spent - this.cost) * 0.1;
    // Never more than BUDGET of the time, and in no hurry while nothing moves visibly.
    const calm = this.flight || this.pointer || this.zoom > 3 ? 0 : CALM_MS;
    this.nextFrame = now + Math.max(calm, this.cost < 8 ? 0 : this.cost / BUDGET) - 2;
  };

  private render(now: number): void {
    if (this.size.width === 0) return;
    this.moveCamera(now);
    if (this.stillDirty) {
      const context = this.still.getContext("2d", { alpha: false });
      if (context) this.basemap.draw(context, this.size, this.ratio, this.camera, this.palette);
      this.stillDirty = false;
    }
    const context = this.moving.getContext("2d");
    if (!context) return;
    const scene = {
      fleet: this.fleet,
      hidden: this.hidden,
      selected: this.selected,
      hovered: this.hovered,
      animate: !this.calmMotion.matches,
    };
    this.painter.draw(context, this.size, this.ratio, this.camera, scene, now);
    if (this.pointer) this.point();
  }

  private moveCamera(now: number): void {
    if (this.flight) {
      const t = Math.min(1, (now - this.flight.start) / FLIGHT_MS);
      this.camera = between(this.flight.from, this.flight.to, t);
      if (t >= 1) this.flight = null;
      this.stillDirty = true;
      return;
    }
    const followed = this.follow && this.selected !== null ? this.fleet.aircraft.get(this.selected) : undefined;
    if (!followed) return;
    const { x, y } = followed.at(now, this.fleet.pace);
    this.camera = clampCamera({ ...this.camera, x, y }, this.size);
    this.stillDirty = true;
  }

  /** The place under a point of the map, for the curious. */
  placeAt(at: Point): { lat: number; lon: number } {
    return unproject(toWorld(this.camera, this.size, at));
  }
}
