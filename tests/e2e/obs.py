"""OBS Studio as a broadcaster: a profile and a scene made here, a virtual screen, its own home folder.

OBS has no switch to end a broadcast; its output timer (one of its own tools) does it, the way the Stop button does.
"""

import json
import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

from tools import LOGS, Process, WORK, wait_until

HOME = WORK / "obs-home"
VERSION_29 = 29 << 24


def configure(rtmp_url, key, media, seconds):
    """Writes the settings a person would click together: media source, x264, key frame every 2 s, custom service."""
    shutil.rmtree(HOME, ignore_errors=True)
    config = HOME / ".config" / "obs-studio"
    profile = config / "basic" / "profiles" / "e2e"
    scenes = config / "basic" / "scenes"
    for folder in (profile, scenes):
        folder.mkdir(parents=True)

    (config / "global.ini").write_text(
        f"[General]\nFirstRun=true\nLastVersion={VERSION_29}\nEnableAutoUpdates=false\n"
        "[Basic]\nProfile=e2e\nProfileDir=e2e\nSceneCollection=e2e\nSceneCollectionFile=e2e\n"
        "[BasicWindow]\nPreviewEnabled=false\nSysTrayEnabled=true\nWarnBeforeStartingStream=false\n")
    (profile / "basic.ini").write_text(
        "[General]\nName=e2e\n"
        "[Video]\nBaseCX=640\nBaseCY=360\nOutputCX=640\nOutputCY=360\nFPSType=0\nFPSCommon=30\n"
        "[Audio]\nSampleRate=48000\nChannelSetup=Stereo\n"
        "[Output]\nMode=Advanced\nReconnect=false\nDelayEnable=false\n"
        "[AdvOut]\nEncoder=obs_x264\nApplyServiceSettings=false\nTrackIndex=1\nTrack1Bitrate=128\n")
    (profile / "streamEncoder.json").write_text(json.dumps(
        {"rate_control": "CBR", "bitrate": 1200, "keyint_sec": 2, "preset": "veryfast", "profile": "high", "tune": ""}))
    (profile / "service.json").write_text(json.dumps(
        {"type": "rtmp_custom", "settings": {"server": rtmp_url, "key": key, "use_auth": False, "bwtest": False}}))
    (scenes / "e2e.json").write_text(json.dumps(scene(media, seconds)))


def scene(media, seconds):
    def source(kind, name, settings, mixers=0):
        return {"id": kind, "versioned_id": kind, "name": name, "settings": settings, "enabled": True, "mixers": mixers,
                "volume": 1.0, "muted": False, "sync": 0, "flags": 0, "monitoring_type": 0}

    playing = source("ffmpeg_source", "Clip", {
        "local_file": str(media), "is_local_file": True, "looping": True, "hw_decode": False,
        "restart_on_activate": False, "close_when_inactive": False}, mixers=255)
    showing = source("scene", "Scene", {"id_counter": 1, "custom_size": False, "items": [{
        "name": "Clip", "id": 1, "visible": True, "locked": False, "align": 5, "pos": {"x": 0.0, "y": 0.0},
        "scale": {"x": 1.0, "y": 1.0}, "rot": 0.0, "bounds_type": 2, "bounds_align": 0, "bounds": {"x": 640.0, "y": 360.0},
        "crop_left": 0, "crop_top": 0, "crop_right": 0, "crop_bottom": 0}]})
    return {
        "name": "e2e", "current_scene": "Scene", "current_program_scene": "Scene", "scene_order": [{"name": "Scene"}],
        "sources": [playing, showing], "groups": [], "transitions": [], "current_transition": "Cut", "transition_duration": 0,
        "modules": {"output-timer": {
            "autoStartStreamTimer": True, "streamTimerHours": 0, "streamTimerMinutes": 0, "streamTimerSeconds": seconds,
            "pauseRecordTimer": True, "autoStartRecordTimer": False,
            "recordTimerHours": 0, "recordTimerMinutes": 0, "recordTimerSeconds": 30}}}


def broadcast(rtmp_url, key, media, seconds, name="obs", trusting=None):
    """Streams `media` for `seconds` and returns when OBS says that the broadcast has ended. Of the authorities behind
    certificates it trusts those in the folder `trusting`, if told so."""
    configure(rtmp_url, key, media, seconds)
    with on_a_screen(name, trusting) as studio:
        wait_until(lambda: says(studio, "Streaming Start"), 30, "OBS starts streaming")
        wait_until(lambda: says(studio, "Streaming Stop"), seconds + 20, "OBS stops streaming")


def refused(rtmp_url, key, media, name):
    """Tries to stream, and returns the reason that OBS has from the server."""
    configure(rtmp_url, key, media, seconds=60)
    with on_a_screen(name) as studio:
        wait_until(lambda: says(studio, "Connection to rtmp"), 30, "OBS gives up")
        return re.search(r"NetStream\.Publish\.\w+ \(.*\)", studio.log())[0]


def says(studio, text):
    assert studio.is_alive(), f"OBS ended: {studio.last_line()}"
    return text in studio.log()


@contextmanager
def on_a_screen(name, trusting=None):
    """OBS on a virtual screen, set to stream from its start."""
    read_end, write_end = os.pipe()
    screen = Process(f"{name}-xvfb", ["Xvfb", "-displayfd", str(write_end), "-screen", "0", "1024x768x24", "-nolisten", "tcp"],
                     pass_fds=[write_end])
    os.close(write_end)
    with os.fdopen(read_end) as display_pipe:
        display = display_pipe.readline().strip()
    assert display, f"Xvfb has not started: {screen.last_line()}"

    runtime = HOME / "run"
    runtime.mkdir(mode=0o700)
    studio = Process(name, [
        *with_authorities(trusting),
        "obs", "--multi", "--startstreaming", "--minimize-to-tray", "--profile", "e2e", "--collection", "e2e", "--scene", "Scene"],
        env={"HOME": str(HOME), "XDG_CONFIG_HOME": str(HOME / ".config"), "XDG_RUNTIME_DIR": str(runtime),
             "DISPLAY": f":{display}", "LIBGL_ALWAYS_SOFTWARE": "1", "QT_QPA_PLATFORM": "xcb"})
    try:
        yield studio
    finally:
        studio.stop()
        screen.stop()


def with_authorities(folder):
    """What stands before a command that is to find the certificates of `folder` where the system's own are."""
    if folder is None:
        return []
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", "--mount", *as_root, "sh", "-c", f"mount --bind '{folder}' /etc/ssl/certs && exec \"$@\"", "sh"]
