-- Statements that try to get out of a query: to read what is not theirs, to write, to reach the network. Each block is one
-- statement as it is sent. The word after `--` is what must come of it:
--   refused    it is not run: not one SELECT, or DuckDB finds nothing to run
--   forbidden  it is a SELECT, and what it wants to touch is out of its reach
--   harmless   it runs, and gives away nothing
-- {archived} is an archived file, {archive} the folder of the archive, {outside} a folder beside the bucket with secrets in
-- it, {port} a port of this machine on which nobody may ever connect.

-- refused: writing over an archived file
COPY (SELECT 1 AS x) TO '{archived}' (FORMAT parquet)

-- refused: the same without a temporary file
COPY (SELECT 1 AS x) TO '{archived}' (FORMAT parquet, use_tmp_file false)

-- refused: a new file in the archive
COPY (SELECT 1 AS x) TO '{archive}/new.csv'

-- refused: a file outside
COPY (SELECT 1 AS x) TO '{outside}/new.csv'

-- refused: partitioned writing
COPY (SELECT 1 AS x, 2 AS y) TO '{archive}' (FORMAT parquet, PARTITION_BY (y), OVERWRITE_OR_IGNORE)

-- refused: writing to a device
COPY (SELECT 1 AS x) TO '/dev/stdout'

-- refused: copying a file in
COPY positions FROM '{outside}/secret.csv'

-- refused: a copy within an explanation
EXPLAIN ANALYZE COPY (SELECT 1 AS x) TO '{archived}' (FORMAT parquet, use_tmp_file false)

-- refused: an explanation alone
EXPLAIN SELECT 1

-- refused: a copy behind a SELECT
SELECT 1; COPY (SELECT 1 AS x) TO '{archived}' (FORMAT parquet, use_tmp_file false)

-- refused: a copy before a SELECT
COPY (SELECT 1 AS x) TO '{archived}' (FORMAT parquet, use_tmp_file false); SELECT 1

-- refused: two harmless statements
SELECT 1; SELECT 2

-- refused: a copy behind a comment
SELECT 1 /* ; */ ; -- the end?
COPY (SELECT 1 AS x) TO '{archived}'

-- refused: a whole database as files
EXPORT DATABASE '{archive}/export'

-- refused: the way back
IMPORT DATABASE '{outside}'

-- refused: another database
ATTACH '{outside}/secret.db' AS secret

-- refused: a database in memory
ATTACH ':memory:' AS scratch

-- refused: a database on the network
ATTACH 'http://127.0.0.1:{port}/x.db' AS net

-- refused
DETACH memory

-- refused
USE memory

-- refused: a table
CREATE TABLE t AS SELECT * FROM positions

-- refused: a view in the place of a topic
CREATE OR REPLACE VIEW positions AS SELECT 1 AS x

-- refused: a macro
CREATE MACRO f() AS TABLE SELECT * FROM read_text('{outside}/secret.txt')

-- refused
DROP VIEW positions

-- refused
INSERT INTO positions SELECT 1

-- refused
UPDATE positions SET id = 'x'

-- refused
DELETE FROM positions

-- refused
MERGE INTO positions USING positions AS p ON true WHEN MATCHED THEN DELETE

-- refused
ALTER TABLE positions ADD COLUMN x INTEGER

-- refused: writing within a SELECT
WITH t AS (INSERT INTO positions VALUES (1) RETURNING *) SELECT * FROM t

-- refused
SELECT * INTO t FROM positions

-- refused: settings
SET enable_external_access = true

-- refused
SET GLOBAL lock_configuration = false

-- refused
RESET allowed_directories

-- refused: the home folder, which once widened what is allowed
SET home_directory = '{outside}'

-- refused
SET VARIABLE x = (SELECT content FROM read_text('{outside}/secret.txt'))

-- refused
SET temp_directory = '{archive}'

-- refused
SET log_query_path = '{outside}/log'

-- refused: pragmas
PRAGMA database_list

-- refused
PRAGMA enable_profiling = 'json'

-- refused
PRAGMA profiling_output = '{archive}/profile.json'

-- refused
CALL pragma_database_size()

-- refused: logs to files
CALL enable_logging(storage = 'file', storage_path = '{archive}')

-- refused: extensions
INSTALL httpfs

-- refused
LOAD httpfs

-- refused
LOAD '{outside}/secret.duckdb_extension'

-- refused
UPDATE EXTENSIONS

-- refused: secrets
CREATE SECRET s (TYPE s3, KEY_ID 'x', SECRET 'y')

-- refused
CREATE PERSISTENT SECRET s (TYPE http)

-- refused: statements in two steps
PREPARE p AS SELECT * FROM read_text('{outside}/secret.txt')

-- refused
EXECUTE p

-- refused
DEALLOCATE p

-- refused: transactions and upkeep
BEGIN TRANSACTION

-- refused
CHECKPOINT

-- refused
VACUUM ANALYZE

-- refused: a statement in a string
FROM query('COPY (SELECT 1 AS x) TO ''{archived}'' (FORMAT parquet, use_tmp_file false)')

-- refused: two statements in a string
FROM query('SELECT 1; SELECT 2')

