//! The built-in web server: the output folder, and a plain page to watch it with.
//!
//! | path | what |
//! |---|---|
//! | `/` | the page: all streams, or the one of `?stream=live/cam1` |
//! | `/~streams.json` | what lies in the folder, and what is live |
//! | `/~player/…` | the page's own files; `~` is in no stream's name |
//! | `/live/cam1/index.m3u8` … | the output folder |
//!
//! Files whose names start with a dot are not served: they are not whole yet.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName,
    HeaderValue, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tower_http::compression::{CompressionLayer, Predicate};
use tower_http::cors::{Any, CorsLayer};
use tower_http::services::ServeDir;

use super::Context;
use super::limits::Who;
use super::listener::{ACCEPT_PAUSE, canonical};
use super::stalled::Unstalled;
use crate::action::StreamName;

/// Within this time a request has to be asked whole.
const ASK_WITHIN: Duration = Duration::from_secs(10);
/// A connection on which nothing moves for so long is closed. Players ask for a playlist at least every other second.
const IDLE_FOR: Duration = Duration::from_secs(30);

/// Serves viewers for ever.
pub(super) async fn serve(listener: TcpListener, out: Arc<Path>, context: Arc<Context>) {
    let router = router(out, Arc::clone(&context));
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(ASK_WITHIN);
    let mut viewers = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // A viewer's connection ends somehow; it is no more than that.
            Some(_) = viewers.join_next() => continue,
        };
        let Ok((socket, peer)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let peer = canonical(peer);
        let admission = match context.gate.enter(Who::Viewer, peer.ip()) {
            Ok(admission) => admission,
            Err(reached) => {
                if context.gate.may_log() {
                    tracing::info!(%peer, "viewer's connection closed at once: {reached}");
                }
                continue;
            }
        };
        // Whole answers are written at once.
        let _ = socket.set_nodelay(true);
        let (builder, service) = (builder.clone(), TowerToHyperService::new(router.clone()));
        viewers.spawn(async move {
            let _admission = admission;
            let socket = TokioIo::new(Unstalled::new(socket, IDLE_FOR));
            let _ = builder.serve_connection(socket, service).await;
        });
    }
}

fn router(out: Arc<Path>, context: Arc<Context>) -> Router {
    let files = ServeDir::new(&out).append_index_html_on_directories(false);
    let cors = CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::HEAD, Method::OPTIONS])
        .allow_headers([RANGE])
        .expose_headers([CONTENT_LENGTH, CONTENT_RANGE, ACCEPT_RANGES]);
    Router::new()
        .fallback_service(files)
        .layer(middleware::from_fn(only_our_files))
        .route("/", get(|| async { page_file("text/html; charset=utf-8", include_bytes!("page/index.html")) }))
        .route("/~player/player.css", get(|| async { page_file("text/css", include_bytes!("page/player.css")) }))
        .route("/~player/player.js", get(|| async { page_file(JAVASCRIPT, include_bytes!("page/player.js")) }))
        .route("/~player/hls.min.js", get(|| async { page_file(JAVASCRIPT, include_bytes!("page/hls.min.js")) }))
        .route("/~streams.json", get(streams))
        .with_state(Listing { out, context, last: Arc::default() })
        .layer(CompressionLayer::new().gzip(true).compress_when(IsText))
        .layer(cors)
}

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// What the page may do: its own scripts, and playing what they made (`blob:`). A stream's name is text, never code.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src data:; media-src 'self' blob:; worker-src 'self' blob:; base-uri 'none'; form-action 'none'";

fn page_file(content_type: &'static str, bytes: &'static [u8]) -> Response {
    let headers: [(HeaderName, &str); 4] = [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, bytes).into_response()
}

/// Refuses paths that no file of ours has, and says how long each kind may be kept and what it is.
async fn only_our_files(request: Request, next: Next) -> Response {
    let Some(kind) = FileKind::of_path(request.uri().path()) else {
        return (StatusCode::NOT_FOUND, [(CACHE_CONTROL, "no-cache")], "not found\n").into_response();
    };
    let mut response = next.run(request).await;
    let is_found = response.status().is_success() || response.status() == StatusCode::NOT_MODIFIED;
    let headers = response.headers_mut();
    let cache = match kind {
        FileKind::Media(_) if is_found => "public, max-age=31536000, immutable",
        _ => "no-cache",
    };
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    if let (true, FileKind::Playlist(content_type) | FileKind::Media(content_type)) = (is_found, kind) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    response
}

/// What a path asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileKind {
    /// Changes; with its content type.
    Playlist(&'static str),
    /// Never changes under its name; with its content type.
    Media(&'static str),
    /// Put there by somebody else.
    Other,
}

impl FileKind {
    /// `None` for what must not be served: names that start with a dot, and characters that none of our names has.
    fn of_path(path: &str) -> Option<Self> {
        let path = percent_decode(path.strip_prefix('/')?)?;
        let is_plain = |part: &str| {
            !part.starts_with('.')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '~'))
        };
        if !path.split('/').all(is_plain) {
            return None;
        }
        Some(match path.rsplit_once('.') {
            Some((_, "m3u8")) => Self::Playlist(PLAYLIST_TYPE),
            Some((_, "mp4")) => Self::Media("video/mp4"),
            // The name that RFC 8216bis §3.1.2 and ISO/IEC 23009-1 give to CMAF segments.
            Some((_, "m4s")) => Self::Media("video/iso.segment"),
            _ => Self::Other,
        })
    }
}

