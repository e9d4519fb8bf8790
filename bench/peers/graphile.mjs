// What the case `queue` of the benchmark runs as graphile-worker's worker, a process of its own as its users have it:
//   graphile.mjs PACKAGES WHAT OPTIONS
// PACKAGES is the folder with node_modules. How to connect is in the environment, as for psql. What is done and measured is in
// OPTIONS, as JSON; lines on standard input and output keep both sides in step.
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";

const [packages, what, given] = process.argv.slice(2);
const require = createRequire(join(packages, "package.json"));
const pg = require("pg");
const { Logger, run, runMigrations } = require("graphile-worker");

const options = JSON.parse(given ?? "{}");
// Its lines for each job would cost it time.
const logger = new Logger(() => () => {});
const pgPool = new pg.Pool({ max: 10 });
pgPool.on("error", (error) => console.error(error));
pgPool.on("connect", (client) => client.on("error", (error) => console.error(error)));
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

const say = (line) => process.stdout.write(`${line}\n`);

function start(task) {
  return run({
    pgPool,
    logger,
    noHandleSignals: true,
    crontab: "",
    taskList: { noop: task },
    preset: { worker: options.worker },
  });
}

// Does `jobs` jobs, or as many as it can in `limitMs`, and says how many once their ends are in the database.
async function burn() {
  say("ready");
  await lines.next();
  const seen = new Set();
  let enough;
  const over = new Promise((resolve) => (enough = resolve));
  const timer = setTimeout(() => enough(), options.limitMs);
  const runner = await start(async (_payload, helpers) => {
    seen.add(helpers.job.id);
    if (seen.size === options.jobs) enough();
  });
  await over;
  clearTimeout(timer);
  await runner.stop();
  say(seen.size);
}

// Says for each job how many milliseconds after its `at` it was started.
async function latency() {
  const delays = [];
  const runner = await start(async (payload) => {
    delays.push(performance.timeOrigin + performance.now() - payload.at / 1000);
  });
  say("ready");
  await lines.next();
  say(JSON.stringify(delays));
  await runner.stop();
}

switch (what) {
  case "migrate":
    await runMigrations({ pgPool, logger });
    break;
  case "burn":
    await burn();
    break;
  case "latency":
    await latency();
    break;
  default:
    throw new Error(`there is no ${what}`);
}
await pgPool.end();
process.exit(0);