-- refused: a SELECT in a string that is not one
FROM query('ATTACH '':memory:'' AS m')

-- refused: a statement that was written down
SELECT * FROM json_execute_serialized_sql('{"statements": []}')

-- refused: nothing
;

-- refused: only a comment
-- SELECT 1

-- refused: parameters
SELECT * FROM read_text($1)

-- refused: pivots that make a type first
PIVOT positions ON kind USING count(*)

-- forbidden: files of the system
SELECT * FROM read_text('/etc/passwd')

-- forbidden
SELECT * FROM read_blob('/etc/hostname')

-- forbidden
SELECT * FROM read_csv('/etc/passwd', sep = ':', header = false)

-- forbidden
SELECT * FROM '/etc/passwd.csv'

-- forbidden: what sniffs does not read either (CVE-2024-41672)
SELECT * FROM sniff_csv('{outside}/secret.csv')

-- forbidden
SELECT * FROM glob('/etc/*')

-- forbidden
SELECT * FROM glob('{outside}/*')

-- forbidden: up and out of the archive
SELECT * FROM read_parquet('archive/../../outside/secret.parquet')

-- forbidden
SELECT * FROM read_parquet('{archive}/../../outside/secret.parquet')

-- forbidden
SELECT * FROM '{outside}/secret.parquet'

-- forbidden
SELECT * FROM read_parquet(['{archived}', '{outside}/secret.parquet'])

-- forbidden
SELECT * FROM read_text('{outside}/secret.txt')

-- forbidden
SELECT * FROM read_json('{outside}/secret.json')

-- forbidden
SELECT * FROM read_json_objects('{outside}/secret.json')

-- forbidden
SELECT * FROM read_ndjson_auto('{outside}/secret.json')

-- forbidden
SELECT * FROM parquet_schema('{outside}/secret.parquet')

-- forbidden
SELECT * FROM parquet_metadata('{outside}/secret.parquet')

-- forbidden
SELECT * FROM parquet_kv_metadata('{outside}/secret.parquet')

-- forbidden: a statement in a string
FROM query('SELECT * FROM read_text(''{outside}/secret.txt'')')

-- forbidden: a name in a string
FROM query_table('{outside}/secret.parquet')

-- forbidden: the home folder
SELECT * FROM read_text('~/.bashrc')

-- forbidden: links to what is open
SELECT * FROM read_blob('/proc/self/fd/0')

-- forbidden
SELECT * FROM read_text('/proc/self/environ')

-- forbidden
SELECT * FROM read_text('/proc/self/cwd/../outside/secret.txt')

-- forbidden
SELECT * FROM read_text('file:///etc/passwd')

-- forbidden: a link that somebody left in the archive
SELECT * FROM read_text('{archive}/link/secret.txt')

-- forbidden: the network
SELECT * FROM read_parquet('http://127.0.0.1:{port}/x.parquet')

-- forbidden
SELECT * FROM read_csv('https://127.0.0.1:{port}/x.csv')

-- forbidden
SELECT * FROM 's3://bucket/x.parquet'

-- forbidden
SELECT * FROM read_text('hf://datasets/x/y')

-- forbidden: the cloud's address for secrets
SELECT * FROM read_text('http://169.254.169.254/latest/meta-data/')

-- forbidden: what is installed
SELECT extension_name FROM duckdb_extensions() WHERE loaded

-- refused: what only DuckDB's own command line has
SELECT getenv('PATH')

-- refused: memory of the process
SELECT * FROM arrow_scan(1, 2, 3)

-- refused
SELECT * FROM arrow_scan(1::POINTER, 2::POINTER, 3::POINTER)

-- refused
SELECT * FROM arrow_scan_dumb(1::UBIGINT::POINTER, 2::UBIGINT::POINTER, 3::UBIGINT::POINTER)

-- refused: other databases
SELECT * FROM postgres_scan('host=127.0.0.1 port={port}', 'public', 't')

-- refused
SELECT * FROM sqlite_scan('{outside}/secret.db', 't')

-- harmless: what is configured
SELECT name, value FROM duckdb_settings() WHERE name IN ('enable_external_access', 'lock_configuration')

-- harmless: there are none
SELECT * FROM duckdb_secrets()

-- harmless
SELECT database_name, path FROM duckdb_databases()

-- harmless: a function that DuckDB lets a SELECT call although settings are locked; it would write files if it could
SELECT * FROM enable_logging(storage = 'file', storage_path = '{archive}')

-- harmless
SELECT * FROM enable_logging(storage = 'file', storage_path = '{outside}'), read_parquet('archive/**/*.parquet')

-- harmless: a log among the frames of the answer
SELECT * FROM enable_logging(level = 'trace', storage = 'stdout'), range(3)

-- refused: DuckDB fails when it cannot write the file
SELECT * FROM enable_profiling(format = 'json', save_location = '{archive}/profile.json')

-- harmless
FROM checkpoint()

-- harmless
FROM force_checkpoint()

-- harmless: the tables are the topics
SHOW TABLES

-- harmless
SELECT 'COPY x TO y; ATTACH z' AS words
