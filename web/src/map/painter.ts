// Draws the aircraft: marks, trail, selection, emergencies and the labels there is room for.
import type { Aircraft } from "../fleet/aircraft.ts";
import type { Fleet } from "../fleet/fleet.ts";
import type { Kind } from "../fleet/position.ts";
import { homeScale, toScreen, type Camera, type Size } from "./camera.ts";
import { MarkSheet } from "./marks.ts";
import type { Palette } from "./palette.ts";
import type { Point } from "./projection.ts";

export interface Scene {
  fleet: Fleet;
  hidden: ReadonlySet<Kind>;
  selected: string | null;
  hovered: string | null;
  /** False when the person asked for less motion. */
  animate: boolean;
}

export interface Drawn {
  aircraft: Aircraft;
  x: number;
  y: number;
}

/** With more marks than this in view, labels would be noise. */
const LABELS_MAX = 36;
const PULSE_MS = 1_600;
/** About as wide as a callsign gets, in CSS pixels. */
const LABEL_WIDTH = 84;
/** How far ahead the line before the selected aircraft reaches. */
const LEAD_SECONDS = 300;

/** Edge of a mark in CSS pixels: grows with the zoom, shrinks in a crowd and on a small map. */
export function markSize(zoom: number, count: number, width: number): number {
  const crowd = count > 2_500 ? 0.78 : count > 1_200 ? 0.88 : 1;
  const room = Math.min(1, Math.max(0.68, Math.sqrt(width / 820)));
  return Math.max(8, Math.round(Math.min(26, 13.5 * room + 3 * Math.log2(Math.max(0.7, zoom))) * crowd));
}

export class Painter {
  private sheet: MarkSheet | null = null;
  private palette: Palette | null = null;
  /** What the last frame showed, for pointing at things. */
  drawn: Drawn[] = [];

  setPalette(palette: Palette): void {
    this.palette = palette;
    this.sheet = null;
  }

  draw(context: CanvasRenderingContext2D, size: Size, ratio: number, camera: Camera, scene: Scene, now: number): void {
    const { palette } = this;
    if (!palette) return;
    const zoom = camera.scale / homeScale(size);
    const edge = markSize(zoom, scene.fleet.aircraft.size, size.width);
    if (this.sheet?.size !== edge || this.sheet.ratio !== ratio) this.sheet = new MarkSheet(edge, ratio, palette);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, context.canvas.width, context.canvas.height);
    this.drawn = place(size, camera, scene, now, edge);
    const selected = scene.selected === null ? undefined : this.drawn.find((d) => d.aircraft.id === scene.selected);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (selected) {
      drawTrail(context, size, camera, selected, palette);
      drawLead(context, camera, selected, edge, palette);
    }
    for (const item of this.drawn) {
      if (item.aircraft.emergency) drawAlarm(context, item, edge, palette, scene.animate ? now : null);
    }
    this.drawMarks(context, ratio, this.sheet, now);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (selected) ring(context, selected, edge * 0.5 + (selected.aircraft.emergency ? 9 : 7), palette.accent, 2);
    const hovered = this.drawn.find((d) => d.aircraft.id === scene.hovered && d !== selected);
    if (hovered) ring(context, hovered, edge * 0.5 + 5, palette.labelStrong, 1.5);
    this.drawLabels(context, size, edge, palette, selected);
  }

  /** The mark nearest to a point of the page, within `reach` pixels. */
  nearest(at: Point, reach: number): Drawn | null {
    let best: Drawn | null = null;
    let distance = reach;
    for (const item of this.drawn) {
      const d = Math.hypot(item.x - at.x, item.y - at.y) - (item.aircraft.emergency ? 3 : 0);
      if (d < distance) {
        best = item;
        distance = d;
      }
    }
    return best;
  }

  private drawMarks(context: CanvasRenderingContext2D, ratio: number, sheet: MarkSheet, now: number): void {
    const { cell, canvas } = sheet;
    const half = cell / 2;
    for (const { aircraft, x, y } of this.drawn) {
      const cos = Math.cos(aircraft.angle);
      const sin = Math.sin(aircraft.angle);
      context.setTransform(cos, sin, -sin, cos, x * ratio, y * ratio);
      context.globalAlpha = aircraft.isStale(now) ? 0.35 : 1;
      const row = aircraft.emergency ? cell : 0;
      context.drawImage(canvas, sheet.column(aircraft.report.kind), row, cell, cell, -half, -half, cell, cell);
    }
    context.globalAlpha = 1;
  }

  private drawLabels(context: CanvasRenderingContext2D, size: Size, edge: number, palette: Palette, selected: Drawn | undefined): void {
    const inView = this.drawn.filter((d) => d.x >= 0 && d.y >= 0 && d.x <= size.width && d.y <= size.height);
    const all = inView.length <= LABELS_MAX;
    context.font = `600 11px ${palette.font}`;
    context.textBaseline = "middle";
    context.lineJoin = "round";
    const taken: Point[] = [];
    // From the top of the pile, so that the selection and emergencies get their labels first.
    for (const item of inView.reverse()) {
      const { emergency, report } = item.aircraft;
      if (!all && !emergency && item !== selected) continue;
      const text = emergency ? `${report.callsign}  ${report.squawk ?? ""}` : report.callsign;
      const x = item.x + edge * 0.5 + (emergency ? 11 : 8);
      if (taken.some((t) => Math.abs(t.y - item.y) < 13 && Math.abs(t.x - x) < LABEL_WIDTH)) continue;
      taken.push({ x, y: item.y });
      context.strokeStyle = palette.labelHalo;
      context.lineWidth = 3.5;
      context.strokeText(text, x, item.y);
      context.fillStyle = emergency ? palette.emergency : item === selected ? palette.labelStrong : palette.label;
      context.fillText(text, x, item.y);
    }
  }
}

