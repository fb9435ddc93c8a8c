//! Time spans as people type them, on the command line and in the configuration. Pure.

use std::time::Duration;

use protocol::bytes::escape;

/// Reads a time span: a number and one of s, m, h, d.
///
/// # Errors
/// When it is none.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3_600,
        Some('d') => 86_400,
        Some(_) | None => 0,
    };
    let number = text
        .get(..text.len().saturating_sub(1))
        .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
    let seconds = number
        .and_then(|digits| digits.parse::<u32>().ok())
        .map_or(0, |number| u64::from(number) * unit);
    if seconds == 0 {
        return Err(format!(
            "\"{}\" is no time span: write 30s, 10m, 1h or 1d",
            escape(text.as_bytes())
        ));
    }
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_spans_have_a_unit() {
        let valid = [
            ("1s", 1),
            ("30s", 30),
            ("10m", 600),
            ("1h", 3600),
            ("2d", 172_800),
        ];
        for (text, seconds) in valid {
            assert_eq!(parse_span(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "",
            "s",
            "10",
            "0m",
            "1.5h",
            "-1s",
            "+1s",
            " 1s",
            "1\u{fc}",
            "10 m",
            "99999999999s",
        ] {
            assert!(parse_span(text).is_err(), "{text}");
        }
    }
}
