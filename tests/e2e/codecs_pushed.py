"""Every codec that is carried, pushed by a present-day ffmpeg as Enhanced RTMP (or as FLV always had it), and by GStreamer
what its flvmux has."""

import re
from collections import defaultdict, namedtuple

import browser
import publishers
from media import decode
from playlist import wait_for_end
from server import fetch
from tools import Process, output_of

SECONDS = 5
PLAYED_SECONDS = 3
# Encoder options for picture and sound; what CODECS has to say, and what else has to stand in the multivariant playlist.
Case = namedtuple("Case", "name video audio codecs attributes")

X264 = "libx264 -preset ultrafast -pix_fmt yuv420p -g 50"
HDR10 = (
    "libx265 -preset ultrafast -pix_fmt yuv420p10le -g 50 -vf setparams=color_primaries=bt2020:color_trc=smpte2084:colorspace=bt2020nc "
    "-x265-params log-level=error:max-cll=1000,400:"
    "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)")
HLG = (
    "libx265 -preset ultrafast -pix_fmt yuv420p10le -g 50 -x265-params log-level=error "
    "-vf setparams=color_primaries=bt2020:color_trc=arib-std-b67:colorspace=bt2020nc")
# As it is broadcast: old screens take the transfer of the sequence header, those that know HLG what the SEI says.
HLG_BY_SEI = (
    "libx265 -preset ultrafast -pix_fmt yuv420p10le -g 50 -x265-params log-level=error:atc-sei=18 "
    "-vf setparams=color_primaries=bt2020:color_trc=bt2020-10:colorspace=bt2020nc")
STEREO = "-ar 48000 -ac 2"

CASES = [
    Case("h264-422-10", "libx264 -preset ultrafast -pix_fmt yuv422p10le -g 50", "aac -ac 2", "avc1.7a000c,mp4a.40.2", []),
    Case("h264-444", "libx264 -preset ultrafast -pix_fmt yuv444p -g 50", "aac -ac 1", "avc1.f4000c,mp4a.40.2", ['CHANNELS="1"']),
    Case("hevc", "libx265 -preset ultrafast -x265-params log-level=error -g 50", "aac", "hvc1.1.6.L60.90,mp4a.40.2", []),
    Case("hevc-hdr10", HDR10, "aac", "hvc1.2.4.L60.90,mp4a.40.2", ["VIDEO-RANGE=PQ"]),
    Case("hevc-hlg", HLG, "aac", "hvc1.2.4.L60.90,mp4a.40.2", ["VIDEO-RANGE=HLG"]),
    Case("hevc-hlg-by-sei", HLG_BY_SEI, "aac", "hvc1.2.4.L60.90,mp4a.40.2", ["VIDEO-RANGE=HLG"]),
    Case("av1", "libsvtav1 -preset 12 -g 50", "aac", "av01.0.00M.08,mp4a.40.2", []),
    Case("vp9", "libvpx-vp9 -deadline realtime -cpu-used 8 -g 50", "aac", "vp09.00.11.08,mp4a.40.2", []),
    Case("aac-71", X264, "aac -ar 48000 -ac 8", "avc1.42c00c,mp4a.40.2", ['CHANNELS="8"']),
    Case("opus", X264, f"libopus {STEREO}", "avc1.42c00c,opus", ['CHANNELS="2"']),
    Case("opus-60ms", X264, f"libopus -frame_duration 60 {STEREO}", "avc1.42c00c,opus", []),
    Case("opus-51", X264, "libopus -mapping_family 1 -ar 48000 -ac 6", "avc1.42c00c,opus", ['CHANNELS="6"']),
    Case("flac", X264, f"flac {STEREO}", "avc1.42c00c,fLaC", ['CHANNELS="2"']),
    Case("flac-96k", X264, "flac -sample_fmt s32 -ar 96000 -ac 2", "avc1.42c00c,fLaC", []),
    Case("mp3", X264, f"libmp3lame {STEREO}", "avc1.42c00c,mp4a.40.34", ['CHANNELS="2"']),
    Case("mp3-22k", X264, "libmp3lame -ar 22050 -ac 1", "avc1.42c00c,mp4a.40.34", ['CHANNELS="1"']),
    Case("ac3", X264, f"ac3 {STEREO}", "avc1.42c00c,ac-3", ['CHANNELS="2"']),
    Case("eac3-51", X264, "eac3 -ar 48000 -ac 6", "avc1.42c00c,ec-3", ['CHANNELS="6"']),
    # Its syncframes are of two lengths.
    Case("eac3-44k", X264, "eac3 -ar 44100 -ac 2", "avc1.42c00c,ec-3", ['CHANNELS="2"']),
    # What HLS does not carry is left out, and the other track goes on.
    Case("nellymoser", X264, "nellymoser -ar 44100 -ac 1", "avc1.42c00c", []),
    Case("h263", "flv -g 50", "aac", "mp4a.40.2", []),
    Case("vvc", "libvvenc -preset faster -g 50", "aac", "mp4a.40.2", []),
]

