//! The operator's own service says who may publish: JSON by POST, 2xx lets in.
//!
//! ```text
//! → {"event":"publish","app":"live","name":"cam1","query":"t=1","address":"192.0.2.1:5000","encoder":"OBS"}
//! ← 200 {"name":"live/front","max_bitrate":"8M"}     both may be left out, and so may the body
//! ← 403 {"reason":"come back tomorrow"}              or plain text; the publisher gets to read it
//! → {"event":"done", …, "stream":"live/front","received_bytes":123456}
//! ```
//!
//! Time, tries, connections and answers are bounded. Whatever goes wrong lets nobody in.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Body;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::super::tls;
use super::{Credential, Grant, Refusal, Wish, public_name, sha256};
use crate::action::StreamName;
use crate::config::{OptionalBitrate, Value as _};

/// How long one try may take, from the look-up of the name to the last byte.
const TRY_WITHIN: Duration = Duration::from_secs(3);
/// Tries, for what may be better a moment later.
const TRIES: u32 = 2;
/// Between two tries.
const RETRY_AFTER: Duration = Duration::from_millis(300);
/// Questions at the same time; who comes beyond that waits, and is refused if it takes too long.
const AT_ONCE: usize = 64;
/// News of ended publishes that wait to be told; more are lost, with a log line.
const NEWS_WAITING: usize = 1024;
/// The longest answer, in bytes.
const ANSWER_BYTES: usize = 16 << 10;
/// The longest reason that is passed on, in characters.
const REASON_CHARACTERS: usize = 200;

/// A service that is asked.
#[derive(Clone)]
pub(super) struct Callback {
    address: Arc<Address>,
    questions: Arc<Semaphore>,
    news: Arc<Semaphore>,
}

struct Address {
    uri: Uri,
    host: String,
    port: u16,
    tls: Option<TlsConnector>,
}

impl fmt::Display for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without path and query, which may hold a secret.
        write!(f, "the callback at {}", self.address.host)
    }
}

