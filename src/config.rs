//! Every option once: its name, value, default and meaning.
//!
//! Each option is a flag (`--segment 2s`), an environment variable (`UPSCOPE_SEGMENT=2s`) and a key of the TOML file
//! (`segment = "2s"`). The flag wins over the variable, the variable over the file, the file over the default. All
//! three are checked by the same [`Value`], so that a wrong one is refused with the same words wherever it stands.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Declares [`Config`] and [`OPTIONS`] from one list: `/// help`, then `"name" => field: Type, "VALUE" = "default";`.
macro_rules! options {
    ($( $(#[doc = $help:literal])+ $name:literal => $field:ident: $type:ty, $value_name:literal = $default:literal; )+) => {
        /// What the program was told, checked.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Config {
            $( $(#[doc = $help])+ pub $field: $type, )+
        }

        /// What is said about each option, in the order of `--help`.
        pub const OPTIONS: &[Description] = &[
            $( Description {
                name: $name,
                value_name: $value_name,
                default: $default,
                help: concat!($($help),+),
                is_switch: <$type as Value>::IS_SWITCH,
                allowed: <$type as Value>::allowed,
            }, )+
        ];

        impl Config {
            fn parse(given: &Given) -> Result<Self, Error> {
                Ok(Self { $( $field: given.value($name, $default)?, )+ })
            }
        }
    };
}

options! {
    /// Where broadcasters connect; port 0 takes a free one.
    "rtmp" => rtmp: Address, "ADDR:PORT" = "[::]:1935";
    /// The folder to write to; any static web server can serve it.
    "out" => out: Folder, "DIR" = "./hls";
    /// Where broadcasters connect over TLS (RTMPS); needs --tls-cert and --tls-key.
    "rtmps" => rtmps: OptionalAddress, "ADDR:PORT" = "off";
    /// The TLS certificate and those that vouch for it, a PEM file; read again when it changes.
    "tls-cert" => tls_cert: OptionalFile, "FILE" = "none";
    /// The TLS certificate's private key, a PEM file; read again when it changes.
    "tls-key" => tls_key: OptionalFile, "FILE" = "none";
    /// Where viewers connect to the built-in web server.
    "http" => http: OptionalAddress, "ADDR:PORT" = "off";
    /// How long a segment is, in seconds; it ends at the first key frame after that.
    "segment" => segment: SegmentLength, "TIME" = "2s";
    /// How much a playlist lists, in segments or in seconds; at least 3 segments.
    "window" => window: Window, "COUNT|TIME" = "30";
    /// How long to wait at the start for a second track (sound or picture), in seconds.
    "track-wait" => track_wait: TrackWait, "TIME" = "1s";
    /// How long a broadcast stays open for a publisher that vanished, in seconds.
    "grace" => grace: Grace, "TIME" = "30s";
    /// Whether a second publisher of a live name may take it over: with the same key, or when the first has fallen silent.
    "on-duplicate" => on_duplicate: OnDuplicate, "RULE" = "takeover";
    /// What becomes of broadcasts when the program is told to stop: they end, or are left open for it to come back.
    "stop" => stop: AtStop, "WHAT" = "end";
    /// How long an ended broadcast stays in the folder.
    "retain" => retain: Retain, "TIME" = "1d";
    /// How large the folder may get: ended broadcasts leave early, and then segments are refused.
    "max-disk" => max_disk: OptionalBytes, "SIZE" = "off";
    /// How much has to stay free on the folder's disk, by the same means.
    "min-free" => min_free: OptionalBytes, "SIZE" = "off";
    /// Write so that what is listed outlives a loss of power too; costs two syncs a file.
    "durable" => durable: Switch, "BOOL" = "false";
    /// How much later the end of a segment may be read so that more comes at once; what cannot end one may wait for 400 ms.
    "ingest-delay" => ingest_delay: IngestDelay, "TIME" = "50ms";
    /// Let anybody publish who reaches the port, not only programs on this machine.
    "open" => open: Switch, "BOOL" = "false";
    /// Who may publish: a TOML file of stream keys, as `upscope key new` writes it; read again when it changes.
    "keys" => keys: OptionalFile, "FILE" = "none";
    /// Let in names that were signed with this secret, as `upscope key sign` does; @FILE reads it from a file.
    "sign-key" => sign_key: OptionalSecret, "SECRET" = "none";
    /// Ask this address whether somebody may publish: it gets JSON by POST, and 2xx lets in.
    "auth-url" => auth_url: OptionalUrl, "URL" = "none";
    /// The most connections of broadcasters at the same time.
    "max-connections" => max_connections: Connections, "COUNT" = "4096";
    /// The most of them from one address (IPv6: one /64); auto is 128, and no limit for this machine.
    "max-connections-per-address" => max_connections_per_address: PerAddress, "COUNT" = "auto";
    /// The most connections of viewers at the same time, to --http.
    "max-viewers" => max_viewers: Connections, "COUNT" = "4096";
    /// The most of them from one address (IPv6: one /64); auto is 512, and no limit for this machine.
    "max-viewers-per-address" => max_viewers_per_address: PerAddress, "COUNT" = "auto";
    /// The most tries to publish from one address in a minute; auto is 60, and no limit for this machine.
    "max-publish-rate" => max_publish_rate: PerAddress, "COUNT" = "auto";
    /// The most streams that are published at the same time.
    "max-streams" => max_streams: Connections, "COUNT" = "1000";
    /// The most that a stream may bring over 10 seconds, in bits per second (500k, 20M).
    "max-bitrate" => max_bitrate: OptionalBitrate, "BITRATE" = "off";
    /// How much to log.
    "log" => log: LogLevel, "LEVEL" = "info";
    /// How log lines are written.
    "log-format" => log_format: LogFormat, "FORMAT" = "text";
}

impl Config {
    /// The fewest segments that a playlist may list while it is live. RFC 8216bis §6.2.2.
    pub const FEWEST_SEGMENTS: u8 = 3;

    /// Joins what was given and the defaults.
    ///
    /// # Errors
    /// The first value that is not allowed.
    pub fn resolve(given: &Given) -> Result<Self, Error> {
        let config = Self::parse(given)?;
        config.check_tls(given)?;
        let least = config.segment.0 * u32::from(Self::FEWEST_SEGMENTS);
        match config.window {
            Window::Time(window) if window < least => Err(given.refuse(
                "window",
                format!("at least {} segments, which is {} here", Self::FEWEST_SEGMENTS, Seconds(least)),
            )),
            _ => Ok(config),
        }
    }

    /// TLS needs an address, a certificate and its key: all or none.
    fn check_tls(&self, given: &Given) -> Result<(), Error> {
        let parts = [
            ("rtmps", self.rtmps.0.is_some()),
            ("tls-cert", self.tls_cert.0.is_some()),
            ("tls-key", self.tls_key.0.is_some()),
        ];
        if parts.iter().any(|(_, is_there)| *is_there)
            && let Some((missing, _)) = parts.iter().find(|(_, is_there)| !is_there)
        {
            return Err(given.refuse(missing, "something, as --rtmps, --tls-cert and --tls-key need each other".into()));
        }
        Ok(())
    }
}

/// What is said about one option.
#[derive(Debug, Clone, Copy)]
pub struct Description {
    /// The flag without its dashes, and the key in the file.
    pub name: &'static str,
    /// What stands for the value in `--help`.
    pub value_name: &'static str,
    /// What it is when nobody says.
    pub default: &'static str,
    /// What it means, in one sentence that names the unit.
    pub help: &'static str,
    /// Whether the flag alone, without a value, means yes.
    pub is_switch: bool,
    /// What it may be, in words.
    pub allowed: fn() -> String,
}

impl Description {
    /// The environment variable.
    pub fn variable(&self) -> String {
        variable(self.name)
    }
}

/// The environment variable of an option.
pub fn variable(name: &str) -> String {
    format!("UPSCOPE_{}", name.to_uppercase().replace('-', "_"))
}

/// What was given for the options, from all places, not yet checked.
#[derive(Debug, Clone, Default)]
pub struct Given {
    values: BTreeMap<&'static str, (String, Origin)>,
    defaults: BTreeMap<&'static str, &'static str>,
}

/// Where a value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    Default,
    Flag,
    Variable,
    File(String),
}

impl Given {
    /// Takes the values that `flag` and `variable` have for an option's name, and those of the TOML `file`
    /// (its name and text), in this order of precedence. An empty variable counts as not set.
    ///
    /// # Errors
    /// The file is not TOML, or has a key that is no option.
    pub fn collect(
        flag: impl Fn(&'static str) -> Option<String>,
        variable: impl Fn(&str) -> Option<String>,
        file: Option<(&str, &str)>,
    ) -> Result<Self, Error> {
        let mut given = Self::default();
        if let Some((name, text)) = file {
            given.take_file(name, text)?;
        }
        for option in OPTIONS {
            if let Some(value) = flag(option.name) {
                given.values.insert(option.name, (value, Origin::Flag));
            } else if let Some(value) = variable(&option.variable()).filter(|value| !value.is_empty()) {
                given.values.insert(option.name, (value, Origin::Variable));
            }
        }
        Ok(given)
    }

    /// The same with another default for the option `name`.
    #[must_use]
    pub fn with_default(mut self, name: &'static str, default: &'static str) -> Self {
        self.defaults.insert(name, default);
        self
    }

    /// Whether somebody chose a value for `name`.
    pub fn is_given(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    fn take_file(&mut self, file: &str, text: &str) -> Result<(), Error> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            Error(format!("{file}: line {line}: {}", error.message().replace('\n', ", ")))
        })?;
        for (key, value) in table {
            let Some(option) = OPTIONS.iter().find(|option| option.name == key) else {
                let names: Vec<_> = OPTIONS.iter().map(|option| option.name).collect();
                return Err(Error(format!("{file}: unknown key {key:?}; the keys are {}", names.join(", "))));
            };
            let text = match value {
                toml::Value::String(text) => text,
                other => other.to_string(),
            };
            self.values.insert(option.name, (text, Origin::File(file.to_owned())));
        }
        Ok(())
    }

    fn text<'a>(&'a self, name: &'static str, default: &'a str) -> (&'a str, &'a Origin) {
        match self.values.get(name) {
            Some((text, origin)) => (text, origin),
            None => (self.defaults.get(name).unwrap_or(&default), &Origin::Default),
        }
    }

    /// The value that an option has as text, its default included.
    fn shown(&self, name: &'static str) -> &str {
        let default = OPTIONS.iter().find(|option| option.name == name).map_or("", |option| option.default);
        self.text(name, default).0
    }

    fn value<T: Value>(&self, name: &'static str, default: &'static str) -> Result<T, Error> {
        let (text, _) = self.text(name, default);
        T::parse(text.trim()).ok_or_else(|| self.refuse(name, T::allowed()))
    }

    fn refuse(&self, name: &'static str, allowed: String) -> Error {
        let (text, (_, origin)) = (self.shown(name), self.text(name, ""));
        let place = match origin {
            Origin::Default | Origin::Flag => format!("--{name}"),
            Origin::Variable => variable(name),
            Origin::File(file) => format!("{file}: {name}"),
        };
        Error(format!("{place}: {text:?} is not allowed; allowed: {allowed}"))
    }
}

