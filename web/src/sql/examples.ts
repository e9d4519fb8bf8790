// Queries to start from. What they name is there: they are made from the topics and columns of the host.
import { PUBLISHED } from "../net/query.ts";
import type { Table } from "./schema.ts";
import { quoted } from "./text.ts";

export interface Example {
  title: string;
  sql: string;
}

/** Topics that get an example of their own. */
const MOST_TOPICS = 6;

export function examples(tables: readonly Table[]): Example[] {
  const found: Example[] = [{ title: "Messages and entities by kind, archived", sql: PUBLISHED }];
  const things = thingsOf(tables);
  if (things) found.push(...ofThings(things));
  const alerts = tables.find((table) => table.name === "alerts" && has(table, "id", "alert"));
  if (things && alerts && things !== alerts) found.push(joined(things, alerts));
  for (const table of tables.slice(0, MOST_TOPICS)) found.push(ofTopic(table.name));
  return found;
}

function has(table: Table, ...names: string[]): boolean {
  return names.every((name) => table.columns.some((column) => column.name === name));
}

/** The topic that reports where things are. */
function thingsOf(tables: readonly Table[]): Table | null {
  const located = tables.filter((table) => has(table, "id", "lat", "lon"));
  return located.find((table) => table.name === "positions") ?? located[0] ?? null;
}

function ofThings(things: Table): Example[] {
  const name = quoted(things.name);
  const by = has(things, "kind") ? "kind, " : "";
  return [
    {
      title: `${things.name} per minute`,
      sql: `SELECT time_bucket(INTERVAL 1 minute, _ts) AS minute, ${by}count(*) AS msgs\nFROM ${name}\nGROUP BY ALL\nORDER BY ALL;`,
    },
    {
      title: `${things.name}: the latest of each id`,
      sql: `SELECT * EXCLUDE (_headers, _payload)\nFROM ${name}\nQUALIFY row_number() OVER (PARTITION BY id ORDER BY _ts DESC, _offset DESC) = 1\nORDER BY id;`,
    },
  ];
}

/** Two topics in one statement. */
function joined(things: Table, alerts: Table): Example {
  return {
    title: `${alerts.name}, and where they are now`,
    sql: `WITH now AS (
  SELECT id, max(_ts) AS seen, arg_max(lat, _ts) AS lat, arg_max(lon, _ts) AS lon
  FROM ${quoted(things.name)}
  GROUP BY id
)
SELECT a._ts AS time, a.alert, a.id, now.seen, now.lat, now.lon
FROM ${quoted(alerts.name)} a
JOIN now USING (id)
ORDER BY time DESC
LIMIT 100;`,
  };
}

function ofTopic(topic: string): Example {
  return {
    title: `${topic}: all of it, by partition`,
    sql: `SELECT _partition, count(*) AS records, min(_ts) AS first, max(_ts) AS last\nFROM ${quoted(topic)}\nGROUP BY _partition\nORDER BY _partition;`,
  };
}