impl Callback {
    /// For an `http://` or `https://` URL.
    ///
    /// # Errors
    /// It is no URL, or there are no certificates to trust.
    pub(super) fn new(url: &str) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().context("read the URL")?;
        let is_tls = uri.scheme_str() == Some("https");
        let host = uri.host().context("the URL has no host")?.trim_matches(['[', ']']).to_owned();
        ensure!(uri.authority().is_none_or(|authority| !authority.as_str().contains('@')), "the URL holds a password");
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let tls = if is_tls { Some(tls::connector()?) } else { None };
        Ok(Self {
            address: Arc::new(Address { uri, host, port, tls }),
            questions: Arc::new(Semaphore::new(AT_ONCE)),
            news: Arc::new(Semaphore::new(NEWS_WAITING)),
        })
    }

    /// Asks, and waits for the answer until `deadline`. `granted` is who it is if that is known already.
    pub(super) async fn ask(
        &self,
        wish: Wish<'_>,
        granted: Option<Grant>,
        deadline: Instant,
    ) -> Result<Grant, Refusal> {
        let question = describe("publish", wish, granted.as_ref().map(|grant| &grant.name));
        let asked = async {
            let _permit = self.questions.acquire().await?;
            self.post(question.to_string().into()).await
        };
        let answer = match timeout_at(deadline, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                tracing::error!("failed to ask {self} who may publish: {error:#}");
                return Err(Refusal::CallbackFailed);
            }
            Err(_) => {
                tracing::error!("failed to ask {self} who may publish: no answer in time");
                return Err(Refusal::CallbackFailed);
            }
        };
        if !answer.status.is_success() {
            return Err(Refusal::ByCallback(answer.reason()));
        }
        // What is missing may be a limit.
        if let Some(error) = answer.broken_by {
            tracing::error!("failed to read who may publish from {self}, of at most {ANSWER_BYTES} bytes: {error}");
            return Err(Refusal::CallbackFailed);
        }
        answer.grant(wish, granted)
    }

    /// Tells that a publish is over, in its own time.
    pub(super) fn tell_done(&self, wish: Wish<'_>, name: &StreamName, received_bytes: u64) {
        let Ok(place) = Arc::clone(&self.news).try_acquire_owned() else {
            tracing::error!(stream = %name, "failed to tell {self} that a publish is over: too much news waits");
            return;
        };
        let mut news = describe("done", wish, Some(name));
        news["stream"] = name.as_str().into();
        news["received_bytes"] = received_bytes.into();
        let callback = self.clone();
        tokio::spawn(async move {
            let _place = place;
            let told = async {
                let _permit = callback.questions.acquire().await?;
                callback.post(news.to_string().into()).await
            };
            if let Err(error) = told.await {
                tracing::warn!("failed to tell {callback} that a publish is over: {error:#}");
            }
        });
    }

    /// Waits until all news has been told.
    pub(super) async fn has_told(&self) {
        let all = u32::try_from(NEWS_WAITING).unwrap_or(u32::MAX);
        // It is never closed.
        let _ = self.news.acquire_many(all).await;
    }

    async fn post(&self, body: Bytes) -> anyhow::Result<Answer> {
        let mut tried = 1;
        loop {
            let error = match timeout(TRY_WITHIN, self.post_once(body.clone())).await {
                Ok(Ok(answer)) if !answer.status.is_server_error() => return Ok(answer),
                Ok(Ok(answer)) => anyhow::anyhow!("it says {}", answer.status),
                Ok(Err(error)) => error,
                Err(_) => anyhow::anyhow!("no answer within {TRY_WITHIN:?}"),
            };
            if tried == TRIES {
                return Err(error);
            }
            tried += 1;
            sleep(RETRY_AFTER).await;
        }
    }

    async fn post_once(&self, body: Bytes) -> anyhow::Result<Answer> {
        let Address { host, port, tls, .. } = &*self.address;
        let socket = TcpStream::connect((host.as_str(), *port)).await.context("connect")?;
        match tls {
            None => self.speak(socket, body).await,
            Some(connector) => {
                let name = ServerName::try_from(host.clone()).context("use the host's name")?;
                let socket = connector.connect(name, socket).await.context("connect over TLS")?;
                self.speak(socket, body).await
            }
        }
    }

    async fn speak<S>(&self, socket: S, body: Bytes) -> anyhow::Result<Answer>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let uri = &self.address.uri;
        let authority = uri.authority().context("the URL has no host")?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::post(path)
            .header(HOST, authority.as_str())
            .header(USER_AGENT, concat!("upscope/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(Full::new(body))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
        // It ends with the sender, or with this question.
        let _connection = super::AbortOnDrop::spawn(async move { drop(connection.await) });
        let response = sender.send_request(request).await.context("ask")?;
        let status = response.status();
        Ok(Answer::read(status, Limited::new(response.into_body(), ANSWER_BYTES)).await)
    }
}

/// What the callback said.
struct Answer {
    status: StatusCode,
    body: BytesMut,
    /// Why the body is not whole. A service that ends its answer by closing TLS without a goodbye is one cause.
    broken_by: Option<String>,
}

impl Answer {
    async fn read<B>(status: StatusCode, mut rest: B) -> Self
    where
        B: Body<Data = Bytes, Error: fmt::Display> + Unpin,
    {
        let mut answer = Self { status, body: BytesMut::new(), broken_by: None };
        while let Some(frame) = rest.frame().await {
            match frame {
                Ok(frame) => answer.body.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
                Err(error) => {
                    answer.broken_by = Some(error.to_string());
                    break;
                }
            }
        }
        answer
    }

    /// Why not, fit to be shown.
    fn reason(&self) -> String {
        let text = match serde_json::from_slice::<Value>(&self.body) {
            Ok(Value::Object(fields)) => fields.get("reason").and_then(Value::as_str).unwrap_or_default().to_owned(),
            _ => String::from_utf8_lossy(&self.body).lines().next().unwrap_or_default().to_owned(),
        };
        let text: String = text.chars().filter(|c| !c.is_control()).take(REASON_CHARACTERS).collect();
        match text.trim() {
            "" => format!("refused ({})", self.status.as_u16()),
            text => text.to_owned(),
        }
    }

