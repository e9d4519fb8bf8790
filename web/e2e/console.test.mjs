// The console and the storage picture in a real browser, against a host whose segments are short enough for an archive to
// grow while the tests run (scripts/browser-tests.sh starts one).
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { describe } from "node:test";
import { assertFits, browserForTests, ORIGIN, PATIENCE_MS, PHONE, test } from "./browser.mjs";

const PUBLISHED = "SELECT kind, count(*) AS msgs, count(DISTINCT id) AS entities FROM read_parquet('archive/**/*.parquet') GROUP BY kind;";
const KINDS = new Set(["airliner", "cargo", "private", "helicopter", "military"]);
/** Minutes of work, in little memory. */
const ENDLESS = "SELECT sum(a.x * b.y) FROM range(100000000) a(x), range(100000) b(y)";

const topics = async () => (await (await fetch(`${ORIGIN}/v1/topics`)).json()).topics;
const archived = async () => (await topics()).reduce((sum, topic) => sum + topic.cold.records, 0);

/** Until every topic of the sample that goes there has something in the bucket. */
async function haveArchive() {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    const all = (await topics()).filter((topic) => topic.retention.cold !== "none");
    if (all.length >= 3 && all.every((topic) => topic.cold.records > 0)) return;
    assert.ok(Date.now() < end, `nothing was archived: ${JSON.stringify(all.map((topic) => topic.cold))}`);
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

/** The statement in the editor. */
const statement = (page) => page.locator(".cm-content").evaluate((element) => [...element.querySelectorAll(".cm-line")].map((line) => line.textContent).join("\n"));

async function write(page, sql) {
  await page.locator(".cm-content").click();
  await page.keyboard.press("Control+A");
  await page.keyboard.insertText(sql);
  await page.keyboard.press("Escape");
}

const idle = (page) => page.waitForFunction(() => document.querySelector(".run-button")?.textContent === "Run", null, { timeout: PATIENCE_MS });

/** Runs what is in the editor and waits for what comes of it. */
async function run(page) {
  await page.getByRole("button", { name: "Run", exact: true }).click();
  await idle(page);
}

/** The table as texts, the header first. */
const rows = (page) =>
  page.evaluate(() => {
    const names = [...document.querySelectorAll(".result-table .column-name")].map((cell) => cell.textContent);
    const body = [...document.querySelectorAll(".result-table tbody tr:not(.result-space)")];
    return [names, ...body.map((row) => [...row.cells].map((cell) => cell.textContent))];
  });

describe("the console", () => {
  const open = browserForTests();
  const openConsole = async (options, hash = "#/query") => {
    const opened = await open(options, hash);
    await opened.page.waitForSelector(".cm-content");
    return opened;
  };

  test("the published query is there, runs verbatim, and counts what is archived", async () => {
    await haveArchive();
    const { page, context, foreign, errors } = await openConsole();
    assert.equal(await statement(page), PUBLISHED);
    const before = await archived();
    await run(page);
    const [names, ...found] = await rows(page);
    assert.deepEqual(names, ["kind", "msgs", "entities"]);
    assert.ok(found.length > 0 && found.every(([kind]) => KINDS.has(kind)), `kinds are ${found.map(([kind]) => kind)}`);
    const messages = found.reduce((sum, [, count]) => sum + Number(count), 0);
    assert.ok(before <= messages, `${messages} messages, but the catalog had ${before} before`);
    // A file is in the bucket a moment before it is in the catalog, and the statement reads files.
    const deadline = Date.now() + PATIENCE_MS;
    while ((await archived()) < messages) {
      assert.ok(Date.now() < deadline, `${messages} messages, but the catalog still has ${await archived()}`);
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
    const entities = found.reduce((sum, [, , count]) => sum + Number(count), 0);
    assert.ok(entities > 0 && entities <= 500, `${entities} aircraft`);
    assert.match(await page.locator(".query-cost").textContent(), /^\d+ rows in [\d.]+ m?s; read [\d,]+ rows, [\d.,]+ [KMG]?i?B of \d+ files$/);
    assert.deepEqual(foreign, [], "requests left the origin");
    assert.deepEqual(errors, [], "the console complained");
    await context.close();
  });

  test("a topic's rows are those in Postgres and those in the bucket together", async () => {
    const appended = async () => (await topics()).find((topic) => topic.name === "positions").next_offsets.reduce((sum, next) => sum + next, 0);
    const { page, context } = await openConsole();
    const before = await appended();
    await write(page, "SELECT count(*) AS n FROM positions");
    await run(page);
    const after = await appended();
    const [, [n]] = await rows(page);
    assert.ok(before <= Number(n) && Number(n) <= after, `${n} records, but between ${before} and ${after} were appended`);
    await context.close();
  });

  test("an error shows DuckDB's message and marks its place", async () => {
    const { page, context, errors } = await openConsole();
    // Two bytes for the first letter: the host counts bytes, the editor does not.
    await write(page, "SELECT 'é' AS e, kind,\n  coun(*)\nFROM positions GROUP BY ALL");
    await run(page);
    assert.match(await page.locator(".query-message").textContent(), /coun does not exist/);
    assert.equal(await page.locator(".cm-wrong").textContent(), "coun");
    await page.getByRole("button", { name: "Show where" }).click();
    await page.keyboard.type("x");
    assert.match(await statement(page), /\n {2}xcoun\(/);
    assert.equal(await page.locator(".cm-wrong").count(), 0, "the mark outlives the mistake");
    // Browsers report an answer of 400 themselves.
    assert.deepEqual(errors.filter((text) => !text.includes("400 (Bad Request)")), []);
    await context.close();
  });

  test("cancel ends the query on the host, too", async () => {
    const { page, context } = await openConsole();
    await write(page, ENDLESS);
    // The host runs two at a time: if one went on, the statement behind would wait for its end.
    for (let round = 0; round < 3; round += 1) {
      await page.getByRole("button", { name: "Run", exact: true }).click();
      await page.waitForFunction(() => /^Running for [1-9]/.test(document.querySelector(".query-cost").textContent));
      await page.getByRole("button", { name: "Cancel" }).click();
      await idle(page);
      assert.equal(await page.locator(".query-cost").textContent(), "Cancelled.");
    }
    await write(page, "SELECT 42 AS answer");
    const since = Date.now();
    await run(page);
    assert.deepEqual(await rows(page), [["answer"], ["42"]]);
    assert.ok(Date.now() - since < 10_000, "the cancelled queries were in the way");
    await context.close();
  });

  test("the keyboard runs, sorts, walks and copies", async () => {
    const { page, context, errors } = await openConsole({ permissions: ["clipboard-read", "clipboard-write"] });
    await write(page, "SELECT * FROM (VALUES (2, 'b'), (10, NULL), (1, '<b>')) t(n, s)");
    await page.keyboard.press("Control+Enter");
    await page.waitForSelector(".result-table td");
    await idle(page);
    assert.deepEqual(await rows(page), [["n", "s"], ["2", "b"], ["10", "NULL"], ["1", "<b>"]]);
    const header = page.getByRole("button", { name: "n", exact: false }).and(page.locator("th button")).first();
    await header.focus();
    await page.keyboard.press("Enter");
    assert.deepEqual((await rows(page)).slice(1).map(([n]) => n), ["1", "2", "10"]);
    assert.equal(await page.locator("th").first().getAttribute("aria-sort"), "ascending");
    await page.keyboard.press("Enter");
    assert.deepEqual((await rows(page)).slice(1).map(([n]) => n), ["10", "2", "1"]);
    await page.locator(".result-scroll").focus();
    for (const key of ["ArrowDown", "ArrowDown", "ArrowDown", "ArrowRight"]) await page.keyboard.press(key);
    assert.equal(await page.locator(".result-value").textContent(), "<b>");
    await page.keyboard.press("Control+C");
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), "<b>");
    assert.deepEqual(errors, []);
    await context.close();
  });

  test("ten thousand rows are a few in the page, and the last can be reached", async () => {
    const { page, context } = await openConsole();
    await write(page, "SELECT range AS n FROM range(20000)");
    await run(page);
    assert.match(await page.locator(".query-cost").textContent(), /^10,000 rows \(cut off: there are more\)/);
    assert.ok((await page.locator(".result-table tbody tr").count()) < 100);
    await page.locator(".result-scroll").evaluate((element) => element.scrollTo(0, element.scrollHeight));
    await page.getByRole("gridcell", { name: "9999", exact: true }).waitFor();
    await context.close();
  });

  test("topics and columns are completed, and inserted from the list", async () => {
    const { page, context, errors } = await openConsole();
    await page.waitForSelector(".schema-topic");
    await write(page, "SELECT  FROM positions");
    await page.keyboard.press("Home");
    for (let step = 0; step < 7; step += 1) await page.keyboard.press("ArrowRight");
    await page.keyboard.type("call");
    await page.getByRole("option", { name: /callsign/ }).waitFor();
    // The list takes no key in its first 75 ms, so that nothing is accepted unseen.
    const since = await page.evaluate(() => performance.now());
    await page.waitForFunction((from) => performance.now() > from + 150, since);
    await page.keyboard.press("Tab");
    assert.equal(await statement(page), "SELECT callsign FROM positions");
    await page.keyboard.press("Control+End");
    await page.getByRole("button", { name: "Insert alerts" }).click();
    assert.equal(await statement(page), "SELECT callsign FROM positions alerts");
    assert.deepEqual(errors, []);
    await context.close();
  });

  test("every example runs", async () => {
    await haveArchive();
    const { page, context, errors } = await openConsole();
    await page.waitForSelector(".schema-topic");
    const examples = page.locator(".query-section").first().locator(".query-item");
    const count = await examples.count();
    assert.ok(count >= 6, `${count} examples`);
    for (let index = 0; index < count; index += 1) {
      const title = await examples.nth(index).textContent();
      await examples.nth(index).click();
      await run(page);
      assert.equal(await page.locator(".query-error").isVisible(), false, `${title}: ${await page.locator(".query-message").textContent()}`);
      assert.ok((await rows(page)).length > 1, `${title} has no rows`);
    }
    assert.deepEqual(errors, []);
    await context.close();
  });

  test("an answer is drawn as bars, and over time as lines", async () => {
    const { page, context, errors } = await openConsole();
    await run(page);
    await page.getByRole("button", { name: "Chart" }).click();
    const kinds = (await rows(page)).length - 1;
    assert.equal(await page.locator(".chart-bar").count(), kinds * 2, "a bar for each kind in both panels");
    await write(page, "SELECT time_bucket(INTERVAL 1 second, _ts) AS second, count(*) AS msgs FROM positions GROUP BY second");
    await run(page);
    assert.match(await page.locator(".chart-line").getAttribute("d"), /^M[\d.]+ [\d.]+L/);
    assert.deepEqual(errors, []);
    await context.close();
  });

  test("rows are saved as CSV and as Parquet", async () => {
    const { page, context, foreign, errors } = await openConsole();
    await write(page, "SELECT range AS n, 'a,b' AS s FROM range(12000)");
    await run(page);
    const saved = async (name) => {
      const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name, exact: true }).click()]);
      await idle(page);
      return [download.suggestedFilename(), await readFile(await download.path())];
    };
    const [csvName, csv] = await saved("CSV");
    assert.equal(csvName, "query.csv");
    const lines = csv.toString().trimEnd().split(/\r?\n/);
    // All rows, not just those that the table may have.
    assert.equal(lines.length, 12_001);
    assert.deepEqual([lines[0], lines[12_000]], ["n,s", '11999,"a,b"']);
    const [parquetName, parquet] = await saved("Parquet");
    assert.equal(parquetName, "query.parquet");
    assert.equal(parquet.subarray(0, 4).toString() + parquet.subarray(-4).toString(), "PAR1PAR1");
    assert.deepEqual(foreign, []);
    assert.deepEqual(errors, []);
    await context.close();
  });

  test("a statement can be sent as a link, and is remembered", async () => {
    const sql = "SELECT 'ü & ?' AS s -- 100%";
    const { page, context } = await openConsole();
    await write(page, sql);
    await run(page);
    const link = new URL(page.url()).hash;
    const other = await openConsole({}, link);
    assert.equal(await statement(other.page), sql);
    assert.equal(await other.page.locator(".result-table td").count(), 0, "a link shows a statement, it does not run it");
    await other.context.close();
    // What was written since stays when the page is left and comes back.
    await write(page, "SELECT 1 AS later");
    await page.getByRole("link", { name: "Topics" }).click();
    await page.goBack();
    assert.equal(await statement(page), "SELECT 1 AS later");
    await page.goto(`${ORIGIN}/#/query`);
    await page.reload();
    await page.getByText("History").click();
    await page.locator(".query-item.is-code").first().click();
    assert.equal(await statement(page), sql);
    await context.close();
  });
});

