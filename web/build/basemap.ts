// Build step: turns the atlases into the few polylines the map draws, as the module `virtual:basemap`.
//
// Doing it here keeps the topology reader and four megabytes of the world out of the page. Coordinates are
// integers of 1/1000 degree, delta-coded, which is finer than one pixel until the map is zoomed 60 times.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { feature, mesh } from "topojson-client";
import type { GeometryCollection, Topology } from "topojson-specification";
import type { Plugin } from "vite";

type Point = [number, number];
type Atlas = Topology<{ states: GeometryCollection<{ name: string }>; countries: GeometryCollection<{ name: string }> }>;

const MODULE = "virtual:basemap";
/** Degrees of longitude and latitude outside which nothing is kept. */
const WINDOW = { west: -142, east: -48, south: 8, north: 61 };
const NEIGHBOURS = new Set(["Canada", "Mexico", "Cuba", "Bahamas", "Haiti", "Dominican Rep.", "Jamaica", "Guatemala", "Belize"]);
/** FIPS codes that are not part of the lower 48: Alaska, Hawaii and the islands. */
const OUTLYING = new Set(["02", "15", "60", "66", "69", "72", "78"]);

function load(name: string): Atlas {
  const path = createRequire(import.meta.url).resolve(name);
  return JSON.parse(readFileSync(path, "utf8")) as Atlas;
}

function inWindow([lon, lat]: Point): boolean {
  return lon >= WINDOW.west && lon <= WINDOW.east && lat >= WINDOW.south && lat <= WINDOW.north;
}

/** Pushes points beyond the window onto its edge, so that a cropped country stays a closed shape. */
function clampToWindow([lon, lat]: Point): Point {
  return [
    Math.min(Math.max(lon, WINDOW.west), WINDOW.east),
    Math.min(Math.max(lat, WINDOW.south), WINDOW.north),
  ];
}

/** Drops points nearer than `step` degrees to the last one kept; first and last stay. */
function thin(line: Point[], step: number): Point[] {
  const kept: Point[] = [];
  line.forEach((point, index) => {
    const last = kept.at(-1);
    const far = last === undefined || Math.hypot(point[0] - last[0], point[1] - last[1]) >= step;
    if (far || index === line.length - 1) kept.push(point);
  });
  return kept;
}

function encode(line: Point[]): number[] {
  const out: number[] = [];
  let lon = 0;
  let lat = 0;
  for (const point of line) {
    const nextLon = Math.round(point[0] * 1000);
    const nextLat = Math.round(point[1] * 1000);
    out.push(nextLon - lon, nextLat - lat);
    lon = nextLon;
    lat = nextLat;
  }
  return out;
}

function rings(geometry: GeoJSON.Geometry): Point[][] {
  if (geometry.type === "Polygon") return geometry.coordinates as Point[][];
  if (geometry.type === "MultiPolygon") return geometry.coordinates.flat() as Point[][];
  return [];
}

function build(): { land: number[][]; states: number[][]; borders: number[][]; coast: number[][] } {
  const us = load("us-atlas/states-10m.json");
  const world = load("world-atlas/countries-10m.json");
  const lower48: GeometryCollection<{ name: string }> = {
    type: "GeometryCollection",
    geometries: us.objects.states.geometries.filter((g) => !OUTLYING.has(String(g.id))),
  };
  const states = feature(us, lower48).features.flatMap((f) => rings(f.geometry));
  const borders = mesh(us, lower48, (a, b) => a !== b).coordinates as Point[][];
  const coast = mesh(us, lower48, (a, b) => a === b).coordinates as Point[][];
  const land = feature(world, world.objects.countries)
    .features.filter((f) => NEIGHBOURS.has(f.properties.name))
    .flatMap((f) => rings(f.geometry))
    .filter((ring) => ring.some(inWindow))
    .map((ring) => thin(ring.map(clampToWindow), 0.025))
    .filter((ring) => ring.length > 8);
  return {
    land: land.map(encode),
    states: states.map((ring) => encode(ring)),
    borders: borders.map((line) => encode(line)),
    coast: coast.map((line) => encode(line)),
  };
}

export function basemap(): Plugin {
  const resolved = `\0${MODULE}`;
  return {
    name: "tidemill-basemap",
    resolveId: (id) => (id === MODULE ? resolved : undefined),
    load: (id) => (id === resolved ? `export default JSON.parse(${JSON.stringify(JSON.stringify(build()))});` : undefined),
  };
}
