import { describe, expect, it } from "vitest";
import { alertTitle, INCIDENT_GAP_MS, Incidents, INCIDENTS_MAX, parseAlert, type Alert } from "../src/alerts/incidents.ts";

const NOW = 1_700_000_000_000;
let offset = 0;

function alert(change: Partial<Alert> = {}): Alert {
  offset += 1;
  return {
    id: "a1", callsign: "UAL12", kind: "airliner", alert: "rapid_descent", squawk: "1200", altitude: 12000, verticalRate: -4000,
    lat: 40, lon: -100, message: "down", at: NOW, partition: 0, offset, ...change,
  };
}

describe("incidents", () => {
  it("group alerts of one aircraft and one kind, with count and times", () => {
    const incidents = new Incidents();
    expect(incidents.add(alert())?.isNew).toBe(true);
    expect(incidents.add(alert({ at: NOW + 1000, altitude: 11000 }))?.isNew).toBe(false);
    expect(incidents.add(alert({ alert: "emergency", at: NOW + 500 }))?.isNew).toBe(true);
    expect(incidents.add(alert({ id: "b", at: NOW + 700 }))?.isNew).toBe(true);
    const own = incidents.list(NOW + 1000).find((i) => i.latest.id === "a1" && i.latest.alert === "rapid_descent");
    expect(own).toMatchObject({ count: 2, firstAt: NOW, lastAt: NOW + 1000, latest: { altitude: 11000 } });
    expect(incidents.list(NOW)).toHaveLength(3);
  });

  it("end after a silence; the next alert opens a new one", () => {
    const incidents = new Incidents();
    incidents.add(alert());
    expect(incidents.add(alert({ at: NOW + INCIDENT_GAP_MS + 1 }))?.isNew).toBe(true);
    expect(incidents.list(NOW)[0]?.count).toBe(1);
  });

  it("do not count a record twice when a reconnect repeats it", () => {
    const incidents = new Incidents();
    const first = alert();
    incidents.add(first);
    expect(incidents.add(first)).toBeNull();
    expect(incidents.add({ ...first, partition: 1 })?.isNew).toBe(false);
    expect(incidents.list(NOW)[0]?.count).toBe(2);
  });

  it("keep their order while they count, ongoing emergencies on top", () => {
    const incidents = new Incidents();
    incidents.add(alert({ id: "old", alert: "emergency", at: NOW }));
    incidents.add(alert({ id: "mid", at: NOW + 1 }));
    incidents.add(alert({ id: "new", at: NOW + 2 }));
    incidents.add(alert({ id: "mid", at: NOW + 3 }));
    expect(incidents.list(NOW + 10).map((i) => i.latest.id)).toEqual(["old", "new", "mid"]);
    expect(incidents.list(NOW + 3_600_000).map((i) => i.latest.id)).toEqual(["new", "mid", "old"]);
  });

  it("are bounded: the one that was silent longest makes room", () => {
    const incidents = new Incidents();
    for (let i = 0; i < INCIDENTS_MAX + 10; i++) incidents.add(alert({ id: `n${i}`, at: NOW + i }));
    const kept = incidents.list(NOW);
    expect(kept).toHaveLength(INCIDENTS_MAX);
    expect(kept.some((i) => i.latest.id === "n9")).toBe(false);
    expect(kept.some((i) => i.latest.id === "n10")).toBe(true);
  });
});

describe("an alert record", () => {
  it("is read from the record around it", () => {
    const data = JSON.stringify({
      partition: 2, offset: 9, timestamp: "2026-01-01T00:00:01.000000Z", key: "a1", headers: [],
      value: { id: "a1", callsign: "", kind: "cargo", alert: "emergency", squawk: "7700", altitude: 900, vertical_rate: 0, lat: 1, lon: 2, ts: "2026-01-01T00:00:00Z", message: "<b>help</b>" },
    });
    expect(parseAlert(data)).toMatchObject({
      id: "a1", callsign: "a1", kind: "cargo", partition: 2, offset: 9, at: Date.UTC(2026, 0, 1, 0, 0, 1), message: "<b>help</b>",
    });
  });

  it("is dropped when it is not one", () => {
    for (const data of ["", "7", "{}", "{\"value\":{}}", "{\"text\":\"x\"}"]) expect(parseAlert(data)).toBeNull();
  });

  it("has a title, known or not", () => {
    expect(alertTitle("rapid_descent")).toBe("Rapid descent");
    expect(alertTitle("low_fuel")).toBe("Low fuel");
  });
});
