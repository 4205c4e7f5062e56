"""Broadcasters, each as its users call it. `push` blocks until the broadcast is over."""

import functools
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tools import HERE, Process, WORK, output_of

MEDIA = WORK / "media"
LIVE_SECONDS = 12


@dataclass
class Publisher:
    """`push(url)` broadcasts; `source` is a file with the same packets as those sent."""
    name: str
    title: str
    source: Path
    command: callable
    # How far packets may come out from the time at which they were sent, each for itself.
    jitter_ms: float = 2

    def push(self, app_url):
        self.source.parent.mkdir(exist_ok=True)
        Process(self.name, self.command(f"{app_url}/{self.name}")).expect_success(60)


def ffmpeg_copy(program, name, title, clip):
    return Publisher(name, title, clip, lambda url: [
        program, "-hide_banner", "-loglevel", "info", "-re", "-i", clip, "-c", "copy", "-f", "flv", url])


def ffmpeg_at_once(program, name, title, clip):
    """Not at the pace at which it plays; ffmpeg is gone as soon as the system has taken the last byte from it."""
    return Publisher(name, title, clip, lambda url: [
        program, "-hide_banner", "-loglevel", "info", "-i", clip, "-c", "copy", "-f", "flv", url])


def ffmpeg_live(program, name, title):
    """Encodes while it sends, and keeps what it sends."""
    kept = MEDIA / f"{name}.flv"
    return Publisher(name, title, kept, lambda url: [
        program, "-hide_banner", "-loglevel", "info", "-y",
        "-re", "-f", "lavfi", "-i", "testsrc2=size=640x360:rate=30",
        "-re", "-f", "lavfi", "-i", "sine=frequency=440:beep_factor=4:sample_rate=48000",
        "-t", LIVE_SECONDS, "-map", "0:v", "-map", "1:a", "-flags", "+global_header",
        "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "60", "-b:v", "800k",
        "-c:a", "aac", "-b:a", "96k", "-f", "tee", f"[f=flv]{kept}|[f=flv]{url}"])


def gstreamer_live(name, title):
    kept = MEDIA / f"{name}.flv"
    return Publisher(name, title, kept, lambda url: [
        # On a busy machine the muxer would not wait for sound that is late, and would give it the time of the picture before.
        "gst-launch-1.0", "-e", "flvmux", "name=mux", "streamable=true", "latency=1000000000", "!", "tee", "name=both",
        "both.", "!", "queue", "!", "rtmp2sink", f"location={url}",
        "both.", "!", "queue", "!", "filesink", f"location={kept}",
        "videotestsrc", "is-live=true", f"num-buffers={30 * LIVE_SECONDS}", "!", "video/x-raw,width=640,height=360,framerate=30/1",
        "!", "x264enc", "bitrate=800", "speed-preset=ultrafast", "key-int-max=60", "!", "queue", "!", "mux.",
        "audiotestsrc", "is-live=true", "wave=ticks", "samplesperbuffer=1024", f"num-buffers={48 * LIVE_SECONDS * 1000 // 1024}",
        "!", "audio/x-raw,rate=48000,channels=2", "!", "audioconvert", "!", "avenc_aac", "!", "aacparse", "!", "queue", "!", "mux."])


def gstreamer_remux(name, title, clip):
    """A file with B-frames, not encoded again."""
    kept = MEDIA / f"{name}.flv"
    return Publisher(name, title, kept, lambda url: [
        "gst-launch-1.0", "-e", "filesrc", f"location={clip}", "!", "flvdemux", "name=demux",
        "flvmux", "name=mux", "streamable=true", "!", "tee", "name=both",
        "both.", "!", "queue", "!", "rtmp2sink", f"location={url}", "sync=true",
        "both.", "!", "queue", "!", "filesink", f"location={kept}",
        "demux.video", "!", "queue", "!", "h264parse", "!", "mux.",
        "demux.audio", "!", "queue", "!", "aacparse", "!", "mux."],
        # It sends the first two audio frames with the same time.
        jitter_ms=25)


def librtmp(name, title, clip):
    return Publisher(name, title, clip, lambda url: [librtmp_program(), clip, f"{url} live=1"])


@functools.cache
def librtmp_program():
    program = WORK / "librtmp_push"
    output_of(["cc", "-O1", "-Wall", "-o", program, HERE / "librtmp_push.c", "-lrtmp"])
    return program


def modern_ffmpeg():
    """The newest ffmpeg that PyPI has; Debian's is years old."""
    python = WORK / "venv" / "bin" / "python"
    return output_of([python, "-c", "import imageio_ffmpeg as it; print(it.get_ffmpeg_exe())"]).decode().strip()


def version_of(program):
    return subprocess.run([program, "-version"], capture_output=True, text=True).stdout.split()[2]


def test_clip():
    """A minute of H.264 with B-frames and AAC: white flash and beep at each full second, key frame every 2 s."""
    return made("flash-and-beep.flv", [
        "-f", "lavfi", "-i", "testsrc2=size=640x360:rate=30,drawbox=color=white:thickness=fill:enable='lt(mod(t,1),0.08)'",
        "-f", "lavfi", "-i", "aevalsrc='if(lt(mod(t,1),0.08),0.5*sin(2*PI*1000*t),0)':sample_rate=48000:channel_layout=stereo",
        "-t", 60, "-c:v", "libx264", "-preset", "veryfast", "-bf", 2, "-g", 60, "-sc_threshold", 0, "-b:v", "800k",
        "-pix_fmt", "yuv420p", "-c:a", "aac", "-b:a", "96k"])


def dense_clip():
    """A minute of some 40 MB, more than systems hold on its way."""
    return made("dense.flv", [
        "-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=25", "-f", "lavfi", "-i", "sine",
        "-t", 60, "-c:v", "libx264", "-preset", "ultrafast", "-b:v", "6M", "-g", 50, "-c:a", "aac"])


def made(name, arguments):
    """A clip that ffmpeg makes, once."""
    clip = MEDIA / name
    if not clip.exists():
        MEDIA.mkdir(parents=True, exist_ok=True)
        unfinished = clip.with_suffix(".part")
        output_of(["ffmpeg", "-v", "error", "-y", *arguments, "-f", "flv", unfinished], 180)
        unfinished.rename(clip)
    return clip


def shortened(clip, seconds):
    """The first `seconds` of a clip."""
    short = MEDIA / f"{clip.stem}-{seconds}s.flv"
    MEDIA.mkdir(parents=True, exist_ok=True)
    output_of(["ffmpeg", "-v", "error", "-y", "-i", clip, "-t", seconds, "-c", "copy", "-f", "flv", short])
    return short
