"""The end-to-end tests: real broadcasters push, a plain web server serves, real players play. See README.md."""

import re
import shutil
import signal
import sys
import threading
import time
from contextlib import ExitStack, contextmanager

import browser
import codecs_pushed
import door
import media
import obs
import publishers
from playlist import Watcher, media_playlists, wait_for_end, wait_for_playlist
from server import SEGMENT_SECONDS, UPSCOPE, Upscope, WebServer
from tools import LOGS, Process, ROOT, Report, WORK, free_port, output_of, wait_until

SAMPLE = ROOT / "samples" / "big-buck-bunny.flv"
SAMPLE_SECONDS = 16
OBS_SECONDS = 14
VIEW_SECONDS = 9
# How long after its broadcaster a stream may go on before it has to say that it has ended.
END_LIMIT = 10
# A broadcaster that drops: seconds off the air, and how long viewers look on from before to after.
OFF_AIR_SECONDS = 2
# The viewers have about 6 s in hand, but Shaka Player 5.2 loses count of its window some time after a gap in
# EXT-X-PROGRAM-DATE-TIME of more than 1 s (its segment index runs empty), stands still for 1 to 3 s and goes on.
DROP_PAUSE_LIMIT = 5
DROP_VIEW_SECONDS = 24
# The server is killed so often, and lives so long, in seconds. Each time the open segment is lost, and with it up to two
# seconds of film and the way to the next key frame.
KILLS = 20
KILL_EVERY = 5
KILL_PAUSE_LIMIT = 5
KILL_LOSS_LIMIT = 2.5
# hls.js and Shaka Player stay about three target durations behind the newest segment.
LATENCY_LIMIT = 6 * SEGMENT_SECONDS

report = Report()


def main(parts):
    parts = parts or ["publishers", "codecs", "obs", "players", "drop", "kills", "door", "demo"]
    for folder in (LOGS, WORK / "out", WORK / "chromium"):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    clip = publishers.test_clip()

    # One server keeps everything, so that it can be counted; one has a short window that slides, as usual for viewers;
    # one lets in only who has a key.
    with (
        stopped_at_the_end(Upscope("whole", window=60)) as whole,
        stopped_at_the_end(Upscope("window", window=6)) as window,
        stopped_at_the_end(door.Guarded("guarded")) as guarded,
    ):
        web = WebServer([whole, window, guarded])
        if "publishers" in parts:
            together(*(lambda each=each: push_and_compare(each, whole, web) for each in all_publishers(clip)))
        if "codecs" in parts:
            for case in codecs_pushed.CASES:
                codecs_pushed.push_and_compare(case, whole, web, report)
            for case in codecs_pushed.GSTREAMER_CASES:
                codecs_pushed.push_and_compare(case, whole, web, report, codecs_pushed.pushed_by_gstreamer)
            codecs_pushed.push_text_and_look(whole, web, report)
        if "obs" in parts:
            stream_from_obs(clip, whole, web)
        if "players" in parts:
            play(clip, window, web)
        if "drop" in parts:
            play_through_a_drop(clip, window, web)
        if "door" in parts:
            door.knock(guarded, clip, web, report)
    if "kills" in parts:
        play_through_kills(clip)
    if "demo" in parts:
        play_demo()
    return report.close()


@contextmanager
def stopped_at_the_end(upscope):
    yield upscope
    with report.check(f"upscope ({upscope.out.name}) ends within 1 s of SIGTERM with exit code 0") as notes:
        began = time.monotonic()
        code = upscope.stop()
        assert code == 0, f"exit code {code}: {upscope.process.last_line()}"
        assert time.monotonic() - began <= 1, f"took {time.monotonic() - began:.1f} s"
        assert "panicked" not in upscope.process.log(), f"a panic, see {upscope.process.log_path}"
        notes.append(f"{1000 * (time.monotonic() - began):.0f} ms")
    if not any(upscope.out.glob("*/*")):
        return
    with report.check(f"upscope inspect finds nothing wrong in {upscope.out.name}/"):
        output_of([UPSCOPE, "inspect", upscope.out])


