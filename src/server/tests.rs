//! Publishers over in-memory pipes, with time that passes as fast as nothing happens.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use super::demo::{Client, FILM, Film};
use super::socket::{Next, Pace, Rhythm};
use super::stop::{Stop, Stopper};
use super::*;
use crate::action::Action;
use crate::config::Given;

#[path = "../../tests/core/mod.rs"]
mod core;

/// What publishers share, with the default settings.
pub(super) fn context(out: &Path) -> Context {
    context_with(out, &[("open", "true")])
}

/// The same with other settings.
pub(super) fn context_with(out: &Path, flags: &[(&str, &str)]) -> Context {
    let always = [("out", out.to_str().unwrap()), ("ingest-delay", "0")];
    let config = config(&[&always, flags].concat());
    Context::new(&config, Arc::new(Door::new(&config).unwrap()))
}

fn config(flags: &[(&str, &str)]) -> Config {
    let find = |name: &str| flags.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
    Config::resolve(&Given::collect(find, |_| None, None).unwrap()).unwrap()
}

/// A server without sockets.
struct House {
    folder: TempDir,
    context: Arc<Context>,
    stopper: Stopper,
    stop: Stop,
    /// Publishers run on the work queue, as in the program.
    is_on_queue: bool,
}

impl House {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let context = Arc::new(context(folder.path()));
        let (stopper, stop) = stop::stop();
        Self { folder, context, stopper, stop, is_on_queue: false }
    }

    /// A connection, and the task that serves it.
    fn dial(&self) -> (DuplexStream, JoinHandle<()>) {
        self.dial_from("192.0.2.1:5000")
    }

    fn dial_from(&self, peer: &str) -> (DuplexStream, JoinHandle<()>) {
        let (socket, ours) = tokio::io::duplex(64 << 10);
        (socket, self.serve(ours, peer))
    }

    fn serve<S>(&self, ours: S, peer: &str) -> JoinHandle<()>
    where
        S: AsyncRead + AsyncWrite + Pace + Unpin + Send + 'static,
    {
        let peer: SocketAddr = peer.parse().unwrap();
        let admission = self.context.gate.enter(limits::Who::Broadcaster, peer.ip()).unwrap();
        let serve = publisher::serve(ours, peer, admission, Arc::clone(&self.context), self.stop.clone());
        // Under a clock that stands still, nothing may go on in another thread.
        if self.is_on_queue { tokio::spawn(self.context.work.run(serve)) } else { tokio::spawn(serve) }
    }

    async fn publish(&self, stream_key: &str) -> (anyhow::Result<Client<DuplexStream>>, JoinHandle<()>) {
        let (socket, task) = self.dial();
        (Client::publish(socket, "live", stream_key).await, task)
    }

    /// A publish that is let in.
    async fn publishing(&self, stream_key: &str) -> (Client<DuplexStream>, JoinHandle<()>) {
        let (client, task) = self.publish(stream_key).await;
        (client.unwrap(), task)
    }

    /// The files of a stream, those of its broadcasts by their names alone.
    fn playlist(&self, stream_key: &str, rendition: &str) -> String {
        let broadcasts = self.broadcasts(stream_key);
        fs::read_to_string(broadcasts.last().unwrap().join(format!("{rendition}.m3u8"))).unwrap()
    }

    fn broadcasts(&self, stream_key: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.folder.path().join("live").join(stream_key)).into_iter().flatten();
        let mut folders: Vec<_> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
        folders.sort();
        folders
    }

    /// All files in the output folder.
    fn files(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.folder.path().to_path_buf()];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { &mut folders } else { &mut files }.push(path);
            }
        }
        files
    }
}

impl House {
    /// The process is gone and another one looks after the folder; the tasks of what goes on.
    async fn restart(self) -> (Self, JoinSet<()>) {
        let Self { folder, .. } = self;
        let context = Arc::new(context(folder.path()));
        let (stopper, stop) = stop::stop();
        let mut tasks = JoinSet::new();
        recovery::recover(folder.path().into(), &context, &mut tasks, &stop).await;
        (Self { folder, context, stopper, stop, is_on_queue: false }, tasks)
    }
}

/// Sends the film as fast as it is taken.
async fn send_film(client: &mut Client<DuplexStream>) {
    let film = Film::read(&Bytes::from_static(FILM)).unwrap();
    client.send_metadata(&film.metadata).await.unwrap();
    for (tag, time) in film.round(0) {
        client.send(tag, time).await.unwrap();
    }
}

/// Sends a round of the film in time, as an encoder does that began at `start`.
async fn send_in_time(client: &mut Client<DuplexStream>, round: u32, start: Instant) {
    let film = Film::read(&Bytes::from_static(FILM)).unwrap();
    for (tag, time) in film.round(round) {
        tokio::time::sleep_until(start + time).await;
        client.send(tag, time).await.unwrap();
    }
}