def of_gstreamer(profile, pixels="I420"):
    """Encoder, and what it is given and gives."""
    return ["videoconvert", "!", f"video/x-raw,format={pixels}", "!", "x264enc", "speed-preset=veryfast", "key-int-max=50",
            "!", f"video/x-h264,profile={profile}", "!", "h264parse"]


GSTREAMER_CASES = [
    Case("gst-baseline", of_gstreamer("constrained-baseline"), "avenc_aac ! aacparse", "avc1.42c015,mp4a.40.2", []),
    Case("gst-high", of_gstreamer("high"), "voaacenc ! aacparse", "avc1.640014,mp4a.40.2", []),
    Case("gst-422-10", of_gstreamer("high-4:2:2", "I422_10LE"), "avenc_aac ! aacparse", "avc1.7a000d,mp4a.40.2", []),
    Case("gst-444", of_gstreamer("high-4:4:4", "Y444"), "avenc_aac ! aacparse", "avc1.f4000d,mp4a.40.2", []),
    Case("gst-mp3", of_gstreamer("high"), "audioresample ! audio/x-raw,rate=44100 ! lamemp3enc ! mpegaudioparse", "avc1.640014,mp4a.40.34", []),
    # What HLS does not carry.
    Case("gst-speex", of_gstreamer("high"), "audioresample ! audio/x-raw,rate=16000,channels=1 ! speexenc", "avc1.640014", []),
    Case("gst-alaw", of_gstreamer("high"), "audioresample ! audio/x-raw,rate=8000,channels=1 ! alawenc", "avc1.640014", []),
    Case("gst-h263", ["videoconvert", "!", "videoscale", "!", "video/x-raw,width=176,height=144", "!", "avenc_flv"], "avenc_aac ! aacparse",
         "mp4a.40.2", []),
]

# What MediaSource.isTypeSupported() cannot tell.
NOT_IN_CHROMIUM = {"aac-71": "of the channel configurations of AAC it knows those up to 7, and this is 12"}


def pushed_by_ffmpeg(case, kept, url):
    return [
        publishers.modern_ffmpeg(), "-hide_banner", "-loglevel", "info", "-y",
        "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25", "-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000",
        "-t", SECONDS, "-map", "0:v", "-map", "1:a", "-flags", "+global_header",
        "-c:v", *case.video.split(), "-c:a", *case.audio.split(),
        "-f", "tee", f"[f=flv]{kept}|[f=flv]{url}"]


def pushed_by_gstreamer(case, kept, url):
    return [
        "gst-launch-1.0", "-e", "flvmux", "name=mux", "streamable=true", "!", "tee", "name=both",
        "both.", "!", "queue", "!", "rtmp2sink", f"location={url}", "both.", "!", "queue", "!", "filesink", f"location={kept}",
        "videotestsrc", f"num-buffers={25 * SECONDS}", "!", "video/x-raw,width=320,height=180,framerate=25/1", "!", *case.video,
        "!", "queue", "!", "mux.",
        "audiotestsrc", "samplesperbuffer=1024", f"num-buffers={48_000 * SECONDS // 1024}", "!", "audio/x-raw,rate=48000,channels=2",
        "!", "audioconvert", "!", *case.audio.split(), "!", "queue", "!", "mux."]


