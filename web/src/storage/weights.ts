// What topics weigh: in Postgres, in the bucket, and how much smaller the one made the other.
import type { Topic } from "../net/status.ts";

export interface Weight {
  records: number;
  bytes: number;
  /** Bytes a record; null without records. */
  each: number | null;
}

export interface Weights {
  hot: Weight;
  cold: Weight & { objects: number };
  /** How many times smaller archived records are than they were in Postgres; null until something is archived. */
  ratio: number | null;
}

export function weigh(topics: readonly Topic[]): Weights {
  const sum = (read: (topic: Topic) => number): number => topics.reduce((total, topic) => total + read(topic), 0);
  const hot = { records: sum((t) => t.hot.records), bytes: sum((t) => t.hot.bytes) };
  const cold = { records: sum((t) => t.cold.records), bytes: sum((t) => t.cold.bytes) };
  // What the archived records took in Postgres, as far as that is known.
  const before = sum((t) => (t.cold.hotBytesPerRecord ?? 0) * t.cold.records);
  const known = sum((t) => (t.cold.hotBytesPerRecord === null ? 0 : t.cold.bytes));
  return {
    hot: { ...hot, each: hot.records > 0 ? hot.bytes / hot.records : null },
    cold: { ...cold, each: cold.records > 0 ? cold.bytes / cold.records : null, objects: sum((t) => t.cold.objects) },
    ratio: known > 0 && before > 0 ? before / known : null,
  };
}

/** `36 × smaller`, with a decimal while it is little. */
export function times(ratio: number): string {
  return `${ratio < 10 ? ratio.toFixed(1) : Math.round(ratio).toLocaleString("en-US")} × smaller`;
}
