// What the page says about its connection, in one place so that it is said honestly: "live" only while
// reports arrive.
import type { StreamState } from "../net/stream.ts";
import { clock, span } from "../format.ts";

export interface Feed {
  tone: "live" | "wait" | "stale";
  label: string;
  detail: string;
}

/** A feed that was live and said nothing for this long is stale. */
export const QUIET_MS = 15_000;

/** `lastReport` is when the last report arrived, null before the first; both times in epoch milliseconds. */
export function describeFeed(state: StreamState, lastReport: number | null, now: number): Feed {
  const stale = lastReport === null ? "" : `stale since ${clock(lastReport)}`;
  switch (state.name) {
    case "idle":
      return { tone: "wait", label: "Paused", detail: stale };
    case "connecting":
      return state.attempt === 0
        ? { tone: "wait", label: "Connecting", detail: stale }
        : { tone: "stale", label: "Reconnecting", detail: stale };
    case "waiting": {
      const seconds = Math.max(1, Math.ceil((state.retryAt - now) / 1000));
      return { tone: "stale", label: `Reconnecting in ${seconds} s`, detail: stale || state.error.message };
    }
    case "refused":
      return { tone: "stale", label: "No feed", detail: state.error.message };
    case "live": {
      const quiet = now - Math.max(lastReport ?? 0, state.since);
      if (quiet <= QUIET_MS) return { tone: "live", label: "Live", detail: "" };
      return { tone: "stale", label: `No reports for ${span(quiet / 1000)}`, detail: stale };
    }
  }
}