/// RFC 8216bis §4.
const PLAYLIST_TYPE: &str = "application/vnd.apple.mpegurl";

fn percent_decode(path: &str) -> Option<String> {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        let byte = u8::from_str_radix(after.get(..2)?, 16).ok().filter(u8::is_ascii)?;
        decoded.push_str(before);
        decoded.push(char::from(byte));
        rest = &after[2..];
    }
    decoded.push_str(rest);
    Some(decoded)
}

/// Playlists and the page are worth compressing (Apple HLS Authoring Specification §10.1); media is compressed already.
#[derive(Debug, Clone, Copy)]
struct IsText;

impl Predicate for IsText {
    fn should_compress<B>(&self, response: &axum::http::Response<B>) -> bool
    where
        B: axum::body::HttpBody,
    {
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        content_type.is_some_and(|value| value.starts_with("text/") || value == PLAYLIST_TYPE)
            && !response.headers().contains_key(CONTENT_RANGE)
    }
}

#[derive(Clone)]
struct Listing {
    out: Arc<Path>,
    context: Arc<Context>,
    /// The last list as JSON, and when it was made.
    last: Arc<Mutex<Option<(Instant, Bytes)>>>,
}

/// A stream on the page.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Listed {
    name: String,
    live: bool,
}

/// For how long a list is good enough: however many ask, the folder is searched once in this time.
const LIST_FOR: Duration = Duration::from_secs(1);

async fn streams(State(Listing { out, context, last }): State<Listing>) -> Response {
    let mut last = last.lock().await;
    let json = match &*last {
        Some((made_at, json)) if made_at.elapsed() < LIST_FOR => json.clone(),
        _ => {
            let json = list(out, &context).await;
            *last = Some((Instant::now(), json.clone()));
            json
        }
    };
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-cache")], json).into_response()
}

async fn list(out: Arc<Path>, context: &Context) -> Bytes {
    let live: HashSet<StreamName> = context.registry.live().into_iter().collect();
    let listed = tokio::task::spawn_blocking(move || {
        let mut names = Vec::new();
        find_streams(&out, &mut Vec::new(), &mut names);
        names.sort();
        names.into_iter().map(|name| Listed { live: live.contains(&name), name: name.as_str().to_owned() }).collect()
    });
    let listed: Vec<Listed> = listed.await.unwrap_or_default();
    serde_json::to_vec(&listed).unwrap_or_default().into()
}

/// The most streams on the page.
const MOST_LISTED: usize = 1000;