describe("the storage picture", () => {
  const open = browserForTests();

  test("shows archived segments, their sizes, and follows them", async () => {
    await haveArchive();
    const { page, context, foreign, errors } = await open({}, "#/storage");
    const card = page.locator(".storage-card").filter({ has: page.getByRole("heading", { name: "positions" }) });
    await card.locator('.segment-strip[data-state="archived"], .segment-strip[data-state="dropped"]').first().waitFor();
    await card.locator(".segment-cold").first().waitFor();
    const { cold, hot } = (await topics()).find((topic) => topic.name === "positions");
    const [inPostgres, inBucket, ratio] = await card.locator(".storage-big").allTextContents();
    assert.match(inPostgres, /[KM]iB$/);
    assert.match(inBucket, /[KM]iB$/);
    // The page is a second or two older than the answer, so it is compared roughly.
    const shown = Number(/^[\d.]+/.exec(ratio)[0]);
    const real = cold.hot_bytes_per_record / cold.bytes_per_record;
    assert.ok(shown > 1 && Math.abs(shown - real) < real / 2, `${ratio}, but the host says ${real}`);
    assert.ok(hot.bytes > 0);
    // Without a reload, further segments go to the bucket.
    const count = () => card.locator(".segment-cold").count();
    const first = await count();
    await page.waitForFunction(([from]) => {
      const cards = [...document.querySelectorAll(".storage-card")];
      return cards.find((one) => one.querySelector("h2").textContent === "positions").querySelectorAll(".segment-cold").length > from;
    }, [first], { timeout: PATIENCE_MS });
    await card.getByText("As a table").click();
    await card.getByRole("cell", { name: /in the bucket only|archived: in both/ }).first().waitFor();
    assert.deepEqual(foreign, []);
    assert.deepEqual(errors, []);
    await context.close();
  });

  test("at phone width neither page scrolls sideways", async () => {
    for (const colorScheme of ["light", "dark"]) {
      const { page, context, errors } = await open({ ...PHONE, colorScheme }, "#/query");
      await page.waitForSelector(".cm-content");
      await run(page);
      await assertFits(page, "the console with rows");
      await page.getByRole("button", { name: "Chart" }).click();
      await page.waitForSelector(".chart-bar");
      await assertFits(page, "the console with a chart");
      await page.getByRole("link", { name: "Storage" }).click();
      await page.waitForSelector(".segment-strip", { timeout: PATIENCE_MS });
      await assertFits(page, "the storage page");
      assert.deepEqual(errors, []);
      await context.close();
    }
  });
});
