//! Command line in, exit code out.

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};
use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Arg, ArgMatches, Command};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use upscope::config::{Config, Given, LogFormat, LogLevel, OPTIONS, variable};
use upscope::inspect;
use upscope::server::{Server, WhenTaken, auth, demo};

/// glibc's keeps most of what many publishers had, long after they have gone.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The command line or the configuration is wrong.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let matches = match command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => return answer(&error),
    };
    let (job, matches) = match matches.subcommand() {
        Some(("inspect", inspect)) => return inspect_path(inspect),
        Some(("key", key)) => return make_key(key),
        Some(("demo", demo)) => (Job::Demo, demo),
        Some((_, serve)) => (Job::Serve, serve),
        None => (Job::Serve, &matches),
    };
    let given = match given(matches) {
        Ok(given) => given.with_default("http", job.http_default()),
        Err(error) => return fail(USAGE, format_args!("{error:#}")),
    };
    let config = match Config::resolve(&given) {
        Ok(config) => config,
        Err(error) => return fail(USAGE, error),
    };
    start_logging(config.log, config.log_format);
    match run(job, &config, &given) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, format_args!("failed to {error:#}")),
    }
}

/// What to do until told to stop.
#[derive(Clone, Copy)]
enum Job {
    Serve,
    Demo,
}

impl Job {
    fn http_default(self) -> &'static str {
        match self {
            Self::Serve => "off",
            Self::Demo => "[::]:8080",
        }
    }
}

fn command() -> Command {
    let about = "RTMP in, HLS out: what a broadcaster pushes becomes CMAF/fMP4 HLS in a folder.";
    let inspect = Command::new("inspect").about("Check an HLS folder or file, and say what is in it").arg(
        Arg::new("path").value_name("PATH").help("A playlist, a folder with one, or an fMP4 file.").required(true),
    );
    Command::new("upscope")
        .version(env!("CARGO_PKG_VERSION"))
        .about(about)
        .long_about(format!("{about}\n\nWithout a command it serves. Each option can also be set by an environment\nvariable, or in a TOML file under its name."))
        .args_conflicts_with_subcommands(true)
        .disable_help_subcommand(true)
        .args(arguments(Job::Serve))
        .subcommand(Command::new("serve").about("Take broadcasts and write HLS (the default)").args(arguments(Job::Serve)))
        .subcommand(Command::new("demo").about("Serve, and show a built-in film as a broadcast").args(arguments(Job::Demo)))
        .subcommand(inspect)
        .subcommand(key_command())
}

fn key_command() -> Command {
    let name =
        Arg::new("name").value_name("NAME").required(true).help("The public name: APP/NAME, or NAME for live/NAME.");
    let file = Arg::new("keys")
        .long("keys")
        .value_name("FILE")
        .help("The key file; made if need be.\n[default: keys.toml] [env: UPSCOPE_KEYS]");
    let secret = Arg::new("sign-key")
        .long("sign-key")
        .value_name("SECRET")
        .help("The secret, or @FILE for a file that holds it.\n[env: UPSCOPE_SIGN_KEY]");
    let valid_for = Arg::new("for")
        .long("for")
        .value_name("TIME")
        .allow_hyphen_values(true)
        .help("How long from now it can be used to begin: 90s, 30m, 2h, 7d.\n[default: 2h]");
    let new = Command::new("new")
        .about("Make a stream key: prints it, this once, and adds its hash to the key file")
        .args([name.clone(), file]);
    let sign = Command::new("sign")
        .about("Sign a name: prints what to give to the encoder as its stream key")
        .args([name, valid_for, secret]);
    Command::new("key")
        .about("Make a stream key or sign a name")
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .subcommands([new, sign])
}

/// The options as flags. Their values are checked by `config`, so that a wrong one is told the same way wherever it stands.
fn arguments(job: Job) -> impl Iterator<Item = Arg> {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .help(format!("A TOML file with options.\n[env: {}]", variable("config")));
    let options = OPTIONS.iter().map(move |option| {
        let default = if option.name == "http" { job.http_default() } else { option.default };
        let help = option.help.trim();
        let allowed = (option.allowed)();
        let arg = Arg::new(option.name).long(option.name).value_name(option.value_name);
        let arg =
            if option.is_switch { arg.num_args(0..=1).require_equals(true).default_missing_value("true") } else { arg };
        arg
            // A negative number is a wrong value, not a flag.
            .allow_hyphen_values(true)
            .help(format!("{help}\n[default: {default}] [allowed: {allowed}] [env: {}]", option.variable()))
    });
    options.chain([config])
}

fn given(matches: &ArgMatches) -> anyhow::Result<Given> {
    let environment = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let path = matches.get_one::<String>("config").cloned().or_else(|| environment(&variable("config")));
    let file = match path.filter(|path| !path.is_empty()) {
        Some(path) => {
            let text = read_to_string(&path).with_context(|| format!("--config: {path:?} cannot be read"))?;
            Some((path, text))
        }
        None => None,
    };
    let file = file.as_ref().map(|(path, text)| (path.as_str(), text.as_str()));
    Ok(Given::collect(|name| matches.get_one::<String>(name).cloned(), environment, file)?)
}

#[expect(clippy::disallowed_methods, reason = "the configuration file, before there is a server")]
fn read_to_string(path: &str) -> std::io::Result<String> {
    std::fs::read_to_string(path)
}

fn run(job: Job, config: &Config, given: &Given) -> anyhow::Result<()> {
    // Ends with the process: whatever a disk holds up until then may still go on, and finds its timers.
    let runtime = ManuallyDrop::new(tokio::runtime::Runtime::new().context("start the runtime")?);
    runtime.block_on(async {
        // Heard from now on, so that none is missed while starting.
        let stop = stop_signal()?;
        match job {
            Job::Serve => Server::bind(config, WhenTaken::Fail, WhenTaken::Fail)?.run(stop).await,
            Job::Demo => run_demo(config, given, stop).await,
        }
    })
}

