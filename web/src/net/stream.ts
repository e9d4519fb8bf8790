// A server-sent event stream that reconnects, resumes and never outruns the page.
//
// It reads the response body itself instead of using EventSource, for three reasons: a read happens only when
// the page has finished with the last one, so a slow page leaves data in the socket, where the server's own
// cursor waits for it; an HTTP error arrives with its status and message; and a resume after any failure
// carries Last-Event-ID. Memory is bounded by one chunk plus one event (`MAX_EVENT_CHARS`).
import { ApiFailure, apiError, errorOf, type ApiError } from "./api.ts";
import { SseParser, type SseEvent } from "./sse.ts";

export type StreamState =
  | { name: "idle" }
  | { name: "connecting"; attempt: number }
  | { name: "live"; since: number }
  | { name: "waiting"; attempt: number; retryAt: number; error: ApiError }
  | { name: "refused"; error: ApiError };

export interface StreamOptions {
  url: string;
  onEvents: (events: SseEvent[], state: { resumed: boolean }) => void;
  onState: (state: StreamState) => void;
}

const MAX_EVENT_CHARS = 8 * 1024 * 1024;
/** The server beats every 10 s; after two missed beats the connection counts as dead. */
const SILENCE_MS = 25_000;
const BACKOFF_MS = [500, 1_000, 2_000, 4_000, 8_000, 15_000] as const;
/** A missing topic or table may appear later, so even a refusal is asked again now and then. */
const REFUSED_RETRY_MS = 10_000;

/** The wait before attempt `attempt` (1, 2, …), spread by `random` in 0..1 so that pages do not return in step. */
export function backoffMs(attempt: number, random: number): number {
  const base = BACKOFF_MS[Math.min(attempt, BACKOFF_MS.length) - 1] ?? BACKOFF_MS[0];
  return Math.round(base * (0.75 + random * 0.5));
}

export class Stream {
  private abort: AbortController | null = null;
  private timer: number | undefined;
  private lastEventId = "";
  private attempt = 0;
  private current: StreamState = { name: "idle" };

  constructor(private readonly options: StreamOptions) {}

  get state(): StreamState {
    return this.current;
  }

  start(): void {
    if (this.current.name === "idle") void this.connect();
  }

  /** Closes the connection and keeps the position, so that `start` goes on where it was. */
  stop(): void {
    window.clearTimeout(this.timer);
    this.abort?.abort();
    this.abort = null;
    this.attempt = 0;
    this.set({ name: "idle" });
  }

  /** Reconnects at once, for example because the browser came back online. */
  retryNow(): void {
    if (this.current.name !== "waiting" && this.current.name !== "refused") return;
    window.clearTimeout(this.timer);
    void this.connect();
  }

  private set(state: StreamState): void {
    this.current = state;
    this.options.onState(state);
  }

  private async connect(): Promise<void> {
    const abort = new AbortController();
    this.abort = abort;
    this.set({ name: "connecting", attempt: this.attempt });
    let error: ApiError;
    try {
      await this.read(abort);
      error = { status: 0, code: "closed", message: "the server closed the stream", hint: "" };
    } catch (caught) {
      error = apiError(caught);
    }
    // Another connection, or none, was asked for meanwhile.
    if (this.abort !== abort) return;
    abort.abort();
    this.again(error);
  }

  private again(error: ApiError): void {
    const refused = error.status >= 400 && error.status < 500 && error.status !== 429;
    this.attempt += 1;
    const wait = refused ? REFUSED_RETRY_MS : backoffMs(this.attempt, Math.random());
    if (refused) this.lastEventId = "";
    this.set(refused ? { name: "refused", error } : { name: "waiting", attempt: this.attempt, retryAt: Date.now() + wait, error });
    this.timer = window.setTimeout(() => void this.connect(), wait);
  }

  private async read(abort: AbortController): Promise<void> {
    const resumed = this.lastEventId !== "";
    const headers = new Headers({ accept: "text/event-stream" });
    if (resumed) headers.set("last-event-id", this.lastEventId);
    let silence = window.setTimeout(() => { abort.abort(new Error("the stream fell silent")); }, SILENCE_MS);
    try {
      const response = await fetch(this.options.url, { headers, cache: "no-store", signal: abort.signal });
      if (!response.ok) throw new ApiFailure(await errorOf(response));
      if (!response.body) return;
      this.attempt = 0;
      this.set({ name: "live", since: Date.now() });
      const parser = new SseParser(MAX_EVENT_CHARS, this.lastEventId);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        window.clearTimeout(silence);
        silence = window.setTimeout(() => { abort.abort(new Error("the stream fell silent")); }, SILENCE_MS);
        const events = parser.push(value);
        if (events.length > 0) this.options.onEvents(events, { resumed });
        this.lastEventId = parser.lastEventId;
      }
    } finally {
      window.clearTimeout(silence);
    }
  }
}
