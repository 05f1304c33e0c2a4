// Runs notebooks in a real JupyterLab in a real browser, as a reader would, and looks at what came out.
//
//   npm ci --prefix tests/browser && node tests/browser/lab.mjs [--chapters 0,1,2,3,4,5] [--no-live] [--chromium PATH]
//
// Needs `cargo build` and Chromium. By default chapters 1 and 4 are run, and a small training run is followed while it goes
// on. Screenshots in the light and the dark theme go to target/screens. The notebooks' files are left as they were.

import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";

const { values: options } = parseArgs({
  options: {
    chapters: { type: "string", default: "1,4" },
    "no-live": { type: "boolean", default: false },
    chromium: { type: "string", default: "/usr/bin/chromium" },
  },
});
const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const screens = join(root, "target/screens");
const scratch = join(root, "target/browser");
const binary = process.env.CODELORA ?? join(process.env.CARGO_TARGET_DIR ?? join(root, "target"), "debug/codelora");
// What each chapter shows at least.
const shows = [
  { tables: 4, figures: 9 },
  { tables: 5, figures: 7 },
  { tables: 5, figures: 2 },
  { tables: 4, figures: 4 },
  { tables: 6, figures: 4 },
  { tables: 4, figures: 0 },
];
const panel = ".jp-NotebookPanel:not(.lm-mod-hidden)";
const minutes = (count) => count * 60_000;

/** The notebook of a chapter, relative to the root. */
function notebook(number) {
  return `notebooks/${readdirSync(join(root, "notebooks")).find((name) => name.startsWith(`${number}-`))}`;
}

/** Starts `codelora lab --no-browser`; gives the process and the address it prints. */
function startLab() {
  const lab = spawn(binary, ["lab", "--no-browser"], { cwd: root, detached: true });
  return new Promise((resolve, reject) => {
    let said = "";
    setTimeout(() => reject(new Error(`JupyterLab does not say where it listens:\n${said}`)), minutes(5)).unref();
    const listen = (chunk) => {
      said += chunk;
      const found = said.match(/http:\/\/(?:localhost|127\.0\.0\.1):\d+\/lab\S*\?token=\w+/);
      if (found) resolve({ lab, address: new URL(found[0]) });
    };
    lab.stdout.on("data", listen);
    lab.stderr.on("data", listen);
    lab.on("exit", (code) => reject(new Error(`the lab ended with ${code}:\n${said}`)));
  });
}

/** Opens a notebook and sends all its cells to the kernel. */
async function start(page, address, file) {
  // `reset`: only this notebook, whatever was open before.
  await page.goto(`${address.origin}/lab/tree/${file}?${address.searchParams}&reset`);
  await page.waitForSelector(`${panel} .jp-CodeCell`, { timeout: minutes(2) });
  // The kernel must be there before cells are sent to it. The page calls a kernel idle that it has not asked for yet, and
  // then asks the reader for one; so the server has the word first.
  const sessions = `${address.origin}/api/sessions?token=${address.searchParams.get("token")}`;
  const ready = (session) => session.path === file && session.kernel.execution_state === "idle" && session.kernel.connections > 0;
  const until = Date.now() + minutes(5);
  while (!(await (await page.request.get(sessions)).json()).some(ready)) {
    if (Date.now() > until) throw new Error(`the kernel of ${file} did not start`);
    await page.waitForTimeout(500);
  }
  await page.waitForSelector(`${panel} .jp-Notebook-ExecutionIndicator[data-status="idle"]`, { timeout: minutes(3) });
  await page.locator(".lm-MenuBar-itemLabel", { hasText: /^Run$/ }).click();
  await page.locator(".lm-Menu-itemLabel", { hasText: /^Run All Cells$/ }).click();
}

/** Waits until every cell has run; says how it stands, and shows it, when that takes too long. */
async function finished(page) {
  const prompts = () => page.locator(`${panel} .jp-CodeCell .jp-InputPrompt`).allTextContents();
  const until = Date.now() + minutes(20);
  for (;;) {
    const question = await page.locator(".jp-Dialog-header").allTextContents();
    if (question.length) throw new Error(`JupyterLab asks something: ${question.join(", ")}`);
    const stand = await prompts();
    if (stand.length > 2 && stand.every((prompt) => /\[\d+\]/.test(prompt))) return;
    if (Date.now() > until) {
      await page.screenshot({ path: join(screens, "stuck.png") });
      throw new Error(`the cells did not end: ${stand.join(" ")}; target/screens/stuck.png shows the page`);
    }
    await page.waitForTimeout(1000);
  }
}

/** Counts what a notebook shows, and collects what is wrong with it. */
function look(page) {
  return page.evaluate((selector) => {
    const panel = document.querySelector(selector);
    const all = (what) => [...panel.querySelectorAll(`.jp-OutputArea :is(${what})`)];
    const broken = all("img").filter((image) => !image.naturalWidth).length;
    const stderr = [...panel.querySelectorAll('[data-mime-type="application/vnd.jupyter.stderr"]')];
    // Whatever is wider than its cell is cut off or needs scrolling.
    const wide = all("table, pre, img, svg").filter((it) => it.scrollWidth > it.closest(".jp-OutputArea").clientWidth + 2);
    return {
      tables: all("table").length,
      figures: all("img").length + all("svg").length,
      broken,
      wide: wide.map((it) => `${it.tagName} of ${it.scrollWidth} px`),
      stderr: stderr.map((it) => it.textContent),
    };
  }, panel);
}