/// Why the configuration was refused: one line that names the place, the value and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// The value of an option; one that exists is allowed.
pub trait Value: Sized {
    /// Whether the flag alone, without a value, means `true`.
    const IS_SWITCH: bool = false;

    /// Reads it, or `None` when it is not allowed.
    fn parse(text: &str) -> Option<Self>;

    /// What is allowed, in words.
    fn allowed() -> String;
}

/// An address and a port to listen at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address(pub SocketAddr);

impl Value for Address {
    fn parse(text: &str) -> Option<Self> {
        // ":1935" is how many other programs say "on all addresses".
        let everywhere;
        let text = match text.strip_prefix(':') {
            Some(port) => {
                everywhere = format!("[::]:{port}");
                &everywhere
            }
            None => text,
        };
        text.parse().ok().map(Self)
    }

    fn allowed() -> String {
        "an IP address and a port, such as [::]:1935 or 127.0.0.1:1935".to_owned()
    }
}

/// An address and a port to listen at, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionalAddress(pub Option<SocketAddr>);

impl Value for OptionalAddress {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "off" => Some(Self(None)),
            text => Address::parse(text).map(|Address(address)| Self(Some(address))),
        }
    }

    fn allowed() -> String {
        "off, or an IP address and a port, such as [::]:8080 or 127.0.0.1:8080".to_owned()
    }
}

