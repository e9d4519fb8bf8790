// `GET /v1/topics/TOPIC/segments`: where a topic's records are, span by span.
import { getJson } from "./api.ts";
import { array, number, numberOrNull, object, textOrNull, timeOrNull } from "./json.ts";

export const STATES = ["open", "sealed", "archived", "dropping", "dropped"] as const;
export type SegmentState = (typeof STATES)[number];

export interface Segment {
  /** Milliseconds since the epoch, up to but without `upper`. */
  lower: number;
  upper: number;
  state: SegmentState;
  /** Known once its time is over. */
  records: number | null;
  /** In Postgres now; 0 once it is dropped. */
  hotBytes: number;
  cold: { objects: number; records: number; bytes: number } | null;
  /** Why it is not archived yet. */
  error: string | null;
}

/** As many as a screen has room for. */
const MOST = 300;

export async function segmentsOf(topic: string, signal: AbortSignal): Promise<Segment[]> {
  return parseSegments(await getJson(`/v1/topics/${encodeURIComponent(topic)}/segments?max=${MOST}`, signal));
}

/** In the order of time; what has no time is left out. */
export function parseSegments(value: unknown): Segment[] {
  const segments: Segment[] = [];
  for (const o of array(object(value).segments).map(object)) {
    const lower = timeOrNull(o.lower);
    const upper = timeOrNull(o.upper);
    const state = STATES.find((name) => name === o.state);
    if (lower === null || upper === null || upper <= lower || !state) continue;
    const cold = object(o.cold);
    segments.push({
      lower,
      upper,
      state,
      records: numberOrNull(o.records),
      hotBytes: number(o.hot_bytes),
      cold: number(cold.objects) === 0 ? null : { objects: number(cold.objects), records: number(cold.records), bytes: number(cold.bytes) },
      error: textOrNull(o.error),
    });
  }
  return segments.sort((a, b) => a.lower - b.lower);
}
