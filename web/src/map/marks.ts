// The shapes of the aircraft kinds, as polygons that point up in a box of -10..10.
//
// Kind is told by shape and by colour, so the map can be read without telling the colours apart. The same
// outlines draw the legend (SVG) and the map (a sheet of ready-made sprites per size and theme).
import { ALL_KINDS, type Kind } from "../fleet/position.ts";
import type { Palette } from "./palette.ts";

/** Right half of each outline, from nose to tail; the left half is its mirror image. */
const HALVES: Record<Kind, readonly (readonly [number, number])[]> = {
  airliner: [[0, -10], [0.9, -8.6], [1.2, -3.2], [9.2, 2.8], [9.2, 4.3], [1.2, 1.9], [0.9, 6.2], [3.6, 8.4], [3.6, 9.5], [0, 8.6]],
  cargo: [[0, -9.6], [1.9, -7.8], [2.1, -3], [4.6, -1.3], [4.6, -2.5], [6, -2.5], [6, -0.3], [9.4, 1.9], [9.4, 3.9], [2.1, 2.6], [1.6, 6], [4.4, 7.8], [4.4, 9.4], [0, 8.8]],
  private: [[0, -8], [1.2, -6.2], [1.3, -3.4], [8.8, -3], [8.8, -0.4], [1.3, 0.6], [0.8, 5.4], [3.4, 6], [3.4, 7.6], [0, 7.4]],
  helicopter: [[0, -5.6], [1.9, -4.6], [6.6, -8.4], [7.9, -7.1], [3, -2.2], [3, 0], [7.9, 4.9], [6.6, 6.2], [2, 2.4], [0.8, 3.6], [0.8, 8], [2.6, 8.4], [2.6, 9.6], [0, 9.6]],
  military: [[0, -10], [1.3, -5.4], [2, -2], [8, 5], [8, 7], [2.6, 6], [2.6, 8.4], [0, 7]],
  other: [[0, -8], [5.6, 7.4], [0, 4.4]],
};

export function outline(kind: Kind): readonly (readonly [number, number])[] {
  const half = HALVES[kind];
  const mirrored = half.slice(1, -1).reverse().map(([x, y]): [number, number] => [-x, y]);
  return [...half, ...mirrored];
}

export function svgPath(kind: Kind): string {
  return `M${outline(kind).map(([x, y]) => `${x} ${y}`).join("L")}Z`;
}

/** Sprites of every kind, plain and as an emergency, drawn once for a size and a theme. */
export class MarkSheet {
  readonly canvas = document.createElement("canvas");
  /** Edge of one cell in device pixels. */
  readonly cell: number;

  constructor(
    readonly size: number,
    readonly ratio: number,
    palette: Palette,
  ) {
    this.cell = Math.ceil((size * 1.3 + 4) * ratio);
    this.canvas.width = this.cell * ALL_KINDS.length;
    this.canvas.height = this.cell * 2;
    const context = this.canvas.getContext("2d");
    if (!context) return;
    ALL_KINDS.forEach((kind, column) => {
      this.draw(context, kind, column, 0, palette.kinds[kind], palette.halo);
      this.draw(context, kind, column, 1, palette.emergency, palette.halo);
    });
  }

  /** Left edge of a kind's cell; emergencies are in the second row. */
  column(kind: Kind): number {
    return ALL_KINDS.indexOf(kind) * this.cell;
  }

  private draw(context: CanvasRenderingContext2D, kind: Kind, column: number, row: number, fill: string, halo: string): void {
    const scale = (this.size * this.ratio) / 20;
    context.setTransform(scale, 0, 0, scale, (column + 0.5) * this.cell, (row + 0.5) * this.cell);
    const path = new Path2D(svgPath(kind));
    context.lineJoin = "round";
    context.lineWidth = (2 * this.ratio * 1.1) / scale;
    context.strokeStyle = halo;
    context.stroke(path);
    context.fillStyle = fill;
    context.fill(path);
  }
}
