//! Signed names: `NAME?exp=UNIX_SECONDS&sig=HEX`, made by the operator, checked without any file.
//!
//! `sig` is HMAC-SHA256 over `upscope publish\nAPP\nNAME\nEXP`; no part can contain a line break.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use ring::hmac;

use super::{Refusal, hex, public_name, unhex};
use crate::action::StreamName;

/// Checks signatures.
pub(super) struct Signer(hmac::Key);

impl Signer {
    /// With a secret, or `@` and the path of the file that holds it.
    ///
    /// # Errors
    /// The file cannot be read or is empty.
    pub(super) fn new(secret: &str) -> anyhow::Result<Self> {
        let from_file;
        let secret = match secret.strip_prefix('@') {
            Some(path) => {
                from_file = fs::read_to_string(path).with_context(|| format!("read {path:?}"))?;
                from_file.trim()
            }
            None => secret,
        };
        anyhow::ensure!(!secret.is_empty(), "the secret is empty");
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())))
    }

    /// The name, if it is signed and its time is not over. Constant time but for what everybody may know.
    pub(super) fn check(
        &self,
        app: &str,
        name: &str,
        query: Option<&str>,
        now: Duration,
    ) -> Result<StreamName, Refusal> {
        let stream = StreamName::parse(app, name).map_err(Refusal::BadName)?;
        let field = |wanted| query?.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == wanted);
        let (Some((_, expires)), Some((_, signature))) = (field("exp"), field("sig")) else {
            return Err(Refusal::BadSignature);
        };
        let signature = unhex::<32>(signature).ok_or(Refusal::BadSignature)?;
        let text = signed_text(&stream, expires);
        hmac::verify(&self.0, text.as_bytes(), &signature).map_err(|_| Refusal::BadSignature)?;
        let expires = expires.parse().map_err(|_| Refusal::BadSignature)?;
        if now >= Duration::from_secs(expires) { Err(Refusal::ExpiredSignature) } else { Ok(stream) }
    }

    fn sign(&self, stream: &StreamName, expires: u64) -> String {
        let expires = expires.to_string();
        let signature = hmac::sign(&self.0, signed_text(stream, &expires).as_bytes());
        let (_, name) = stream.split();
        format!("{name}?exp={expires}&sig={}", hex(signature.as_ref()))
    }
}

fn signed_text(stream: &StreamName, expires: &str) -> String {
    let (app, name) = stream.split();
    format!("upscope publish\n{app}\n{name}\n{expires}")
}

/// What to give to the encoder as its stream key, to publish as `name` (`APP/NAME`, or `NAME` for `live/NAME`) from now
/// on for `valid_for`.
///
/// # Errors
/// The name is not allowed, or the secret cannot be read.
pub fn sign(secret: &str, name: &str, valid_for: Duration) -> anyhow::Result<String> {
    let stream = public_name(name).with_context(|| format!("use the name {name:?}"))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Signer::new(secret)?.sign(&stream, now.saturating_add(valid_for).as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    #[test]
    fn a_signed_name_is_let_in_until_its_time_is_over_and_no_other() {
        let signer = Signer::new("secret").unwrap();
        let signed = signer.sign(&public_name("cam1").unwrap(), 1_800_000_010);
        let (name, query) = signed.split_once('?').unwrap();
        let check = |app, name, query: &str, now| signer.check(app, name, Some(query), now);
        assert_eq!(check("live", name, query, NOW).unwrap().as_str(), "live/cam1");
        assert_eq!(check("live", name, query, NOW + Duration::from_secs(10)), Err(Refusal::ExpiredSignature));
        let later = query.replace("1800000010", "1900000010");
        let upper = query.to_uppercase();
        for (app, name, query) in [
            ("other", name, query),
            ("live", "cam2", query),
            ("live", name, &later),
            ("live", name, &query[..query.len() - 1]),
            ("live", name, "exp=1800000010"),
            ("live", name, ""),
            ("live", name, &upper),
        ] {
            assert_eq!(check(app, name, query, NOW), Err(Refusal::BadSignature), "{app} {name} {query}");
        }
        let other = Signer::new("another").unwrap();
        assert_eq!(other.check("live", name, Some(query), NOW), Err(Refusal::BadSignature));
    }

    #[test]
    fn a_signature_is_what_others_compute() {
        // printf 'upscope publish\nlive\ncam1\n1800000010' | openssl dgst -sha256 -hmac secret
        let signed = Signer::new("secret").unwrap().sign(&public_name("live/cam1").unwrap(), 1_800_000_010);
        assert_eq!(signed, format!("cam1?exp=1800000010&sig={EXPECTED}"));
    }

    const EXPECTED: &str = "798cb88a3b3f865d0a8924e8a995422488f45e7a18456967084c681eb8c7713d";
}
