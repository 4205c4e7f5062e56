// Opens a page in headless Chromium, watches its <video> play, and prints what was seen as JSON.
//
//   node watch.mjs '{"page": URL, "seconds": 12, "screenshot": FILE, "profile": FOLDER, "modules": FOLDER, "to_end": false}'
//
// With "to_end" the player then jumps to 3 s before the end, and has to come to it.

import { createRequire } from "node:module";

const task = JSON.parse(process.argv[2]);
const { chromium } = createRequire(`${task.modules}/`)("playwright-core");

const START_LIMIT_MS = 20_000;
const PROBE_INTERVAL_MS = 100;

const browser = await chromium.launchPersistentContext(task.profile, {
  executablePath: task.chromium ?? "/usr/bin/chromium",
  headless: true,
  viewport: { width: 800, height: 600 },
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required"],
});
const seen = { console: [] };
try {
  const page = browser.pages()[0] ?? await browser.newPage();
  page.on("console", (message) => seen.console.push(message.text()));
  page.on("pageerror", (error) => seen.console.push(`uncaught: ${error.message}`));
  await page.goto(task.page);
  await page.waitForSelector("video", { timeout: START_LIMIT_MS, state: "attached" });
  await page.evaluate(probe, PROBE_INTERVAL_MS);
  await page.waitForFunction(() => window.isSupported?.() === false
    || window.seen.samples.some(([, time]) => time > window.seen.samples[0][1]), null,
    { timeout: START_LIMIT_MS }).catch(() => {});
  await page.waitForTimeout(task.seconds * 1000);
  Object.assign(seen, await page.evaluate(() => window.report()));
  await page.screenshot({ path: task.screenshot });
  if (task.to_end) {
    await page.evaluate(() => { const video = document.querySelector("video"); video.currentTime = video.duration - 3; });
    await page.waitForFunction(() => document.querySelector("video").ended, null, { timeout: 10_000 }).catch(() => {});
    seen.ended = await page.evaluate(() => document.querySelector("video").ended);
  }
} catch (error) {
  seen.broken = error.message;
} finally {
  await browser.close();
}
console.log(JSON.stringify(seen));

// Runs in the page: notes [wall clock ms, position s, decoded pictures] ten times a second.
function probe(interval) {
  const video = document.querySelector("video");
  const opened = performance.timeOrigin;
  window.seen = { samples: [], colours: 0 };
  const sample = () => window.seen.samples.push([
    performance.timeOrigin + performance.now() - opened, video.currentTime, video.getVideoPlaybackQuality().totalVideoFrames]);
  sample();
  setInterval(sample, interval);
  setInterval(() => { window.seen.colours = Math.max(window.seen.colours, coloursShown()); }, 7 * interval);

  window.report = () => {
    const quality = video.getVideoPlaybackQuality();
    const taken = window.pictureTime?.();
    return {
      samples: window.seen.samples,
      errors: window.playerErrors?.() ?? [],
      media_error: video.error?.message ?? null,
      latency: taken === undefined ? null : (Date.now() - taken) / 1000,
      dropped: quality.droppedVideoFrames,
      size: [video.videoWidth, video.videoHeight],
      duration: Number.isFinite(video.duration) ? video.duration : null,
      colours: window.seen.colours,
      metadata: window.metadata?.() ?? [],
      supported: window.isSupported?.() ?? true,
    };
  };

  // How many different colours the present picture has: 1 is a blank one.
  function coloursShown() {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [32, 18];
    const context = canvas.getContext("2d");
    context.drawImage(video, 0, 0, canvas.width, canvas.height);
    return new Set(new Uint32Array(context.getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size;
  }
}
