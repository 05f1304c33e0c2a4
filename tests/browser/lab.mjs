// Runs notebooks in a real JupyterLab in a real browser, as a reader would, and looks at what came out.
//
//   npm install --prefix tests/browser && node tests/browser/lab.mjs [CHROMIUM]
//
// Needs `cargo build` and Chromium. Screenshots go to target/screens. The notebooks' files are left as they were.

import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const screens = join(root, "target/screens");
const binary = process.env.CODELORA ?? join(process.env.CARGO_TARGET_DIR ?? join(root, "target"), "debug/codelora");
const browserPath = process.argv[2] ?? "/usr/bin/chromium";
const chapters = [
  { file: "1-data-collection.ipynb", tables: 2, figures: 5 },
  { file: "4-evaluation.ipynb", tables: 1, figures: 4 },
];
const minutes = (count) => count * 60_000;

/** Starts `codelora lab --no-browser`; gives the process and the address it prints. */
function startLab() {
  const lab = spawn(binary, ["lab", "--no-browser"], { cwd: root, detached: true });
  return new Promise((resolve, reject) => {
    let said = "";
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

/** Opens a chapter, runs all its cells and waits for the last one. */
async function runChapter(page, address, chapter) {
  // `reset`: only this chapter, whatever was open before.
  await page.goto(`${address.origin}/lab/tree/${chapter.file}?${address.searchParams}&reset`);
  await page.waitForSelector(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell", { timeout: minutes(2) });
  // The kernel must be there before cells are sent to it.
  await page.waitForSelector('.jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook-ExecutionIndicator[data-status="idle"]', {
    timeout: minutes(3),
  });
  await page.locator(".lm-MenuBar-itemLabel", { hasText: /^Run$/ }).click();
  await page.locator(".lm-Menu-itemLabel", { hasText: /^Run All Cells$/ }).click();
  await page.waitForFunction(
    () => {
      const prompts = [...document.querySelectorAll(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell .jp-InputPrompt")];
      return prompts.length > 2 && prompts.every((prompt) => /\[\d+\]/.test(prompt.textContent));
    },
    null,
    { timeout: minutes(20), polling: 1000 },
  );
  const seen = await page.evaluate(() => {
    const panel = document.querySelector(".jp-NotebookPanel:not(.lm-mod-hidden)");
    const count = (selector) => panel.querySelectorAll(`.jp-OutputArea ${selector}`).length;
    const broken = [...panel.querySelectorAll(".jp-OutputArea img")].filter((image) => !image.naturalWidth).length;
    const stderr = [...panel.querySelectorAll('[data-mime-type="application/vnd.jupyter.stderr"]')];
    return { tables: count("table"), figures: count("img") + count("svg"), broken, stderr: stderr.map((it) => it.textContent) };
  });
  await page.screenshot({ path: join(screens, chapter.file.replace(".ipynb", ".png")) });
  return seen;
}

/** Ends every kernel, so that the next chapter finds the warm build folder free. */
async function shutDownKernels(page, address) {
  const kernels = `${address.origin}/api/kernels`;
  const headers = { Authorization: `token ${address.searchParams.get("token")}` };
  for (const kernel of await (await page.request.get(kernels, { headers })).json()) {
    await page.request.delete(`${kernels}/${kernel.id}`, { headers });
  }
}

if (!existsSync(browserPath)) {
  console.log(`skipped: there is no Chromium at ${browserPath} (Debian: chromium)`);
  process.exit(0);
}
mkdirSync(screens, { recursive: true });
const files = chapters.map((chapter) => join(root, "notebooks", chapter.file));
const saved = files.map((file) => readFileSync(file));
const { lab, address } = await startLab();
const browser = await chromium.launch({
  executablePath: browserPath,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"],
});
const faults = [];
try {
  for (const chapter of chapters) {
    // Taller than a screen, so that one picture shows a whole chapter. A page of its own, closed without saving.
    const page = await browser.newPage({ viewport: { width: 1280, height: 5200 } });
    const seen = await runChapter(page, address, chapter);
    await shutDownKernels(page, address);
    await page.close();
    console.log(`${chapter.file}: ${seen.tables} tables, ${seen.figures} figures`);
    if (seen.tables < chapter.tables) faults.push(`${chapter.file} shows ${seen.tables} tables, not ${chapter.tables}`);
    if (seen.figures < chapter.figures) faults.push(`${chapter.file} shows ${seen.figures} figures, not ${chapter.figures}`);
    if (seen.broken) faults.push(`${chapter.file} shows ${seen.broken} broken images`);
    faults.push(...seen.stderr.map((text) => `${chapter.file} complains: ${text}`));
  }
} finally {
  await browser.close();
  process.kill(-lab.pid, "SIGTERM");
  files.forEach((file, index) => writeFileSync(file, saved[index]));
}
faults.forEach((fault) => console.error(fault));
process.exit(faults.length ? 1 : 0);