async fn run_demo(config: &Config, given: &Given, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    // A port that somebody chose is meant; one that nobody chose may as well be another.
    let when_taken = |name| if given.is_given(name) { WhenTaken::Fail } else { WhenTaken::TakeNext };
    let mut server = Server::bind(config, when_taken("rtmp"), when_taken("http"))?;
    let stream_key = server.let_in(demo::NAME)?;
    let rtmp = server.rtmp_address()?;
    let http = server.http_address()?;

    let stream = demo::NAME;
    let index = config.out.0.join(stream).join("index.m3u8");
    let mut text = String::from("The demo shows a film as a broadcast, until Ctrl-C.\n\n");
    for (what, wanted, got) in [("RTMP", Some(config.rtmp.0), Some(rtmp)), ("HTTP", config.http.0, http)] {
        if let (Some(wanted), Some(got)) = (wanted, got)
            && ![0, got.port()].contains(&wanted.port())
        {
            text += &format!("  port {} is taken: {what} is on port {}\n", wanted.port(), got.port());
        }
    }
    let playable = match http {
        Some(http) => {
            let base = format!("http://{}", at_localhost(http));
            text += &format!("  watch      {base}/?stream={stream}\n");
            format!("{base}/{stream}/index.m3u8")
        }
        None => index.display().to_string(),
    };
    text += &format!("  playlist   {}\n", index.display());
    text += &format!("  or         ffplay {playable}\n");
    let has_keys = config.keys.0.is_some() || config.sign_key.0.is_some();
    let name = if has_keys { "KEY" } else { "NAME" };
    text += &format!("  publish    rtmp://{}/live/{name} (yours, beside the film)\n", at_localhost(rtmp));
    say(&text);

    let (told, hears) = tokio::sync::oneshot::channel::<()>();
    let stop = async {
        stop.await;
        drop(told);
    };
    tokio::select! {
        result = server.run(stop) => result,
        () = demo::publish(rtmp, &stream_key, hears) => Ok(()),
    }
}

/// An address as somebody on this machine types it.
fn at_localhost(address: std::net::SocketAddr) -> String {
    let reached = demo::reachable(address);
    if reached.ip().is_loopback() { format!("localhost:{}", reached.port()) } else { reached.to_string() }
}

/// Ready when the process is told to stop, by Ctrl-C or by a service manager.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => tracing::info!("stopping: SIGINT"),
            _ = terminate.recv() => tracing::info!("stopping: SIGTERM"),
        }
    })
}

fn start_logging(level: LogLevel, format: LogFormat) {
    let level = match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // Libraries speak only of what is wrong.
    let targets = Targets::new().with_default(level.min(LevelFilter::WARN)).with_target("upscope", level);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let registry = tracing_subscriber::registry().with(targets);
    match format {
        LogFormat::Text => registry.with(lines.with_ansi(std::io::stderr().is_terminal())).init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).init(),
    }
}

/// Prints a new stream key or a signed name.
fn make_key(matches: &ArgMatches) -> ExitCode {
    let Some((verb, matches)) = matches.subcommand() else { return ExitCode::from(USAGE) };
    let text = |name: &str| {
        let given = matches.get_one::<String>(name).cloned();
        given.or_else(|| std::env::var(variable(name)).ok().filter(|value| !value.is_empty()))
    };
    let name = text("name").unwrap_or_default();
    let made = if verb == "new" {
        auth::add_key(&PathBuf::from(text("keys").unwrap_or_else(|| "keys.toml".to_owned())), &name)
    } else {
        let valid_for = text("for").unwrap_or_else(|| "2h".to_owned());
        match (text("sign-key"), parse_span(&valid_for)) {
            (None, _) => return fail(USAGE, "--sign-key: say the secret, as it is said to the server"),
            (_, None) => {
                return fail(USAGE, format_args!("--for: {valid_for:?} is not allowed; allowed: 90s, 30m, 2h, 7d"));
            }
            (Some(secret), Some(valid_for)) => auth::sign(&secret, &name, valid_for),
        }
    };
    match made {
        Ok(made) => {
            say(&format!("{made}\n"));
            ExitCode::SUCCESS
        }
        Err(error) => fail(1, format_args!("failed to {error:#}")),
    }
}

/// A time of up to ten years with its unit.
fn parse_span(text: &str) -> Option<Duration> {
    let unit = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    let count: u32 = text[..text.len() - 1].parse().ok()?;
    let seconds = u64::from(count) * unit;
    (1..=3_650 * 86_400).contains(&seconds).then(|| Duration::from_secs(seconds))
}

/// 0: no rule is broken; 1: one is; 2: there is nothing that can be read.
fn inspect_path(matches: &ArgMatches) -> ExitCode {
    let path = PathBuf::from(matches.get_one::<String>("path").cloned().unwrap_or_default());
    match inspect::run(&path, &mut std::io::stdout().lock()) {
        Ok(report) => ExitCode::from(report.exit_code()),
        Err(error) => fail(USAGE, format_args!("{error:#}")),
    }
}

/// Help is an answer, everything else a mistake, told in one line.
fn answer(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        say(&error.render().to_string());
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    let lines: Vec<_> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    fail(USAGE, lines.join(" ").trim_start_matches("error: "))
}

fn fail(code: u8, error: impl Display) -> ExitCode {
    // With no stderr left there is still the exit code.
    let _ = writeln!(std::io::stderr(), "upscope: {error}");
    ExitCode::from(code)
}

/// Prints to stdout, which may be gone.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}
