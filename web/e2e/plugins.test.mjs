// Swapping a stage's component and going back, in a real browser and on a real host. The pushed component is the one of the sample
// with an empty section more: the same code under another digest.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe } from "node:test";
import { fileURLToPath } from "node:url";
import { assertFits, browserForTests, ORIGIN, PATIENCE_MS, PHONE, test } from "./browser.mjs";

/** TIDEMILL_PLUGINS names another folder of components. */
const PLUGINS = process.env.TIDEMILL_PLUGINS ?? fileURLToPath(new URL("../../plugins/dist", import.meta.url));
const PLUGIN = `${ORIGIN}/v1/pipelines/aircraft/stages/watch/plugin`;

const component = (name) => readFile(join(PLUGINS, `${name}.wasm`));
const digestOf = (bytes) => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
const short = (digest) => digest.slice("sha256:".length).slice(0, 12);
const active = async () => (await fetch(PLUGIN)).json();

/** A custom section at the end changes a component's digest and nothing else: id 0, length, then a name with its length. */
function withSection(bytes, name) {
  const section = Buffer.from(`\0\0\0${name}`, "latin1");
  section[1] = name.length + 1;
  section[2] = name.length;
  return Buffer.concat([bytes, section]);
}

describe("the component of a stage", () => {
  const open = browserForTests();
  const openStage = async (options, stage = "watch") => {
    const opened = await open(options, "#/pipelines");
    const row = opened.page.locator(".plugin", { has: opened.page.getByRole("heading", { name: stage, exact: true }) });
    await row.waitFor({ timeout: PATIENCE_MS });
    return { ...opened, row };
  };
  const push = (row, bytes, name = "watch.wasm") => row.locator("input[type=file]").setInputFiles({ name, mimeType: "application/wasm", buffer: bytes });
  const says = (row, pattern) => row.locator(".plugin-outcome", { hasText: pattern }).waitFor({ timeout: PATIENCE_MS });

  test("is swapped through the file picker, and rolled back by the keyboard", async () => {
    const { page, context, row, foreign, errors } = await openStage();
    const before = (await active()).digest;
    // Another name each time: what was rolled back once would be known.
    const swapped = withSection(await component("flight-watch"), `test-${Date.now()}`);
    const digest = digestOf(swapped);
    assert.notEqual(digest, before);

    const [chooser] = await Promise.all([page.waitForEvent("filechooser"), row.getByRole("button", { name: "Push a component to watch" }).click()]);
    await chooser.setFiles({ name: "watch.wasm", mimeType: "application/wasm", buffer: swapped });
    await says(row, `${short(digest)} was taken over.`);
    assert.equal((await active()).digest, digest);
    await row.locator(".standing", { hasText: "on probation" }).waitFor();
    assert.match(await row.locator(".plugin-note").first().textContent(), new RegExp(`${short(before)} stands by`));
    assert.equal(await row.locator(".digest").getAttribute("title"), digest);
    assert.match(await row.locator(".plugin-since").textContent(), /^pushed, /);
    await says(row, `${short(digest)} runs.`);
    await row.locator(".standing", { hasText: "stable" }).waitFor();

    await row.getByRole("button", { name: "History of watch" }).click();
    await row.locator(".history-item").first().getByText(short(digest)).waitFor();
    await row.getByRole("button", { name: "Roll watch back" }).focus();
    await page.keyboard.press("Enter");
    const question = row.getByRole("group", { name: "Confirm the rollback" });
    await question.getByText(`Go back to the version before, ${short(before)}?`).waitFor();
    await page.keyboard.press("Escape");
    await question.waitFor({ state: "hidden" });
    assert.equal((await active()).digest, digest, "it was only a question");
    await page.keyboard.press("Enter");
    await question.waitFor();
    await page.keyboard.press("Enter");
    await says(row, `${short(before)} runs.`);
    const after = await active();
    assert.equal(after.digest, before);
    assert.deepEqual(after.refused.slice(-1), [digest]);
    await row.locator(".plugin-note", { hasText: "Rolled back by hand" }).waitFor();
    await row.locator(".history-item", { hasText: "rolled back by hand" }).first().getByText(short(digest)).waitFor();
    assert.deepEqual(foreign, [], "requests left the origin");
    assert.deepEqual(errors, [], "the page complained");
    await context.close();
  });

  test("that does not fit is refused with the host's reason, and a file that is none is not sent", async () => {
    const { context, row, errors } = await openStage();
    const { digest, epoch } = await active();
    await push(row, await component("latest-position"), "latest.wasm");
    await says(row, /^Not done: .*materializer/);
    await push(row, Buffer.from("not a component"), "notes.txt");
    await says(row, "notes.txt was not sent: it is no WebAssembly file.");
    const after = await active();
    assert.deepEqual([after.digest, after.epoch], [digest, epoch]);
    // Browsers report an answer of 422 themselves.
    assert.deepEqual(errors.filter((text) => !text.includes("422 (Unprocessable Entity)")), []);
    await context.close();
  });

  test("is taken when dropped on its row", async () => {
    const { page, context, row } = await openStage();
    const { digest } = await active();
    const bytes = await component("flight-watch");
    const transfer = await page.evaluateHandle((text) => {
      const data = new DataTransfer();
      data.items.add(new File([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], "watch.wasm", { type: "application/wasm" }));
      return data;
    }, bytes.toString("base64"));
    await row.dispatchEvent("dragenter", { dataTransfer: transfer });
    assert.match(await row.getAttribute("class"), /is-over/);
    await row.dispatchEvent("drop", { dataTransfer: transfer });
    // It is what runs, unless an earlier run of these tests was cut off.
    await says(row, digestOf(bytes) === digest ? `${short(digest)} runs already; nothing changed.` : `${short(digestOf(bytes))} runs`);
    assert.doesNotMatch(await row.getAttribute("class"), /is-over/);
    await context.close();
  });

  test("fits a phone, with the history open", async () => {
    const { page, context, row, errors } = await openStage(PHONE);
    await row.getByRole("button", { name: "History of watch" }).click();
    await row.locator(".history-item").first().waitFor();
    await assertFits(page, "the pipelines page");
    assert.deepEqual(errors, []);
    await context.close();
  });
});