/// The path of a file that is read, or `none`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionalFile(pub Option<PathBuf>);

impl Value for OptionalFile {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "none" => Some(Self(None)),
            text => Folder::parse(text).map(|Folder(path)| Self(Some(path))),
        }
    }

    fn allowed() -> String {
        "none, or the path of a file".to_owned()
    }
}

/// A secret text, `@` and the path of the file that holds it, or `none`. It does not show itself.
#[derive(Clone, PartialEq, Eq)]
pub struct OptionalSecret(pub Option<String>);

impl fmt::Debug for OptionalSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "a secret" } else { "none" })
    }
}

impl Value for OptionalSecret {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "none" => Some(Self(None)),
            "" | "@" => None,
            text => Some(Self(Some(text.to_owned()))),
        }
    }

    fn allowed() -> String {
        "none, a text, or @ and the path of a file that holds it".to_owned()
    }
}

/// An `http://` or `https://` URL, or `none`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionalUrl(pub Option<String>);

impl Value for OptionalUrl {
    fn parse(text: &str) -> Option<Self> {
        if text == "none" {
            return Some(Self(None));
        }
        let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"))?;
        let is_url = !rest.is_empty() && !rest.starts_with('/') && rest.chars().all(|c| c.is_ascii_graphic());
        is_url.then(|| Self(Some(text.to_owned())))
    }

