//! The program under a service manager: it says how it is, and an upgrade costs nobody a connection.

#![expect(clippy::disallowed_methods, reason = "time passes, and the system tells who traces whom")]

mod common;

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::output::Output;
use common::peer::{self, Peer, SOON, films, media};
use common::server::{PROGRAM, Server};

/// What the program tells until `is_enough` or [`SOON`].
fn told(manager: &UnixDatagram, is_enough: impl Fn(&[String]) -> bool) -> Vec<String> {
    manager.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let start = Instant::now();
    let mut told = Vec::new();
    let mut buffer = [0; 256];
    while !is_enough(&told) && start.elapsed() < SOON {
        match manager.recv(&mut buffer) {
            Ok(length) => told.push(String::from_utf8(buffer[..length].to_vec()).unwrap()),
            Err(error) => assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}"),
        }
    }
    told
}

fn assert_tells(manager: &UnixDatagram, name: &str) {
    let mut command = Command::new(PROGRAM);
    command.env("NOTIFY_SOCKET", name).env("WATCHDOG_USEC", "200000");
    let server = Server::launch(command, tempfile::tempdir().unwrap(), &[]);
    let start = Instant::now();
    let first = told(manager, |told| told.len() >= 6);
    assert_eq!(first[0], "READY=1");
    assert!(first[1..].iter().all(|state| state == "WATCHDOG=1") && first.len() == 6, "{first:?}");
    assert!(start.elapsed() < Duration::from_secs(1), "every 100 ms: {:?}", start.elapsed());
    server.signal("TERM");
    let last = told(manager, |told| told.iter().any(|state| state == "STOPPING=1"));
    assert_eq!(last.last().map(String::as_str), Some("STOPPING=1"));
    assert!(server.stopped().status.success());
}

#[test]
fn the_manager_hears_when_it_is_ready_that_it_lives_and_when_it_stops() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    assert_tells(&UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap());
}

#[cfg(target_os = "linux")]
#[test]
fn the_manager_may_have_an_abstract_name() {
    use std::os::linux::net::SocketAddrExt as _;
    let name = format!("upscope-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    assert_tells(&UnixDatagram::bind_addr(&address).unwrap(), &format!("@{name}"));
}

/// Starts the program as systemd does, with a socket that listens already.
fn start_with_socket(socket: &TcpListener, folder: tempfile::TempDir) -> Server {
    let mut shell = Command::new("sh");
    let script = "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=rtmp; exec \"$0\" \"$@\"";
    shell.args(["-c", script, PROGRAM]).stdin(Stdio::from(OwnedFd::from(socket.try_clone().unwrap())));
    // Another port than the socket's would be taken if it were not used.
    Server::launch(shell, folder, &["--stop", "keep", "--rtmp", "127.0.0.1:0"])
}

#[test]
fn an_upgrade_refuses_no_connection_and_the_broadcast_goes_on() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let film: Vec<u8> = peer::film().iter().flat_map(media).collect();
    let mut server = start_with_socket(&socket, tempfile::tempdir().unwrap());
    assert_eq!(server.address(), address);
    const UPGRADES: usize = 3;
    for _ in 0..UPGRADES {
        let mut publisher = Peer::publishing(address, "live", "a");
        assert!(publisher.send(&film));
        server.signal("TERM");
        let stopped = server.stopped();
        assert!(stopped.status.success(), "{}", stopped.log);
        // Nobody serves now, and yet one can connect.
        let waiting = thread::spawn(move || Peer::publishing(address, "live", "b"));
        thread::sleep(Duration::from_millis(100));
        server = start_with_socket(&socket, stopped.folder);
        drop(waiting.join().unwrap());
    }
    let mut publisher = Peer::publishing(address, "live", "a");
    publisher.send(&[film, peer::goodbye()].concat());
    let output = Output::await_end(&server.folder().join("live/a/index.m3u8"));
    for rendition in output.renditions() {
        assert_eq!(rendition.playlist.discontinuities(), UPGRADES, "{}", rendition.playlist.text);
        assert!(rendition.playlist.entries.iter().all(|entry| !entry.is_gap), "{}", rendition.playlist.text);
    }
}

/// Has the next write of each thread of the program take 4.3 s from now on. `None` where nobody may trace it.
fn stall_writes(server: &Server) -> Option<Child> {
    let pid = server.pid();
    let arguments = format!("-f -q -o /dev/null -e trace=writev -e inject=writev:delay_enter=4300000:when=1 -p {pid}");
    let mut tracer = Command::new("strace").args(arguments.split(' ')).stderr(Stdio::null()).spawn().ok()?;
    while tracer.try_wait().unwrap().is_none() {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        if status.contains(&format!("TracerPid:\t{}\n", tracer.id())) {
            return Some(tracer);
        }
        thread::sleep(Duration::from_millis(5));
    }
    None
}

#[test]
fn a_disk_that_comes_back_while_the_server_stops_is_written_to_and_nothing_breaks() {
    let server = Server::start_with(&["--ingest-delay", "0"]);
    let mut peer = Peer::publishing(server.address(), "live", "a");
    let film = peer::film();
    let mut tags = films(&film);
    let mut send_until = |ms: u32| {
        for tag in tags.by_ref().take_while(|tag| tag.1 < ms) {
            assert!(peer.send(&media(&tag)));
        }
    };
    send_until(6_000);
    let Some(mut tracer) = stall_writes(&server) else {
        return eprintln!("skipped: strace is not installed, or this system lets nobody trace a program");
    };
    // Longer than the server waits for its broadcasts, by what it waits for the disk.
    send_until(10_000);
    thread::sleep(Duration::from_millis(100));
    server.signal("TERM");
    let stopped = server.stopped();
    let _ = tracer.wait();
    assert!(stopped.status.success(), "{}", stopped.log);
    assert!(!stopped.log.contains("panicked"), "{}", stopped.log);
}