/** One picture of the whole notebook in each theme. */
async function picture(page, name) {
  const height = await page.evaluate((panel) => {
    const outer = document.querySelector(`${panel} .jp-WindowedPanel-outer`);
    return outer.scrollHeight;
  }, panel);
  await page.setViewportSize({ width: 1280, height: Math.min(height + 160, 16_000) });
  await page.waitForTimeout(1500);
  await page.screenshot({ path: join(screens, `${name}-light.png`) });
  await theme(page, "JupyterLab Dark");
  await page.screenshot({ path: join(screens, `${name}-dark.png`) });
  await theme(page, "JupyterLab Light");
}

async function theme(page, name) {
  await page.locator(".lm-MenuBar-itemLabel", { hasText: /^Settings$/ }).click();
  await page.locator(".lm-Menu-itemLabel", { hasText: /^Theme$/ }).hover();
  await page.locator(".lm-Menu-itemLabel", { hasText: new RegExp(`^${name}$`) }).click();
  await page.waitForTimeout(2500);
}

/** Ends every kernel, so that the next notebook finds the warm build folder free. */
async function shutDownKernels(page, address) {
  const kernels = `${address.origin}/api/kernels`;
  const headers = { Authorization: `token ${address.searchParams.get("token")}` };
  for (const kernel of await (await page.request.get(kernels, { headers })).json()) {
    await page.request.delete(`${kernels}/${kernel.id}`, { headers });
  }
}

/** Chapter 3 on an experiment of a minute, in a folder of its own. Gives the notebook, relative to the root. */
function smallRun() {
  rmSync(scratch, { recursive: true, force: true });
  mkdirSync(scratch, { recursive: true });
  const set = (text, key, value) => text.replace(new RegExp(`^${key} = .*$`, "m"), `${key} = ${value}`);
  let experiment = readFileSync(join(root, "data/experiments/quick.toml"), "utf8");
  const changes = { name: '"browser"', data: '"target/browser/data"', run: '"target/browser/run"', figures: '"target/browser/figures"' };
  Object.assign(changes, { exercises: 60, train: 60, validation: 12, steps: 40, batch_size: 8, eval_every: 10, warmup_steps: 4 });
  for (const [key, value] of Object.entries(changes)) experiment = set(experiment, key, value);
  writeFileSync(join(scratch, "browser.toml"), experiment);
  const chapter = readFileSync(join(root, notebook(3)), "utf8");
  const moved = chapter
    .replace('path = \\"kit\\"', `path = \\"${join(root, "notebooks/kit")}\\"`)
    .replace("../data/experiments/quick.toml", "browser.toml");
  writeFileSync(join(scratch, "3-training.ipynb"), moved);
  return "target/browser/3-training.ipynb";
}

/** The curves must grow in the page while a later cell still waits for the run. */
async function followRun(page, address) {
  await start(page, address, smallRun());
  const seen = new Set();
  const says = page.locator(`${panel} .codelora-says`).first();
  await says.waitFor({ timeout: minutes(10) });
  for (let look = 0; look < 1200; look++) {
    const running = await page.locator(`${panel} .jp-InputPrompt`, { hasText: "[*]" }).count();
    const step = await says.getAttribute("data-step", { timeout: 2000 }).catch(() => null);
    if (step !== null && running > 0) seen.add(+step);
    if (seen.size === 3) await page.screenshot({ path: join(screens, "live.png") });
    if (running === 0) break;
    await page.waitForTimeout(500);
  }
  await finished(page);
  return [...seen];
}

if (!existsSync(options.chromium)) {
  console.log(`skipped: there is no Chromium at ${options.chromium} (Debian: chromium)`);
  process.exit(0);
}
mkdirSync(screens, { recursive: true });
const chapters = options.chapters.split(",").filter(Boolean).map(Number);
const files = chapters.map((number) => join(root, notebook(number)));
const saved = files.map((file) => readFileSync(file));
const { lab, address } = await startLab();
/** JupyterLab ends with its kernels, and saves notebooks by itself: they become what they were. */
const leave = () => {
  process.kill(-lab.pid, "SIGTERM");
  files.forEach((file, index) => writeFileSync(file, saved[index]));
};
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, () => {
    leave();
    process.exit(1);
  });
}
const browser = await chromium.launch({
  executablePath: options.chromium,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"],
});
const faults = [];
try {
  for (const number of chapters) {
    // A page of its own, closed without saving; tall, so that cells out of sight are drawn too.
    const page = await browser.newPage({ viewport: { width: 1280, height: 5200 } });
    const begun = Date.now();
    await start(page, address, notebook(number));
    await finished(page);
    const seconds = Math.round((Date.now() - begun) / 1000);
    await picture(page, `${number}`);
    const seen = await look(page);
    await shutDownKernels(page, address);
    await page.close();
    console.log(`chapter ${number}: ${seen.tables} tables, ${seen.figures} figures, ${seconds} s`);
    for (const what of ["tables", "figures"]) {
      const wanted = shows[number][what];
      if (seen[what] < wanted) faults.push(`chapter ${number} shows ${seen[what]} ${what}, not ${wanted}`);
    }
    if (seen.broken) faults.push(`chapter ${number} shows ${seen.broken} broken images`);
    if (seen.wide.length) faults.push(`chapter ${number} shows what is wider than the page: ${seen.wide.join(", ")}`);
    faults.push(...seen.stderr.map((text) => `chapter ${number} complains: ${text}`));
  }
  if (!options["no-live"]) {
    const page = await browser.newPage({ viewport: { width: 1280, height: 2600 } });
    const steps = await followRun(page, address);
    await shutDownKernels(page, address);
    await page.close();
    console.log(`a run followed while it went on: the page showed the steps ${steps.join(", ")}`);
    if (steps.length < 3) faults.push("the curves of chapter 3 did not grow while the run went on");
  }
} finally {
  await browser.close();
  leave();
}
faults.forEach((fault) => console.error(fault));
process.exit(faults.length ? 1 : 0);
