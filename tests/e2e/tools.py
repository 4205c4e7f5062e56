"""Processes, ports, waiting, and the report: what every other module needs."""

import atexit
import os
import signal
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WORK = ROOT / "target" / "e2e"
LOGS = WORK / "logs"


class Process:
    """A child in its own process group, its output in LOGS/NAME.log, ended at the latest when we end."""

    running: set["Process"] = set()

    def __init__(self, name, command, env=None, cwd=None, stdin=subprocess.DEVNULL, **popen):
        self.name = name
        self.log_path = LOGS / f"{name}.log"
        self.started_at = time.monotonic()
        with open(self.log_path, "ab") as log:
            log.write(f"$ {' '.join(map(str, command))}\n".encode())
            log.flush()
            self.child = subprocess.Popen(
                [str(word) for word in command], stdin=stdin, stdout=log, stderr=log, cwd=cwd,
                env={**os.environ, **(env or {})}, start_new_session=True, **popen)
        Process.running.add(self)

    def is_alive(self):
        return self.child.poll() is None

    def wait(self, seconds):
        """The exit code; a child that takes longer is ended and is an error."""
        try:
            code = self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            self.stop()
            raise AssertionError(f"{self.name} did not end within {seconds:g} s (see {self.log_path})") from None
        Process.running.discard(self)
        return code

    def expect_success(self, seconds):
        code = self.wait(seconds)
        assert code == 0, f"{self.name} ended with {code}: {self.last_line()} (see {self.log_path})"

    def stop(self, with_signal=signal.SIGTERM, seconds=5.0):
        """Ends the whole process group, politely first; returns the exit code."""
        for each in (with_signal, signal.SIGKILL):
            try:
                os.killpg(self.child.pid, each)
            except ProcessLookupError:
                pass
            try:
                self.child.wait(seconds)
                break
            except subprocess.TimeoutExpired:
                continue
        Process.running.discard(self)
        return self.child.returncode

    def log(self):
        return self.log_path.read_text(errors="replace")

    def last_line(self):
        return (self.log().strip().splitlines() or ["(no output)"])[-1]

    @classmethod
    def stop_all(cls):
        for each in list(cls.running):
            each.stop(seconds=2)


atexit.register(Process.stop_all)


def output_of(command, seconds=60, **run):
    """Standard output of a command that must succeed."""
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, **run)
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}: {done.stderr.decode(errors='replace').strip()[-600:]}"
    return done.stdout


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition, seconds, what, every=0.1):
    """Waits for a true result of `condition` and returns it."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(every)


def wait_for_port(port, process, seconds=10.0):
    def answers():
        assert process.is_alive(), f"{process.name} ended at once: {process.last_line()}"
        try:
            socket.create_connection(("127.0.0.1", port), 0.5).close()
            return True
        except OSError:
            return False
    wait_until(answers, seconds, f"{process.name} listens on port {port}")


class Report:
    """One line a check, as it ends; the count at the end."""

    def __init__(self):
        self.started_at = time.monotonic()
        self.passed = 0
        self.failures = []
        self.lock = threading.Lock()

    @contextmanager
    def check(self, name):
        """The body is the check: it passes unless it raises. What it appends to the list is printed with it."""
        notes = []
        try:
            yield notes
        except (AssertionError, OSError, subprocess.SubprocessError, ValueError, LookupError) as error:
            self._line("FAIL", name, f"{error}" if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}")
            with self.lock:
                self.failures.append(name)
        else:
            self._line("ok  ", name, ", ".join(notes))
            with self.lock:
                self.passed += 1

    def say(self, text):
        self._line("--  ", text, "")

    def _line(self, verdict, name, detail):
        with self.lock:
            print(f"{time.monotonic() - self.started_at:6.1f}s {verdict} {name}" + (f": {detail}" if detail else ""), flush=True)

    def close(self):
        for name in self.failures:
            print(f"failed: {name}")
        print(f"{self.passed} passed, {len(self.failures)} failed in {time.monotonic() - self.started_at:.0f} s; logs in {LOGS}")
        return 1 if self.failures else 0
