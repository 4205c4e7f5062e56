//! The real program as a child process.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long it may take to start and to stop.
const PATIENCE: Duration = Duration::from_secs(5);

/// The program.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_upscope");

/// What `upscope inspect` says against a folder.
///
/// # Errors
/// Its words, if it is not content.
pub(crate) fn inspect(folder: &Path) -> Result<(), String> {
    let judged = Command::new(PROGRAM).arg("inspect").arg(folder).output().unwrap();
    if judged.status.success() {
        return Ok(());
    }
    let said = [judged.stdout, judged.stderr].concat();
    Err(format!("upscope inspect is not content: {}", String::from_utf8_lossy(&said).trim_end()))
}

/// What it says once it listens; the address follows.
const LISTENING: &str = "listening for RTMP on ";

/// `upscope serve` on a port of its own, with an output folder of its own. Killed when dropped.
pub(crate) struct Server {
    child: Child,
    /// From the start of the process until it listened.
    pub(crate) ready_after: Duration,
    folder: TempDir,
    address: SocketAddr,
    lines: Receiver<String>,
    log: Vec<String>,
}

/// What is left of a server that was stopped.
pub(crate) struct Stopped {
    pub(crate) status: ExitStatus,
    pub(crate) folder: TempDir,
    pub(crate) log: String,
}

impl Server {
    /// Starts it, with a window that nothing in the corpus fills.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with more options.
    pub(crate) fn start_with(options: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), options)
    }

    /// The same in a folder that may hold something.
    pub(crate) fn start_in(folder: TempDir, options: &[&str]) -> Self {
        Self::launch(Command::new(PROGRAM), folder, options)
    }

    /// The same by a command that ends in the program, such as a shell that limits it.
    pub(crate) fn launch(mut command: Command, folder: TempDir, options: &[&str]) -> Self {
        let began = Instant::now();
        let mut child = command
            .arg("serve")
            .args(options)
            // Flags win over them.
            .env("UPSCOPE_RTMP", "127.0.0.1:0")
            .env("UPSCOPE_WINDOW", "1000")
            .env("UPSCOPE_OUT", folder.path())
            .env("NO_COLOR", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let errors = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || errors.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut server = Self { child, ready_after: Duration::ZERO, folder, address, lines, log: Vec::new() };
        server.address = server.await_address();
        server.ready_after = began.elapsed();
        server
    }

    fn await_address(&mut self) -> SocketAddr {
        loop {
            let Ok(line) = self.lines.recv_timeout(PATIENCE) else {
                panic!("the program does not say \"{LISTENING}ADDRESS\"; it said:\n{}", self.log.join("\n"))
            };
            let address = line.split_once(LISTENING).and_then(|(_, rest)| {
                let is_part = |c: char| c.is_ascii_digit() || matches!(c, '.' | ':');
                rest.split(|c| !is_part(c)).next().unwrap_or_default().parse().ok()
            });
            self.log.push(line);
            if let Some(address) = address {
                return address;
            }
        }
    }

    /// Where it takes publishers.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it writes.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The number of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its memory in KiB by the name that /proc/PID/status has for it: `VmRSS` now, `VmHWM` at most.
    pub(crate) fn memory_kib(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Starts the count of `VmHWM` anew.
    pub(crate) fn forget_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
    }

    /// How many threads it has.
    pub(crate) fn threads(&self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap().count()
    }

    /// How many files and sockets it has open.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// What it has said so far.
    pub(crate) fn log(&mut self) -> String {
        self.log.extend(self.lines.try_iter());
        self.log.join("\n")
    }

    /// Waits for a line that contains all of `words`.
    pub(crate) fn says(&mut self, words: &[&str], patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let is_it = |line: &String| words.iter().all(|word| line.contains(word));
        loop {
            self.log.extend(self.lines.try_iter());
            if self.log.iter().any(is_it) {
                return true;
            }
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => self.log.push(line),
                Err(_) => return false,
            }
        }
    }

    /// Stops it as an operator does, with SIGTERM, and waits for it to end.
    pub(crate) fn stop(self) -> Stopped {
        self.signal("TERM");
        self.stopped()
    }

    /// Waits for it to end, after a signal.
    pub(crate) fn stopped(mut self) -> Stopped {
        // Its standard error is closed when it ends.
        let log = loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => self.log.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break self.log.join("\n"),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    panic!("still running {PATIENCE:?} after SIGTERM; it said:\n{}", self.log.join("\n"))
                }
            }
        };
        let status = self.child.wait().unwrap();
        Stopped { status, folder: self.take_folder(), log }
    }

    /// Sends it the signal of this name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.child.id())]).status();
        assert!(sent.unwrap().success(), "kill -{name} failed");
    }

    /// Ends it as a crash does, with SIGKILL, and leaves its folder as it is then.
    pub(crate) fn kill(mut self) -> TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.take_folder()
    }

    fn take_folder(&mut self) -> TempDir {
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
