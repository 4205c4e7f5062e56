//! What playlists are written in: attribute lists, decimal durations and dates (RFC 8216bis §4.2).

/// One `NAME=value` of an attribute list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attribute<'a> {
    pub(super) name: &'a str,
    /// Without the quotes.
    pub(super) value: &'a str,
    pub(super) is_quoted: bool,
}

/// The attributes of a tag.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Attributes<'a>(Vec<Attribute<'a>>);

impl<'a> Attributes<'a> {
    /// Reads `A=1,B="x,y"`.
    ///
    /// # Errors
    /// Says in words what is wrong with it.
    pub(super) fn parse(mut text: &'a str) -> Result<Self, String> {
        let mut found: Vec<Attribute<'a>> = Vec::new();
        loop {
            let (name, rest) = text.split_once('=').ok_or_else(|| format!("'{text}' is no NAME=value"))?;
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-') {
                return Err(format!("'{name}' is no attribute name"));
            }
            let (value, is_quoted, rest) = if let Some(quoted) = rest.strip_prefix('"') {
                let (value, rest) = quoted.split_once('"').ok_or_else(|| format!("{name} has no closing quote"))?;
                (value, true, rest)
            } else {
                let end = rest.find(',').unwrap_or(rest.len());
                (&rest[..end], false, &rest[end..])
            };
            if found.iter().any(|seen| seen.name == name) {
                return Err(format!("{name} is there twice"));
            }
            found.push(Attribute { name, value, is_quoted });
            match rest.strip_prefix(',') {
                Some(more) => text = more,
                None if rest.is_empty() => return Ok(Self(found)),
                None => return Err(format!("'{rest}' after {name}")),
            }
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|attribute| attribute.name == name).map(|attribute| attribute.value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Attribute<'a>> {
        self.0.iter()
    }
}

/// A non-negative decimal number of seconds in microseconds, further digits dropped.
pub(super) fn micros(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let fraction: u64 = format!("{fraction:0<6.6}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(fraction)
}

/// A moment in microseconds since 1970, from `2026-11-22T18:07:01.234Z` or with `+01:00` for the `Z`.
///
/// # Errors
/// Says in words what is missing.
pub(super) fn date_time(text: &str) -> Result<i64, &'static str> {
    const FORM: &str = "is not of the form YYYY-MM-DDThh:mm:ss.sssZ";
    let (date, time) = text.split_once('T').ok_or(FORM)?;
    let zone_at = time.find(['Z', '+', '-']).ok_or("has no time zone")?;
    let (clock, zone) = time.split_at(zone_at);
    let [year, month, day] = numbers(date, '-', [4, 2, 2]).ok_or(FORM)?;
    let (clock, fraction) = clock.split_once('.').ok_or("has no milliseconds")?;
    if fraction.len() < 3 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err("has no milliseconds");
    }
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2]).ok_or(FORM)?;
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return Err("is no date that exists");
    }
    let offset_minutes = match zone {
        "Z" => 0,
        zone => {
            let (sign, zone) = zone.split_at(1);
            let [hours, minutes] = numbers(zone, ':', [2, 2]).ok_or(FORM)?;
            let offset = hours * 60 + minutes;
            if sign == "-" { -offset } else { offset }
        }
    };
    let fraction: i64 = format!("{fraction:0<6.6}").parse().map_err(|_| FORM)?;
    let minutes = (days_since_1970(year, month, day) * 24 + hour) * 60 + minute - offset_minutes;
    Ok((minutes * 60 + second) * 1_000_000 + fraction)
}

fn numbers<const N: usize>(text: &str, separator: char, digits: [usize; N]) -> Option<[i64; N]> {
    let mut found = [0; N];
    let mut parts = text.split(separator);
    for (found, digits) in found.iter_mut().zip(digits) {
        let part = parts.next().filter(|part| part.len() == digits && part.bytes().all(|b| b.is_ascii_digit()))?;
        *found = part.parse().ok()?;
    }
    parts.next().is_none().then_some(found)
}

/// Days of the Gregorian calendar, counted in years that begin in March so that the leap day is the last one.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days_to_1970 = 719_468;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (month * 153 + 2) / 5 + day
        - 1
        - days_to_1970
}

/// Microseconds as seconds for people.
pub(super) fn seconds(micros: i64) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let micros = micros.unsigned_abs();
    let text = format!("{sign}{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    format!("{} s", text.trim_end_matches('0').trim_end_matches('.'))
}

/// The difference of two counts of microseconds.
pub(super) fn difference(a: u64, b: u64) -> i64 {
    let distance = i64::try_from(a.abs_diff(b)).unwrap_or(i64::MAX);
    if a < b { -distance } else { distance }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attribute_lists_may_have_commas_in_quotes() {
        let list = Attributes::parse(r#"BANDWIDTH=12,CODECS="a,b",FRAME-RATE=30.000"#).unwrap();
        assert_eq!((list.get("CODECS"), list.get("BANDWIDTH"), list.get("X")), (Some("a,b"), Some("12"), None));
        for bad in ["", "A", "A=\"", "A=\"x\"y", "A=1,", "a=1", "A=1,A=2"] {
            assert!(Attributes::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_exact_microseconds() {
        assert_eq!(micros("2.000"), Some(2_000_000));
        assert_eq!(micros("0.033366667"), Some(33_366));
        assert_eq!(micros("10"), Some(10_000_000));
        for bad in ["", "-1", ".5", "1e3", "99999999999999999999", "1.2.3", "inf"] {
            assert_eq!(micros(bad), None, "{bad}");
        }
        assert_eq!(seconds(3_400_000), "3.4 s");
        assert_eq!(seconds(-20_000_000), "-20 s");
    }

    #[test]
    fn dates_count_from_1970() {
        assert_eq!(date_time("1970-01-01T00:00:00.000Z"), Ok(0));
        assert_eq!(date_time("2000-02-29T12:00:00.5000Z"), Ok(951_825_600_500_000));
        assert_eq!(date_time("2025-11-22T18:48:18.123+01:00"), date_time("2025-11-22T17:48:18.123Z"));
        assert_eq!(date_time("2025-11-22T17:48:18.123Z"), Ok(1_763_833_698_123_000));
        assert!(date_time("2025-11-22T17:48:18Z").is_err());
        assert!(date_time("2025-11-22T17:48:18.123").is_err());
        assert!(date_time("2025-13-22T17:48:18.123Z").is_err());
    }
}