def push_and_compare(case, upscope, web, report, command=pushed_by_ffmpeg):
    program = publishers.modern_ffmpeg()
    kept = publishers.MEDIA / f"codec-{case.name}.flv"
    url = web.playlist_url(upscope, case.name)
    with report.check(f"codec {case.name}: every packet comes out, decodes, and is called by its name") as notes:
        kept.parent.mkdir(exist_ok=True)
        Process(f"codec-{case.name}", command(case, kept, f"{upscope.app_url}/{case.name}")).expect_success(120)
        wait_for_end(url, 10)
        multivariant = fetch(url)[1].decode()
        codecs = re.findall(r'CODECS="([^"]*)"', multivariant)
        assert codecs == [case.codecs], f"CODECS are {codecs}, not {case.codecs}"
        for attribute in case.attributes:
            assert attribute in multivariant, f"{attribute} is not in the multivariant playlist"
        sent, served = packets_of(program, kept), packets_of(program, url)
        for codec in served:
            assert served[codec] == sent[codec], f"{codec}: {len(sent[codec])} packets in, {len(served[codec])} out"
        assert len(served) == case.codecs.count(",") + 1, f"served are {sorted(served)}"
        decode(url, program)
        notes.append(case.codecs)
        notes.append(" and ".join(f"{len(packets)} {codec}" for codec, packets in sorted(served.items())))

    with report.check(f"codec {case.name}: hls.js plays it in Chromium, if Chromium takes it") as notes:
        if case.name in NOT_IN_CHROMIUM:
            notes.append(f"it does not: {NOT_IN_CHROMIUM[case.name]}")
            return
        seen = browser.watch(f"codec-{case.name}", f"{web.base}/players/hlsjs.html?src={url}&codecs={case.codecs}", PLAYED_SECONDS)
        if not seen["supported"]:
            notes.append(f"Chromium does not take {case.codecs}")
        elif "avc" in case.codecs or "," in case.codecs:
            notes += browser.expect_playing(seen, PLAYED_SECONDS - 1)
        else:
            notes += browser.expect_heard(seen, PLAYED_SECONDS - 1)


CAPTION_SECONDS = (1, 3)


def push_text_and_look(upscope, web, report):
    """Text for a moment (ffmpeg sends a subtitle as onTextData) reaches a player at that moment."""
    subtitles = publishers.MEDIA / "captions.srt"
    subtitles.write_text("".join(
        f"{number}\n00:00:0{second},000 --> 00:00:0{second},500\nhello at {second}\n\n" for number, second in enumerate(CAPTION_SECONDS)))
    url = web.playlist_url(upscope, "text")
    with report.check("onTextData: ffmpeg's text is ID3 in emsg, and hls.js hands it over at its time") as notes:
        Process("text", [
            publishers.modern_ffmpeg(), "-hide_banner", "-re", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25",
            "-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000", "-i", subtitles, "-t", SECONDS,
            "-c:v", *X264.split(), "-c:a", "aac", "-c:s", "text", "-map", "0", "-map", "1", "-map", "2",
            "-f", "flv", f"{upscope.app_url}/text"]).expect_success(60)
        wait_for_end(url, 10)
        seen = browser.watch("text", f"{web.base}/players/hlsjs.html?src={url}", PLAYED_SECONDS)
        for second in CAPTION_SECONDS:
            times = [each["pts"] for each in seen["metadata"] if f"hello at {second}" in each["text"] and "onTextData" in each["text"]]
            assert len(times) == 1, f"'hello at {second}' came {len(times)} times: {seen['metadata']}"
            # hls.js counts from the first picture, which is shown two frames after it is decoded.
            assert abs(times[0] - second) < 0.1, f"'hello at {second}' is handed over at {times[0]:.3f} s"
            notes.append(f"said at {second} s, handed over at {times[0]:.2f} s")


def packets_of(program, source):
    """The hashes of the packets of each track, by the codec's name. AV1's temporal delimiters do not count, as files have none."""
    listed = output_of([program, "-v", "error", "-i", source, "-map", "0", "-c", "copy", "-f", "framehash", "-hash", "md5", "-"])
    names = dict(re.findall(r"^#codec_id (\d+): (\w+)$", listed.decode(), re.MULTILINE))
    if "av1" in names.values():
        without = ["-bsf:v", "av1_metadata=td=remove"]
        listed = output_of([program, "-v", "error", "-i", source, "-map", "0", "-c", "copy", *without, "-f", "framehash", "-hash", "md5", "-"])
    packets = defaultdict(list)
    for line in listed.decode().splitlines():
        if not line.startswith("#"):
            fields = [field.strip() for field in line.split(",")]
            packets[names[fields[0]]].append(fields[-1])
    return packets