def together(*jobs):
    """Runs all at once, waits for all."""
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# -- what is pushed comes out --------------------------------------------------------------------------------------------


def all_publishers(clip):
    modern = publishers.modern_ffmpeg()
    old_name, new_name = (f"ffmpeg {publishers.version_of(program).split('-')[0]}" for program in ("ffmpeg", modern))
    sample = SAMPLE if media.seconds_of(SAMPLE) <= SAMPLE_SECONDS + 4 else publishers.shortened(SAMPLE, SAMPLE_SECONDS)
    clip = publishers.shortened(clip, SAMPLE_SECONDS)
    return [
        publishers.ffmpeg_copy("ffmpeg", "ffmpeg-copy", f"{old_name}, -c copy", sample),
        publishers.ffmpeg_copy(modern, "ffmpeg-new-copy", f"{new_name}, -c copy", sample),
        publishers.ffmpeg_live("ffmpeg", "ffmpeg-live", f"{old_name}, encoding"),
        publishers.gstreamer_live("gst-live", "GStreamer rtmp2sink, encoding"),
        publishers.gstreamer_remux("gst-remux", "GStreamer rtmp2sink, remuxing B-frames", clip),
        publishers.librtmp("librtmp", "librtmp", sample),
        publishers.ffmpeg_at_once("ffmpeg", "ffmpeg-at-once", f"{old_name}, -c copy, at full speed", publishers.dense_clip()),
        publishers.ffmpeg_at_once(modern, "ffmpeg-new-at-once", f"{new_name}, -c copy, at full speed", publishers.dense_clip()),
    ]


def push_and_compare(publisher, upscope, web):
    url = web.playlist_url(upscope, publisher.name)
    watcher = Watcher(url)
    with report.check(f"{publisher.title}: publishes to the end") as notes:
        began = time.monotonic()
        publisher.push(upscope.app_url)
        notes.append(f"{time.monotonic() - began:.1f} s")
    if not came_to_an_end(publisher.title, url, watcher):
        return
    with report.check(f"{publisher.title}: every packet once, in order, in time") as notes:
        served = media.packets_of(url)
        notes.append(media.compare(media.packets_of(publisher.source), served, publisher.jitter_ms))


def stream_from_obs(clip, upscope, web):
    url = web.playlist_url(upscope, "obs")
    watcher = Watcher(url)
    title = "OBS"
    with report.check(f"{title}: streams for {OBS_SECONDS} s"):
        obs.broadcast(upscope.app_url, "obs", clip, OBS_SECONDS)
    if not came_to_an_end(title, url, watcher):
        return
    with report.check(f"{title}: as many pictures as it says to have sent, in an unbroken row") as notes:
        packets = media.packets_of(url)
        # OBS counts the sequence header as a frame.
        sent = int(re.search(r"Total frames output: (\d+)", (LOGS / "obs.log").read_text(errors="replace"))[1]) - 1
        assert len(packets["video"]) == sent, f"{sent} sent, {len(packets['video'])} served"
        # A step of two frames is OBS on a busy machine skipping one.
        media.expect_continuous(packets["video"], 1000 / 30, most_ms=120)
        media.expect_continuous(packets["audio"], 1024 / 48)
        seconds = (packets["audio"][-1].pts - packets["audio"][0].pts) / 1000
        assert abs(seconds - sent / 30) < 0.2, f"{seconds:.2f} s of sound for {sent} pictures at 30 a second"
        notes.append(f"{sent} pictures, {len(packets['audio'])} audio packets")
    with report.check(f"{title}: sound and picture together") as notes:
        late = media.flash_to_beep_ms(url, packets)
        assert abs(late) < 120, f"the beep is heard {late:+.0f} ms after the flash"
        notes.append(f"beep {late:+.0f} ms after the flash")


