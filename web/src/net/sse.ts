// Parser of the event stream format (WHATWG HTML, section 9.2.6), fed with text as it arrives.
//
// Bound: an event longer than `maxEventChars` ends the stream with an error instead of filling the memory.

export interface SseEvent {
  type: string;
  data: string;
  /** The position to resume from, as of this event; empty until the server named one. */
  lastEventId: string;
}

export class SseTooLong extends Error {
  constructor(limit: number) {
    super(`the server sent an event of more than ${limit} characters`);
  }
}

export class SseParser {
  private rest = "";
  private type = "";
  private data: string[] = [];
  private dataChars = 0;
  private id: string;
  /** Milliseconds the server asked clients to wait before they reconnect, if it did. */
  retryMs: number | null = null;

  constructor(
    private readonly maxEventChars: number,
    lastEventId = "",
  ) {
    this.id = lastEventId;
  }

  get lastEventId(): string {
    return this.id;
  }

  /** Takes the next text of the stream and returns the events it completes. */
  push(chunk: string): SseEvent[] {
    const text = this.rest + chunk;
    const events: SseEvent[] = [];
    let start = 0;
    for (;;) {
      const end = lineEnd(text, start);
      if (end === null) break;
      this.line(text.slice(start, end.at), events);
      start = end.next;
    }
    this.rest = text.slice(start);
    if (this.rest.length + this.dataChars > this.maxEventChars) throw new SseTooLong(this.maxEventChars);
    return events;
  }

  private line(line: string, events: SseEvent[]): void {
    if (line === "") {
      this.dispatch(events);
      return;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const field = colon < 0 ? line : line.slice(0, colon);
    const raw = colon < 0 ? "" : line.slice(colon + 1);
    const value = raw.startsWith(" ") ? raw.slice(1) : raw;
    if (field === "data") {
      this.data.push(value);
      this.dataChars += value.length + 1;
    } else if (field === "event") {
      this.type = value;
    } else if (field === "id") {
      if (!value.includes("\0")) this.id = value;
    } else if (field === "retry" && /^\d+$/.test(value)) {
      this.retryMs = Number(value);
    }
  }

  private dispatch(events: SseEvent[]): void {
    if (this.data.length > 0) {
      events.push({ type: this.type || "message", data: this.data.join("\n"), lastEventId: this.id });
    }
    this.type = "";
    this.data = [];
    this.dataChars = 0;
  }
}

/** The next line end at or after `from`: LF, CR or CRLF. A CR at the very end may be half a CRLF, so it waits. */
function lineEnd(text: string, from: number): { at: number; next: number } | null {
  const lf = text.indexOf("\n", from);
  const cr = text.indexOf("\r", from);
  if (cr >= 0 && (lf < 0 || cr < lf)) {
    if (cr === text.length - 1) return null;
    return { at: cr, next: text[cr + 1] === "\n" ? cr + 2 : cr + 1 };
  }
  return lf < 0 ? null : { at: lf, next: lf + 1 };
}
