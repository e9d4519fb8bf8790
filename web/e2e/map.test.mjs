// The map and its neighbours in a real browser against a running host. What is read from the page comes from
// `window.tidemill`, see src/hook.ts.
import assert from "node:assert/strict";
import { describe } from "node:test";
import { assertFits, browserForTests, PATIENCE_MS, PHONE, test } from "./browser.mjs";

describe("the live map", () => {
  const open = browserForTests();
  const shown = (page) => page.evaluate(() => window.tidemill.aircraft());
  const haveAircraft = (page) =>
    page.waitForFunction(() => window.tidemill?.connection() === "live" && window.tidemill.aircraft().length > 0, null, { timeout: PATIENCE_MS });

  test("aircraft are drawn and move, because of new reports", async () => {
    const { page, context, foreign, errors } = await open();
    await haveAircraft(page);
    const reports = await page.evaluate(() => window.tidemill.reports());
    const before = new Map((await shown(page)).map((one) => [one.id, one]));
    await page.waitForFunction((from) => window.tidemill.reports() > from + 200, reports, { timeout: PATIENCE_MS });
    // On screen, which is what a person sees: a fifth of a pixel for half of the fleet.
    await page.waitForFunction(
      (places) => {
        const from = new Map(places);
        const both = window.tidemill.aircraft().filter((one) => from.has(one.id));
        const moved = both.filter((one) => Math.hypot(one.x - from.get(one.id).x, one.y - from.get(one.id).y) > 0.2);
        return both.length > 0 && moved.length * 2 >= both.length;
      },
      [...before],
      { timeout: PATIENCE_MS },
    );
    // And in the data: the reports name other places than before.
    const now = await shown(page);
    const flown = now.filter((one) => before.has(one.id) && (one.lat !== before.get(one.id).lat || one.lon !== before.get(one.id).lon));
    assert.ok(flown.length > 0, "no aircraft reported a new position");
    assert.deepEqual(foreign, [], "requests left the origin");
    assert.deepEqual(errors, [], "the console complained");
    await context.close();
  });

  test("marks cover the map, not just the list", async () => {
    const { page, context } = await open();
    await haveAircraft(page);
    // Pixels that are not fully transparent on the canvas of the aircraft.
    const painted = await page.evaluate(() => {
      const canvas = document.querySelectorAll(".map-canvas")[1];
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      let count = 0;
      for (let i = 3; i < data.length; i += 4) if (data[i] > 0) count += 1;
      return count;
    });
    const aircraft = (await shown(page)).length;
    assert.ok(painted > aircraft * 10, `${painted} pixels for ${aircraft} aircraft`);
    await context.close();
  });

  test("an aircraft is found and selected from the keyboard alone", async () => {
    const { page, context, errors } = await open();
    await haveAircraft(page);
    const [target] = await shown(page);
    await page.locator("#search").focus();
    await page.keyboard.type(target.callsign);
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Enter");
    await page.waitForFunction((name) => document.querySelector(".detail h2")?.textContent === name, target.callsign);
    assert.equal(await page.locator(".detail").isVisible(), true);
    // The camera flies to it and the zoom follows keys on the map.
    await page.waitForFunction(() => window.tidemill.zoom() > 3.9);
    await page.locator(".map-surface").focus();
    await page.keyboard.press("0");
    await page.waitForFunction(() => Math.abs(window.tidemill.zoom() - 1) < 0.01);
    await page.keyboard.press("Escape");
    assert.equal(await page.evaluate(() => window.tidemill.selected()), null);
    await page.keyboard.press("Enter");
    assert.notEqual(await page.evaluate(() => window.tidemill.selected()), null);
    assert.deepEqual(errors, []);
    await context.close();
  });

  test("a click on a mark selects that aircraft", async () => {
    const { page, context } = await open();
    await haveAircraft(page);
    const box = await page.locator(".map-surface").boundingBox();
    // One that stands alone, so that a click cannot mean another.
    const target = await page.evaluate(({ width, height }) => {
      const all = window.tidemill.aircraft();
      const inside = all.filter((a) => a.x > 150 && a.y > 90 && a.x < width - 90 && a.y < height - 40);
      const room = (a) => Math.min(...all.filter((b) => b.id !== a.id).map((b) => Math.hypot(a.x - b.x, a.y - b.y)));
      return inside.sort((a, b) => room(b) - room(a))[0];
    }, box);
    await page.mouse.click(box.x + target.x, box.y + target.y);
    await page.waitForFunction((id) => window.tidemill.selected() === id, target.id);
    await context.close();
  });

  test("at phone width nothing scrolls sideways and aircraft are drawn", async () => {
    for (const hash of ["#/map", "#/pipelines", "#/topics"]) {
      const { page, context, errors } = await open(PHONE, hash);
      if (hash === "#/map") await haveAircraft(page);
      else await page.waitForSelector("tbody tr", { timeout: PATIENCE_MS });
      await assertFits(page, hash);
      assert.deepEqual(errors, []);
      await context.close();
    }
  });

  test("a topic's records arrive as text", async () => {
    const { page, context, foreign, errors } = await open({}, "#/topics/positions");
    await page.waitForSelector(".record-body", { timeout: PATIENCE_MS });
    const body = await page.locator(".record-body").first().textContent();
    assert.equal(typeof JSON.parse(body).id, "string");
    assert.deepEqual(foreign, []);
    assert.deepEqual(errors, []);
    await context.close();
  });

  test("dark and light differ, and the choice is kept", async () => {
    const { page, context } = await open({ colorScheme: "light" });
    const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const light = await background();
    await page.getByRole("button", { name: "Use the dark theme" }).click();
    const dark = await background();
    assert.notEqual(dark, light);
    await page.reload();
    assert.equal(await background(), dark);
    await context.close();
  });
});