/** Positions of all aircraft that may show, emergencies and the selection last, which is on top. */
function place(size: Size, camera: Camera, scene: Scene, now: number, edge: number): Drawn[] {
  const drawn: Drawn[] = [];
  const top: Drawn[] = [];
  const { pace } = scene.fleet;
  for (const aircraft of scene.fleet.aircraft.values()) {
    const isSelected = aircraft.id === scene.selected;
    if (scene.hidden.has(aircraft.report.kind) && !isSelected && !aircraft.emergency) continue;
    const { x, y } = toScreen(camera, size, aircraft.at(now, pace));
    const inside = x > -edge && y > -edge && x < size.width + edge && y < size.height + edge;
    if (!inside && !isSelected) continue;
    (isSelected || aircraft.emergency ? top : drawn).push({ aircraft, x, y });
  }
  return drawn.concat(top);
}

function ring(context: CanvasRenderingContext2D, at: Point, radius: number, colour: string, width: number): void {
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.beginPath();
  context.arc(at.x, at.y, radius, 0, 2 * Math.PI);
  context.stroke();
}

/** A steady ring, and while motion is welcome a second one that spreads and fades. */
function drawAlarm(context: CanvasRenderingContext2D, at: Point, edge: number, palette: Palette, now: number | null): void {
  const radius = edge * 0.5 + 5;
  context.globalAlpha = 0.16;
  context.fillStyle = palette.emergency;
  context.beginPath();
  context.arc(at.x, at.y, radius, 0, 2 * Math.PI);
  context.fill();
  context.globalAlpha = 0.9;
  ring(context, at, radius, palette.emergency, 1.5);
  if (now !== null) {
    const phase = (now % PULSE_MS) / PULSE_MS;
    context.globalAlpha = 0.7 * (1 - phase);
    ring(context, at, radius + 16 * phase, palette.emergency, 1.5);
  }
  context.globalAlpha = 1;
}

/** The way flown so far, fainter the longer ago. */
function drawTrail(context: CanvasRenderingContext2D, size: Size, camera: Camera, to: Drawn, palette: Palette): void {
  const { trail } = to.aircraft;
  context.lineCap = "round";
  context.lineWidth = 2.25;
  context.strokeStyle = palette.accent;
  let from: Point | null = null;
  for (let i = 0; i <= trail.length; i++) {
    const point = i === trail.length ? to : toScreen(camera, size, { x: trail.x(i), y: trail.y(i) });
    if (from) {
      context.globalAlpha = 0.15 + 0.75 * (i / trail.length);
      context.beginPath();
      context.moveTo(from.x, from.y);
      context.lineTo(point.x, point.y);
      context.stroke();
    }
    from = point;
  }
  context.globalAlpha = 1;
}

/** Where the selected aircraft will be in a few minutes if it holds its course. */
function drawLead(context: CanvasRenderingContext2D, camera: Camera, from: Drawn, edge: number, palette: Palette): void {
  const start = edge * 0.5 + 9;
  const length = from.aircraft.worldSpeed * LEAD_SECONDS * camera.scale;
  if (length <= start) return;
  const x = Math.sin(from.aircraft.angle);
  const y = -Math.cos(from.aircraft.angle);
  context.globalAlpha = 0.7;
  context.strokeStyle = palette.accent;
  context.lineWidth = 1.5;
  context.setLineDash([2, 5]);
  context.beginPath();
  context.moveTo(from.x + x * start, from.y + y * start);
  context.lineTo(from.x + x * length, from.y + y * length);
  context.stroke();
  context.setLineDash([]);
  context.globalAlpha = 1;
}
