// Dead letters in a real browser, on a real host: messages that the sample's stages refuse, opened, redriven and dropped.
import assert from "node:assert/strict";
import { describe } from "node:test";
import { assertFits, browserForTests, ORIGIN, PATIENCE_MS, PHONE, test } from "./browser.mjs";

/** JSON, but no report of an aircraft: two groups refuse it. */
const MARKUP = '{"note":"<img src=x onerror=alert(1)>"}';

async function refuse() {
  const answer = await fetch(`${ORIGIN}/v1/topics/positions/records`, { method: "POST", headers: { "content-type": "text/plain" }, body: `${MARKUP}\n` });
  assert.ok(answer.ok, String(answer.status));
}

const letters = async (group) => (await (await fetch(`${ORIGIN}/v1/dead-letters?group=${group}`)).json()).dead_letters;

async function until(what, ask) {
  const end = Date.now() + PATIENCE_MS;
  while (!(await ask())) {
    assert.ok(Date.now() < end, what);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

describe("dead letters", () => {
  const open = browserForTests();

  test("are opened as text, redriven and dropped by the keyboard", async () => {
    await refuse();
    await until("both groups refuse the message", async () => (await letters("watch")).length > 0 && (await letters("latest")).length > 0);
    const [{ id }] = await letters("watch");
    const { page, context, foreign, errors } = await open({}, "#/letters/watch");
    const button = page.getByRole("button", { name: `Open dead letter ${id}` });
    await button.waitFor({ timeout: PATIENCE_MS });
    await button.focus();
    await page.keyboard.press("Enter");
    const card = page.getByRole("region", { name: "Dead letter", exact: true });
    await card.getByText(MARKUP).waitFor({ timeout: PATIENCE_MS });
    assert.equal(await card.locator("img").count(), 0);
    assert.match(await card.innerText(), /aircraft\/watch/);

    await card.getByRole("button", { name: "Redrive" }).focus();
    await page.keyboard.press("Enter");
    await card.getByText("Queued: its stage runs it again in a moment.").waitFor({ timeout: PATIENCE_MS });
    await until("it is refused again", async () => (await letters("watch")).some((letter) => letter.id === id && letter.attempts === 2 && letter.state === "dead"));

    await card.getByRole("button", { name: "Drop" }).focus();
    await page.keyboard.press("Enter");
    await card.getByText("Dropped.").waitFor({ timeout: PATIENCE_MS });
    await button.waitFor({ state: "detached", timeout: PATIENCE_MS });
    await page.keyboard.press("Escape");
    await card.waitFor({ state: "hidden", timeout: PATIENCE_MS });
    assert.deepEqual({ foreign, errors }, { foreign: [], errors: [] });
    await context.close();
  });

  test("of a whole group are dropped after a question, also on a phone", async () => {
    await refuse();
    await until("the group refuses the message", async () => (await letters("latest")).length > 0);
    const { page, context, errors } = await open(PHONE, "#/letters");
    const drop = page.getByRole("button", { name: "Drop all of latest" });
    await drop.waitFor({ timeout: PATIENCE_MS });
    await assertFits(page, "dead letters");
    await drop.click();
    await page.keyboard.press("Escape");
    assert.ok((await letters("latest")).length > 0, "nothing is dropped without an answer");
    await drop.click();
    await page.getByRole("button", { name: "Drop them" }).click();
    await until("they are gone", async () => (await letters("latest")).length === 0);
    await drop.waitFor({ state: "detached", timeout: PATIENCE_MS });
    assert.deepEqual(errors, []);
    await context.close();
  });
});
