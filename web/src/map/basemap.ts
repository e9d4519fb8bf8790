// The still part of the map: water, land, states, graticule and names, redrawn only when the camera moves.
import atlas from "virtual:basemap";
import { homeScale, toScreen, type Camera, type Size } from "./camera.ts";
import { INNER_LAKES, ISLANDS, LAKES } from "./lakes.ts";
import type { Palette } from "./palette.ts";
import { AIRPORTS, CITIES, type Place } from "./places.ts";
import { project, type Point } from "./projection.ts";

/** Longest piece of a line in degrees: parallels bend in this projection, so long straight borders need points. */
const MAX_STEP = 1;

interface Shapes {
  land: Path2D;
  lakes: Path2D;
  islands: Path2D;
  states: Path2D;
  innerLakes: Path2D;
  borders: Path2D;
  coast: Path2D;
  graticule: Path2D;
}

function decode(coded: readonly number[]): [lat: number, lon: number][] {
  const points: [number, number][] = [];
  let lon = 0;
  let lat = 0;
  for (let i = 0; i + 1 < coded.length; i += 2) {
    lon += coded[i] ?? 0;
    lat += coded[i + 1] ?? 0;
    points.push([lat / 1000, lon / 1000]);
  }
  return points;
}

function trace(path: Path2D, points: readonly (readonly [number, number])[], closed: boolean): void {
  let previous: readonly [number, number] | null = null;
  for (const point of points) {
    if (previous === null) {
      const { x, y } = project(point[0], point[1]);
      path.moveTo(x, y);
    } else {
      const steps = Math.ceil(Math.max(Math.abs(point[0] - previous[0]), Math.abs(point[1] - previous[1])) / MAX_STEP);
      for (let i = 1; i <= steps; i++) {
        const t = i / steps;
        const { x, y } = project(previous[0] + (point[0] - previous[0]) * t, previous[1] + (point[1] - previous[1]) * t);
        path.lineTo(x, y);
      }
    }
    previous = point;
  }
  if (closed) path.closePath();
}

function pathOf(lines: readonly (readonly (readonly [number, number])[])[], closed: boolean): Path2D {
  const path = new Path2D();
  for (const line of lines) trace(path, line, closed);
  return path;
}

function graticule(): Path2D {
  const lines: [number, number][][] = [];
  for (let lat = 15; lat <= 60; lat += 5) lines.push([[lat, -140], [lat, -50]]);
  for (let lon = -140; lon <= -50; lon += 5) lines.push([[12, lon], [61, lon]]);
  return pathOf(lines, false);
}

function buildShapes(): Shapes {
  return {
    land: pathOf(atlas.land.map(decode), true),
    lakes: pathOf(LAKES, true),
    islands: pathOf(ISLANDS, true),
    states: pathOf(atlas.states.map(decode), true),
    innerLakes: pathOf(INNER_LAKES, true),
    borders: pathOf(atlas.borders.map(decode), false),
    coast: pathOf(atlas.coast.map(decode), false),
    graticule: graticule(),
  };
}

const placed = (places: readonly Place[]): (Place & Point)[] => places.map((place) => ({ ...place, ...project(place.lat, place.lon) }));

export class Basemap {
  private readonly shapes = buildShapes();
  private readonly cities = placed(CITIES);
  private readonly airports = placed(AIRPORTS);

  draw(context: CanvasRenderingContext2D, size: Size, ratio: number, camera: Camera, palette: Palette): void {
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = palette.water;
    context.fillRect(0, 0, context.canvas.width, context.canvas.height);
    const scale = camera.scale * ratio;
    context.setTransform(
      scale, 0, 0, scale,
      (size.width / 2 - camera.x * camera.scale) * ratio,
      (size.height / 2 - camera.y * camera.scale) * ratio,
    );
    this.drawShapes(context, camera, palette);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.drawNames(context, size, camera, palette);
  }

  private drawShapes(context: CanvasRenderingContext2D, camera: Camera, palette: Palette): void {
    const { shapes } = this;
    const line = (css: number): number => css / camera.scale;
    const stroke = (path: Path2D, colour: string, width: number): void => {
      context.strokeStyle = colour;
      context.lineWidth = line(width);
      context.stroke(path);
    };
    const fill = (path: Path2D, colour: string): void => {
      context.fillStyle = colour;
      context.fill(path);
    };
    context.lineJoin = "round";
    fill(shapes.land, palette.foreign);
    // Hides the hair between two atlases that draw one border a little differently.
    stroke(shapes.land, palette.foreign, 1.5);
    fill(shapes.lakes, palette.water);
    fill(shapes.islands, palette.foreign);
    stroke(shapes.graticule, palette.graticule, 0.75);
    fill(shapes.states, palette.land);
    fill(shapes.innerLakes, palette.water);
    stroke(shapes.borders, palette.border, 0.8);
    stroke(shapes.coast, palette.coast, 1);
  }

  private drawNames(context: CanvasRenderingContext2D, size: Size, camera: Camera, palette: Palette): void {
    const zoom = camera.scale / homeScale(size);
    const taken: [left: number, top: number, right: number, bottom: number][] = [];
    // On a small page the whole country is a small picture: names wait until there is room for them.
    const room = Math.min(1, size.width / 900);
    context.lineJoin = "round";
    context.strokeStyle = palette.labelHalo;
    context.lineWidth = 3;
    context.textBaseline = "middle";
    const put = (place: Place & Point, text: string, colour: string, dot: number): void => {
      const at = toScreen(camera, size, place);
      if (at.x < -80 || at.y < -20 || at.x > size.width + 80 || at.y > size.height + 20) return;
      const width = context.measureText(text).width;
      const box: [number, number, number, number] = [at.x - 4, at.y - 8, at.x + width + 10, at.y + 8];
      if (taken.some((t) => box[0] < t[2] && box[2] > t[0] && box[1] < t[3] && box[3] > t[1])) return;
      taken.push(box);
      context.fillStyle = colour;
      context.beginPath();
      context.arc(at.x, at.y, dot, 0, 2 * Math.PI);
      context.fill();
      context.strokeText(text, at.x + 6, at.y + 0.5);
      context.fillText(text, at.x + 6, at.y + 0.5);
    };
    context.font = `500 11px ${palette.font}`;
    for (const place of this.cities) {
      if (zoom * room >= place.from) put(place, place.name, palette.label, 1.5);
    }
    context.font = `600 10px ${palette.font}`;
    for (const place of this.airports) {
      if (zoom * room >= place.from) put(place, place.name, palette.airport, 2);
    }
  }
}
