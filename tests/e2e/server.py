"""The two programs of an installation: upscope, and nginx as the static web server in front of its output folder."""

import os
import signal
import urllib.error
import urllib.request
from pathlib import Path

from tools import HERE, LOGS, Process, ROOT, WORK, free_port, wait_for_port

# Another program with the same command line may stand in for upscope.
UPSCOPE = Path(os.environ.get("UPSCOPE", ROOT / "target" / "release" / "upscope"))
SEGMENT_SECONDS = 2


class Upscope:
    def __init__(self, name, window, *options):
        self.out = WORK / "out" / name
        self.out.mkdir(parents=True)
        self.port = free_port()
        self.app_url = f"rtmp://127.0.0.1:{self.port}/live"
        self.window, self.options = window, options
        self.start()

    def start(self):
        self.process = Process(self.out.name, [
            UPSCOPE, "serve", "--rtmp", f"127.0.0.1:{self.port}", "--out", self.out,
            "--segment", SEGMENT_SECONDS, "--window", self.window, *self.options])
        wait_for_port(self.port, self.process)

    def kill_and_start(self):
        """As a crash does, and whoever looks after it."""
        self.process.stop(signal.SIGKILL)
        self.start()

    def stop(self):
        """The exit code after a polite SIGTERM."""
        assert self.process.is_alive(), f"{self.process.name} had ended by itself: {self.process.last_line()}"
        return self.process.stop(signal.SIGTERM)


class WebServer:
    """nginx as it comes, with a folder for each upscope under /NAME/, the player pages and the players."""

    def __init__(self, upscopes):
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        prefix = WORK / "nginx"
        prefix.mkdir(exist_ok=True)
        temporary = "".join(f"    {kind}_temp_path {prefix}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        folders = "".join(f"        location /{each.out.name}/ {{ alias {each.out}/; }}\n" for each in upscopes)
        (prefix / "nginx.conf").write_text(
            f"daemon off;\npid {prefix}/pid;\nerror_log {LOGS}/nginx-error.log;\nworker_processes 1;\n"
            + ("user root;\n" if os.geteuid() == 0 else "")
            + "events {}\nhttp {\n    include /etc/nginx/mime.types;\n    default_type application/octet-stream;\n"
            f"    access_log {LOGS}/nginx-access.log;\n{temporary}"
            f"    server {{\n        listen 127.0.0.1:{self.port};\n{folders}"
            f"        location /players/ {{ alias {HERE}/players/; }}\n"
            f"        location /npm/ {{ alias {WORK}/npm/node_modules/; }}\n    }}\n}}\n")
        self.process = Process("nginx", ["nginx", "-p", prefix, "-c", prefix / "nginx.conf", "-e", LOGS / "nginx-error.log"])
        wait_for_port(self.port, self.process)

    def playlist_url(self, upscope, name):
        return f"{self.base}/{upscope.out.name}/live/{name}/index.m3u8"


def fetch(url):
    """(status, body) of a GET."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as refused:
        return refused.code, b""