    fn allowed() -> String {
        "none, or an address such as http://127.0.0.1:8000/publish or https://example.org/hook".to_owned()
    }
}

/// Yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switch(pub bool);

impl Value for Switch {
    const IS_SWITCH: bool = true;

    fn parse(text: &str) -> Option<Self> {
        match text {
            "true" | "yes" | "1" => Some(Self(true)),
            "false" | "no" | "0" => Some(Self(false)),
            _ => None,
        }
    }

    fn allowed() -> String {
        "true or false".to_owned()
    }
}

/// How many there may be at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections(pub usize);

impl Connections {
    const MOST: usize = 1_000_000;
}

impl Value for Connections {
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().filter(|count| (1..=Self::MOST).contains(count)).map(Self)
    }

    fn allowed() -> String {
        format!("1 to {}", Self::MOST)
    }
}

/// How many one address may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PerAddress {
    /// A usual number, but without limit for this machine, where proxies and tests are.
    Auto,
    /// As many, for every address.
    Most(usize),
}

impl Value for PerAddress {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Self::Auto),
            text => Connections::parse(text).map(|Connections(most)| Self::Most(most)),
        }
    }

    fn allowed() -> String {
        format!("auto, or {}", Connections::allowed())
    }
}

/// Bits per second, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionalBitrate(pub Option<u64>);

impl Value for OptionalBitrate {
    fn parse(text: &str) -> Option<Self> {
        if text == "off" {
            return Some(Self(None));
        }
        let (digits, unit) = match text.chars().last()? {
            'k' | 'K' => (&text[..text.len() - 1], 1_000),
            'm' | 'M' => (&text[..text.len() - 1], 1_000_000),
            _ => (text, 1),
        };
        let bits = digits.parse::<u32>().ok().map(|number| u64::from(number) * unit)?;
        (bits >= 1_000).then_some(Self(Some(bits)))
    }

