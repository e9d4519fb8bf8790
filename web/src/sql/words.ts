// The part of DuckDB's language that a SELECT is written in, for colours and completion. Not a grammar: what is missing
// here still runs.

export const KEYWORDS =
  "all and any as asc asof at between by case cast collate cross cube current_date current_timestamp desc describe distinct else end " +
  "escape except exclude exists false filter first following for from full group grouping having ilike in inner intersect " +
  "interval is join lateral last left like limit materialized natural not null nulls offset on or order outer over partition percent " +
  "pivot positional preceding qualify range recursive replace right rollup row rows sample select semi anti sets show similar " +
  "summarize table tables tablesample then ties to true try_cast unbounded union unnest unpivot using values when where window with within";

export const TYPES =
  "array bigint bit blob boolean bool date decimal double float hugeint int int2 int4 int8 integer json list map numeric real " +
  "smallint struct text time timestamp timestamptz timestamp_ms timestamp_ns timestamp_s tinyint ubigint uinteger uhugeint usmallint " +
  "utinyint uuid varchar";

export const FUNCTIONS: readonly (readonly [name: string, about: string])[] = [
  ["count", "rows"],
  ["sum", "total"],
  ["avg", "mean"],
  ["min", "smallest"],
  ["max", "largest"],
  ["median", "middle"],
  ["quantile_cont", "value at a share"],
  ["stddev", "spread"],
  ["arg_max", "value where another is largest"],
  ["arg_min", "value where another is smallest"],
  ["any_value", "one of them"],
  ["approx_count_distinct", "distinct, about"],
  ["histogram", "map of counts"],
  ["list", "all as a list"],
  ["string_agg", "all as a text"],
  ["row_number", "window"],
  ["rank", "window"],
  ["lag", "window: the row before"],
  ["lead", "window: the row after"],
  ["first_value", "window"],
  ["last_value", "window"],
  ["coalesce", "first that is not NULL"],
  ["nullif", "NULL if equal"],
  ["greatest", "of several"],
  ["least", "of several"],
  ["abs", "number"],
  ["round", "number, digits"],
  ["floor", "number"],
  ["ceil", "number"],
  ["length", "of a text"],
  ["lower", "text"],
  ["upper", "text"],
  ["substring", "text, from, length"],
  ["regexp_matches", "text, pattern"],
  ["regexp_extract", "text, pattern, group"],
  ["split_part", "text, separator, n"],
  ["decode", "BLOB as text"],
  ["json_extract", "JSON, path"],
  ["json_extract_string", "JSON, path"],
  ["time_bucket", "interval, time"],
  ["date_trunc", "unit, time"],
  ["date_diff", "unit, from, to"],
  ["date_part", "unit, time"],
  ["epoch_ms", "time from or to milliseconds"],
  ["make_timestamp", "time from microseconds"],
  ["now", "current time"],
  ["strftime", "time, format"],
  ["read_parquet", "files of the archive"],
  ["generate_series", "from, to, step"],
];
