// Queues in a real browser, on a real host: jobs of a queue without workers (scripts/browser-tests.sh declares it), put by the form,
// cancelled, retried and dropped; this test is their worker.
import assert from "node:assert/strict";
import { describe } from "node:test";
import { assertFits, browserForTests, ORIGIN, PATIENCE_MS, PHONE, test } from "./browser.mjs";

const QUEUE = `${ORIGIN}/v1/queues/errands`;
const MARKUP = "<img src=x onerror=alert(1)>";

async function ask(method, path, body) {
  const answer = await fetch(`${QUEUE}${path}`, { method, headers: { "content-type": "application/json" }, ...(body && { body: JSON.stringify(body) }) });
  assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${await answer.clone().text()}`);
  return answer.status === 204 ? null : answer.json();
}

const put = async (job) => (await ask("POST", "/jobs", job)).jobs[0].id;
const find = (id) => ask("GET", `/jobs/${id}`);

/** Claims until it has the job, and gives the others back. */
async function claim(id) {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    const { claim, jobs } = await ask("POST", "/claim", { max_jobs: 100, worker: "the test" });
    const others = jobs.filter((job) => job.id !== id).map((job) => ({ id: job.id, verdict: "snooze", after_s: 0 }));
    if (others.length > 0) await ask("POST", `/claims/${claim}/finish`, { jobs: others });
    const job = jobs.find((job) => job.id === id);
    if (job) return { claim, job };
    assert.ok(Date.now() < end, `job ${id} is not to be had`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function reject(id, error) {
  const { claim: number } = await claim(id);
  const { accepted } = await ask("POST", `/claims/${number}/finish`, { jobs: [{ id, verdict: "reject", error }] });
  assert.deepEqual(accepted, [id]);
}

describe("queues", () => {
  const open = browserForTests();
  const opened = (page) => page.getByRole("region", { name: "Job", exact: true });
  const says = (card, text) => card.getByText(text).waitFor({ timeout: PATIENCE_MS });

  test("take a job from the form, show it as text, and cancel it after a question", async () => {
    const { page, context, foreign, errors } = await open({}, "#/queues");
    await page.getByRole("link", { name: "errands", exact: true }).click({ timeout: PATIENCE_MS });
    const queue = page.getByRole("region", { name: "errands", exact: true });
    await queue.getByRole("button", { name: "Put a job" }).click();
    const form = queue.getByRole("form", { name: "Put a job" });
    await form.getByLabel("Payload, JSON").fill("{note: 1}");
    await form.getByLabel("Key", { exact: true }).fill("a1");
    await form.getByLabel("Priority").selectOption("1");
    await form.getByLabel("Unique key").fill(`once-${Date.now()}`);
    await form.getByRole("button", { name: "Put" }).click();
    await says(form, /^The payload is not JSON: /);
    await form.getByLabel("Payload, JSON").fill(JSON.stringify({ note: MARKUP }));
    await page.keyboard.press("Tab");
    await form.getByRole("button", { name: "Put" }).press("Enter");
    const said = await form.getByText(/^Job \d+ is put\.$/).textContent({ timeout: PATIENCE_MS });
    const id = Number(/\d+/.exec(said)[0]);
    assert.deepEqual((({ state, key, priority, value }) => ({ state, key, priority, value }))(await find(id)), { state: "waiting", key: "a1", priority: 1, value: { note: MARKUP } });
    await form.getByRole("button", { name: "Put" }).press("Enter");
    await says(form, `Nothing is put: job ${id} has this unique key.`);

    const button = queue.getByRole("button", { name: `Open job ${id}` });
    await button.focus();
    await page.keyboard.press("Enter");
    const card = opened(page);
    await card.getByText(MARKUP).waitFor({ timeout: PATIENCE_MS });
    assert.equal(await page.locator("main img").count(), 0);
    const cancel = card.getByRole("button", { name: `Cancel job ${id}` });
    await cancel.focus();
    await page.keyboard.press("Enter");
    await says(card, `Cancel job ${id}? It will not run.`);
    await page.keyboard.press("Escape");
    assert.equal((await find(id)).state, "waiting", "it was only a question");
    await page.keyboard.press("Enter");
    await card.getByRole("button", { name: "Cancel it" }).press("Enter");
    await says(card, `Job ${id} is cancelled.`);
    assert.deepEqual((({ state, error }) => ({ state, error }))(await find(id)), { state: "cancelled", error: "by hand, in the console" });
    await button.waitFor({ state: "detached", timeout: PATIENCE_MS });
    await card.getByText("cancelled", { exact: true }).waitFor({ timeout: PATIENCE_MS });
    await queue.getByRole("link", { name: "Cancelled" }).click();
    await button.waitFor({ timeout: PATIENCE_MS });
    assert.deepEqual({ foreign, errors }, { foreign: [], errors: [] });
    await context.close();
  });

  test("show a dead job with its error, and give it another run", async () => {
    const id = await put({ payload: { errand: "bread" } });
    await reject(id, `the shop is ${MARKUP}`);
    const { page, context, errors } = await open({}, "#/queues/errands/dead");
    const retry = page.getByRole("button", { name: `Retry job ${id}` });
    await retry.waitFor({ timeout: PATIENCE_MS });
    const row = page.getByRole("row").filter({ has: retry });
    assert.match(await row.innerText(), /1 of \d+/);
    await row.getByText(`the shop is ${MARKUP}`).waitFor();
    await retry.focus();
    await page.keyboard.press("Enter");
    await says(page, `Job ${id} runs again, with its attempts counted from the start.`);
    await retry.waitFor({ state: "detached", timeout: PATIENCE_MS });

    const { claim: number, job } = await claim(id);
    assert.equal(job.attempt, 1);
    await page.getByRole("link", { name: /^Running/ }).click();
    await page.getByRole("button", { name: `Open job ${id}` }).click({ timeout: PATIENCE_MS });
    await says(opened(page), "the test");
    await ask("POST", `/claims/${number}/finish`, { jobs: [{ id, verdict: "done", result: { loaves: 2 } }] });
    await says(opened(page), /"loaves": 2/);
    await opened(page).getByText("done", { exact: true }).waitFor();
    await page.keyboard.press("Escape");
    await opened(page).waitFor({ state: "hidden" });
    assert.deepEqual(errors, []);
    await context.close();
  });

  test("keep a job for later, until it is run now", async () => {
    const { page, context, errors } = await open({ timezoneId: "Asia/Kolkata" }, "#/queues/errands/scheduled");
    await page.getByRole("button", { name: "Put a job" }).click({ timeout: PATIENCE_MS });
    const form = page.getByRole("form", { name: "Put a job" });
    await form.getByLabel("Run at, your time").fill("2040-01-02T03:04:05");
    await form.getByRole("button", { name: "Put" }).click();
    const id = Number(/\d+/.exec(await form.getByText(/^Job \d+ is put\.$/).textContent({ timeout: PATIENCE_MS }))[0]);
    assert.deepEqual((({ state, run_at }) => [state, Date.parse(run_at)])(await find(id)), ["scheduled", Date.parse("2040-01-02T03:04:05+05:30")]);
    const row = page.getByRole("row").filter({ has: page.getByRole("button", { name: `Open job ${id}` }) });
    await row.getByText(/^in \d+ d \d+ h$/).waitFor({ timeout: PATIENCE_MS });
    await row.getByRole("button", { name: `Run now job ${id}` }).press("Enter");
    await says(page, `Job ${id} is due now.`);
    assert.equal((await claim(id)).job.id, id);
    await row.waitFor({ state: "detached", timeout: PATIENCE_MS });
    assert.deepEqual(errors, []);
    await context.close();
  });

  test("fit a phone, are paused, and drop a dead job after a question", async () => {
    const id = await put({ payload: "x".repeat(2_000) });
    await reject(id, "y".repeat(2_000));
    const { page, context, errors } = await open(PHONE, "#/queues/errands/dead");
    const drop = page.getByRole("button", { name: `Drop job ${id}` });
    await drop.waitFor({ timeout: PATIENCE_MS });
    await page.getByRole("button", { name: "Put a job" }).click();
    await page.getByRole("button", { name: `Open job ${id}` }).click();
    await opened(page).getByText("xxxx").waitFor({ timeout: PATIENCE_MS });
    await assertFits(page, "queues");

    await page.getByRole("button", { name: "Pause", exact: true }).click();
    await says(page, /^Paused: /);
    assert.equal((await ask("GET", "")).paused, true);
    await page.getByRole("button", { name: "Resume", exact: true }).click();
    await says(page, "Its jobs are claimed again.");
    assert.equal((await ask("GET", "")).paused, false);

    await drop.first().click();
    await page.getByRole("button", { name: "No, keep it" }).click();
    assert.equal((await find(id)).state, "dead");
    await drop.first().click();
    await page.getByRole("button", { name: "Drop it" }).click();
    await says(page, `Job ${id} is dropped.`);
    await page.getByRole("button", { name: `Open job ${id}` }).waitFor({ state: "detached", timeout: PATIENCE_MS });
    assert.equal((await fetch(`${QUEUE}/jobs/${id}`)).status, 404);
    // Browsers report an answer of 404 themselves: the job is still opened.
    assert.deepEqual(errors.filter((text) => !text.includes("404")), []);
    await context.close();
  });

  test("that are not there are told in words", async () => {
    const { page, context } = await open({}, "#/queues/nonesuch");
    await page.getByText("There is no queue nonesuch. Choose one of those above.").waitFor({ timeout: PATIENCE_MS });
    await page.getByRole("link", { name: "errands", exact: true }).click();
    await page.getByRole("heading", { name: "errands", exact: true }).waitFor({ timeout: PATIENCE_MS });
    await context.close();
  });
});
