// A browser, the address of the host under test, and pages that note what should not happen.
//
// TIDEMILL_URL names the host (for example http://127.0.0.1:8080), CHROMIUM the browser if it is not
// /usr/bin/chromium. Without either the tests are skipped and say why.
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { after, before, test as nodeTest } from "node:test";
import { chromium } from "playwright-core";

const BROWSER = process.env.CHROMIUM ?? "/usr/bin/chromium";
const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];

export const ORIGIN = process.env.TIDEMILL_URL ? new URL(process.env.TIDEMILL_URL).origin : "";
/** A host that has just started needs a moment until its pipeline has aircraft. */
export const PATIENCE_MS = 60_000;

const skip = !ORIGIN
  ? "TIDEMILL_URL is not set: start `tidemill up` and pass its address"
  : !existsSync(BROWSER)
    ? `no browser at ${BROWSER}: install Debian's chromium, or set CHROMIUM`
    : false;

/** Skipped one by one, so that the summary counts them. */
export const test = (name, body) => nodeTest(name, { skip }, body);

/** Within a `describe`: gives a function that opens the page. */
export function browserForTests() {
  let browser;
  before(async () => {
    if (!skip) browser = await chromium.launch({ executablePath: BROWSER, args: FLAGS });
  });
  after(async () => {
    await browser?.close();
  });
  return async function open(options = {}, hash = "#/map") {
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
    const page = await context.newPage();
    const foreign = [];
    const errors = [];
    page.on("request", (request) => {
      const url = new URL(request.url());
      if (url.origin !== ORIGIN && url.protocol !== "data:" && url.protocol !== "blob:") foreign.push(request.url());
    });
    page.on("console", (message) => {
      if (message.type() === "error" || message.type() === "warning") errors.push(message.text());
    });
    page.on("pageerror", (error) => errors.push(error.message));
    await page.goto(`${ORIGIN}/${hash}`);
    return { page, context, foreign, errors };
  };
}

/** A phone, and what it must not do. */
export const PHONE = { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true };

export async function assertFits(page, what) {
  const widths = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
  assert.ok(widths[0] <= 360 && widths[1] <= 360, `${what} is ${widths} wide`);
}
