// The camera: which part of the projected world is on the page, as a value that is replaced, never changed.
import { project, type Point } from "./projection.ts";

/** Centre in world units, scale in CSS pixels per world unit. */
export interface Camera {
  x: number;
  y: number;
  scale: number;
}

export interface Size {
  width: number;
  height: number;
}

export const ZOOM_MAX = 400;
const ZOOM_MIN = 0.6;

/** Corners and bulges of the lower 48, enough to find the box that holds them. */
const OUTLINE: readonly [lat: number, lon: number][] = [
  [48.4, -124.7],
  [40.4, -124.4],
  [32.5, -117.1],
  [25.8, -97.4],
  [25.1, -80.9],
  [44.8, -66.95],
  [47.4, -68.3],
  [49.4, -95.1],
];

export const HOME_BOX = (() => {
  const points = OUTLINE.map(([lat, lon]) => project(lat, lon));
  const xs = points.map((p) => p.x);
  const ys = points.map((p) => p.y);
  return { left: Math.min(...xs), right: Math.max(...xs), top: Math.min(...ys), bottom: Math.max(...ys) };
})();

/** The scale at which the lower 48 just fit into `size`. */
export function homeScale(size: Size): number {
  const margin = Math.min(size.width, size.height) * 0.045 + 6;
  return Math.max(
    1,
    Math.min(
      (size.width - 2 * margin) / (HOME_BOX.right - HOME_BOX.left),
      (size.height - 2 * margin) / (HOME_BOX.bottom - HOME_BOX.top),
    ),
  );
}

export function home(size: Size): Camera {
  return {
    x: (HOME_BOX.left + HOME_BOX.right) / 2,
    y: (HOME_BOX.top + HOME_BOX.bottom) / 2,
    scale: homeScale(size),
  };
}

export function toScreen(camera: Camera, size: Size, world: Point): Point {
  return {
    x: (world.x - camera.x) * camera.scale + size.width / 2,
    y: (world.y - camera.y) * camera.scale + size.height / 2,
  };
}

export function toWorld(camera: Camera, size: Size, screen: Point): Point {
  return {
    x: (screen.x - size.width / 2) / camera.scale + camera.x,
    y: (screen.y - size.height / 2) / camera.scale + camera.y,
  };
}

/** Keeps the zoom within its range and the centre over the country. */
export function clampCamera(camera: Camera, size: Size): Camera {
  const base = homeScale(size);
  return {
    x: Math.min(HOME_BOX.right, Math.max(HOME_BOX.left, camera.x)),
    y: Math.min(HOME_BOX.bottom, Math.max(HOME_BOX.top, camera.y)),
    scale: Math.min(base * ZOOM_MAX, Math.max(base * ZOOM_MIN, camera.scale)),
  };
}

export function pan(camera: Camera, size: Size, dx: number, dy: number): Camera {
  return clampCamera({ ...camera, x: camera.x - dx / camera.scale, y: camera.y - dy / camera.scale }, size);
}

/** Zooms by `factor` so that what is under `at` stays under it. */
export function zoomAt(camera: Camera, size: Size, factor: number, at: Point): Camera {
  const fixed = toWorld(camera, size, at);
  const { scale } = clampCamera({ ...camera, scale: camera.scale * factor }, size);
  return clampCamera(
    {
      x: fixed.x - (at.x - size.width / 2) / scale,
      y: fixed.y - (at.y - size.height / 2) / scale,
      scale,
    },
    size,
  );
}

/** A camera on the way from `from` to `to`, `t` in 0..=1; zoom is even to the eye, so it runs on a log scale. */
export function between(from: Camera, to: Camera, t: number): Camera {
  const ease = t < 0.5 ? 4 * t ** 3 : 1 - (-2 * t + 2) ** 3 / 2;
  const scale = from.scale * (to.scale / from.scale) ** ease;
  // The centre follows the change in extent, which keeps the target steady on the page while zooming.
  const moved =
    Math.abs(to.scale - from.scale) < 1e-6 * from.scale
      ? ease
      : (1 / from.scale - 1 / scale) / (1 / from.scale - 1 / to.scale);
  return { x: from.x + (to.x - from.x) * moved, y: from.y + (to.y - from.y) * moved, scale };
}
