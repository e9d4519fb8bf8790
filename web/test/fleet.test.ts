import { describe, expect, it } from "vitest";
import { advance, Aircraft, STALE_MS } from "../src/fleet/aircraft.ts";
import { DelayClock } from "../src/fleet/clock.ts";
import { describeFeed, QUIET_MS } from "../src/fleet/feed.ts";
import { Fleet, FLEET_MAX } from "../src/fleet/fleet.ts";
import { distanceKm, Pace } from "../src/fleet/pace.ts";
import type { Position } from "../src/fleet/position.ts";
import { Trail, TRAIL_POINTS } from "../src/fleet/trail.ts";
import { EARTH_RADIUS_KM, project } from "../src/map/projection.ts";
import { search } from "../src/panels/aircraftPanel.ts";

const NOW = 1_000_000;

function position(change: Partial<Position> = {}): Position {
  return {
    id: "a1", callsign: "UAL12", kind: "airliner", lat: 40, lon: -100, altitude: 35000, heading: 90, speed: 480,
    verticalRate: 0, squawk: "1200", reportedAt: NOW, ...change,
  };
}

/** The position a report would give after flying straight for `seconds`. */
function later(from: Position, seconds: number): Position {
  const km = from.speed * (1.852 / 3600) * seconds;
  return { ...from, ...advance(from.lat, from.lon, from.heading, km), reportedAt: (from.reportedAt ?? 0) + seconds * 1000 };
}

const apart = (a: { x: number; y: number }, b: { x: number; y: number }): number => Math.hypot(a.x - b.x, a.y - b.y) * EARTH_RADIUS_KM;

describe("dead reckoning", () => {
  it("flies at the reported speed along the reported heading", () => {
    for (const heading of [0, 45, 90, 200, 315]) {
      const start = position({ heading });
      const aircraft = new Aircraft(start, 0, NOW);
      const truth = later(start, 30);
      expect(distanceKm(start, truth)).toBeCloseTo(480 * 1.852 / 120, 1);
      expect(apart(aircraft.at(NOW + 30_000, 1), project(truth.lat, truth.lon))).toBeLessThan(0.1);
    }
  });

  it("counts the age of a report as time already flown", () => {
    const old = new Aircraft(position(), 10_000, NOW);
    const truth = later(position(), 10);
    expect(apart(old.at(NOW, 1), project(truth.lat, truth.lon))).toBeLessThan(0.05);
  });

  it("does not jump when a report disagrees, and then glides onto it", () => {
    const aircraft = new Aircraft(position(), 0, NOW);
    const report = position({ lat: 40.05, reportedAt: NOW + 1000 });
    const before = aircraft.at(NOW + 1000, 1);
    aircraft.update(report, 0, NOW + 1000, 1);
    expect(apart(aircraft.at(NOW + 1000, 1), before)).toBeLessThan(1e-6);
    const truth = later(report, 3);
    expect(apart(aircraft.at(NOW + 4000, 1), project(truth.lat, truth.lon))).toBeLessThan(0.05);
  });

  it("does jump when an aircraft is somewhere else altogether, and starts a new trail", () => {
    const aircraft = new Aircraft(position(), 0, NOW);
    aircraft.update(position({ lat: 30, lon: -90, reportedAt: NOW + 1000 }), 0, NOW + 1000, 1);
    expect(apart(aircraft.at(NOW + 1000, 1), project(30, -90))).toBeLessThan(0.01);
    expect(aircraft.trail.length).toBe(1);
  });

  it("stops when the reports stop", () => {
    const aircraft = new Aircraft(position(), 0, NOW);
    expect(aircraft.isStale(NOW + STALE_MS - 1)).toBe(false);
    expect(aircraft.isStale(NOW + STALE_MS + 1)).toBe(true);
    expect(apart(aircraft.at(NOW + STALE_MS, 1), aircraft.at(NOW + 10 * STALE_MS, 1))).toBeLessThan(1e-9);
  });
});

describe("the clock", () => {
  it("takes the fastest report as fresh, whatever the host's clock says", () => {
    const clock = new DelayClock();
    const skew = 86_400_000;
    expect(clock.age(NOW + skew - 40, NOW)).toBe(0);
    expect(clock.age(NOW + skew - 900, NOW + 100)).toBe(960);
    expect(clock.age(NOW + skew + 200 - 40, NOW + 200)).toBe(0);
  });

  it("forgets a clock that jumped", () => {
    const clock = new DelayClock();
    clock.age(NOW, NOW);
    let age = -1;
    for (let t = 0; t <= 40_000; t += 250) age = clock.age(NOW + t - 3_600_000, NOW + t);
    expect(age).toBe(0);
  });
});

describe("the pace", () => {
  it("is one for aircraft that fly as fast as they say", () => {
    const pace = new Pace();
    let at = position();
    for (let i = 0; i < 100; i++) {
      const next = later(at, 0.5);
      pace.observe(at, next);
      at = next;
    }
    expect(pace.value).toBe(1);
  });

  it("finds a feed that runs twenty times as fast", () => {
    const pace = new Pace();
    let at = position();
    for (let i = 0; i < 100; i++) {
      const next = { ...later(at, 10), reportedAt: (at.reportedAt ?? 0) + 500 };
      pace.observe(at, next);
      at = next;
    }
    expect(pace.value).toBeCloseTo(20, 0);
  });
});