def came_to_an_end(title, url, watcher, most_discontinuities=0):
    """Whether the stream is now whole and can be read from its first segment to its last."""
    has_ended = False
    with report.check(f"{title}: EXT-X-ENDLIST after the end") as notes:
        began = time.monotonic()
        playlists = wait_for_end(url, END_LIMIT)
        has_ended = True
        notes.append(f"after {time.monotonic() - began:.1f} s")
        notes.append(" and ".join(f"{len(each.segments)} segments" for each in playlists))
        assert all(each.discontinuities <= most_discontinuities for each in playlists), "there is a discontinuity"
    with report.check(f"{title}: the playlists kept their promises all the time") as notes:
        time.sleep(0.5)
        notes.append(watcher.finish())
    if has_ended:
        with report.check(f"{title}: ffmpeg decodes it without a complaint"):
            media.decode(url)
    return has_ended


# -- what comes out can be played ----------------------------------------------------------------------------------------


def play(clip, upscope, web):
    url = web.playlist_url(upscope, "show")
    pages = player_pages(web, url)
    watcher = Watcher(url)
    began = time.monotonic()
    broadcast = on_the_air("show", clip, upscope)
    with report.check("live: the playlist is there soon after the first byte") as notes:
        wait_for_playlist(url)
        notes.append(f"{time.monotonic() - began:.1f} s")
    with report.check("live: the window fills"):
        # Until the oldest segments leave it: the ordinary state of a live stream.
        wait_until(lambda: all(len(each.segments) >= 6 for each in wait_for_playlist(url)), 20, "six segments are listed")
    together(*(lambda each=each: play_live(each, pages[each]) for each in pages), lambda: read_live(url))

    with report.check("live: the broadcaster is still on the air"):
        assert broadcast.is_alive(), f"ffmpeg has ended: {broadcast.last_line()}"
        broadcast.stop(signal.SIGINT)
    if came_to_an_end("live", url, watcher):
        together(*(lambda each=each: play_after_the_end(each, pages[each]) for each in pages))


def player_pages(web, url):
    return {"hls.js": f"{web.base}/players/hlsjs.html?src={url}", "Shaka Player": f"{web.base}/players/shaka.html?src={url}"}


def on_the_air(name, clip, upscope):
    return Process(name, ["ffmpeg", "-hide_banner", "-re", "-i", clip, "-c", "copy", "-f", "flv", f"{upscope.app_url}/{name}"])


def play_live(player, page):
    with report.check(f"{player}: plays live in Chromium") as notes:
        seen = browser.watch(f"live-{simple(player)}", page, VIEW_SECONDS)
        notes += browser.expect_playing(seen, VIEW_SECONDS - 1)
        assert seen["latency"] is not None, "no date for the picture (EXT-X-PROGRAM-DATE-TIME)"
        notes.append(f"{seen['latency']:.1f} s behind")
        assert 0 < seen["latency"] <= LATENCY_LIMIT, f"{seen['latency']:.1f} s behind the broadcaster"


def play_after_the_end(player, page):
    with report.check(f"{player}: plays to the end after the end of the broadcast") as notes:
        seen = browser.watch(f"ended-{simple(player)}", page, 4, to_end=True)
        notes += browser.expect_playing(seen, 3)
        assert seen["duration"], "the player takes it for a live stream"
        assert seen["ended"], "the player never came to the end"
        notes.append(f"{seen['duration']:.1f} s long")


def read_live(url):
    with report.check("ffmpeg: reads live as fast as it comes") as notes:
        began = time.monotonic()
        progress = output_of(["ffmpeg", "-v", "error", "-xerror", "-nostats", "-progress", "-", "-i", url, "-t", 10, *media.to_nowhere("ffmpeg")])
        frames = int(re.findall(rb"frame=(\d+)", progress)[-1])
        # Sound begins a little before the picture, and the last pictures of the ten seconds may still be in the decoder.
        assert 295 <= frames <= 301, f"{frames} frames in 10 s of a stream with 30 a second"
        notes.append(f"10 s in {time.monotonic() - began:.1f} s")


