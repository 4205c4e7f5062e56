//! A socket on which nothing moves any more is broken: who neither asks nor reads holds a connection no longer.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// A socket that fails with `TimedOut` when no byte has gone either way for a while.
pub(super) struct Unstalled<S> {
    socket: S,
    patience: Duration,
    over: Pin<Box<Sleep>>,
}

impl<S> Unstalled<S> {
    pub(super) fn new(socket: S, patience: Duration) -> Self {
        Self { socket, patience, over: Box::pin(sleep(patience)) }
    }

    /// Passes on what came of a try to read or write, unless it waits and has waited for too long.
    fn judge<T>(&mut self, cx: &mut Context<'_>, tried: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if tried.is_ready() {
            self.over.as_mut().reset(Instant::now() + self.patience);
            return tried;
        }
        ready!(self.over.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Unstalled<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let tried = Pin::new(&mut self.socket).poll_read(cx, buffer);
        self.judge(cx, tried)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unstalled<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let tried = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.judge(cx, tried)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_or_says_nothing_is_given_up() {
        let (socket, mut peer) = tokio::io::duplex(64);
        let mut socket = Unstalled::new(socket, PATIENCE);
        let start = Instant::now();
        assert_eq!(socket.write_all(&[0; 100]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed(), PATIENCE);
        peer.read_exact(&mut [0; 64]).await.unwrap();
        socket.write_all(&[0; 10]).await.unwrap();
        assert_eq!(socket.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed(), 2 * PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_is_not_stalled() {
        let (socket, mut peer) = tokio::io::duplex(1);
        tokio::spawn(async move {
            for _ in 0..10 {
                sleep(PATIENCE - Duration::from_secs(1)).await;
                peer.read_u8().await.unwrap();
            }
        });
        Unstalled::new(socket, PATIENCE).write_all(&[0; 10]).await.unwrap();
    }
}
