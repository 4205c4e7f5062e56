"""Who may publish: stream keys and RTMPS, as ffmpeg and OBS meet them."""

import shutil
import signal
import ssl
import time

import obs
from playlist import wait_for_end, wait_for_playlist
from server import UPSCOPE, Upscope
from tools import Process, WORK, free_port, output_of, wait_until

FOLDER = WORK / "door"
AUTHORITIES = FOLDER / "authorities"
KEYS = FOLDER / "keys.toml"
CERTIFICATE, CERTIFICATE_KEY = FOLDER / "certificate.pem", FOLDER / "certificate.key"
# Files that changed are read again within a second.
RELOAD_LIMIT = 3


class Guarded(Upscope):
    """upscope with stream keys, and with RTMPS under a certificate of an authority made for the occasion."""

    def __init__(self, name):
        shutil.rmtree(FOLDER, ignore_errors=True)
        AUTHORITIES.mkdir(parents=True)
        self.key = new_key("studio")
        make_authority()
        make_certificate()
        tls_port = free_port()
        self.tls_app_url = f"rtmps://localhost:{tls_port}/live"
        self.tls_address = ("localhost", tls_port)
        super().__init__(name, 60, "--keys", KEYS, "--rtmps", f"127.0.0.1:{tls_port}", "--tls-cert", CERTIFICATE, "--tls-key", CERTIFICATE_KEY)


def knock(upscope, clip, web, report):
    later = new_key("later")
    url = web.playlist_url(upscope, "later")
    with report.check("ffmpeg: a key made while the server runs lets in, over RTMPS") as notes:
        wait_until(lambda: "2 stream keys read" in upscope.process.log(), RELOAD_LIMIT, "the new key is known")
        broadcast = Process("door-ffmpeg", to(f"{upscope.tls_app_url}/{later}", clip))
        wait_for_playlist(url)
    with report.check("ffmpeg: stays while the certificate and the keys change") as notes:
        before = ssl.get_server_certificate(upscope.tls_address)
        make_certificate()
        new_key("another")
        began = time.monotonic()
        wait_until(lambda: ssl.get_server_certificate(upscope.tls_address) != before, RELOAD_LIMIT, "the new one is shown")
        notes.append(f"the new certificate is shown after {time.monotonic() - began:.1f} s")
        wait_until(lambda: all(len(each.segments) >= 4 for each in wait_for_playlist(url)), 20, "four segments are listed")
        assert broadcast.is_alive(), f"ffmpeg has ended: {broadcast.last_line()}"
        broadcast.stop(signal.SIGINT)
        assert not any(each.discontinuities for each in wait_for_end(url, 10)), "there is a discontinuity"
    with report.check("OBS: streams over RTMPS, and believes the certificate") as notes:
        obs.broadcast(upscope.tls_app_url, upscope.key, clip, 6, name="door-obs", trusting=AUTHORITIES)
        playlists = wait_for_end(web.playlist_url(upscope, "studio"), 10)
        notes.append(" and ".join(f"{len(each.segments)} segments" for each in playlists))
        assert all(each.segments for each in playlists)
    with report.check("OBS: gets the reason of a refusal in words") as notes:
        notes.append(obs.refused(upscope.app_url, "wrong", clip, "door-obs-refused"))
        assert "the stream key is not known" in notes[0]
    refuse(upscope, clip, report)
    with report.check("no key is in the log, nor anywhere in the output"):
        written = [each for each in upscope.out.rglob("*") if each.is_file()]
        for key in (upscope.key, later):
            assert key not in upscope.process.log(), "one is in the log"
            assert not any(key in str(each) or key.encode() in each.read_bytes() for each in written), "one is in the output"


def refuse(upscope, clip, report):
    for what, url, said_by_ffmpeg, logged in [
        ("the public name instead of the key", f"{upscope.app_url}/studio", "the stream key is not known", "the stream key is not known"),
        ("plain RTMP on the port for RTMPS", f"{upscope.tls_app_url.replace('rtmps', 'rtmp')}/{upscope.key}", "", "plain RTMP; use rtmp://"),
        ("RTMPS on the port for plain RTMP", f"{upscope.app_url.replace('rtmp', 'rtmps')}/{upscope.key}", "", "use rtmp:// instead of rtmps://"),
    ]:
        with report.check(f"ffmpeg: {what} is refused at once") as notes:
            process = Process("door-refused", to(url, clip))
            assert process.wait(5) != 0, "it was let in"
            assert said_by_ffmpeg in process.log(), f"ffmpeg says: {process.last_line()}"
            wait_until(lambda: logged in upscope.process.log(), 2, f"\"{logged}\" is logged")


def to(url, clip):
    return ["ffmpeg", "-hide_banner", "-re", "-i", clip, "-c", "copy", "-f", "flv", url]


def new_key(name):
    return output_of([UPSCOPE, "key", "new", name, "--keys", KEYS]).decode().strip()


def make_authority():
    output_of(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", 2, "-subj", "/CN=e2e authority",
               "-keyout", FOLDER / "authority.key", "-out", AUTHORITIES / "authority.pem"])


def make_certificate():
    """A certificate for localhost; the files are replaced as renewing programs do it."""
    extensions, request = FOLDER / "extensions", FOLDER / "request.pem"
    extensions.write_text("subjectAltName=DNS:localhost\n")
    new, new_key_file = FOLDER / "certificate.new", FOLDER / "key.new"
    output_of(["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", new_key_file, "-out", request])
    output_of(["openssl", "x509", "-req", "-in", request, "-days", 2, "-extfile", extensions, "-out", new,
               "-CA", AUTHORITIES / "authority.pem", "-CAkey", FOLDER / "authority.key", "-CAcreateserial", "-CAserial", FOLDER / "serial"])
    new.rename(CERTIFICATE)
    new_key_file.rename(CERTIFICATE_KEY)
