// The stream client against a real HTTP server.
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import type { SseEvent } from "../src/net/sse.ts";
import { Stream, type StreamState } from "../src/net/stream.ts";

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

let server: Server | null = null;
let stream: Stream | null = null;

/** Serves the answers in turn, the last one again and again, and returns the address. */
async function serve(...answers: Answer[]): Promise<string> {
  let turn = 0;
  const started = createServer((request, response) => {
    answers[Math.min(turn, answers.length - 1)]?.(request, response);
    turn += 1;
  });
  server = started;
  await new Promise<void>((resolve) => started.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${(started.address() as AddressInfo).port}/stream`;
}

interface Seen {
  events: SseEvent[];
  resumed: boolean[];
  states: StreamState[];
}

function follow(url: string): Seen {
  const seen: Seen = { events: [], resumed: [], states: [] };
  stream = new Stream({
    url,
    onEvents: (events, { resumed }) => {
      seen.events.push(...events);
      seen.resumed.push(resumed);
    },
    onState: (state) => seen.states.push(state),
  });
  stream.start();
  return seen;
}

const sse: Answer = (_, response) => response.writeHead(200, { "content-type": "text/event-stream" });
const names = (seen: Seen): string[] => seen.states.map((state) => state.name);

beforeAll(() => {
  vi.stubGlobal("window", globalThis);
});

afterEach(() => {
  stream?.stop();
  server?.closeAllConnections();
  server?.close();
});

describe("a stream", () => {
  it("comes back after a break with the position it had", async () => {
    const positions: (string | undefined)[] = [];
    const url = await serve(
      (request, response) => {
        positions.push(request.headers["last-event-id"] as string | undefined);
        sse(request, response);
        response.write("event: change\nid: 0:7,1:3\ndata: one\n\ndata: never finished");
        setTimeout(() => response.destroy(), 30);
      },
      (request, response) => {
        positions.push(request.headers["last-event-id"] as string | undefined);
        sse(request, response);
        response.write("data: two\n\n");
      },
    );
    const seen = follow(url);
    await vi.waitFor(() => { expect(seen.events.map((event) => event.data)).toEqual(["one", "two"]); }, 5_000);
    expect(positions).toEqual([undefined, "0:7,1:3"]);
    expect(seen.resumed).toEqual([false, true]);
    expect(names(seen)).toEqual(["connecting", "live", "waiting", "connecting", "live"]);
  });

  it("tells a refusal with the host's own words, and forgets the position", async () => {
    const url = await serve((_, response) => {
      response.writeHead(404, { "content-type": "application/json" });
      response.end(JSON.stringify({ error: { code: "table_not_found", message: "there is no table named x", hint: "" } }));
    });
    const seen = follow(url);
    await vi.waitFor(() => { expect(seen.states.at(-1)?.name).toBe("refused"); }, 5_000);
    expect(seen.states.at(-1)).toMatchObject({ error: { status: 404, code: "table_not_found", message: "there is no table named x" } });
  });

  it("takes a host that is not ready as a reason to wait", async () => {
    const url = await serve(
      (_, response) => {
        response.writeHead(503, { "retry-after": "1" });
        response.end("starting");
      },
      (request, response) => {
        sse(request, response);
        response.write("data: up\n\n");
      },
    );
    const seen = follow(url);
    await vi.waitFor(() => { expect(seen.events.map((event) => event.data)).toEqual(["up"]); }, 5_000);
    expect(names(seen)).toEqual(["connecting", "waiting", "connecting", "live"]);
  });

  it("closes its connection when it is stopped, and starts again where it was", async () => {
    const closed: string[] = [];
    const positions: unknown[] = [];
    const url = await serve((request, response) => {
      positions.push(request.headers["last-event-id"]);
      sse(request, response);
      response.write("id: 0:1\ndata: x\n\n");
      response.on("close", () => closed.push("closed"));
    });
    const seen = follow(url);
    await vi.waitFor(() => { expect(seen.events).toHaveLength(1); }, 5_000);
    stream?.stop();
    await vi.waitFor(() => { expect(closed).toHaveLength(1); }, 5_000);
    expect(stream?.state.name).toBe("idle");
    stream?.start();
    await vi.waitFor(() => { expect(seen.events).toHaveLength(2); }, 5_000);
    expect(positions).toEqual([undefined, "0:1"]);
  });

  it("gives up an event that never ends instead of keeping it all", async () => {
    const url = await serve((request, response) => {
      sse(request, response);
      const chunk = `data: ${"x".repeat(256 * 1024)}\n`;
      for (let i = 0; i < 40; i++) response.write(chunk);
    });
    const seen = follow(url);
    await vi.waitFor(() => { expect(names(seen)).toContain("waiting"); }, 5_000);
    expect(seen.states.find((state) => state.name === "waiting")).toMatchObject({ error: { message: expect.stringContaining("more than") as string } });
  });
});