    fn allowed() -> String {
        "off, or at least 1k, such as 500k or 20M".to_owned()
    }
}

/// A folder's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder(pub PathBuf);

impl Value for Folder {
    fn parse(text: &str) -> Option<Self> {
        (!text.is_empty() && !text.contains('\0')).then(|| Self(text.into()))
    }

    fn allowed() -> String {
        "the path of a folder, which is made if need be".to_owned()
    }
}

/// A time from `LEAST_MS` to `MOST_MS` milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time<const LEAST_MS: u64, const MOST_MS: u64>(pub Duration);

/// Shorter segments cost a request each for nothing, longer ones make viewers wait.
pub type SegmentLength = Time<500, 30_000>;
/// A track that has not come in 10 s joins later.
pub type TrackWait = Time<0, 10_000>;
/// Up to an hour: after that it is another broadcast.
pub type Grace = Time<0, 3_600_000>;
/// See [`Config::ingest_delay`].
pub type IngestDelay = Time<0, 1_000>;

impl<const LEAST_MS: u64, const MOST_MS: u64> Value for Time<LEAST_MS, MOST_MS> {
    fn parse(text: &str) -> Option<Self> {
        let time = parse_time(text)?;
        let allowed = Duration::from_millis(LEAST_MS)..=Duration::from_millis(MOST_MS);
        allowed.contains(&time).then_some(Self(time))
    }

    fn allowed() -> String {
        let (least, most) = (Duration::from_millis(LEAST_MS), Duration::from_millis(MOST_MS));
        format!("a time from {} to {}, such as 2, 2s or 1500ms", Seconds(least), Seconds(most))
    }
}

/// How much of a broadcast a live playlist lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// This many segments.
    Segments(usize),
    /// As many segments as make this time.
    Time(Duration),
}

impl Window {
    /// A day of 2 s segments: a playlist longer than that takes viewers too long to load.
    pub const MOST_SEGMENTS: usize = 43_200;
    /// A day.
    pub const LONGEST: Duration = Duration::from_secs(86_400);
}

impl Value for Window {
    fn parse(text: &str) -> Option<Self> {
        if let Ok(count) = text.parse() {
            return (usize::from(Config::FEWEST_SEGMENTS)..=Self::MOST_SEGMENTS)
                .contains(&count)
                .then_some(Self::Segments(count));
        }
        // A number without unit counts segments, of which there are no halves.
        let last = text.chars().last()?;
        let time = if last.is_ascii_digit() { None } else { parse_time(text) }?;
        (time <= Self::LONGEST).then_some(Self::Time(time))
    }

    fn allowed() -> String {
        format!(
            "{} to {} segments, such as 6, or a time up to {}, such as 60s",
            Config::FEWEST_SEGMENTS,
            Self::MOST_SEGMENTS,
            Seconds(Self::LONGEST)
        )
    }
}

/// What becomes of a second publisher of a live name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDuplicate {
    /// It goes on with the broadcast if it has the credential of the first, or if the first has been silent for 3 s.
    Takeover,
    /// It is refused.
    Reject,
}

impl Value for OnDuplicate {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "takeover" => Some(Self::Takeover),
            "reject" => Some(Self::Reject),
            _ => None,
        }
    }

    fn allowed() -> String {
        "takeover or reject".to_owned()
    }
}

/// What becomes of broadcasts when the program is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtStop {
    /// Their playlists end.
    End,
    /// All that was received is listed, and the playlists stay open, as for a publisher that vanished.
    Keep,
}

impl Value for AtStop {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "end" => Some(Self::End),
            "keep" => Some(Self::Keep),
            _ => None,
        }
    }

    fn allowed() -> String {
        "end or keep".to_owned()
    }
}

/// How long something stays; `None` is for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retain(pub Option<Duration>);

impl Retain {
    /// Ten years: more is for ever.
    pub const LONGEST: Duration = Duration::from_secs(3650 * 86_400);
}