def play_through_a_drop(clip, upscope, web):
    """The broadcaster's program is killed and started again; the viewers stay."""
    url = web.playlist_url(upscope, "drop")
    pages = player_pages(web, url)
    watcher = Watcher(url)
    broadcast = on_the_air("drop", clip, upscope)
    with report.check("drop: three segments are listed"):
        wait_until(lambda: all(len(each.segments) >= 3 for each in wait_for_playlist(url)), 20, "three segments")

    def drop():
        nonlocal broadcast
        time.sleep(8)
        broadcast.stop(signal.SIGKILL)
        time.sleep(OFF_AIR_SECONDS)
        broadcast = on_the_air("drop", clip, upscope)
    together(drop, *(lambda each=each: look_on(each, pages[each]) for each in pages))

    with report.check("drop: the broadcaster is on the air again, in the same playlist after a discontinuity"):
        assert broadcast.is_alive(), f"ffmpeg has ended: {broadcast.last_line()}"
        for each in media_playlists(url):
            assert not each.is_ended, "there is an EXT-X-ENDLIST"
            assert each.discontinuities or each.discontinuity_sequence, "there is no discontinuity"
    broadcast.stop(signal.SIGINT)
    came_to_an_end("drop", url, watcher, most_discontinuities=1)


def look_on(player, page):
    with report.check(f"{player}: plays on after a drop of {OFF_AIR_SECONDS} s") as notes:
        seen = browser.watch(f"drop-{simple(player)}", page, DROP_VIEW_SECONDS)
        notes += browser.expect_playing_on(seen, DROP_VIEW_SECONDS - 1, DROP_PAUSE_LIMIT)


def play_through_kills(clip):
    """upscope is killed and started again, many times; the broadcaster's program comes back by itself, the viewer stays."""
    with stopped_at_the_end(Upscope("kills", window=6)) as upscope:
        web = WebServer([upscope])
        url = web.playlist_url(upscope, "survivor")
        watcher = Watcher(url)
        over = threading.Event()

        def broadcast():
            while not over.is_set():
                encoder = on_the_air("survivor", clip, upscope)
                while encoder.is_alive() and not over.wait(0.1):
                    pass
                encoder.stop(signal.SIGINT)

        def kill():
            try:
                for count in range(KILLS):
                    # Anywhere in a segment.
                    time.sleep(KILL_EVERY + count % 5 * 0.37)
                    upscope.kill_and_start()
                time.sleep(KILL_EVERY)
            finally:
                over.set()

        def look_on():
            with report.check(f"hls.js: plays on through {KILLS} kills of the server") as notes:
                wait_until(lambda: all(len(each.segments) >= 2 for each in wait_for_playlist(url)), 20, "two segments")
                seconds = KILLS * (KILL_EVERY + 0.74)
                seen = browser.watch("kills-hls-js", player_pages(web, url)["hls.js"], seconds)
                notes += browser.expect_survived(seen, seconds - 1, KILL_PAUSE_LIMIT, KILLS * KILL_LOSS_LIMIT)
        together(broadcast, kill, look_on)

        with report.check("kills: the same playlist all the time, with discontinuities") as notes:
            assert len(list(upscope.out.glob("live/survivor/~*"))) == 1, "there is more than one broadcast"
            notes += [f"{each.discontinuity_sequence + each.discontinuities} discontinuities" for each in media_playlists(url)]
        came_to_an_end("kills", url, watcher, most_discontinuities=7)
        web.process.stop()


def play_demo():
    with report.check("upscope demo: its page plays in Chromium") as notes, ExitStack() as cleanup:
        port = free_port()
        # Its own addresses are [::]:1935 and [::]:8080; something else may have them on this machine.
        demo = Process("demo", [UPSCOPE, "demo", "--rtmp", "127.0.0.1:0", "--http", f"[::]:{port}", "--out", WORK / "out" / "demo"])
        cleanup.callback(demo.stop)
        # What it prints is what a newcomer opens.
        page = wait_until(lambda: re.search(r"watch +(http://\S+)", demo.log()), 10, "the demo says where to watch")[1]
        seen = browser.watch("demo", page, VIEW_SECONDS)
        notes += browser.expect_playing(seen, VIEW_SECONDS - 1)
        assert demo.is_alive(), f"the demo has ended: {demo.last_line()}"


def simple(name):
    return re.sub(r"\W+", "-", name.lower())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
