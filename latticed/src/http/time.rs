//! Times: RFC 3339 in UTC and whole seconds in answers, `90s`, `15m`, `1h` or `7d` in requests.

use super::error::ApiError;

const SHORTEST: i64 = 10;
/// Longest time that anything is made for.
pub(super) const LONGEST: i64 = 366 * 86_400;

/// The text of a Unix time.
pub(super) fn rfc3339(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string()
}

/// The seconds that `text`, the value of `field`, stands for: from ten seconds to 366 days.
pub(super) fn seconds(field: &str, text: &str) -> Result<i64, ApiError> {
    parse(text).filter(|seconds| (SHORTEST..=LONGEST).contains(seconds)).ok_or_else(|| {
        ApiError::invalid(format!("{field} must be a time from 10s to 366d, such as 90s, 15m, 1h or 7d"))
    })
}

fn parse(text: &str) -> Option<i64> {
    let number = text.strip_suffix(['s', 'm', 'h', 'd'])?;
    let unit = match text.as_bytes().last()? {
        b's' => 1,
        b'm' => 60,
        b'h' => 3600,
        _ => 86_400,
    };
    let plain = number.bytes().all(|c| c.is_ascii_digit());
    number.parse::<i64>().ok().filter(|_| plain)?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_utc() {
        assert_eq!(rfc3339(1_700_000_000), "2023-11-14T22:13:20Z");
    }

    #[test]
    fn times_have_a_unit_and_bounds() {
        for (text, expected) in [("90s", 90), ("1m", 60), ("15m", 900), ("1h", 3600), ("366d", LONGEST)] {
            assert_eq!(seconds("ttl", text).ok(), Some(expected), "{text}");
        }
        for bad in ["", "h", "1", "9s", "-1h", "+1h", "1.5h", "1w", "367d", "99999999999999999d", "1 h", "ä"]
        {
            assert!(seconds("ttl", bad).is_err(), "{bad}");
        }
    }
}
