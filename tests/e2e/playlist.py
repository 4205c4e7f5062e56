"""Just enough of an HLS playlist reader to follow a stream as a player does, and a watcher that judges what it sees."""

import re
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import urljoin

from server import fetch
from tools import wait_until


@dataclass
class MediaPlaylist:
    url: str
    text: str
    version: int = 0
    target_duration: int = 0
    media_sequence: int = 0
    discontinuity_sequence: int = 0
    discontinuities: int = 0
    is_ended: bool = False
    segments: list = field(default_factory=list)  # (sequence number, seconds, absolute URL, is a gap)
    maps: list = field(default_factory=list)

    @classmethod
    def parse(cls, url, text):
        playlist = cls(url, text)
        seconds, is_gap = 0.0, False
        assert text.startswith("#EXTM3U"), f"{url} does not start with #EXTM3U"
        for line in text.splitlines():
            tag, _, value = line.partition(":")
            if tag == "#EXT-X-VERSION":
                playlist.version = int(value)
            elif tag == "#EXT-X-TARGETDURATION":
                playlist.target_duration = int(value)
            elif tag == "#EXT-X-MEDIA-SEQUENCE":
                playlist.media_sequence = int(value)
            elif tag == "#EXT-X-DISCONTINUITY-SEQUENCE":
                playlist.discontinuity_sequence = int(value)
            elif tag == "#EXT-X-DISCONTINUITY":
                playlist.discontinuities += 1
            elif tag == "#EXT-X-ENDLIST":
                playlist.is_ended = True
            elif tag == "#EXT-X-MAP":
                playlist.maps.append(urljoin(url, re.search(r'URI="([^"]*)"', value)[1]))
            elif tag == "#EXT-X-GAP":
                is_gap = True
            elif tag == "#EXTINF":
                seconds = float(value.split(",")[0])
            elif line and not line.startswith("#"):
                number = playlist.media_sequence + len(playlist.segments)
                playlist.segments.append((number, seconds, urljoin(url, line), is_gap))
                is_gap = False
        return playlist


def media_playlist_urls(index_url):
    """The media playlists that index.m3u8 leads to; empty while there is nothing yet."""
    status, body = fetch(index_url)
    if status != 200:
        return []
    text = body.decode()
    if "#EXT-X-STREAM-INF" not in text:
        return [index_url]
    renditions = re.findall(r'#EXT-X-MEDIA:.*?URI="([^"]*)"', text)
    variants = re.findall(r"#EXT-X-STREAM-INF:[^\n]*\n([^#\s][^\n]*)", text)
    return [urljoin(index_url, each.strip()) for each in dict.fromkeys(variants + renditions)]


def media_playlists(index_url):
    found = []
    for url in media_playlist_urls(index_url):
        status, body = fetch(url)
        assert status == 200, f"{url} is listed but answers {status}"
        found.append(MediaPlaylist.parse(url, body.decode()))
    return found


def wait_for_playlist(index_url, seconds=15):
    return wait_until(lambda: media_playlists(index_url), seconds, f"{index_url} appears")


def wait_for_end(index_url, seconds=30):
    """Waits for EXT-X-ENDLIST in every media playlist; returns them."""
    def ended():
        playlists = media_playlists(index_url)
        return playlists if playlists and all(each.is_ended for each in playlists) else None
    return wait_until(ended, seconds, f"EXT-X-ENDLIST in {index_url}")


@dataclass
class Seen:
    """What a watcher remembers of one media playlist."""

    last: MediaPlaylist | None = None
    changed_at: float = 0.0
    urls: dict = field(default_factory=dict)  # sequence number -> URL
    maps: set = field(default_factory=set)


class Watcher:
    """Reloads a stream's playlists four times a second from before the first byte to the end, and notes every broken promise.

    Held against it (draft-pantos-hls-rfc8216bis §6.2.1, §6.2.2): a listed file can be had at once; TARGETDURATION
    never changes; the media sequence never goes back; a segment keeps its number and name; nothing changes after
    ENDLIST; the next segment comes within 1.5 target durations.
    """

    def __init__(self, index_url):
        self.index_url = index_url
        self.complaints = []
        self.reloads = 0
        self.seen = {}  # URL -> Seen
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def finish(self):
        """What to tell; an error when there was a complaint."""
        self._stopping.set()
        self._thread.join(10)
        assert not self.complaints, f"{len(self.complaints)} complaints, the first: {self.complaints[0]}"
        segments = sum(len(each.urls) for each in self.seen.values())
        assert segments, "no segment was ever listed"
        return f"{segments} segments in {len(self.seen)} playlists, {self.reloads} reloads"

    def _run(self):
        while not self._stopping.wait(0.25):
            try:
                for playlist in media_playlists(self.index_url):
                    self._look_at(playlist)
            except (AssertionError, OSError, ValueError) as error:
                self.complaints.append(str(error))

    def _look_at(self, now):
        name = now.url.rsplit("/", 1)[1]
        seen = self.seen.setdefault(now.url, Seen())
        self.reloads += 1
        if seen.last and seen.last.text == now.text:
            return
        if seen.last:
            self.complaints += [f"{name} {complaint}" for complaint in complaints_about_change(seen, now)]
        seen.last, seen.changed_at = now, time.monotonic()

        for url in now.maps:
            if url not in seen.maps:
                seen.maps.add(url)
                self._expect_whole(url)
        for number, seconds, url, is_gap in now.segments:
            if number in seen.urls:
                continue
            seen.urls[number] = url
            if round(seconds) > now.target_duration:
                self.complaints.append(f"{name}: segment {number} lasts {seconds} s, TARGETDURATION is {now.target_duration}")
            if not is_gap:
                self._expect_whole(url)

    def _expect_whole(self, url):
        status, body = fetch(url)
        if status != 200 or not body:
            self.complaints.append(f"{url} is listed but answers {status} with {len(body)} bytes")


def complaints_about_change(seen, now):
    before, silence = seen.last, time.monotonic() - seen.changed_at
    if before.is_ended:
        yield "changed after EXT-X-ENDLIST"
    if before.target_duration != now.target_duration:
        yield f"had TARGETDURATION {before.target_duration}, now {now.target_duration}"
    if before.media_sequence > now.media_sequence:
        yield f"had MEDIA-SEQUENCE {before.media_sequence}, now {now.media_sequence}"
    for number, _, url, _ in now.segments:
        if seen.urls.get(number, url) != url:
            yield f"had {seen.urls[number]} as segment {number}, now {url}"
    if before.discontinuity_sequence > now.discontinuity_sequence:
        yield f"had DISCONTINUITY-SEQUENCE {before.discontinuity_sequence}, now {now.discontinuity_sequence}"
    has_been_off_air = before.discontinuity_sequence + before.discontinuities < now.discontinuity_sequence + now.discontinuities
    if not now.is_ended and not has_been_off_air and silence > 1.5 * now.target_duration + 0.5:
        yield f"had nothing new for {silence:.1f} s with TARGETDURATION {now.target_duration}"
