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
    samples, pauses = _movement(seen)
    played, wall = samples[-1][1] - samples[0][1], (samples[-1][0] - samples[0][0]) / 1000
    pictures = samples[-1][2] - samples[0][2]
    longest = max(length for _, length in pauses)
    assert longest <= STALL_SECONDS, f"stood still for {longest:.1f} s"
    assert wall >= seconds and played >= 0.9 * seconds, f"advanced by {played:.1f} s in {wall:.1f} s"
    assert pictures >= 10 * seconds, f"only {pictures} pictures decoded in {wall:.1f} s"
    return [f"{played:.1f} s played in {wall:.1f} s", f"first picture after {samples[0][0] / 1000:.1f} s",
            f"longest pause {longest:.2f} s", f"{pictures} pictures, {seen['dropped']} dropped"]


def expect_heard(seen, seconds):
    """Sound alone: the position moves for `seconds`, nothing fatal."""
    fatal = [each["what"] for each in seen["errors"] if each["fatal"]]
    assert not fatal and not seen["media_error"], f"the player gave up: {fatal or seen['media_error']}"
    heard = seen["samples"][-1][1] - seen["samples"][0][1]
    assert heard >= seconds, f"advanced by {heard:.1f} s"
    return [f"{heard:.1f} s heard"]


def expect_playing_on(seen, seconds, most_pause):
    """Whatever happens on the way: nothing fatal, no pause above `most_pause`, and the picture gets there."""
    samples, pauses = _movement(seen)
    played, wall = samples[-1][1] - samples[0][1], (samples[-1][0] - samples[0][0]) / 1000
    longest = max(length for _, length in pauses)
    assert longest <= most_pause, f"stood still for {longest:.1f} s; errors: {[each['what'] for each in seen['errors']][-3:]}"
    assert wall >= seconds and played >= seconds - most_pause, f"advanced by {played:.1f} s in {wall:.1f} s"
    return [f"longest pause {longest:.1f} s", f"{played:.1f} s further in {wall:.1f} s"]


def expect_survived(seen, seconds, most_pause, most_lost):
    """However often the server went away: nothing fatal, no pause above `most_pause`, little lost, and it moves to the last."""
    samples, pauses = _movement(seen)
    played, wall = samples[-1][1] - samples[0][1], (samples[-1][0] - samples[0][0]) / 1000
    longest = max(length for _, length in pauses)
    assert longest <= most_pause, f"stood still for {longest:.1f} s; errors: {[each['what'] for each in seen['errors']][-3:]}"
    assert wall >= seconds and played >= wall - most_lost, f"advanced by {played:.1f} s in {wall:.1f} s"
    return [f"{played:.1f} s further in {wall:.1f} s", f"longest pause {longest:.1f} s"]


def _movement(seen):
    """The samples from the first movement on, and each pause: (when, ms; how long, s)."""
    fatal = [each["what"] for each in seen["errors"] if each["fatal"]]
    assert not fatal and not seen["media_error"], f"the player gave up: {fatal or seen['media_error']}"
    samples = seen["samples"]
    moving = [index for index in range(1, len(samples)) if samples[index][1] != samples[index - 1][1]]
    assert moving, f"never played; errors: {seen['errors'][:3]}, console: {seen['console'][-3:]}"
    assert seen["colours"] > 3, "the picture is blank"
    times = [samples[index][0] for index in moving] + [samples[-1][0]]
    return samples[moving[0]:], [(before, (after - before) / 1000) for before, after in zip(times, times[1:])]
