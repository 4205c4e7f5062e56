//! The floor: the least that any server which turns connections into files must do.
//!
//! Accepts, reads, writes to rolling files, removes old ones; no protocol, no parsing, no playlists. What a real server
//! costs is told as a ratio to this.
#![expect(clippy::disallowed_methods, reason = "writes files")]

use std::fs::{self, File};
use std::future::poll_fn;
use std::io::{ErrorKind, Write as _};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{MissedTickBehavior, interval};

/// Connections to rolling files, nothing else.
#[derive(Debug, Parser)]
struct Options {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:1935")]
    listen: SocketAddr,
    /// The folder to write to.
    #[arg(long, default_value = "floor-out")]
    out: PathBuf,
    /// A new file begins after so many bytes; two seconds of what the publishers send.
    #[arg(long, default_value_t = 1_050_000)]
    file_bytes: usize,
    /// How many files of a connection stay.
    #[arg(long, default_value_t = 10)]
    files: u64,
    /// Looks at the sockets only every so many milliseconds; 0 means whenever something comes.
    #[arg(long, default_value_t = 0)]
    look_every_ms: u64,
}

fn main() -> anyhow::Result<()> {
    let options = Arc::new(Options::parse());
    fs::create_dir_all(&options.out).context("make the folder")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(options.listen).await.context("listen")?;
        // On the worker, where upscope's tasks are too.
        let serving = match options.look_every_ms {
            0 => tokio::spawn(serve_at_once(listener, options)),
            ms => tokio::spawn(serve_by_the_clock(listener, options, Duration::from_millis(ms))),
        };
        serving.await?
    })
}

/// A task a connection, which reads whenever something comes.
async fn serve_at_once(listener: TcpListener, options: Arc<Options>) -> anyhow::Result<()> {
    for number in 0.. {
        let (mut socket, _) = listener.accept().await.context("accept")?;
        let mut files = Files::new(&options, number);
        tokio::spawn(async move {
            while let Ok(1..) = poll_fn(|cx| {
                let mut buffer = [const { MaybeUninit::uninit() }; READ_BYTES];
                let mut buffer = ReadBuf::uninit(&mut buffer);
                ready!(Pin::new(&mut socket).poll_read(cx, &mut buffer))?;
                Poll::Ready(files.write(buffer.filled()))
            })
            .await
            {}
        });
    }
    Ok(())
}

/// One task, and sockets that wake nobody.
async fn serve_by_the_clock(listener: TcpListener, options: Arc<Options>, every: Duration) -> anyhow::Result<()> {
    let mut connections: Vec<(std::net::TcpStream, Files)> = Vec::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number = 0;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let socket = TcpStream::into_std(accepted.context("accept")?.0)?;
                connections.push((socket, Files::new(&options, number)));
                number += 1;
            }
            _ = ticks.tick() => connections.retain_mut(|(socket, files)| drain(socket, &mut buffer, files)),
        }
    }
}

/// Takes what is there; whether there may be more later.
fn drain(socket: &mut std::net::TcpStream, buffer: &mut [u8], files: &mut Files) -> bool {
    loop {
        match std::io::Read::read(socket, buffer) {
            Ok(0) => return false,
            Ok(length) => {
                if files.write(&buffer[..length]).is_err() {
                    return false;
                }
                if length < buffer.len() {
                    return true;
                }
            }
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

/// The files of a connection.
struct Files {
    options: Arc<Options>,
    connection: u64,
    number: u64,
    file: Option<File>,
    file_bytes: usize,
}

impl Files {
    fn new(options: &Arc<Options>, connection: u64) -> Self {
        Self { options: Arc::clone(options), connection, number: 0, file: None, file_bytes: 0 }
    }

    /// Returns how many bytes it was.
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.file_bytes >= self.options.file_bytes {
            self.file = None;
            self.file_bytes = 0;
            self.number += 1;
            if let Some(old) = self.number.checked_sub(self.options.files) {
                fs::remove_file(self.path(old))?;
            }
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(File::create(self.path(self.number))?),
        };
        file.write_all(bytes)?;
        self.file_bytes += bytes.len();
        Ok(bytes.len())
    }

    fn path(&self, number: u64) -> PathBuf {
        self.options.out.join(format!("{}-{number}", self.connection))
    }
}

/// The most that is read at once; far more than a publisher sends between two looks.
const READ_BYTES: usize = 256 << 10;
