//! Stream keys: a TOML file that says which key publishes under which name.
//!
//! ```toml
//! "sha256:5e88…" = { name = "live/cam1", expires = 2027-01-01T00:00:00Z, max-bitrate = "8M" }
//! "a key in plain text" = "live/cam2"
//! ```

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use ring::rand::{SecureRandom as _, SystemRandom};
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};

use super::{Credential, Grant, hex, public_name, sha256, unhex};
use crate::action::StreamName;
use crate::config::{OptionalBitrate, Value as _};

/// What stands before the hash of a key.
const HASHED: &str = "sha256:";
/// Random bytes in a key of ours: nobody guesses 160 bits.
const KEY_BYTES: usize = 20;
/// The largest key file, in bytes: tens of thousands of keys.
const MOST_FILE_BYTES: u64 = 4 << 20;

/// All keys of a file, as hashes.
#[derive(Debug, Default)]
pub(super) struct Keys(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    hash: [u8; 32],
    name: StreamName,
    /// From when on it is not valid, since 1970.
    expires: Option<Duration>,
    bitrate: Option<u64>,
}

/// What is known of a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Key(Grant),
    Expired,
    Nothing,
}

impl Keys {
    /// Reads a key file.
    ///
    /// # Errors
    /// It cannot be read, or an entry is wrong; said without the key.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = read_bounded(path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("understand {}", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            // Its own message may quote the line, and with it the key.
            let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            anyhow::anyhow!("line {line}: {}", error.message().lines().next().unwrap_or("not TOML"))
        })?;
        let mut entries = Vec::with_capacity(table.len());
        let mut seen = HashSet::new();
        for (number, (key, value)) in table.iter().enumerate() {
            let entry = Entry::parse(key, value).with_context(|| format!("key {}", number + 1))?;
            ensure!(seen.insert(entry.hash), "key {} is there twice", number + 1);
            entries.push(entry);
        }
        Ok(Self(entries))
    }

    /// A new key, and what lets it in as `name`.
    ///
    /// # Errors
    /// The name is not allowed, or the system has no random numbers.
    pub(super) fn with_new_key(name: &str) -> anyhow::Result<(String, Self)> {
        let name = public_name(name).with_context(|| format!("use the name {name:?}"))?;
        let key = new_key()?;
        let entry = Entry { hash: sha256(key.as_bytes()), name, expires: None, bitrate: None };
        Ok((key, Self(vec![entry])))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Looks at all entries, so that the time it takes says nothing.
    pub(super) fn find(&self, key: &str, now: Duration) -> Found {
        let hash = sha256(key.as_bytes());
        let mut found = u64::MAX;
        for (index, entry) in (0_u64..).zip(&self.0) {
            found.conditional_assign(&index, entry.hash.ct_eq(&hash));
        }
        match usize::try_from(found).ok().and_then(|index| self.0.get(index)) {
            None => Found::Nothing,
            Some(entry) if entry.expires.is_some_and(|expires| now >= expires) => Found::Expired,
            Some(entry) => Found::Key(Grant {
                name: entry.name.clone(),
                credential: Credential::Key(hash),
                bitrate: entry.bitrate,
            }),
        }
    }
}

impl Entry {
    fn parse(key: &str, value: &toml::Value) -> anyhow::Result<Self> {
        let hash = match key.strip_prefix(HASHED) {
            Some(digits) => unhex(digits).context("sha256: is not followed by 64 hexadecimal digits")?,
            None => {
                ensure!(!key.is_empty(), "the key is empty");
                ensure!(!key.contains('?'), "a key must not contain \"?\"");
                sha256(key.as_bytes())
            }
        };
        let mut expires = None;
        let mut bitrate = None;
        let name = match value {
            toml::Value::String(name) => name,
            toml::Value::Table(fields) => {
                for (field, value) in fields {
                    match (field.as_str(), value) {
                        ("name", toml::Value::String(_)) => {}
                        ("expires", value) => expires = Some(unix_time(value)?),
                        ("max-bitrate", toml::Value::String(text)) => {
                            let OptionalBitrate(most) = OptionalBitrate::parse(text)
                                .with_context(|| format!("max-bitrate may be {}", OptionalBitrate::allowed()))?;
                            bitrate = most;
                        }
                        _ => bail!("{field:?} is unknown or of the wrong type; there are name, expires, max-bitrate"),
                    }
                }
                match fields.get("name") {
                    Some(toml::Value::String(name)) => name,
                    _ => bail!("it has no name"),
                }
            }
            _ => bail!("its value is neither a name nor a table with one"),
        };
        let public = public_name(name)?;
        let (_, last_part) = public.split();
        let is_public = [name.as_str(), public.as_str(), last_part].iter().any(|text| sha256(text.as_bytes()) == hash);
        ensure!(!is_public, "the public name is the key itself");
        Ok(Self { hash, name: public, expires, bitrate })
    }
}

/// A date and time, since 1970; without an offset it is UTC.
fn unix_time(value: &toml::Value) -> anyhow::Result<Duration> {
    let text = match value {
        toml::Value::Datetime(datetime) => datetime.to_string(),
        toml::Value::String(text) => text.clone(),
        _ => bail!("expires is no date"),
    };
    let text = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        _ if text.ends_with('Z') || text.get(19..).is_some_and(|rest| rest.contains(['+', '-'])) => text,
        _ => format!("{text}Z"),
    };
    let time = chrono::DateTime::parse_from_rfc3339(&text).context("expires is no date such as 2027-01-31")?;
    Ok(Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0)))
}

