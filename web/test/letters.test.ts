import { describe, expect, it } from "vitest";
import { hex } from "../src/net/content.ts";
import { parsePage, parseWhole } from "../src/net/letters.ts";
import { parseStatus } from "../src/net/status.ts";
import { href, parseRoute } from "../src/router.ts";

const letter = {
  id: 17, state: "dead", group: "watch", pipeline: "p", stage: "s", digest: "sha256:1a2b", topic: "t", kind: "trap",
  error: "out of fuel", attempts: 5, failed_at: "2026-01-01T00:00:00.000000Z", bytes: 3,
};

describe("dead letters", () => {
  it("are read with the place of their message", () => {
    const { letters, next } = parsePage({ dead_letters: [{ ...letter, partition: 2, offset: 18250 }], next: 17 });
    expect(next).toBe(17);
    expect(letters[0]).toMatchObject({ id: 17, stage: "p/s", partition: 2, offset: 18250, kind: "trap", attempts: 5 });
    expect(parsePage(null)).toEqual({ letters: [], next: null });
  });

  it("show what is text as it is, and bytes in hex", () => {
    const markup = "<img src=x onerror=alert(1)>";
    const text = parseWhole({ ...letter, record: { partition: 0, offset: 1, key: "a1", text: markup, headers: [["h", "v"], ["b", { base64: "/wA=" }]] } });
    expect(text.payload).toEqual({ text: markup, binary: false });
    expect(text.key).toEqual({ text: "a1", binary: false });
    expect(text.headers).toEqual([{ name: "h", value: { text: "v", binary: false } }, { name: "b", value: { text: "ff 00", binary: true } }]);
    const binary = parseWhole({ ...letter, record: { partition: 0, offset: 1, key: null, base64: "/wBh", headers: [] } });
    expect(binary.payload).toEqual({ text: "ff 00 61", binary: true });
    expect(binary.key).toBeNull();
  });

  it("survive base64 that is none", () => {
    expect(hex("?")).toBe("?");
    expect(hex("")).toBe("");
    expect(hex(btoa("0123456789abcdefg")).split("\n")).toHaveLength(2);
  });

  it("are counted in the status", () => {
    expect(parseStatus({ dead_letters: [{ group: "watch", letters: 3, queued: 1 }] }).deadLetters).toEqual([{ group: "watch", letters: 3, queued: 1 }]);
    expect(parseStatus({}).deadLetters).toEqual([]);
  });

  it("have a route for each group", () => {
    expect(parseRoute("#/letters")).toEqual({ page: "letters", group: null });
    expect(parseRoute(href({ page: "letters", group: "a/b" }))).toEqual({ page: "letters", group: "a/b" });
  });
});
