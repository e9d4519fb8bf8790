import { describe, expect, it } from "vitest";
import { SseParser, SseTooLong } from "../src/net/sse.ts";

const LIMIT = 1_000;

/** Feeds `text` in pieces of `size` characters and collects the events. */
function parse(text: string, size = text.length): ReturnType<SseParser["push"]> {
  const parser = new SseParser(LIMIT);
  const events = [];
  for (let i = 0; i < text.length; i += size) events.push(...parser.push(text.slice(i, i + size)));
  return events;
}

describe("the event stream parser", () => {
  const stream = "event: snapshot\nid: 0:1,1:2\ndata: {\"a\":\ndata: 1}\n\n: comment\r\nevent:change\r\ndata:x\r\n\r\ndata: tail\r\rdata: end\n\n";
  const expected = [
    { type: "snapshot", data: "{\"a\":\n1}", lastEventId: "0:1,1:2" },
    { type: "change", data: "x", lastEventId: "0:1,1:2" },
    { type: "message", data: "tail", lastEventId: "0:1,1:2" },
    { type: "message", data: "end", lastEventId: "0:1,1:2" },
  ];

  it("reads every line ending, however the text is cut", () => {
    for (let size = 1; size <= stream.length; size++) expect(parse(stream, size)).toEqual(expected);
  });

  it("keeps an event back until its blank line arrives", () => {
    const parser = new SseParser(LIMIT);
    expect(parser.push("data: half")).toEqual([]);
    expect(parser.push("\n")).toEqual([]);
    expect(parser.push("\n")).toEqual([{ type: "message", data: "half", lastEventId: "" }]);
  });

  it("drops events without data but remembers their position", () => {
    const parser = new SseParser(LIMIT);
    expect(parser.push("event: heartbeat\nid: 7\n\n")).toEqual([]);
    expect(parser.lastEventId).toBe("7");
  });

  it("starts from the position it is given", () => {
    const parser = new SseParser(LIMIT, "0:5");
    expect(parser.push("data: x\n\n")[0]?.lastEventId).toBe("0:5");
  });

  it("refuses to grow beyond its limit, in one line or in many", () => {
    expect(() => new SseParser(LIMIT).push(`data: ${"x".repeat(LIMIT)}`)).toThrow(SseTooLong);
    const parser = new SseParser(LIMIT);
    expect(() => {
      for (let i = 0; i < LIMIT; i++) parser.push("data: many lines\n");
    }).toThrow(SseTooLong);
  });

  it("ignores an id with a null character, as the standard says", () => {
    const parser = new SseParser(LIMIT);
    parser.push("id: good\ndata: 1\n\nid: b\0d\ndata: 2\n\n");
    expect(parser.lastEventId).toBe("good");
  });
});
