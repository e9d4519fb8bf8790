// Albers' equal-area conic projection with the parallels customary for the lower 48 states.
//
// World units are earth radii, x to the east and y to the south of 37.5 N 96 W, so that a camera only has
// to scale and shift. Formulas: Snyder, "Map Projections: A Working Manual", USGS 1987, chapter 14.

export interface Point {
  x: number;
  y: number;
}

const RAD = Math.PI / 180;
const PARALLEL_SOUTH = 29.5 * RAD;
const PARALLEL_NORTH = 45.5 * RAD;
const ORIGIN_LAT = 37.5 * RAD;
const ORIGIN_LON = -96 * RAD;

const N = (Math.sin(PARALLEL_SOUTH) + Math.sin(PARALLEL_NORTH)) / 2;
const C = Math.cos(PARALLEL_SOUTH) ** 2 + 2 * N * Math.sin(PARALLEL_SOUTH);
const RHO_ORIGIN = Math.sqrt(C - 2 * N * Math.sin(ORIGIN_LAT)) / N;

export const EARTH_RADIUS_KM = 6371.0088;

export function project(lat: number, lon: number): Point {
  const rho = Math.sqrt(Math.max(0, C - 2 * N * Math.sin(lat * RAD))) / N;
  const theta = N * (lon * RAD - ORIGIN_LON);
  return { x: rho * Math.sin(theta), y: rho * Math.cos(theta) - RHO_ORIGIN };
}

export function unproject({ x, y }: Point): { lat: number; lon: number } {
  const down = RHO_ORIGIN + y;
  const rho = Math.hypot(x, down);
  const sine = (C - rho * rho * N * N) / (2 * N);
  return {
    lat: Math.asin(Math.min(1, Math.max(-1, sine))) / RAD,
    lon: (Math.atan2(x, down) / N + ORIGIN_LON) / RAD,
  };
}

/** The angle on the page, clockwise from up in radians, of a compass heading in degrees at a longitude. */
export function screenAngle(heading: number, lon: number): number {
  return heading * RAD - N * (lon * RAD - ORIGIN_LON);
}