/// How long a task goes on, in seconds of the paused clock.
async fn seconds_until_end(task: JoinHandle<()>) -> u64 {
    let start = Instant::now();
    task.await.unwrap();
    start.elapsed().as_secs()
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_is_closed_after_10_s() {
    let house = House::new();
    let (_socket, task) = house.dial();
    assert_eq!(seconds_until_end(task).await, 10);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_drips_its_handshake_is_closed_after_10_s_too() {
    let house = House::new();
    let (mut socket, task) = house.dial();
    let dripping = tokio::spawn(async move {
        while socket.write_all(&[3]).await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
    });
    assert_eq!(seconds_until_end(task).await, 10);
    dripping.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_connects_and_does_not_publish_is_closed_after_10_s() {
    let house = House::new();
    let (socket, task) = house.dial();
    let _client = Client::connect(socket, "live").await.unwrap();
    assert_eq!(seconds_until_end(task).await, 10);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_speaks_another_protocol_is_closed_at_once() {
    let house = House::new();
    let (mut socket, task) = house.dial();
    socket.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    assert_eq!(seconds_until_end(task).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_ends_the_broadcast_at_once_and_frees_the_name() {
    let house = House::new();
    let (mut client, _task) = house.publishing("a").await;
    send_film(&mut client).await;
    client.unpublish().await.unwrap();
    let start = Instant::now();
    let (again, _task) = loop {
        match house.publish("a").await {
            (Ok(client), task) => break (client, task),
            _ => sleep(Duration::from_millis(1)).await,
        }
    };
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(house.broadcasts("a").len(), 1, "nothing is written for the second one yet");
    for rendition in ["video", "audio"] {
        let playlist = house.playlist("a", rendition);
        assert!(playlist.ends_with("#EXT-X-ENDLIST\n"), "{playlist}");
        let seconds: f64 = playlist
            .lines()
            .filter_map(|line| line.strip_prefix("#EXTINF:")?.split(',').next()?.parse::<f64>().ok())
            .sum();
        assert!((13.6..13.8).contains(&seconds), "{rendition}: {seconds}");
    }
    drop(again);
}

#[tokio::test(start_paused = true)]
async fn a_second_publisher_is_refused_at_once_and_the_first_goes_on() {
    let house = House::new();
    let (mut first, _task) = house.publishing("a").await;
    let start = Instant::now();
    let (second, _second_task) = house.publish("a").await;
    assert!(format!("{:#}", second.err().unwrap()).contains("NetStream.Publish.BadName"));
    assert_eq!(start.elapsed(), Duration::ZERO);
    send_film(&mut first).await;
    first.unpublish().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert!(house.playlist("a", "video").contains("#EXT-X-ENDLIST"));
}

#[tokio::test(start_paused = true)]
async fn the_same_key_takes_over_at_once_and_the_broadcast_goes_on() {
    let keys = tempfile::NamedTempFile::new().unwrap();
    fs::write(keys.path(), "k1 = 'live/a'\nk2 = 'live/a'").unwrap();
    let house = house_with(&[("keys", keys.path().to_str().unwrap()), ("max-streams", "1")]);
    let (client, first_task) = house.publish("k1").await;
    let mut half_dead = client.unwrap();
    send_film(&mut half_dead).await;
    let start = Instant::now();
    assert!(house.publish("k2").await.0.is_err(), "another key is somebody else");
    // Again and again, as a phone that changes its network.
    let mut clients = Vec::new();
    for _ in 0..3 {
        let (mut client, task) = house.publishing("k1").await;
        send_film(&mut client).await;
        clients.push((client, task));
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    let refusal = half_dead.wait_until(start + Duration::from_secs(9)).await.unwrap_err();
    assert!(format!("{refusal:#}").contains("closed the connection"), "{refusal:#}");
    first_task.await.unwrap();
    let (mut last, _task) = clients.pop().unwrap();
    last.unpublish().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(house.broadcasts("a").len(), 1);
    let playlist = house.playlist("a", "video");
    assert_eq!(playlist.matches("#EXT-X-DISCONTINUITY\n").count(), 3, "{playlist}");
    assert!(playlist.ends_with("#EXT-X-ENDLIST\n"), "{playlist}");
}

#[tokio::test(start_paused = true)]
async fn without_credentials_only_a_publisher_that_fell_silent_has_to_give_way() {
    for (rule, is_let_in) in [("takeover", true), ("reject", false)] {
        let house = house_with(&[("open", "true"), ("on-duplicate", rule)]);
        let (client, task) = house.publish("a").await;
        let mut silent = client.unwrap();
        send_film(&mut silent).await;
        sleep(Duration::from_secs(3)).await;
        assert!(house.publish("a").await.0.is_err(), "{rule}: after 3 s");
        sleep(Duration::from_millis(500)).await;
        let (second, _second_task) = house.publish("a").await;
        assert_eq!(second.is_ok(), is_let_in, "{rule}");
        assert_eq!(task.is_finished(), is_let_in, "{rule}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_could_leave_the_folder_is_refused_and_makes_no_file() {
    let house = House::new();
    for name in ["..", "../x", ".x", "a/b", "a\nb", ""] {
        let (client, task) = house.publish(name).await;
        let refusal = format!("{:#}", client.err().unwrap());
        assert!(refusal.contains("NetStream.Publish.BadName"), "{name:?}: {refusal}");
        task.await.unwrap();
    }
    assert!(house.files().is_empty());
}

/// A server with these settings.
fn house_with(flags: &[(&str, &str)]) -> House {
    let mut house = House::new();
    house.context = Arc::new(context_with(house.folder.path(), flags));
    house
}

#[tokio::test(start_paused = true)]
async fn unless_told_only_this_machine_may_publish() {
    let house = house_with(&[]);
    let (socket, _task) = house.dial_from("127.0.0.1:5000");
    Client::publish(socket, "live", "a").await.unwrap();
    for stranger in ["192.0.2.1:5000", "[2001:db8::1]:5000", "[::ffff:192.0.2.1]:5000"] {
        let (socket, task) = house.dial_from(stranger);
        let refusal = format!("{:#}", Client::publish(socket, "live", "b").await.err().unwrap());
        assert!(refusal.contains("NetStream.Publish.Denied"), "{refusal}");
        task.await.unwrap();
    }
    assert!(house.files().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_key_publishes_under_its_name_and_is_nowhere_in_the_output() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    fs::write(&file, "k3y = 'live/front'\nold = { name = 'x', expires = 2020-01-01 }").unwrap();
    let house = house_with(&[("keys", file.to_str().unwrap())]);
    for wrong in ["front", "old", "k3y2", ""] {
        assert!(house.publish(wrong).await.0.is_err(), "{wrong}");
    }
    let (mut client, _task) = house.publishing("k3y").await;
    send_film(&mut client).await;
    client.unpublish().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert!(house.playlist("front", "video").ends_with("#EXT-X-ENDLIST\n"));
    for path in house.files() {
        let is_text = path.extension().is_some_and(|extension| extension == "m3u8");
        let has_key =
            path.to_string_lossy().contains("k3y") || is_text && fs::read_to_string(&path).unwrap().contains("k3y");
        assert!(!has_key, "{}", path.display());
    }
}

#[tokio::test(start_paused = true)]
async fn a_signed_name_is_let_in_from_anywhere() {
    let house = house_with(&[("sign-key", "s3cret")]);
    let signed = auth::sign("s3cret", "cam1", Duration::from_secs(60)).unwrap();
    assert!(house.publish(&signed).await.0.is_ok());
    assert!(house.publish("cam2").await.0.is_err());
    assert!(house.publish(&signed.replace("cam1", "cam2")).await.0.is_err());
}

#[tokio::test]
async fn a_publisher_of_our_own_is_let_in_whatever_is_demanded_of_others() {
    for flags in [&[("sign-key", "s3cret")][..], &[("auth-url", "http://127.0.0.1:1/")], &[]] {
        let mut door = Door::new(&config(flags)).unwrap();
        let key = door.let_in("live/demo").unwrap();
        let ask = async |stream_key: &str, peer: &str| {
            let wish = auth::Wish { app: "live", stream_key, query: None, peer: peer.parse().unwrap(), encoder: None };
            door.ask(wish, Clock::start(), Instant::now() + Duration::from_secs(3)).await
        };
        assert_eq!(ask(&key, "127.0.0.1:5000").await.unwrap().name.as_str(), "live/demo");
        assert!(ask("demo", "192.0.2.1:5000").await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn streams_in_all_are_limited() {
    let house = house_with(&[("open", "true"), ("max-streams", "1")]);
    let (mut first, _task) = house.publishing("a").await;
    assert!(house.publish("b").await.0.is_err());
    send_film(&mut first).await;
    first.unpublish().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert!(house.publish("b").await.0.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_kept_stream_counts_too_but_not_against_its_own_publisher() {
    let house = house_with(&[("open", "true"), ("max-streams", "1")]);
    let (mut first, _task) = house.publishing("a").await;
    send_film(&mut first).await;
    drop(first);
    sleep(Duration::from_secs(1)).await;
    let (refused, task) = house.publish("b").await;
    assert!(refused.is_err());
    assert_eq!(seconds_until_end(task).await, 0, "who is over a limit is closed");
    assert!(house.publish("a").await.0.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_publish_to_which_nothing_came_is_not_kept() {
    let house = House::new();
    let (client, task) = house.publish("a").await;
    drop(client.unwrap());
    assert_eq!(seconds_until_end(task).await, 0);
    assert!(house.files().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stream_over_its_bitrate_is_closed_and_kept() {
    let house = house_with(&[("open", "true"), ("max-bitrate", "400k")]);
    let (mut client, task) = house.publishing("a").await;
    let film = Film::read(&Bytes::from_static(FILM)).unwrap();
    let mut sent = 0;
    for (tag, time) in film.round(0) {
        if client.send(tag, time).await.is_err() {
            break;
        }
        sent += tag.body.len();
    }
    assert!((500_000..700_000).contains(&sent), "400 kbit/s over 10 s are 500,000 bytes: {sent}");
    let start = Instant::now();
    task.await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 30, "the grace time");
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_comes_back_in_time_goes_on_with_its_broadcast() {
    let house = House::new();
    let (mut client, first_task) = house.publishing("a").await;
    send_film(&mut client).await;
    drop(client);
    sleep(Duration::from_secs(20)).await;
    let playlist = house.playlist("a", "video");
    assert!(playlist.contains("#EXTINF") && !playlist.contains("#EXT-X-ENDLIST"), "{playlist}");

    let (mut client, _task) = house.publishing("a").await;
    first_task.await.unwrap();
    send_film(&mut client).await;
    client.unpublish().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(house.broadcasts("a").len(), 1);
    let playlist = house.playlist("a", "video");
    assert_eq!(playlist.matches("#EXT-X-DISCONTINUITY\n").count(), 1, "{playlist}");
    assert!(playlist.ends_with("#EXT-X-ENDLIST\n"), "{playlist}");
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_does_not_come_back_ends_after_the_grace_time() {
    let house = House::new();
    let (mut client, task) = house.publishing("a").await;
    send_film(&mut client).await;
    drop(client);
    assert_eq!(seconds_until_end(task).await, 30);
    assert!(house.playlist("a", "video").ends_with("#EXT-X-ENDLIST\n"));
    assert!(house.publish("a").await.0.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_silent_publisher_is_closed_after_15_s_and_its_broadcast_kept_for_30() {
    let house = House::new();
    let (mut client, task) = house.publishing("a").await;
    send_film(&mut client).await;
    let start = Instant::now();
    client.wait_until(start + Duration::from_secs(60)).await.unwrap_err();
    assert_eq!(start.elapsed().as_secs(), 15);
    task.await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 45);
    assert!(house.playlist("a", "audio").ends_with("#EXT-X-ENDLIST\n"));
}

/// A pipe that is looked at late.
struct Resting {
    pipe: DuplexStream,
    /// It is looked at only when told to hasten.
    rests: Arc<AtomicBool>,
    is_hastened: bool,
    /// Others' turns take a third of a second between two looks.
    is_late: Arc<AtomicBool>,
}

impl Resting {
    fn new(pipe: DuplexStream) -> Self {
        Self { pipe, rests: Arc::default(), is_hastened: false, is_late: Arc::default() }
    }
}

impl AsyncRead for Resting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if !std::mem::take(&mut self.is_hastened) && self.rests.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        Pin::new(&mut self.pipe).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Resting {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

impl Pace for Resting {
    fn pace(&mut self, _: &Rhythm) {}

    fn expect(&mut self, _: Next) {
        if self.is_late.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(333));
        }
    }

    fn hasten(&mut self) {
        self.is_hastened = true;
    }

    fn read_bytes(&self) -> usize {
        self.pipe.read_bytes()
    }
}

#[tokio::test(start_paused = true)]
async fn a_publisher_is_not_silent_while_its_bytes_wait_for_our_look() {
    let house = House::new();
    let (socket, pipe) = tokio::io::duplex(4 << 20);
    let pipe = Resting::new(pipe);
    let rests = Arc::clone(&pipe.rests);
    let task = house.serve(pipe, "192.0.2.1:5000");
    let mut client = Client::publish(socket, "live", "a").await.unwrap();
    rests.store(true, Ordering::Relaxed);
    send_film(&mut client).await;
    let start = Instant::now();
    client.wait_until(start + Duration::from_secs(60)).await.unwrap_err();
    // After 15 s it was looked at, and all was there; then nothing came any more.
    assert_eq!(start.elapsed().as_secs(), 30);
    drop(task);
}

/// By the clock: the queue's threads know no other.
#[tokio::test]
async fn a_film_is_read_on_though_others_take_longer_than_its_replies_are_held() {
    let house = House { is_on_queue: true, ..House::new() };
    let (socket, pipe) = tokio::io::duplex(4 << 20);
    let pipe = Resting::new(pipe);
    let is_late = Arc::clone(&pipe.is_late);
    let task = house.serve(pipe, "192.0.2.1:5000");
    let mut client = Client::publish(socket, "live", "a").await.unwrap();
    // After 2.5 MB it is acknowledged.
    let film = Film::read(&Bytes::from_static(FILM)).unwrap();
    for round in 0..13 {
        is_late.store(round >= 10, Ordering::Relaxed);
        for (tag, time) in film.round(round) {
            client.send(tag, time).await.unwrap();
        }
    }
    client.unpublish().await.unwrap();
    drop(client);
    timeout(Duration::from_secs(10), task).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_live_and_waiting_broadcasts_with_all_that_came() {
    let house = House::new();
    let (mut waiting, waiting_task) = house.publishing("waiting").await;
    send_film(&mut waiting).await;
    drop(waiting);
    let (mut live, live_task) = house.publishing("live").await;
    send_film(&mut live).await;
    let start = Instant::now();
    house.stopper.stop();
    waiting_task.await.unwrap();
    live_task.await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(2));
    for name in ["live", "waiting"] {
        for rendition in ["video", "audio"] {
            let playlist = house.playlist(name, rendition);
            assert!(playlist.ends_with("#EXT-X-ENDLIST\n"), "{name} {rendition} {playlist}");
            let [a, b] = ["live", "waiting"].map(|name| house.playlist(name, rendition).matches("#EXTINF").count());
            assert_eq!(a, b, "as much of the one that was cut off as of the other");
        }
    }
    let half = house.files().into_iter().find(|path| path.file_name().unwrap().to_string_lossy().starts_with('.'));
    assert_eq!(half, None);
}

#[tokio::test(start_paused = true)]
async fn a_publisher_may_end_one_stream_and_begin_another_on_the_same_connection() {
    let house = House::new();
    let (mut client, _task) = house.publishing("a").await;
    send_film(&mut client).await;
    client.unpublish().await.unwrap();
    client.publish_again("b").await.unwrap();
    send_film(&mut client).await;
    client.unpublish().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    for name in ["a", "b"] {
        assert!(house.playlist(name, "video").ends_with("#EXT-X-ENDLIST\n"));
    }
}

#[tokio::test]
async fn no_two_broadcasts_begin_in_the_same_millisecond() {
    let context = context(Path::new("unused"));
    let times: Vec<_> = (0..100).map(|_| context.begin().unix.as_millis()).collect();
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn p10_after_a_restart_the_publisher_goes_on_in_the_same_playlist() {
    let house = House::new();
    let (mut client, task) = house.publishing("a").await;
    send_film(&mut client).await;
    drop(client);
    sleep(Duration::from_secs(1)).await;
    // Nothing is done any more, as after kill -9.
    task.abort();
    let before = house.playlist("a", "video");
    fs::write(house.broadcasts("a")[0].join(".video-7.mp4.tmp"), "half a segment").unwrap();
    fs::write(house.broadcasts("a")[0].join("notes.txt"), "somebody else's").unwrap();

    let (house, _tasks) = house.restart().await;
    assert_eq!(house.playlist("a", "video"), before, "it waits");
    let (mut client, _task) = house.publishing("a").await;
    send_film(&mut client).await;
    client.unpublish().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(house.broadcasts("a").len(), 1);
    let after = house.playlist("a", "video");
    assert_eq!(after.matches("#EXT-X-DISCONTINUITY\n").count(), 1, "{after}");
    let kept = before.split_once("#EXT-X-MAP").unwrap().1;
    assert!(after.contains(kept), "{before}{after}");
    assert!(after.ends_with("#EXT-X-ENDLIST\n"), "{after}");
    let files: Vec<_> = house.files();
    assert!(files.iter().any(|path| path.ends_with("notes.txt")));
    assert!(!files.iter().any(|path| path.to_string_lossy().ends_with(".tmp")), "{files:?}");
}

#[tokio::test(start_paused = true)]
async fn p10_after_a_restart_without_its_publisher_a_broadcast_ends_after_the_grace_time() {
    let house = House::new();
    let (mut client, task) = house.publishing("a").await;
    send_film(&mut client).await;
    drop(client);
    sleep(Duration::from_secs(1)).await;
    task.abort();
    let before = house.playlist("a", "audio");
    // The same folder again under a name that is foreign, unreadable, or both.
    for (name, text) in [("b", "not a playlist"), ("c", ""), ("d", "#EXTM3U\n#EXT-X-VERSION:6\n")] {
        let folder = house.folder.path().join("live").join(name).join("~5");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("video.m3u8"), text).unwrap();
    }
    let (house, mut tasks) = house.restart().await;
    let start = Instant::now();
    while tasks.join_next().await.is_some() {}
    assert_eq!(start.elapsed().as_secs(), 30);
    assert_eq!(house.playlist("a", "audio"), format!("{before}#EXT-X-ENDLIST\n"));
    assert_eq!(house.playlist("b", "video"), "not a playlist");
    let (client, _task) = house.publish("a").await;
    send_film(&mut client.unwrap()).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(house.broadcasts("a").len(), 2, "a new one under the same name");
}

#[tokio::test(start_paused = true)]
async fn a_stop_may_leave_broadcasts_open_for_the_next_server() {
    let house = house_with(&[("open", "true"), ("stop", "keep")]);
    let (mut client, task) = house.publishing("a").await;
    send_film(&mut client).await;
    house.stopper.stop();
    task.await.unwrap();
    let before = house.playlist("a", "video");
    assert!(before.contains("#EXTINF") && !before.contains("#EXT-X-ENDLIST"), "{before}");

    let (house, _tasks) = house.restart().await;
    let (mut client, _task) = house.publishing("a").await;
    send_film(&mut client).await;
    client.unpublish().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let after = house.playlist("a", "video");
    assert!(after.contains(before.split_once("#EXT-X-MAP").unwrap().1), "{before}{after}");
    assert_eq!(after.matches("#EXT-X-DISCONTINUITY\n").count(), 1, "{after}");
}

/// The governor of a house at work, until it is dropped.
fn govern(house: &House) -> AbortOnDrop {
    AbortOnDrop::spawn(Arc::clone(&house.context.governor).run(Arc::clone(&house.context.registry)))
}

/// A whole broadcast of the film, at once.
async fn broadcast(house: &House, stream_key: &str) {
    let (mut client, _task) = house.publishing(stream_key).await;
    send_film(&mut client).await;
    client.unpublish().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert!(house.playlist(stream_key, "video").ends_with("#EXT-X-ENDLIST\n"));
}

#[tokio::test(start_paused = true)]
async fn an_ended_broadcast_leaves_after_its_time_and_nothing_that_is_listed_before() {
    let house = house_with(&[("open", "true"), ("retain", "60s")]);
    let _governor = govern(&house);
    broadcast(&house, "a").await;
    broadcast(&house, "b").await;
    fs::write(house.broadcasts("b")[0].join("notes.txt"), "somebody else's").unwrap();
    let index = |name| house.folder.path().join("live").join(name).join("index.m3u8");
    sleep(Duration::from_secs(55)).await;
    assert!(index("a").exists());
    let held = house.files().len();
    sleep(Duration::from_secs(10)).await;
    // Whoever has a playlist may still ask for the 13.7 s that it lists.
    assert!(!index("a").exists());
    assert_eq!(house.files().len(), held - 2, "the multivariant playlists");
    sleep(Duration::from_secs(20)).await;
    assert_eq!(house.files(), [house.broadcasts("b")[0].join("notes.txt")], "what is not ours stays");
    assert!(!house.folder.path().join("live/a").exists());

    // The name is as good as new, and its next broadcast is left alone.
    broadcast(&house, "a").await;
    sleep(Duration::from_secs(30)).await;
    assert!(index("a").exists());
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_taken_again_keeps_its_address_when_the_broadcast_before_leaves() {
    let house = house_with(&[("open", "true"), ("retain", "10s")]);
    let _governor = govern(&house);
    broadcast(&house, "a").await;
    let (mut client, _task) = house.publishing("a").await;
    send_film(&mut client).await;
    let start = Instant::now();
    send_in_time(&mut client, 1, start).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(house.broadcasts("a").len(), 1, "the first one has left");
    let index = fs::read_to_string(house.folder.path().join("live/a/index.m3u8")).unwrap();
    let broadcast = house.broadcasts("a").pop().unwrap();
    assert!(index.contains(broadcast.file_name().unwrap().to_str().unwrap()), "{index}");
}

#[tokio::test(start_paused = true)]
async fn the_folder_stays_below_max_disk_ended_broadcasts_leave_and_a_live_one_has_gaps() {
    let house = house_with(&[("open", "true"), ("max-disk", "2M"), ("window", "20")]);
    let _governor = govern(&house);
    let size = || folder::size(house.folder.path());
    broadcast(&house, "first").await;
    broadcast(&house, "second").await;
    assert!((1_300_000..1_900_000).contains(&size()), "{}", size());
    let mut has_recovered = false;
    // In 40 s more than fits: the older ones leave, the oldest first.
    let (mut client, task) = house.publishing("a").await;
    let start = Instant::now();
    for round in 0..8 {
        send_in_time(&mut client, round, start).await;
        assert!(size() < 2_050_000, "{} bytes in round {round}", size());
        let playlist = house.playlist("a", "video");
        let before_last = playlist.rsplit("#EXT-X-PROGRAM-DATE-TIME").next().unwrap_or_default();
        has_recovered |= playlist.contains("#EXT-X-GAP\n") && !before_last.contains("#EXT-X-GAP\n");
        assert_eq!(missing(house.folder.path()), [] as [String; 0]);
    }
    assert!(house.broadcasts("first").is_empty() && house.broadcasts("second").is_empty());
    let playlist = house.playlist("a", "video");
    assert!(playlist.contains("#EXT-X-GAP\n") && playlist.matches(".mp4\n").count() == 20, "{playlist}");
    let gaps = playlist.matches("#EXT-X-GAP\n").count();
    assert!(gaps < 20 || has_recovered, "what leaves makes room: {playlist}");
    let refusal = house.publish("b").await.0.err().map(|error| format!("{error:#}"));
    assert!(refusal.is_none_or(|refusal| refusal.contains("NetStream.Publish.Denied")));
    client.unpublish().await.unwrap();
    drop(client);
    task.await.unwrap();
}

/// A disk that does not answer for the stream `a` as long as somebody holds the lock.
struct Stalled {
    disk: DiskStore,
    lock: Arc<std::sync::Mutex<()>>,
}

impl store::Store for Stalled {
    fn perform(&mut self, action: &Action) -> std::io::Result<()> {
        if action.key().as_str().starts_with("live/a/") {
            drop(self.lock.lock());
        }
        self.disk.perform(action)
    }
}

#[tokio::test]
async fn a_stalled_disk_makes_its_publisher_wait_and_nobody_else_and_loses_nothing() {
    // Where publishers may block, and where they are read whenever bytes come.
    for is_on_queue in [true, false] {
        stall_one_of_two(House { is_on_queue, ..House::new() }).await;
    }
}

async fn stall_one_of_two(mut house: House) {
    let lock = Arc::new(std::sync::Mutex::new(()));
    let (out, in_store): (Arc<Path>, _) = (house.folder.path().into(), Arc::clone(&lock));
    let mut context = context(house.folder.path());
    context.make_store = Arc::new(move || {
        Box::new(Stalled { disk: DiskStore::new(Arc::clone(&out), Durability::Process), lock: Arc::clone(&in_store) })
    });
    house.context = Arc::new(context);
    let (mut client, _task) = house.publishing("a").await;

    let (stall, stalled) = std::sync::mpsc::channel::<()>();
    let holder = {
        let lock = Arc::clone(&lock);
        std::thread::spawn(move || {
            let _held = lock.lock();
            // Until the sender is dropped.
            let _ = stalled.recv();
        })
    };
    let film = Film::read(&Bytes::from_static(FILM)).unwrap();
    let sending = tokio::spawn(async move {
        for round in 0..8 {
            for (tag, time) in film.round(round) {
                client.send(tag, time).await.unwrap();
            }
        }
        client.unpublish().await.unwrap();
        client
    });
    // 8 rounds are 6 MB: more than the queue, the batch in flight and the pipe hold together.
    timeout(Duration::from_millis(500), async {
        while !sending.is_finished() {
            sleep(Duration::from_millis(10)).await
        }
    })
    .await
    .unwrap_err();
    broadcast(&house, "b").await;
    assert!(!sending.is_finished());
    drop(stall);
    holder.join().unwrap();
    let _client = sending.await.unwrap();
    let playlist = loop {
        let playlist = house.playlist("a", "video");
        if playlist.ends_with("#EXT-X-ENDLIST\n") {
            break playlist;
        }
        sleep(Duration::from_millis(5)).await;
    };
    let seconds: f64 =
        playlist.lines().filter_map(|line| line.strip_prefix("#EXTINF:")?.split(',').next()?.parse::<f64>().ok()).sum();
    let all = 8.0 * 13.74;
    assert!((seconds - all).abs() < 0.1 || playlist.contains("MEDIA-SEQUENCE:"), "{seconds}");
}

/// What the disk does wrong.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// All operations fail for this long.
    For(Duration),
    /// The streams' folder is removed.
    Removed,
}

/// A disk, and the rules that hold for what it has done.
struct Judged {
    disk: DiskStore,
    memory: Arc<std::sync::Mutex<core::memory::Memory>>,
    start: Instant,
}

impl store::Store for Judged {
    fn perform(&mut self, action: &Action) -> std::io::Result<()> {
        self.disk.perform(action)?;
        self.memory.lock().unwrap().perform(action.clone(), self.start.elapsed());
        Ok(())
    }
}

/// A broadcast of the film with a window so small that files are deleted, on a disk that does not lose anything. `fail`
/// is asked before each operation; how many there were is returned.
async fn broadcast_before_the_judge(
    case: &str,
    fail: impl Fn(usize) -> std::io::Result<()> + Send + Sync + 'static,
) -> usize {
    let mut house = House::new();
    let out: Arc<Path> = house.folder.path().into();
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let fail: Arc<store::Failing> = {
        let count = Arc::clone(&count);
        Arc::new(move |_: &str| fail(count.fetch_add(1, Ordering::Relaxed)))
    };
    let memory = Arc::new(std::sync::Mutex::new(core::memory::Memory::default()));
    let mut context = context_with(house.folder.path(), &[("open", "true"), ("window", "3")]);
    let judged = Arc::clone(&memory);
    context.make_store = Arc::new(move || {
        let disk = DiskStore::failing(Arc::clone(&out), Durability::Power, Arc::clone(&fail));
        Box::new(Judged { disk, memory: Arc::clone(&judged), start: Instant::now() })
    });
    house.context = Arc::new(context);
    let (mut client, task) = house.publishing("a").await;
    let start = Instant::now();
    send_in_time(&mut client, 0, start).await;
    client.unpublish().await.unwrap();
    // Longer than anything stays, though it was listed a minute late.
    sleep(Duration::from_secs(180)).await;
    drop(client);
    task.await.unwrap();
    let count = count.load(Ordering::Relaxed);
    let memory = memory.lock().expect(case);
    assert!(memory.unfinished.is_empty(), "{case}: {:?}", memory.unfinished.keys());
    assert_eq!(memory.judge.gaps, 0, "{case}");
    assert_eq!(memory.unlisted(), [] as [&String; 0], "{case}");
    for (key, playlist) in memory.judge.playlists() {
        assert!(playlist.has_end && playlist.media_sequence > 0, "{case}: {key}");
    }
    // On the disk is what the judge saw, and nothing else.
    let found: Vec<_> =
        house.files().iter().map(|path| path.strip_prefix(house.folder.path()).unwrap().to_owned()).collect();
    for (key, body) in &memory.objects {
        assert!(fs::read(house.folder.path().join(key)).unwrap() == *body, "{case}: {key}");
    }
    assert_eq!(found.len(), memory.objects.len(), "{case}: {found:?}");
    count
}

/// ENOSPC, EIO, EACCES, EROFS, EMFILE.
const ERRORS: [i32; 5] = [28, 5, 13, 30, 24];

#[tokio::test(start_paused = true)]
async fn p13_any_single_file_operation_may_fail_once_and_nothing_is_lost() {
    let operations = broadcast_before_the_judge("none", |_| Ok(())).await;
    assert!(operations > 150, "{operations}");
    for at in 0..operations {
        let error = ERRORS[at % ERRORS.len()];
        let fail =
            move |operation| if operation == at { Err(std::io::Error::from_raw_os_error(error)) } else { Ok(()) };
        broadcast_before_the_judge(&format!("operation {at} fails with {error}"), fail).await;
    }
}

#[tokio::test(start_paused = true)]
async fn p13_any_single_file_operation_may_stall_once_and_nothing_is_lost() {
    let operations = broadcast_before_the_judge("none", |_| Ok(())).await;
    for at in 0..operations {
        let stall = move |operation| {
            if operation == at {
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        };
        broadcast_before_the_judge(&format!("operation {at} stalls"), stall).await;
    }
}

/// A broadcast of the film, this many times, on a disk whose operation number `at` goes wrong, and how many operations
/// there were. Before each of them all that is listed is there.
async fn broadcast_on_a_faulty_disk(rounds: u32, at: usize, fault: Fault) -> (House, usize) {
    let mut house = House::new();
    let out: Arc<Path> = house.folder.path().into();
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let until = Arc::new(std::sync::Mutex::new(None::<Instant>));
    let fail: Arc<store::Failing> = {
        let (out, count) = (Arc::clone(&out), Arc::clone(&count));
        Arc::new(move |_: &str| {
            if !matches!(fault, Fault::Removed) {
                assert_eq!(missing(&out), [] as [String; 0]);
            }
            let is_it = count.fetch_add(1, Ordering::Relaxed) == at;
            let mut until = until.lock().unwrap();
            match fault {
                Fault::For(time) if is_it => *until = Some(Instant::now() + time),
                // It may not be there yet.
                Fault::Removed if is_it => drop(fs::remove_dir_all(out.join("live"))),
                _ => {}
            }
            match *until {
                Some(until) if Instant::now() < until => Err(std::io::ErrorKind::ReadOnlyFilesystem.into()),
                _ => Ok(()),
            }
        })
    };
    let mut context = context(house.folder.path());
    context.make_store =
        Arc::new(move || Box::new(DiskStore::failing(Arc::clone(&out), Durability::Power, Arc::clone(&fail))));
    house.context = Arc::new(context);
    let (mut client, task) = house.publishing("a").await;
    let start = Instant::now();
    for round in 0..rounds {
        send_in_time(&mut client, round, start).await;
    }
    client.unpublish().await.unwrap();
    sleep(Duration::from_secs(20)).await;
    drop(client);
    task.await.unwrap();
    let count = count.load(Ordering::Relaxed);
    (house, count)
}

/// Files that playlists below `out` list and that are not there.
fn missing(out: &Path) -> Vec<String> {
    let mut missing = Vec::new();
    for entry in fs::read_dir(out.join("live/a")).into_iter().flatten().flatten() {
        for playlist in ["video.m3u8", "audio.m3u8"] {
            let Ok(text) = fs::read_to_string(entry.path().join(playlist)) else { continue };
            let mut is_gap = false;
            for line in text.lines() {
                is_gap |= line == "#EXT-X-GAP";
                if !line.starts_with('#') {
                    if !is_gap && !entry.path().join(line).exists() {
                        missing.push(format!("{playlist}: {line}"));
                    }
                    is_gap = false;
                }
            }
        }
    }
    missing
}

fn gaps(house: &House) -> usize {
    ["video", "audio"].iter().map(|rendition| house.playlist("a", rendition).matches("#EXT-X-GAP\n").count()).sum()
}

fn assert_is_ended_and_whole(house: &House, case: &str) {
    for rendition in ["video", "audio"] {
        let playlist = house.playlist("a", rendition);
        assert!(playlist.ends_with("#EXT-X-ENDLIST\n"), "{case}: {playlist}");
        assert!(playlist.contains("#EXT-X-MEDIA-SEQUENCE:0\n"), "{case}: {playlist}");
        for (number, uri) in playlist.lines().filter(|line| line.ends_with(".mp4")).enumerate() {
            assert_eq!(uri, format!("{rendition}-{number}.mp4"), "{case}");
        }
    }
    let mut report = Vec::new();
    let index = house.folder.path().join("live/a/index.m3u8");
    let inspected = crate::inspect::run(&index, &mut report).unwrap();
    assert_eq!(inspected.exit_code(), 0, "{case}: {}", String::from_utf8_lossy(&report));
    assert_eq!(missing(house.folder.path()), [] as [String; 0], "{case}");
    let left: Vec<_> = house.files().into_iter().filter(|path| path.to_string_lossy().ends_with(".tmp")).collect();
    assert!(left.is_empty(), "{case}: {left:?}");
}

#[tokio::test(start_paused = true)]
async fn p13_a_disk_that_takes_nothing_for_4_s_delays_and_what_is_listed_late_is_deleted_late() {
    for at in (0..200).step_by(13) {
        let until = std::sync::OnceLock::new();
        let fail = move |operation| {
            let is_over =
                operation < at || Instant::now() > *until.get_or_init(|| Instant::now() + Duration::from_secs(4));
            if is_over { Ok(()) } else { Err(std::io::ErrorKind::StorageFull.into()) }
        };
        broadcast_before_the_judge(&format!("from operation {at} for 4 s"), fail).await;
    }
}

#[tokio::test(start_paused = true)]
async fn p13_a_disk_that_does_not_answer_for_a_minute_deletes_late_what_it_listed_late() {
    for at in (10..170).step_by(16) {
        let (stall, mut stalled) = tokio::sync::mpsc::unbounded_channel();
        let minute = tokio::spawn(async move {
            let Some(release): Option<std::sync::mpsc::Sender<()>> = stalled.recv().await else { return };
            // The clock stands still while an operation is on its way.
            for _ in 0..600 {
                tokio::time::advance(Duration::from_millis(100)).await;
            }
            drop(release);
        });
        let hang = move |operation| {
            if operation == at {
                let (release, released) = std::sync::mpsc::channel();
                stall.send(release).unwrap();
                // Until the sender is dropped.
                let _ = released.recv();
            }
            Ok(())
        };
        broadcast_before_the_judge(&format!("operation {at} hangs"), hang).await;
        assert!(minute.is_finished(), "operation {at} came");
    }
}

#[tokio::test(start_paused = true)]
async fn p13_a_disk_that_takes_nothing_for_a_while_costs_gaps_and_the_output_is_back_by_itself() {
    for at in (0..80).step_by(9) {
        let (house, _) = broadcast_on_a_faulty_disk(2, at, Fault::For(Duration::from_secs(9))).await;
        assert_is_ended_and_whole(&house, &format!("from operation {at}"));
        assert!(gaps(&house) <= 14, "from operation {at}: {}", house.playlist("a", "video"));
    }
}

#[tokio::test(start_paused = true)]
async fn p13_a_folder_that_is_removed_costs_gaps_and_the_output_is_back_by_itself() {
    for at in (1..80).step_by(9) {
        let (house, _) = broadcast_on_a_faulty_disk(2, at, Fault::Removed).await;
        assert_is_ended_and_whole(&house, &format!("before operation {at}"));
    }
}

#[tokio::test]
async fn a_listening_server_says_where_and_stops_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("made/for/it");
    let config = config(&[("rtmp", "127.0.0.1:0"), ("http", "127.0.0.1:0"), ("out", out.to_str().unwrap())]);
    let server = Server::bind(&config, WhenTaken::Fail, WhenTaken::Fail).unwrap();
    let (rtmp, http) = (server.rtmp_address().unwrap(), server.http_address().unwrap().unwrap());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(server.run(async { drop(stopped.await) }));
    // A viewer who keeps his connection does not hold up the end.
    let _viewer = tokio::net::TcpStream::connect(http).await.unwrap();
    let socket = tokio::net::TcpStream::connect(rtmp).await.unwrap();
    let client = Client::publish(socket, "live", "a").await.unwrap();
    assert!(out.is_dir());
    drop(stop);
    timeout(Duration::from_secs(2), running).await.unwrap().unwrap().unwrap();
    drop(client);
    let mut byte = [0];
    let refused = tokio::net::TcpStream::connect(rtmp).await;
    assert!(match refused {
        Ok(mut socket) => matches!(socket.read(&mut byte).await, Ok(0) | Err(_)),
        Err(_) => true,
    });
}

/// A whole server over sockets, stopped when dropped.
async fn serve_with(flags: &[(&str, &str)]) -> (SocketAddr, Option<SocketAddr>, AbortOnDrop) {
    let server = Server::bind(&config(flags), WhenTaken::Fail, WhenTaken::Fail).unwrap();
    let (rtmp, rtmps) = (server.rtmp_address().unwrap(), server.rtmps_address().unwrap());
    let running = AbortOnDrop::spawn(async { server.run(std::future::pending()).await.unwrap() });
    (rtmp, rtmps, running)
}

#[tokio::test]
async fn a_publish_goes_over_tls_and_a_new_certificate_is_taken_without_a_restart() {
    use tokio_rustls::rustls::pki_types::ServerName;

    let folder = tempfile::tempdir().unwrap();
    let [out, certificate, key] = ["out", "c.pem", "k.pem"].map(|name| folder.path().join(name));
    let trust = tls::tests::make(&certificate, &key);
    let paths = [&out, &certificate, &key].map(|path| path.to_str().unwrap().to_owned());
    let flags = [
        ("rtmp", "127.0.0.1:0"),
        ("rtmps", "127.0.0.1:0"),
        ("out", &paths[0]),
        ("tls-cert", &paths[1]),
        ("tls-key", &paths[2]),
    ];
    let (_, rtmps, _running) = serve_with(&flags).await;
    let rtmps = rtmps.unwrap();
    let localhost = || ServerName::try_from("localhost").unwrap();
    let dial = || tokio::net::TcpStream::connect(rtmps);

    let socket = trust.connect(localhost(), dial().await.unwrap()).await.unwrap();
    let mut client = Client::publish(socket, "live", "a").await.unwrap();
    let film = Film::read(&Bytes::from_static(FILM)).unwrap();
    for (tag, time) in film.round(0) {
        client.send(tag, time).await.unwrap();
    }

    let new_trust = tls::tests::make(&certificate, &key);
    let start = Instant::now();
    while new_trust.connect(localhost(), dial().await.unwrap()).await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(5));
        sleep(Duration::from_millis(50)).await;
    }
    assert!(trust.connect(localhost(), dial().await.unwrap()).await.is_err(), "the old one is no longer shown");

    // The publisher that was there before goes on.
    for (tag, time) in film.round(1) {
        client.send(tag, time).await.unwrap();
    }
    client.unpublish().await.unwrap();
    let start = Instant::now();
    loop {
        let inside = fs::read_dir(out.join("live/a")).into_iter().flatten().flatten();
        let playlists = inside.filter_map(|entry| fs::read_to_string(entry.path().join("video.m3u8")).ok());
        if playlists.into_iter().any(|playlist| playlist.ends_with("#EXT-X-ENDLIST\n")) {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(5));
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn who_does_not_speak_tls_on_its_port_is_closed_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let [out, certificate, key] = ["out", "c.pem", "k.pem"].map(|name| folder.path().join(name));
    tls::tests::make(&certificate, &key);
    let paths = [&out, &certificate, &key].map(|path| path.to_str().unwrap().to_owned());
    let flags = [
        ("rtmp", "127.0.0.1:0"),
        ("rtmps", "127.0.0.1:0"),
        ("out", &paths[0]),
        ("tls-cert", &paths[1]),
        ("tls-key", &paths[2]),
    ];
    let (_, rtmps, _running) = serve_with(&flags).await;
    for first in [b"\x03", b"G"] {
        let mut socket = tokio::net::TcpStream::connect(rtmps.unwrap()).await.unwrap();
        socket.write_all(first).await.unwrap();
        let start = Instant::now();
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest).await;
        assert!(start.elapsed() < Duration::from_secs(1));
    }
}

#[tokio::test]
async fn keys_are_read_again_when_they_change_and_nobody_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let [out, keys] = ["out", "keys.toml"].map(|name| folder.path().join(name));
    fs::write(&keys, "first = 'a'\n").unwrap();
    let paths = [&out, &keys].map(|path| path.to_str().unwrap().to_owned());
    let (rtmp, _, _running) = serve_with(&[("rtmp", "127.0.0.1:0"), ("out", &paths[0]), ("keys", &paths[1])]).await;
    let publish = async |key| {
        let socket = tokio::net::TcpStream::connect(rtmp).await.unwrap();
        Client::publish(socket, "live", key).await
    };
    let mut client = publish("first").await.unwrap();
    let second = auth::add_key(&keys, "b").unwrap();
    fs::write(&keys, fs::read_to_string(&keys).unwrap().replace("first = 'a'", "")).unwrap();
    let start = Instant::now();
    let _second = loop {
        if let Ok(client) = publish(&second).await {
            break client;
        }
        assert!(start.elapsed() < Duration::from_secs(5));
        sleep(Duration::from_millis(50)).await;
    };
    assert!(publish("first").await.is_err());
    let film = Film::read(&Bytes::from_static(FILM)).unwrap();
    for (tag, time) in film.round(0) {
        client.send(tag, time).await.unwrap();
    }
}

#[tokio::test]
async fn the_task_of_a_connection_is_small() {
    let house = House::new();
    let (_socket, ours) = tokio::io::duplex(1);
    let peer: SocketAddr = "127.0.0.1:5000".parse().unwrap();
    let admission = house.context.gate.enter(limits::Who::Broadcaster, peer.ip()).unwrap();
    let task = publisher::serve(ours, peer, admission, Arc::clone(&house.context), house.stop.clone());
    assert!(size_of_val(&task) <= 4096, "{} bytes", size_of_val(&task));
}