    /// Joins what was known and what it says. An answer that cannot be understood lets nobody in.
    fn grant(&self, wish: Wish<'_>, granted: Option<Grant>) -> Result<Grant, Refusal> {
        let says = match serde_json::from_slice::<Value>(&self.body) {
            Ok(Value::Object(fields)) => fields,
            // No JSON, or none that says anything: "ok" is a usual answer.
            _ => serde_json::Map::new(),
        };
        let failed = |what: &str| {
            tracing::error!("the callback let somebody in with a wrong {what}, which refuses them");
            Refusal::CallbackFailed
        };
        let name = match says.get("name") {
            None | Some(Value::Null) => None,
            Some(Value::String(name)) => Some(public_name(name).map_err(|_| failed("name"))?),
            Some(_) => return Err(failed("name")),
        };
        let bitrate = match says.get("max_bitrate") {
            None | Some(Value::Null) => None,
            Some(value) => {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                OptionalBitrate::parse(&text).ok_or_else(|| failed("max_bitrate"))?.0
            }
        };
        let mut grant = match granted {
            Some(grant) => grant,
            None => {
                let named = match &name {
                    Some(name) => name.clone(),
                    None => StreamName::parse(wish.app, wish.stream_key).map_err(Refusal::BadName)?,
                };
                let sent = [wish.app, wish.stream_key, wish.query.unwrap_or_default()].join("\n");
                Grant { name: named, credential: Credential::Called(sha256(sent.as_bytes())), bitrate: None }
            }
        };
        if let Some(name) = name {
            grant.name = name;
        }
        grant.bitrate = bitrate.or(grant.bitrate);
        Ok(grant)
    }
}