/// Makes a new key for the public name, adds its hash to the file, and returns the key, which is nowhere else.
///
/// # Errors
/// The name is not allowed, or the file cannot be read, understood or written.
pub fn add_key(file: &Path, name: &str) -> anyhow::Result<String> {
    let name = public_name(name).with_context(|| format!("use the name {name:?}"))?;
    let before = match read_bounded(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("read {}", file.display())),
    };
    Keys::parse(&before).with_context(|| format!("understand {}", file.display()))?;
    let key = new_key()?;
    let line = format!("\"{HASHED}{}\" = {{ name = \"{name}\" }}\n", hex(&sha256(key.as_bytes())));
    // Top-level lines come before tables: a new one is put in front, so that it never falls into a table.
    let text = format!("{line}{before}");
    Keys::parse(&text).context("add the key")?;
    replace(file, &text).with_context(|| format!("write {}", file.display()))?;
    Ok(key)
}

fn new_key() -> anyhow::Result<String> {
    let mut random = [0; KEY_BYTES];
    SystemRandom::new().fill(&mut random).ok().context("make a random key")?;
    Ok(hex(&random))
}

/// Whoever reads the file meanwhile sees it whole.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let mut temporary = file.as_os_str().to_owned();
    temporary.push(".new");
    let result = (|| {
        let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        if let Ok(metadata) = fs::metadata(file) {
            new.set_permissions(metadata.permissions())?;
        }
        new.write_all(text.as_bytes())?;
        new.sync_all()?;
        fs::rename(&temporary, file)
    })();
    if result.as_ref().is_err_and(|error: &io::Error| error.kind() != io::ErrorKind::AlreadyExists) {
        let _ = fs::remove_file(&temporary);
    }
    result
}

fn read_bounded(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > MOST_FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too large for a key file"));
    }
    fs::read_to_string(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn name(keys: &Keys, key: &str) -> Option<String> {
        match keys.find(key, NOW) {
            Found::Key(grant) => Some(grant.name.as_str().to_owned()),
            _ => None,
        }
    }

    #[test]
    fn keys_stand_in_plain_text_or_as_hashes() {
        let text = format!("plain = 'cam1'\n\"sha256:{}\" = {{ name = 'a/b/cam2' }}\n", hex(&sha256(b"hashed")));
        let keys = Keys::parse(&text).unwrap();
        assert_eq!(name(&keys, "plain").as_deref(), Some("live/cam1"));
        assert_eq!(name(&keys, "hashed").as_deref(), Some("a/b/cam2"));
        for wrong in ["", "Plain", "plain ", "cam1", "live/cam1", &format!("sha256:{}", hex(&sha256(b"hashed")))] {
            assert_eq!(keys.find(wrong, NOW), Found::Nothing, "{wrong}");
        }
    }

    #[test]
    fn a_key_may_expire_and_have_a_limit() {
        let text = "a = { name = 'x', expires = 2027-01-15T08:00:00Z, max-bitrate = '8M' }\n\
                    b = { name = 'x', expires = 2027-01-14 }\nc = { name = 'x', expires = '2027-01-15T10:00:01+02:00' }";
        let keys = Keys::parse(text).unwrap();
        assert_eq!(keys.find("a", NOW), Found::Expired, "2027-01-15T08:00:00Z is 1,800,000,000");
        assert_eq!(keys.find("b", NOW), Found::Expired);
        assert!(matches!(keys.find("c", NOW), Found::Key(_)));
        let Found::Key(grant) = keys.find("a", NOW - Duration::from_secs(1)) else { panic!() };
        assert_eq!(grant.bitrate, Some(8_000_000));
    }

    #[test]
    fn a_wrong_file_is_refused_in_words_without_its_keys() {
        for (text, words) in [
            ("s3cret = 5", "neither a name"),
            ("s3cret = '../x'", "starts with a dot"),
            ("s3cret = { nam = 'x' }", "unknown"),
            ("s3cret = { expires = 2027-01-01 }", "no name"),
            ("s3cret = { name = 'x', max-bitrate = 'fast' }", "max-bitrate may be"),
            ("s3cret = { name = 'x', expires = 'soon' }", "no date"),
            ("s3cret = 's3cret'", "the key itself"),
            ("'s3cret?' = 'x'", "must not contain"),
            ("'sha256:12' = 'x'", "64 hexadecimal"),
            ("x = 'y'\ns3cret = = 'x'", "line 2"),
        ] {
            let error = format!("{:#}", Keys::parse(text).unwrap_err());
            assert!(error.contains(words) && !error.contains("s3cret"), "{text}: {error}");
        }
    }

    #[test]
    fn a_new_key_is_printed_once_and_its_hash_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.toml");
        let first = add_key(&file, "cam1").unwrap();
        fs::write(&file, format!("{}\n[in-a-table]\nname = 'live/t'\n", fs::read_to_string(&file).unwrap())).unwrap();
        let second = add_key(&file, "studio/cam2").unwrap();
        assert_ne!(first, second);
        assert_eq!(first.len(), 40);
        let keys = Keys::read(&file).unwrap();
        assert_eq!(name(&keys, &first).as_deref(), Some("live/cam1"));
        assert_eq!(name(&keys, &second).as_deref(), Some("studio/cam2"));
        assert_eq!(name(&keys, "in-a-table").as_deref(), Some("live/t"));
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains(&first) && !text.contains(&second));
        assert!(add_key(&file, "../x").is_err());
    }
}
