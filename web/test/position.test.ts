import { describe, expect, it } from "vitest";
import { emergencyOf, parseChange, parsePosition, parseSnapshot } from "../src/fleet/position.ts";

const ROW = {
  id: "a1", callsign: "UAL12", kind: "airliner", lat: 40.5, lon: -100.25, altitude: 35000, heading: 90,
  speed: 450, vertical_rate: -64, squawk: "1200", reported_at: "2026-01-01T00:00:00.250000Z",
};

describe("a row of current_positions", () => {
  it("is read with its units", () => {
    expect(parsePosition(ROW)).toEqual({
      id: "a1", callsign: "UAL12", kind: "airliner", lat: 40.5, lon: -100.25, altitude: 35000, heading: 90,
      speed: 450, verticalRate: -64, squawk: "1200", reportedAt: Date.UTC(2026, 0, 1, 0, 0, 0, 250),
    });
  });

  it("may carry numbers as text, as SQL numerics do", () => {
    expect(parsePosition({ ...ROW, lat: "40.50000", lon: "-100.25" })).toMatchObject({ lat: 40.5, lon: -100.25 });
  });

  it("is dropped when it names no aircraft or no place on earth", () => {
    for (const broken of [{ id: "" }, { id: 7 }, { lat: null }, { lat: 91 }, { lon: -181 }, { lat: "north" }, { lat: Infinity }]) {
      expect(parsePosition({ ...ROW, ...broken })).toBeNull();
    }
    for (const value of [null, 3, "row", [], undefined]) expect(parsePosition(value)).toBeNull();
  });

  it("makes do without the rest", () => {
    expect(parsePosition({ id: "x", lat: 1, lon: 2, kind: "balloon", speed: -5 })).toEqual({
      id: "x", callsign: "x", kind: "other", lat: 1, lon: 2, altitude: null, heading: 0, speed: 0,
      verticalRate: null, squawk: null, reportedAt: null,
    });
  });
});

describe("table events", () => {
  it("give the good rows and skip the bad", () => {
    const snapshot = parseSnapshot(JSON.stringify({ rows: [ROW, null, { id: "b" }], last: false }));
    expect(snapshot.rows.map((row) => row.id)).toEqual(["a1"]);
    expect(snapshot.last).toBe(false);
    const change = parseChange(JSON.stringify({ upserts: [ROW], deletes: [{ id: "z" }, {}, 4] }));
    expect(change.upserts).toHaveLength(1);
    expect(change.deletes).toEqual(["z"]);
  });

  it("survive nonsense", () => {
    for (const data of ["", "{", "null", "[]", "{\"rows\":7}", "{\"upserts\":{},\"deletes\":\"x\"}"]) {
      expect(parseSnapshot(data).rows).toEqual([]);
      expect(parseChange(data)).toEqual({ upserts: [], deletes: [] });
    }
  });
});

describe("squawks", () => {
  it("name the three emergencies and nothing else", () => {
    expect(["7500", "7600", "7700"].map(emergencyOf)).toEqual(["unlawful interference", "radio failure", "general emergency"]);
    expect(emergencyOf("1200")).toBeNull();
    expect(emergencyOf("constructor")).toBeNull();
    expect(emergencyOf(null)).toBeNull();
  });
});
