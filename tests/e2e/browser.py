"""A viewer in Chromium: what watch.mjs saw, judged."""

import json
import shutil
import subprocess

from tools import HERE, LOGS, WORK

STALL_SECONDS = 1.0


def watch(name, page, seconds, to_end=False):
    """Lets Chromium play `page` for some seconds. The raw observation stays in LOGS/NAME.json, the picture in NAME.png."""
    profile = WORK / "chromium" / name
    shutil.rmtree(profile, ignore_errors=True)
    task = {"page": page, "seconds": seconds, "to_end": to_end, "profile": str(profile),
            "screenshot": str(LOGS / f"{name}.png"), "modules": str(WORK / "npm" / "node_modules"), "chromium": shutil.which("chromium")}
    done = subprocess.run(["node", HERE / "watch.mjs", json.dumps(task)], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=seconds + 90)
    (LOGS / f"{name}.json").write_text(done.stdout or "{}")
    assert done.returncode == 0, f"the browser has failed: {done.stderr.strip()[-300:]}"
    seen = json.loads(done.stdout)
    assert "broken" not in seen, f"the page has failed: {seen['broken'].splitlines()[0]}; console: {seen['console'][-3:]}"
    return seen


def expect_playing(seen, seconds):
    """The picture moves for `seconds` from its first movement, never stands for more than STALL_SECONDS, nothing fatal."""
    fatal = [each["what"] for each in seen["errors"] if each["fatal"]]
    assert not fatal and not seen["media_error"], f"the player gave up: {fatal or seen['media_error']}"

    samples = seen["samples"]
    moving = [index for index in range(1, len(samples)) if samples[index][1] > samples[index - 1][1]]
    assert moving, f"never played; errors: {seen['errors'][:3]}, console: {seen['console'][-3:]}"
    started = samples[moving[0]]
    times = [samples[index][0] for index in moving] + [samples[-1][0]]
    stall = max(after - before for before, after in zip(times, times[1:])) / 1000
    played, wall = samples[-1][1] - started[1], (samples[-1][0] - started[0]) / 1000
    pictures = samples[-1][2] - started[2]

    assert stall <= STALL_SECONDS, f"stood still for {stall:.1f} s"
    assert wall >= seconds and played >= 0.9 * seconds, f"advanced by {played:.1f} s in {wall:.1f} s"
    assert pictures >= 10 * seconds, f"only {pictures} pictures decoded in {wall:.1f} s"
    assert seen["colours"] > 3, "the picture is blank"
    return [f"{played:.1f} s played in {wall:.1f} s", f"first picture after {started[0] / 1000:.1f} s",
            f"longest pause {stall:.2f} s", f"{pictures} pictures, {seen['dropped']} dropped"]