/// A question or news. A stream key that is known is not passed on: its public name is.
fn describe(event: &str, wish: Wish<'_>, public: Option<&StreamName>) -> Value {
    let (app, name) = public.map_or((wish.app, wish.stream_key), StreamName::split);
    json!({
        "event": event,
        "app": app,
        "name": name,
        "query": wish.query,
        "address": wish.peer.to_string(),
        "encoder": wish.encoder,
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use super::*;

    const WISH: Wish<'_> = Wish {
        app: "live",
        stream_key: "k3y",
        query: Some("t=1"),
        peer: std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 5000),
        encoder: Some("OBS"),
    };

    /// A service that gives these answers, one a connection, and returns what it was asked.
    async fn service(answers: &[&'static str]) -> (Callback, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let callback = Callback::new(&format!("http://{}/hook?s=1", listener.local_addr().unwrap())).unwrap();
        let answers = answers.to_vec();
        let asked = tokio::spawn(async move {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let mut length = 0;
                while !request[..length].ends_with(b"}") {
                    length += socket.read(&mut request[length..]).await.unwrap();
                }
                request.truncate(length);
                asked.push(String::from_utf8(request).unwrap());
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
            asked
        });
        (callback, asked)
    }

    async fn ask(answers: &[&'static str]) -> (Result<Grant, Refusal>, Vec<String>) {
        let (callback, asked) = service(answers).await;
        let answer = callback.ask(WISH, None, Instant::now() + Duration::from_secs(9)).await;
        (answer, asked.await.unwrap())
    }

    #[tokio::test]
    async fn a_2xx_lets_in_and_may_name_the_stream_and_its_limit() {
        let (grant, asked) = ask(&["HTTP/1.1 204 No Content\r\n\r\n"]).await;
        assert_eq!(grant.unwrap().name.as_str(), "live/k3y");
        assert!(asked[0].starts_with("POST /hook?s=1 HTTP/1.1\r\n"), "{}", asked[0]);
        let (_, body) = asked[0].split_once("\r\n\r\n").unwrap();
        let question: Value = serde_json::from_str(body).unwrap();
        assert_eq!(
            question,
            json!({"event":"publish","app":"live","name":"k3y","query":"t=1","address":"127.0.0.1:5000","encoder":"OBS"})
        );
        let answer =
            "HTTP/1.1 200 OK\r\ncontent-length: 43\r\n\r\n{\"name\":\"a/front\",\"max_bitrate\":\"8M\",\"x\":1}";
        let (grant, _) = ask(&[answer]).await;
        let grant = grant.unwrap();
        assert_eq!((grant.name.as_str(), grant.bitrate), ("a/front", Some(8_000_000)));
    }

    #[tokio::test]
    async fn another_status_refuses_with_its_reason() {
        for (answer, reason) in [
            ("HTTP/1.1 403 Forbidden\r\ncontent-length: 13\r\n\r\ncome tomorrow", "come tomorrow"),
            ("HTTP/1.1 401 No\r\ncontent-length: 16\r\n\r\n{\"reason\":\"why\"}", "why"),
            ("HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n", "refused (302)"),
        ] {
            let (refusal, _) = ask(&[answer]).await;
            assert_eq!(refusal, Err(Refusal::ByCallback(reason.to_owned())));
        }
    }

    #[tokio::test]
    async fn what_goes_wrong_lets_nobody_in() {
        for answers in [
            &["HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n", "not HTTP at all\r\n\r\n"][..],
            &["", ""],
            &["HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"name\":\"../x\"}"],
            &["HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n"],
        ] {
            let (refusal, _) = ask(answers).await;
            assert_eq!(refusal, Err(Refusal::CallbackFailed), "{answers:?}");
        }
        let nobody = Callback::new("http://127.0.0.1:1/").unwrap();
        let answer = nobody.ask(WISH, None, Instant::now() + Duration::from_secs(9)).await;
        assert_eq!(answer, Err(Refusal::CallbackFailed));
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_still_says_why_not_but_lets_nobody_in() {
        let (refusal, asked) = ask(&["HTTP/1.1 403 No\r\ncontent-length: 99\r\n\r\nsubscription ended"]).await;
        assert_eq!(refusal, Err(Refusal::ByCallback("subscription ended".to_owned())));
        assert_eq!(asked.len(), 1);
        let (refusal, _) = ask(&["HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{}"]).await;
        assert_eq!(refusal, Err(Refusal::CallbackFailed));
    }

    #[tokio::test]
    async fn news_is_told_once_whatever_the_answer_and_can_be_waited_for() {
        let (callback, asked) = service(&["HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nok"]).await;
        let start = Instant::now();
        callback.tell_done(WISH, &public_name("live/front").unwrap(), 77);
        callback.has_told().await;
        assert!(start.elapsed() < RETRY_AFTER, "it was told again");
        assert_eq!(asked.await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_service_that_failed_once_is_asked_again() {
        let (grant, asked) =
            ask(&["HTTP/1.1 503 Busy\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"]).await;
        assert!(grant.is_ok());
        assert_eq!(asked.len(), 2);
    }

    #[tokio::test]
    async fn a_service_that_does_not_answer_refuses_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let callback = Callback::new(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let start = Instant::now();
        let answer = callback.ask(WISH, None, start + Duration::from_millis(200)).await;
        assert_eq!(answer, Err(Refusal::CallbackFailed));
        assert!(start.elapsed() < Duration::from_secs(2));
    }

    #[tokio::test]
    async fn the_end_of_a_publish_is_told_under_its_public_name() {
        let (callback, asked) = service(&["HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"]).await;
        callback.tell_done(WISH, &public_name("live/front").unwrap(), 77);
        let told = asked.await.unwrap().remove(0);
        for part in ["\"event\":\"done\"", "\"stream\":\"live/front\"", "\"received_bytes\":77"] {
            assert!(told.contains(part), "{told}");
        }
        assert!(!told.contains("k3y"), "{told}");
    }
}
