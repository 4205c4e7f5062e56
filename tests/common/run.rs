//! A case played through the real program, and what came of it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::case::{Accept, Case, Publish};
use super::output::Output;
use super::replay::play;
use super::server::{Server, Stopped};
use super::source::{self, SourcePublish};

/// How long a publisher that comes back is refused because its lost connection has not been noticed yet. Real encoders
/// try again as well.
const COMING_BACK: Duration = Duration::from_secs(3);

/// A case after its replay; the server has ended.
pub(crate) struct Run {
    pub(crate) case: Case,
    pub(crate) streams: Vec<Stream>,
    pub(crate) stopped: Stopped,
    /// What went wrong while it was played.
    pub(crate) troubles: Vec<String>,
}

/// All publishes of a case under one name, in order.
pub(crate) struct Stream {
    /// `APP/NAME`.
    pub(crate) name: String,
    /// Indexes in the case's publishes.
    pub(crate) publishes: Vec<usize>,
    pub(crate) sources: Vec<SourcePublish>,
    /// The error with which one of its publishes was refused.
    pub(crate) refusal: Option<String>,
}

impl Run {
    /// Plays case `id` through a server of its own, then stops the server.
    pub(crate) fn of(id: &str) -> Self {
        let case = Case::load(id);
        let server = Server::start();
        let mut troubles = Vec::new();
        let mut answers = Vec::new();
        let mut sources = Vec::new();
        for (index, session) in case.sessions().iter().enumerate() {
            let began = Instant::now();
            let mut played = play(session, &case.replay, server.address());
            while index > 0 && played.refusal().is_some() && began.elapsed() < COMING_BACK {
                played = play(session, &case.replay, server.address());
            }
            if let Some(trouble) = &played.trouble {
                troubles.push(format!("{}: {trouble}", case.files[index]));
            }
            let sent = source::publishes(session);
            played.publishes.resize(sent.len(), Err("not reached".into()));
            answers.extend(played.publishes);
            sources.extend(sent);
        }
        assert_eq!(sources.len(), case.expect.publishes.len(), "{id}: publish commands in the sessions");
        let streams = streams(&case, sources, answers);
        Self { stopped: server.stop(), case, streams, troubles }
    }

    /// The folder of a stream.
    pub(crate) fn folder(&self, stream: &Stream) -> PathBuf {
        self.stopped.folder.path().join(&stream.name)
    }

    /// Reads the output of a stream.
    ///
    /// # Errors
    /// The first thing that cannot be read.
    pub(crate) fn output(&self, stream: &Stream) -> Result<Output, String> {
        Output::read(&self.folder(stream).join("index.m3u8"))
    }

    /// What the case says of a stream's publishes.
    pub(crate) fn expected(&self, stream: &Stream) -> Vec<&Publish> {
        stream.publishes.iter().map(|&index| &self.case.expect.publishes[index]).collect()
    }

    /// The streams that were accepted, with their outputs; one that cannot be read goes to `findings`.
    pub(crate) fn outputs(&self, findings: &mut Vec<String>) -> Vec<(&Stream, Output)> {
        let mut outputs = Vec::new();
        for stream in self.streams.iter().filter(|stream| stream.refusal.is_none()) {
            match self.output(stream) {
                Ok(output) => outputs.push((stream, output)),
                Err(error) => findings.push(self.short(&format!("{}: {error}", stream.name))),
            }
        }
        outputs
    }

    /// Fails with all `findings`, if there are any.
    pub(crate) fn conclude(&self, findings: &[String]) {
        if findings.is_empty() {
            return;
        }
        let Case { id, title, level, good_server, .. } = &self.case;
        let mut report = format!("\n{id} ({level:?}): {title}\n  a good server: {good_server}\n");
        for finding in findings {
            report.push_str(&format!("  - {finding}\n"));
        }
        report.push_str(&format!("  the program said:\n    {}\n", self.stopped.log.replace('\n', "\n    ")));
        panic!("{report}");
    }

    /// `text` with the temporary folder's name left out.
    fn short(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.stopped.folder.path().display()), "")
    }
}

/// Puts together what was published under one name.
fn streams(case: &Case, sources: Vec<SourcePublish>, answers: Vec<Result<(), String>>) -> Vec<Stream> {
    let mut streams: Vec<Stream> = Vec::new();
    for (index, (source, answer)) in sources.into_iter().zip(answers).enumerate() {
        let publish = &case.expect.publishes[index];
        assert_eq!(source.key, publish.key, "{}", case.id);
        let name = format!("{}/{}", publish.app, publish.name_and_query().0);
        let at = streams.iter().position(|stream| stream.name == name).unwrap_or_else(|| {
            let stream = Stream { name, publishes: Vec::new(), sources: Vec::new(), refusal: None };
            streams.push(stream);
            streams.len() - 1
        });
        streams[at].publishes.push(index);
        streams[at].sources.push(source);
        streams[at].refusal = streams[at].refusal.take().or_else(|| answer.err());
    }
    streams
}

/// Whether all of `publishes` may be refused.
pub(crate) fn may_be_refused(publishes: &[&Publish]) -> bool {
    publishes.iter().all(|publish| publish.accept != Accept::Yes)
}

/// Whether all of `publishes` have to be refused.
pub(crate) fn must_be_refused(publishes: &[&Publish]) -> bool {
    publishes.iter().all(|publish| publish.accept == Accept::No)
}

/// `path` below `folder`, for people.
pub(crate) fn below<'a>(path: &'a Path, folder: &Path) -> std::path::Display<'a> {
    path.strip_prefix(folder).unwrap_or(path).display()
}