/// Finds the folders below `parts` of `out` that hold an index. What cannot be read is passed over: it may be gone by now.
fn find_streams(out: &Path, parts: &mut Vec<String>, names: &mut Vec<StreamName>) {
    let folder = parts.iter().fold(out.to_path_buf(), |folder, part| folder.join(part));
    if let [app @ .., name] = parts.as_slice()
        && let Ok(name) = StreamName::parse(&app.join("/"), name)
        && fs::symlink_metadata(out.join(name.index().as_str())).is_ok_and(|index| index.is_file())
    {
        names.push(name);
    }
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if parts.len() == StreamName::MOST_PARTS || names.len() == MOST_LISTED {
            return;
        }
        let is_folder = entry.file_type().is_ok_and(|file_type| file_type.is_dir());
        // A folder that starts with `~` belongs to a broadcast.
        if let (true, Ok(part)) = (is_folder, entry.file_name().into_string())
            && !part.starts_with(['~', '.'])
        {
            parts.push(part);
            find_streams(out, parts, names);
            parts.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;
    use crate::server::tests::context;

    #[test]
    fn dot_files_and_strange_paths_are_not_served() {
        for path in [
            "/live/a/.v-1.m4s.tmp",
            "/live/a/%2ev-1.m4s.tmp",
            "/live/a%2f.v-1.m4s.tmp",
            "/.hidden",
            "/live/../x",
            "/live/%2e%2e/x",
            "/live/a b",
            "/live/%ff",
            "/live/%2",
            "/live/%00",
            "/live\\x",
        ] {
            assert_eq!(FileKind::of_path(path), None, "{path}");
        }
        assert_eq!(FileKind::of_path("/live/a/index.m3u8"), Some(FileKind::Playlist(PLAYLIST_TYPE)));
        assert_eq!(FileKind::of_path("/live/a/%7E17/v-1.m4s"), Some(FileKind::Media("video/iso.segment")));
        assert_eq!(FileKind::of_path("/live/a/~17/init.mp4"), Some(FileKind::Media("video/mp4")));
    }

    #[test]
    fn streams_are_found_at_any_depth_and_broadcast_folders_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        for path in
            ["live/a/index.m3u8", "live/room/b/index.m3u8", "live/a/~1/index.m3u8", "x/.y/index.m3u8", "live/c/no"]
        {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let mut names = Vec::new();
        find_streams(folder.path(), &mut Vec::new(), &mut names);
        names.sort();
        let names: Vec<_> = names.iter().map(StreamName::as_str).collect();
        assert_eq!(names, ["live/a", "live/room/b"]);
    }

    async fn get(path: &str, headers: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("live/a/~1")).unwrap();
        fs::write(folder.path().join("live/a/index.m3u8"), "#EXTM3U\n".repeat(50)).unwrap();
        fs::write(folder.path().join("live/a/~1/v.m4s"), "0123456789").unwrap();
        fs::write(folder.path().join("live/a/~1/.w.m4s.tmp"), "half").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let context = Arc::new(context(folder.path()));
        let server = tokio::spawn(serve(listener, folder.path().into(), context));
        let mut socket = TcpStream::connect(address).await.unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\norigin: http://y\r\n{headers}\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut response = Vec::new();
        socket.read_to_end(&mut response).await.unwrap();
        server.abort();
        String::from_utf8_lossy(&response).into_owned()
    }

    #[tokio::test]
    async fn a_playlist_comes_fresh_and_with_its_type_and_compressed_for_who_wants() {
        let response = get("/live/a/index.m3u8", "").await;
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        for header in
            ["content-type: application/vnd.apple.mpegurl", "cache-control: no-cache", "access-control-allow-origin: *"]
        {
            assert!(response.contains(header), "{header} in {response}");
        }
        assert!(response.ends_with("#EXTM3U\n"));
        let response = get("/live/a/index.m3u8", "accept-encoding: gzip\r\n").await;
        assert!(response.contains("content-encoding: gzip"), "{response}");
    }

    #[tokio::test]
    async fn a_segment_may_be_kept_for_ever_and_asked_for_in_parts() {
        let response = get("/live/a/~1/v.m4s", "range: bytes=2-4\r\naccept-encoding: gzip\r\n").await;
        assert!(response.starts_with("HTTP/1.1 206"), "{response}");
        for header in ["content-type: video/iso.segment", "max-age=31536000, immutable", "content-range: bytes 2-4/10"]
        {
            assert!(response.contains(header), "{header} in {response}");
        }
        assert!(response.ends_with("\r\n\r\n234"));
    }

    #[tokio::test]
    async fn what_is_not_there_may_come_later_and_what_is_half_written_is_not_there() {
        for path in ["/live/a/~1/.w.m4s.tmp", "/live/a/~1/u.m4s", "/live/a", "/live/a/"] {
            let response = get(path, "").await;
            assert!(response.starts_with("HTTP/1.1 404"), "{path}: {response}");
            assert!(response.contains("cache-control: no-cache"), "{response}");
        }
    }

    #[tokio::test]
    async fn the_page_and_the_list_of_streams_are_there() {
        let page = get("/?stream=live/a", "").await;
        assert!(page.contains("content-type: text/html") && page.contains("content-security-policy"), "{page}");
        assert!(get("/~player/hls.min.js", "").await.starts_with("HTTP/1.1 200"));
        let list = get("/~streams.json", "").await;
        assert!(list.ends_with(r#"[{"name":"live/a","live":false}]"#), "{list}");
    }

    /// A server for `flags`, and a connection to it.
    async fn dialled(flags: &[(&str, &str)]) -> (std::net::SocketAddr, tempfile::TempDir, crate::server::AbortOnDrop) {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let context = Arc::new(crate::server::tests::context_with(folder.path(), flags));
        let server = crate::server::AbortOnDrop::spawn(serve(listener, folder.path().into(), context));
        (address, folder, server)
    }

    #[tokio::test]
    async fn viewers_are_limited() {
        let (address, _folder, _server) = dialled(&[("max-viewers", "1")]).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        first.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        sleep(Duration::from_millis(50)).await;
        let mut second = TcpStream::connect(address).await.unwrap();
        assert!(matches!(second.read(&mut [0]).await, Ok(0) | Err(_)), "closed at once");
        first.write_all(b"host: x\r\n\r\n").await.unwrap();
        assert!(first.read(&mut [0]).await.unwrap() > 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_too_slowly_or_not_at_all_is_closed() {
        let (address, _folder, _server) = dialled(&[]).await;
        for (said, seconds) in [("", 30), ("GET / HTTP/1.1\r\nhost:", 10), ("PRI * HTTP/2.0\r\n", 30)] {
            let start = Instant::now();
            let mut socket = TcpStream::connect(address).await.unwrap();
            socket.write_all(said.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            let _ = socket.read_to_end(&mut answer).await;
            let took = start.elapsed().as_secs();
            assert!(took.abs_diff(seconds) <= 1, "{said:?}: {took} s");
        }
    }
}