impl Value for Retain {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "forever" => Some(Self(None)),
            text => parse_time(text).filter(|time| *time <= Self::LONGEST).map(|time| Self(Some(time))),
        }
    }

    fn allowed() -> String {
        "forever, or a time such as 0, 90s, 30m, 12h or 7d".to_owned()
    }
}

/// A number of bytes, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionalBytes(pub Option<u64>);

impl Value for OptionalBytes {
    fn parse(text: &str) -> Option<Self> {
        if text == "off" {
            return Some(Self(None));
        }
        let unit = match text.chars().last()?.to_ascii_uppercase() {
            'M' => 1_000_000,
            'G' => 1_000_000_000,
            'T' => 1_000_000_000_000,
            _ => return None,
        };
        let count = text[..text.len() - 1].parse::<u32>().ok()?;
        (count > 0).then(|| Self(Some(u64::from(count) * unit)))
    }

    fn allowed() -> String {
        "off, or a number of megabytes, gigabytes or terabytes, such as 500M, 20G or 2T".to_owned()
    }
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What needs somebody to act.
    Error,
    /// And what goes wrong but is coped with.
    Warn,
    /// And who comes and goes.
    Info,
    /// And what each connection does.
    Debug,
    /// Everything.
    Trace,
}

impl Value for LogLevel {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "off" => Self::Off,
            "error" => Self::Error,
            "warn" => Self::Warn,
            "info" => Self::Info,
            "debug" => Self::Debug,
            "trace" => Self::Trace,
            _ => return None,
        })
    }

    fn allowed() -> String {
        "off, error, warn, info, debug or trace".to_owned()
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Value for LogFormat {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    fn allowed() -> String {
        "text or json".to_owned()
    }
}

/// Reads `2`, `2.5`, `2s`, `1500ms`, `5m`, `12h` or `7d`; a number without unit is seconds.
fn parse_time(text: &str) -> Option<Duration> {
    let (number, seconds_each) = if let Some(number) = text.strip_suffix("ms") {
        (number, 0.001)
    } else if let Some(number) = text.strip_suffix('s') {
        (number, 1.0)
    } else if let Some(number) = text.strip_suffix('m') {
        (number, 60.0)
    } else if let Some(number) = text.strip_suffix('h') {
        (number, 3_600.0)
    } else if let Some(number) = text.strip_suffix('d') {
        (number, 86_400.0)
    } else {
        (text, 1.0)
    };
    if !number.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let time = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds_each).ok()?;
    // Whole milliseconds, so that what is shown is what is meant.
    Some(Duration::from_millis(u64::try_from((time + Duration::from_micros(500)).as_millis()).ok()?))
}

