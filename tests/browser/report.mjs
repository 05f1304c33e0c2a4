// Opens a benchmark's report in a real browser, on a wide and a narrow screen, and looks for what a reader would stumble over.
//
//   npm install --prefix tests/browser && node tests/browser/report.mjs REPORT.html [CHROMIUM]
//
// Screenshots go to target/screens.

import { existsSync, mkdirSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const screens = join(root, "target/screens");
const [file, browserPath = "/usr/bin/chromium"] = process.argv.slice(2);
const screensOf = [
  { name: "wide", width: 1280, height: 900 },
  { name: "narrow", width: 390, height: 844 },
];

/** Everything that is wrong with the page as it stands on this screen. */
function look() {
  const faults = [];
  const text = (element) => element.textContent.trim().slice(0, 40);
  if (document.documentElement.scrollWidth > window.innerWidth) {
    faults.push(`the page is ${document.documentElement.scrollWidth} px wide on a screen of ${window.innerWidth}`);
  }
  // What is cut off must at least scroll; a label in a bar cannot.
  for (const element of document.querySelectorAll("body *")) {
    const style = getComputedStyle(element);
    const cut = element.scrollWidth > element.clientWidth + 1 && style.overflowX === "hidden" && element.clientWidth > 0;
    if (cut && text(element)) faults.push(`cut off: <${element.tagName.toLowerCase()}> ${text(element)}`);
  }
  for (const link of document.querySelectorAll("a[href^='#']")) {
    if (!document.getElementById(link.getAttribute("href").slice(1))) faults.push(`a link leads nowhere: ${text(link)}`);
  }
  const contrast = (element) => {
    const parse = (colour) => colour.match(/[\d.]+/g).map(Number);
    const light = ([r, g, b]) => {
      const part = (value) => (value / 255 <= 0.03928 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
      return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
    };
    let ground = element;
    while (ground && (parse(getComputedStyle(ground).backgroundColor)[3] ?? 1) === 0) ground = ground.parentElement;
    const [a, b] = [getComputedStyle(element).color, ground ? getComputedStyle(ground).backgroundColor : "rgb(255,255,255)"]
      .map((colour) => light(parse(colour)));
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const faint = new Set();
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (own && element.checkVisibility() && contrast(element) < 4.5) faint.add(`${element.tagName.toLowerCase()}.${element.className}`);
  }
  faint.forEach((kind) => faults.push(`hard to read (contrast below 4.5): ${kind}`));
  return faults;
}

if (!existsSync(browserPath)) {
  console.log(`skipped: there is no Chromium at ${browserPath} (Debian: chromium)`);
  process.exit(0);
}
if (!file || !existsSync(file)) {
  console.error("name the report: node tests/browser/report.mjs data/runs/quick/report.html");
  process.exit(2);
}
mkdirSync(screens, { recursive: true });
const browser = await chromium.launch({
  executablePath: browserPath,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"],
});
const faults = [];
try {
  for (const { name, ...viewport } of screensOf) {
    const page = await browser.newPage({ viewport });
    page.on("console", (message) => message.type() === "error" && faults.push(`${name}: ${message.text()}`));
    page.on("request", (request) => request.url().startsWith("file:") || faults.push(`${name}: it loads ${request.url()}`));
    await page.goto(pathToFileURL(resolve(file)).href);
    const headings = await page.locator("h2").allTextContents();
    if (headings.length < 5) faults.push(`${name}: only ${headings.length} sections`);
    await page.screenshot({ path: join(screens, `report-${name}-top.png`) });
    // A reader follows a task's name to its attempts.
    const attempts = page.locator("details");
    const link = page.locator("td a").first();
    await link.click();
    if (!(await attempts.first().evaluate((it) => it.open))) faults.push(`${name}: a task's name does not open its attempts`);
    await page.evaluate(() => document.querySelectorAll("details").forEach((it) => (it.open = true)));
    faults.push(...(await page.evaluate(look)).map((fault) => `${name}: ${fault}`));
    console.log(`${name}: ${headings.length} sections, ${await attempts.count()} tasks, ${await page.locator(".attempt").count()} attempts`);
    await page.screenshot({ path: join(screens, `report-${name}.png`), fullPage: true });
    await page.close();
  }
} finally {
  await browser.close();
}
faults.forEach((fault) => console.error(fault));
process.exit(faults.length ? 1 : 0);
