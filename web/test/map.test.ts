import { describe, expect, it } from "vitest";
import { between, clampCamera, home, HOME_BOX, homeScale, toScreen, toWorld, ZOOM_MAX, zoomAt } from "../src/map/camera.ts";
import { outline } from "../src/map/marks.ts";
import { markSize } from "../src/map/painter.ts";
import { project, screenAngle, unproject } from "../src/map/projection.ts";
import { ALL_KINDS } from "../src/fleet/position.ts";

const SIZE = { width: 900, height: 600 };

describe("the projection", () => {
  it("agrees with the worked example of Snyder (1987)", () => {
    // Snyder: 35 N 75 W with parallels 29.5 and 45.5 and origin 23 N 96 W on a unit sphere gives x = 0.2952720,
    // y = 0.2416774. Ours measures y downwards from 37.5 N, so the origin's own y is taken away.
    const point = project(35, -75);
    const origin = project(23, -96);
    expect(point.x).toBeCloseTo(0.295272, 6);
    expect(origin.y - point.y).toBeCloseTo(0.2416774, 6);
  });

  it("is undone by its inverse", () => {
    for (const [lat, lon] of [[25, -125], [49, -67], [37.5, -96], [60, -50], [10, -140]] as const) {
      const back = unproject(project(lat, lon));
      expect(back.lat).toBeCloseTo(lat, 9);
      expect(back.lon).toBeCloseTo(lon, 9);
    }
  });

  it("turns marks along the meridians", () => {
    for (const [lat, lon] of [[40, -120], [35, -96], [45, -70]] as const) {
      const here = project(lat, lon);
      const north = project(lat + 0.01, lon);
      const angle = Math.atan2(north.x - here.x, here.y - north.y);
      expect(screenAngle(0, lon)).toBeCloseTo(angle, 5);
    }
    expect(screenAngle(90, -96)).toBeCloseTo(Math.PI / 2);
  });
});

describe("the camera", () => {
  it("shows the whole country at home", () => {
    const camera = home(SIZE);
    for (const corner of [{ x: HOME_BOX.left, y: HOME_BOX.top }, { x: HOME_BOX.right, y: HOME_BOX.bottom }]) {
      const { x, y } = toScreen(camera, SIZE, corner);
      expect(x).toBeGreaterThanOrEqual(0);
      expect(x).toBeLessThanOrEqual(SIZE.width);
      expect(y).toBeGreaterThanOrEqual(0);
      expect(y).toBeLessThanOrEqual(SIZE.height);
    }
  });

  it("zooms around the pointer", () => {
    const at = { x: 520, y: 210 };
    const before = home(SIZE);
    const under = toWorld(before, SIZE, at);
    const after = zoomAt(before, SIZE, 3, at);
    expect(after.scale).toBeCloseTo(before.scale * 3);
    const now = toScreen(after, SIZE, under);
    expect(now.x).toBeCloseTo(at.x, 6);
    expect(now.y).toBeCloseTo(at.y, 6);
  });

  it("stays within its limits", () => {
    const far = clampCamera({ x: 9, y: -9, scale: 1e9 }, SIZE);
    expect(far).toEqual({ x: HOME_BOX.right, y: HOME_BOX.top, scale: homeScale(SIZE) * ZOOM_MAX });
    expect(clampCamera({ x: 0, y: 0, scale: 0 }, SIZE).scale).toBeGreaterThan(0);
  });

  it("flies from one view to another and arrives", () => {
    const from = home(SIZE);
    const to = { x: 0.1, y: -0.05, scale: from.scale * 8 };
    expect(between(from, to, 0)).toEqual(from);
    const end = between(from, to, 1);
    expect(end.x).toBeCloseTo(to.x, 9);
    expect(end.scale).toBeCloseTo(to.scale, 6);
    const level = between(from, { ...to, scale: from.scale }, 0.5);
    expect(level.x).toBeCloseTo((from.x + to.x) / 2, 9);
  });
});

describe("marks", () => {
  it("are symmetric, within their box, and point up", () => {
    for (const kind of ALL_KINDS) {
      const points = outline(kind);
      const keys = new Set(points.map(([x, y]) => `${x},${y}`));
      for (const [x, y] of points) {
        expect(Math.hypot(x, y)).toBeLessThanOrEqual(11.5);
        expect(keys.has(`${x === 0 ? 0 : -x},${y}`)).toBe(true);
      }
      expect(points[0]?.[1]).toBeLessThan(0);
    }
  });

  it("grow with the zoom and shrink in a crowd and on a phone", () => {
    expect(markSize(8, 500, 900)).toBeGreaterThan(markSize(1, 500, 900));
    expect(markSize(1, 5000, 900)).toBeLessThan(markSize(1, 500, 900));
    expect(markSize(1, 500, 360)).toBeLessThan(markSize(1, 500, 900));
  });
});
