//! House rules that a machine can keep: who imports whom, who touches the world, and what source files look like.

#![expect(clippy::disallowed_methods, reason = "source files are read from the disk")]

use std::fs;
use std::path::{Path, PathBuf};

/// The modules of the library from the bottom to the top; those of one line do not know each other.
const LAYERS: &[&[&str]] = &[
    &["amf0", "codec", "id3", "scte35"],
    &["rtmp", "media", "flv"],
    &["remuxer", "isobmff"],
    &["cmaf", "action"],
    &["hls", "advice"],
    &["packager"],
    &["config", "inspect"],
    &["server"],
    &["main"],
];

/// Words that only the shell may use.
const WORLD: &[&str] = &[
    "tokio::",
    "std::fs",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "Instant::now",
    "SystemTime::now",
    "std::thread",
    "std::env",
];

/// Who may use them: the shell, the command line, and what reads files back.
const SHELL: &[&str] = &["server", "main", "inspect"];

/// The most lines of a source file before its tests.
const MOST_LINES: usize = 500;

/// Files that are compiled for tests only.
const TEST_FILES: &[&str] = &["isobmff/listing.rs"];

/// Files that are longer, and why.
const LONGER: &[(&str, &str)] = &[("config.rs", "every option once, with its type and what it allows")];

#[test]
fn imports_point_downwards_only() {
    let layer = |module: &str| LAYERS.iter().position(|layer| layer.contains(&module));
    let mut wrong = Vec::new();
    for source in sources() {
        let own_layer =
            layer(&source.module).unwrap_or_else(|| panic!("{} has no layer in tests/tidy.rs", source.module));
        for other in imported(&source.code).filter(|other| *other != source.module) {
            let Some(other_layer) = layer(other) else { continue };
            if other_layer >= own_layer {
                wrong.push(format!("{} imports {other}, which is not below {}", source.path, source.module));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_shell_touches_the_world() {
    let mut wrong = Vec::new();
    for source in sources().into_iter().filter(|source| !SHELL.contains(&source.module.as_str())) {
        for word in WORLD.iter().filter(|word| source.code.contains(**word)) {
            wrong.push(format!("{} says {word}", source.path));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_file_is_one_idea_and_says_which() {
    let mut wrong = Vec::new();
    for source in sources() {
        if !source.whole.starts_with("//! ") {
            wrong.push(format!("{} does not open with what it is", source.path));
        }
        let lines = source.code.lines().count();
        if lines > MOST_LINES && !LONGER.iter().any(|(path, _)| *path == source.path) {
            wrong.push(format!("{} has {lines} lines; at {MOST_LINES} it is asking to be two", source.path));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_left_for_later_and_nothing_unwraps() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (number, line) in source.code.lines().enumerate() {
            let code = line.split("//").next().unwrap_or(line);
            for word in [".unwrap()", "todo!(", "unimplemented!(", "#[ignore", "dbg!("] {
                if code.contains(word) && !code.contains("const ") {
                    wrong.push(format!("{}:{}: {word}", source.path, number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A source file.
struct Source {
    /// From `src/` on.
    path: String,
    /// The module of the library's root that it belongs to.
    module: String,
    whole: String,
    /// What stands before its tests.
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    assert!(paths.len() > 30, "only {} files below {}", paths.len(), root.display());
    paths
        .into_iter()
        .filter_map(|path| {
            let relative = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            let module = relative.split('/').next().unwrap().trim_end_matches(".rs").to_owned();
            let whole = fs::read_to_string(&path).unwrap();
            let code = before_tests(&whole).to_owned();
            let is_test = relative.ends_with("/tests.rs") || TEST_FILES.contains(&relative.as_str());
            (module != "lib" && !is_test).then_some(Source { path: relative, module, whole, code })
        })
        .collect()
}

/// What stands before the first block that is compiled for tests only.
fn before_tests(whole: &str) -> &str {
    const MARK: &str = "\n#[cfg(test)]\n";
    let is_block = |at: &usize| whole[at + MARK.len()..].lines().next().is_some_and(|line| line.ends_with('{'));
    let first = whole.match_indices(MARK).map(|(at, _)| at).find(is_block);
    &whole[..first.unwrap_or(whole.len())]
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
    paths.sort();
}

/// The modules named behind `crate::` or `upscope::`.
fn imported(code: &str) -> impl Iterator<Item = &str> {
    code.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(|line| {
        ["crate::", "upscope::"].into_iter().flat_map(move |root| {
            line.match_indices(root).map(move |(at, _)| {
                let rest = &line[at + root.len()..];
                let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
                &rest[..end]
            })
        })
    })
}