describe("the trail", () => {
  it("keeps the whole way in bounded memory", () => {
    const trail = new Trail();
    for (let i = 0; i <= 100_000; i++) trail.push({ x: i * 0.0001, y: 0 });
    expect(trail.length).toBeLessThanOrEqual(TRAIL_POINTS);
    expect(trail.length).toBeGreaterThan(TRAIL_POINTS / 4);
    expect(trail.x(0)).toBe(0);
    expect(trail.x(trail.length - 1)).toBeGreaterThan(9.8);
    for (let i = 1; i < trail.length; i++) expect(trail.x(i)).toBeGreaterThan(trail.x(i - 1));
  });

  it("ignores a hover", () => {
    const trail = new Trail();
    for (let i = 0; i < 50; i++) trail.push({ x: 0, y: i * 1e-9 });
    expect(trail.length).toBe(1);
  });
});

describe("the fleet", () => {
  it("drops aircraft that a complete snapshot does not name", () => {
    const fleet = new Fleet();
    fleet.applySnapshot({ rows: [position(), position({ id: "b" })], last: true }, NOW);
    fleet.applySnapshot({ rows: [position({ id: "c" })], last: false }, NOW);
    expect(fleet.aircraft.size).toBe(3);
    fleet.applySnapshot({ rows: [position({ id: "b", reportedAt: NOW + 5 })], last: true }, NOW);
    expect([...fleet.aircraft.keys()].sort()).toEqual(["b", "c"]);
  });

  it("forgets half a snapshot when the connection breaks", () => {
    const fleet = new Fleet();
    fleet.applySnapshot({ rows: [position({ id: "half" })], last: false }, NOW);
    fleet.connectionLost();
    fleet.applySnapshot({ rows: [position()], last: true }, NOW);
    expect([...fleet.aircraft.keys()]).toEqual(["a1"]);
  });

  it("applies changes, and takes a repeated report once", () => {
    const fleet = new Fleet();
    fleet.applyChange({ upserts: [position(), position({ id: "b" })], deletes: [] }, NOW);
    fleet.applyChange({ upserts: [position()], deletes: ["b"] }, NOW + 1);
    expect(fleet.aircraft.size).toBe(1);
    expect(fleet.reports).toBe(2);
    expect(fleet.counts()).toMatchObject({ airliner: 1, cargo: 0 });
  });

  it("has a limit, and says how many it left out", () => {
    const fleet = new Fleet();
    const rows = Array.from({ length: FLEET_MAX + 25 }, (_, i) => position({ id: `n${i}` }));
    fleet.applySnapshot({ rows, last: true }, NOW);
    expect(fleet.aircraft.size).toBe(FLEET_MAX);
    expect(fleet.left.size).toBe(25);
  });

  it("is searched by callsign, id and squawk, emergencies first", () => {
    const fleet = new Fleet();
    fleet.applySnapshot({
      rows: [
        position({ id: "a", callsign: "ZZZ9", squawk: "7700" }),
        position({ id: "b", callsign: "ABC1" }),
        position({ id: "c", callsign: "ABC0", kind: "cargo" }),
      ],
      last: true,
    }, NOW);
    const names = (query: string, hidden: ("cargo" | "airliner")[] = []): string[] =>
      search(fleet.aircraft.values(), query, new Set(hidden)).map((a) => a.report.callsign);
    expect(names("")).toEqual(["ZZZ9", "ABC0", "ABC1"]);
    expect(names(" abc")).toEqual(["ABC0", "ABC1"]);
    expect(names("7700")).toEqual(["ZZZ9"]);
    expect(names("b")).toEqual(["ABC0", "ABC1"]);
    expect(names("", ["airliner"])).toEqual(["ZZZ9", "ABC0"]);
  });
});

describe("what the page says of its connection", () => {
  const error = { status: 0, code: "unreachable", message: "the host does not answer", hint: "" };

  it("is live only while reports arrive", () => {
    const live = { name: "live", since: NOW } as const;
    expect(describeFeed(live, NOW, NOW + QUIET_MS).tone).toBe("live");
    const quiet = describeFeed(live, NOW, NOW + QUIET_MS + 1000);
    expect(quiet.tone).toBe("stale");
    expect(quiet.label).toBe("No reports for 16 s");
    expect(quiet.detail).toMatch(/^stale since \d\d:\d\d:\d\d$/);
  });

  it("counts down to the next try", () => {
    const feed = describeFeed({ name: "waiting", attempt: 2, retryAt: NOW + 2_100, error }, null, NOW);
    expect(feed).toEqual({ tone: "stale", label: "Reconnecting in 3 s", detail: "the host does not answer" });
  });

  it("tells a first connection from a lost one", () => {
    expect(describeFeed({ name: "connecting", attempt: 0 }, null, NOW).tone).toBe("wait");
    expect(describeFeed({ name: "connecting", attempt: 3 }, NOW, NOW).label).toBe("Reconnecting");
    expect(describeFeed({ name: "refused", error }, null, NOW).tone).toBe("stale");
  });
});