/// Writes a time as people give it: `2s`, `0.5s`.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(flags: &[(&str, &str)]) -> Given {
        collect(flags, &[], None).unwrap()
    }

    fn collect(flags: &[(&str, &str)], variables: &[(&str, &str)], file: Option<&str>) -> Result<Given, Error> {
        let find = |pairs: &[(&str, &str)], name: &str| {
            pairs.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
        };
        Given::collect(|name| find(flags, name), |name| find(variables, name), file.map(|text| ("up.toml", text)))
    }

    fn refusal(given: &Given) -> String {
        Config::resolve(given).unwrap_err().to_string()
    }

    #[test]
    fn nothing_given_is_the_documented_defaults() {
        let config = Config::resolve(&Given::default()).unwrap();
        assert_eq!(config.rtmp.0.to_string(), "[::]:1935");
        assert_eq!(config.out.0, PathBuf::from("./hls"));
        assert_eq!(config.http.0, None);
        assert_eq!(config.segment.0, Duration::from_secs(2));
        assert_eq!(config.window, Window::Segments(30));
        assert_eq!(config.track_wait.0, Duration::from_secs(1));
        assert_eq!(config.grace.0, Duration::from_secs(30));
        assert_eq!((config.log, config.log_format), (LogLevel::Info, LogFormat::Text));
    }

    #[test]
    fn a_flag_wins_over_a_variable_over_the_file_over_the_default() {
        let segment = |flags: &[_], variables: &[_], file| {
            Config::resolve(&collect(flags, variables, file).unwrap()).unwrap().segment.0.as_secs()
        };
        assert_eq!(segment(&[("segment", "3")], &[("UPSCOPE_SEGMENT", "4")], Some("segment = 5")), 3);
        assert_eq!(segment(&[], &[("UPSCOPE_SEGMENT", "4")], Some("segment = 5")), 4);
        assert_eq!(segment(&[], &[("UPSCOPE_SEGMENT", "")], Some("segment = 5")), 5);
        assert_eq!(segment(&[], &[], Some("segment = \"6s\"")), 6);
        assert_eq!(segment(&[], &[], Some("")), 2);
    }

    #[test]
    fn who_may_publish_is_nobody_from_elsewhere_unless_said() {
        let config = Config::resolve(&Given::default()).unwrap();
        assert!(!config.open.0);
        assert_eq!((&config.keys.0, &config.sign_key.0, &config.auth_url.0), (&None, &None, &None));
        assert!(Config::resolve(&flags(&[("open", "true")])).unwrap().open.0);
        let config = Config::resolve(&flags(&[("sign-key", "s3cret"), ("auth-url", "https://example.org/x")])).unwrap();
        assert_eq!(config.sign_key.0.as_deref(), Some("s3cret"));
        assert!(!format!("{config:?}").contains("s3cret"));
        assert!(Config::resolve(&flags(&[("auth-url", "ftp://example.org/x")])).is_err());
    }

    #[test]
    fn limits_are_counts_and_rates() {
        let config = Config::resolve(&flags(&[("max-bitrate", "20M"), ("max-publish-rate", "5")])).unwrap();
        assert_eq!(config.max_bitrate.0, Some(20_000_000));
        assert_eq!(config.max_publish_rate, PerAddress::Most(5));
        assert_eq!(config.max_connections_per_address, PerAddress::Auto);
        for (name, wrong) in
            [("max-connections", "0"), ("max-bitrate", "9"), ("max-bitrate", "M"), ("max-streams", "-1")]
        {
            assert!(Config::resolve(&flags(&[(name, wrong)])).is_err(), "{name} {wrong}");
        }
    }

    #[test]
    fn tls_is_given_whole_or_not_at_all() {
        let tls = [("rtmps", ":1936"), ("tls-cert", "c.pem"), ("tls-key", "k.pem")];
        assert!(Config::resolve(&flags(&tls)).is_ok());
        for left_out in 0..3 {
            let some: Vec<_> = tls.iter().enumerate().filter(|(i, _)| *i != left_out).map(|(_, flag)| *flag).collect();
            let message = refusal(&flags(&some));
            assert!(message.starts_with(&format!("--{}: ", tls[left_out].0)), "{message}");
        }
    }

    #[test]
    fn times_come_with_and_without_unit() {
        for (text, ms) in [("2", 2000), ("2s", 2000), ("1500ms", 1500), ("1.5", 1500), ("0.5s", 500), (" 2s ", 2000)] {
            let config = Config::resolve(&flags(&[("segment", text)])).unwrap();
            assert_eq!(config.segment.0, Duration::from_millis(ms), "{text:?}");
        }
        let config = Config::resolve(&flags(&[("grace", "2m")])).unwrap();
        assert_eq!(config.grace.0, Duration::from_secs(120));
    }

    #[test]
    fn a_window_is_segments_or_a_time() {
        let window = |text| Config::resolve(&flags(&[("window", text)])).map(|config| config.window);
        assert_eq!(window("6"), Ok(Window::Segments(6)));
        assert_eq!(window("60s"), Ok(Window::Time(Duration::from_secs(60))));
        assert_eq!(window("15m"), Ok(Window::Time(Duration::from_secs(900))));
        for wrong in ["2", "6.5", "s", "-6", "43201", "25h", "90000s"] {
            assert!(window(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_may_leave_out_the_host() {
        let config = Config::resolve(&flags(&[("rtmp", ":1936"), ("http", "127.0.0.1:0")])).unwrap();
        assert_eq!(config.rtmp.0.to_string(), "[::]:1936");
        assert_eq!(config.http.0.unwrap().to_string(), "127.0.0.1:0");
    }

    #[test]
    fn a_wrong_flag_is_named_with_its_value_and_what_is_allowed() {
        for (name, value, message) in [
            (
                "rtmp",
                "1935",
                r#"--rtmp: "1935" is not allowed; allowed: an IP address and a port, such as [::]:1935 or 127.0.0.1:1935"#,
            ),
            ("out", "", r#"--out: "" is not allowed; allowed: the path of a folder, which is made if need be"#),
            (
                "http",
                "on",
                r#"--http: "on" is not allowed; allowed: off, or an IP address and a port, such as [::]:8080 or 127.0.0.1:8080"#,
            ),
            (
                "segment",
                "0.1",
                r#"--segment: "0.1" is not allowed; allowed: a time from 0.5s to 30s, such as 2, 2s or 1500ms"#,
            ),
            (
                "segment",
                "-2",
                r#"--segment: "-2" is not allowed; allowed: a time from 0.5s to 30s, such as 2, 2s or 1500ms"#,
            ),
            (
                "segment",
                "NaN",
                r#"--segment: "NaN" is not allowed; allowed: a time from 0.5s to 30s, such as 2, 2s or 1500ms"#,
            ),
            (
                "window",
                "2",
                r#"--window: "2" is not allowed; allowed: 3 to 43200 segments, such as 6, or a time up to 86400s, such as 60s"#,
            ),
            ("window", "5s", r#"--window: "5s" is not allowed; allowed: at least 3 segments, which is 6s here"#),
            (
                "track-wait",
                "1h",
                r#"--track-wait: "1h" is not allowed; allowed: a time from 0s to 10s, such as 2, 2s or 1500ms"#,
            ),
            (
                "grace",
                "x\ny",
                r#"--grace: "x\ny" is not allowed; allowed: a time from 0s to 3600s, such as 2, 2s or 1500ms"#,
            ),
            ("log", "loud", r#"--log: "loud" is not allowed; allowed: off, error, warn, info, debug or trace"#),
            ("log-format", "xml", r#"--log-format: "xml" is not allowed; allowed: text or json"#),
        ] {
            assert_eq!(refusal(&flags(&[(name, value)])), message);
            assert!(!message.contains('\n'));
        }
    }

    #[test]
    fn a_wrong_value_names_the_variable_or_the_file_it_stands_in() {
        let given = collect(&[], &[("UPSCOPE_TRACK_WAIT", "x")], None).unwrap();
        assert!(refusal(&given).starts_with(r#"UPSCOPE_TRACK_WAIT: "x" is not allowed; "#));
        let given = collect(&[], &[], Some("grace = -1")).unwrap();
        assert!(refusal(&given).starts_with(r#"up.toml: grace: "-1" is not allowed; "#));
    }

    #[test]
    fn a_file_with_an_unknown_key_or_broken_text_is_refused_in_one_line() {
        let message = collect(&[], &[], Some("segments = 2")).unwrap_err().to_string();
        assert!(message.starts_with(r#"up.toml: unknown key "segments"; the keys are rtmp, out, "#), "{message}");
        let message = collect(&[], &[], Some("segment = 2\nwindow = = 3")).unwrap_err().to_string();
        assert!(message.starts_with("up.toml: line 2: "), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }

    #[test]
    fn each_default_is_allowed_and_each_option_says_what_it_means() {
        for option in OPTIONS {
            let given = flags(&[(option.name, option.default)]);
            assert!(Config::resolve(&given).is_ok(), "{}", option.name);
            assert!(option.help.trim().ends_with('.'), "{}", option.name);
        }
    }

    #[test]
    fn another_default_counts_only_where_nothing_is_given() {
        let http = |given: Given| Config::resolve(&given.with_default("http", "[::]:8080")).unwrap().http.0;
        assert_eq!(http(flags(&[])).unwrap().port(), 8080);
        assert_eq!(http(flags(&[("http", "off")])), None);
    }
}
