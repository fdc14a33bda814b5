// A browser that is told what to do, one JSON object a line, and answers each with one. workbench.py is the other end.
//
// Knows pages, keys and selectors; knows neither VS Code nor what a test expects.
//
//   node browser.mjs CHROMIUM MODULES        MODULES: the node_modules folder that has playwright-core

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [chromium, modules] = process.argv.slice(2);
const playwright = createRequire(`${modules}/`)("playwright-core");
const browser = await playwright.chromium.launch({
  executablePath: chromium,
  args: ["--no-sandbox", "--disable-gpu", "--force-prefers-reduced-motion"],
});
let page;
let calls = [];

const ACTIONS = {
  async open({ url, width, height, scale }) {
    await page?.goto("about:blank"); // leaves as a person does, so that the server hears of it and ends what it has for this window
    await page?.context().close();
    const viewport = { width, height };
    const context = await browser.newContext({ viewport, deviceScaleFactor: scale, locale: "en-US" });
    page = await context.newPage();
    calls = [];
    // What a test inside the extension host calls when it is over.
    await page.exposeFunction("codeAutomationLog", (_kind, words) => void calls.push(["log", words]));
    await page.exposeFunction("codeAutomationExit", (code) => void calls.push(["exit", code]));
    await page.goto(url, { waitUntil: "domcontentloaded" });
  },
  reload: () => page.reload({ waitUntil: "domcontentloaded" }),
  press: ({ keys }) => page.keyboard.press(keys),
  type: ({ text, delay }) => page.keyboard.type(text, { delay }),
  calls: () => calls,

  /** The text of the first element whose text matches, or with `isWhole` of all together; null when none does in time. */
  async wait({ selector, pattern, timeout, isGone, isWhole }) {
    const deadline = Date.now() + timeout;
    for (;;) {
      const all = await texts(selector);
      const found = (isWhole ? [all.join("")] : all).find((text) => new RegExp(pattern).test(text));
      if (isGone ? found === undefined : found !== undefined) {
        return found ?? "";
      }
      if (Date.now() > deadline) {
        return null;
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  },
  texts: ({ selector }) => texts(selector),
  async click({ selector, pattern, modifiers, timeout }) {
    const found = page.locator(selector).filter({ hasText: new RegExp(pattern) });
    await found.first().click({ modifiers, timeout });
  },
  shot: ({ path, clip }) => page.screenshot({ path, ...(clip && { clip }) }),
};

async function texts(selector) {
  const found = await page.evaluate(
    (selector) => [...document.querySelectorAll(selector)].map((element) => element.textContent ?? ""),
    selector,
  );
  return found.map((text) => text.replaceAll("\u00a0", " "));
}

for await (const line of createInterface({ input: process.stdin })) {
  const { action, ...words } = JSON.parse(line);
  let answer;
  try {
    answer = { result: (await ACTIONS[action](words)) ?? null };
  } catch (error) {
    answer = { error: `${action}: ${error.message}` };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await browser.close();
