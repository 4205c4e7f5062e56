"""What is inside a file or a stream, by ffprobe and ffmpeg, and how two of them compare."""

import difflib
import json
import statistics
import subprocess
from collections import namedtuple

from tools import output_of

# Times in milliseconds; `hash` is the MD5 of the coded bytes.
Packet = namedtuple("Packet", "pts dts duration size hash is_key")


def packets_of(source):
    """{"video": [Packet], "audio": [Packet]} in the order in which the demuxer gives them."""
    listed = json.loads(output_of([
        "ffprobe", "-v", "error", "-show_packets", "-show_data_hash", "MD5", "-of", "json",
        "-show_entries", "packet=codec_type,pts_time,dts_time,duration_time,size,flags,data_hash", source]))
    packets = {"video": [], "audio": []}
    for each in listed["packets"]:
        if each["codec_type"] in packets:
            packets[each["codec_type"]].append(Packet(
                1000 * float(each["pts_time"]), 1000 * float(each["dts_time"]), 1000 * float(each.get("duration_time", 0)),
                int(each["size"]), each["data_hash"], each["flags"].startswith("K")))
    return packets


def seconds_of(source):
    return float(output_of(["ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", source]))


# Decodes to nowhere. The times are left alone: rounded to whole frames, those of an encoder that was late for one
# would fall together, and ffmpeg would complain about its own rounding.
def to_nowhere(program):
    time_base = "-1" if program == "ffmpeg" else "demux"  # Debian's ffmpeg does not know the word yet
    return ["-fps_mode", "passthrough", "-enc_time_base", time_base, "-f", "null", "-"]


def decode(url, program="ffmpeg"):
    """Decodes all of it; any complaint of the decoder is an error."""
    done = subprocess.run([program, "-v", "error", "-xerror", "-nostdin", "-i", url, *to_nowhere(program)],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and not done.stderr.strip(), f"ffmpeg complains: {done.stderr.strip()[:300] or done.returncode}"


def compare(source, served, jitter_ms):
    """Every packet of the source once, in order, at its time. Returns what to tell.

    Audio that lies before the first picture may be absent: a timeline may begin at the first key frame.
    """
    deviations = {}
    for kind in ("video", "audio"):
        there, here = source[kind], served[kind]
        if kind == "audio" and source["video"]:
            first_picture = min(each.pts for each in source["video"])
            leading = 0
            while len(there) - leading > len(here) and there[leading].pts < first_picture:
                leading += 1
            there = there[leading:]
        if [each.hash for each in there] != [each.hash for each in here]:
            raise AssertionError(f"{kind}: {len(there)} packets in, {len(here)} out; {_first_differences(there, here)}")
        deviations[kind] = [b.pts - a.pts for a, b in zip(there, here)]

    shift = {kind: statistics.median(values) for kind, values in deviations.items() if values}
    for kind, values in deviations.items():
        jitter = max((abs(value - shift[kind]) for value in values), default=0)
        assert jitter <= jitter_ms, f"{kind}: a packet is {jitter:.1f} ms off its time"
    offset = shift["audio"] - shift["video"] if len(shift) == 2 else 0
    assert abs(offset) <= 1, f"audio has moved by {offset:+.1f} ms against video"
    return f"{len(served['video'])} video and {len(served['audio'])} audio packets, A/V offset {offset:+.2f} ms"


def _first_differences(there, here, limit=4):
    matcher = difflib.SequenceMatcher(None, [each.hash for each in there], [each.hash for each in here], autojunk=False)
    words = []
    for verb, a, b, c, d in matcher.get_opcodes():
        if verb != "equal":
            words.append(f"{verb} in[{a}:{b}] ({there[a].pts:.0f} ms) out[{c}:{d}]" if a < len(there) else f"{verb} at the end out[{c}:{d}]")
    return "; ".join(words[:limit])


def expect_continuous(packets, frame_ms, most_ms=None):
    """Decode times go on frame by frame: no step is backwards, none is longer than `most_ms`."""
    most_ms = most_ms or 1.5 * frame_ms
    for before, after in zip(packets, packets[1:]):
        step = after.dts - before.dts
        assert 0 < step <= most_ms, f"decode time steps by {step:.1f} ms at {before.dts:.0f} ms (a frame is {frame_ms:.1f} ms)"
        assert abs(step - before.duration) < 1, f"at {before.dts:.0f} ms a duration of {before.duration:.1f} ms precedes a step of {step:.1f} ms"


def flash_to_beep_ms(url, packets):
    """How much later than its flash each beep of the test clip is heard (median, ms): pictures white and a beep at each full second."""
    brightness = output_of(["ffmpeg", "-v", "error", "-i", url, "-map", "0:v:0", "-vf", "scale=1:1:flags=area,format=gray",
                            "-fps_mode", "passthrough", "-f", "rawvideo", "-"], 120)
    frame_times = sorted(each.pts for each in packets["video"])
    flashes = [time for time, now, before in zip(frame_times[1:], brightness[1:], brightness) if now > 220 >= before]

    rate = 8000
    sound = memoryview(output_of(["ffmpeg", "-v", "error", "-i", url, "-map", "0:a:0", "-ac", "1", "-ar", rate, "-f", "s16le", "-"], 120)).cast("h")
    start, beeps, silent_until = packets["audio"][0].pts, [], 0
    for index, sample in enumerate(sound):
        if abs(sample) > 3000:
            if index >= silent_until:
                beeps.append(start + 1000 * index / rate)
            silent_until = index + rate // 2

    differences = [beep - min(flashes, key=lambda flash: abs(flash - beep)) for beep in beeps if flashes]
    assert len(differences) >= 5, f"only {len(flashes)} flashes and {len(beeps)} beeps found"
    return statistics.median(differences)
