//! What a NATS JWT says of its own end.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// Whether NATS accepts this JWT no more, by our clock.
pub(crate) fn is_over(jwt: &str, now: i64) -> bool {
    end_of(jwt).is_some_and(|end| end <= now)
}

/// When a JWT ends, in Unix seconds. Unverified: it says when to renew, no more.
pub(crate) fn end_of(jwt: &str) -> Option<i64> {
    let payload = URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<serde_json::Value>(&payload).ok()?["exp"].as_i64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(claims: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn the_end_is_read_from_the_claims() {
        assert_eq!(end_of(&text(r#"{"exp":100,"iat":1}"#)), Some(100));
        assert!(is_over(&text(r#"{"exp":100}"#), 100) && !is_over(&text(r#"{"exp":100}"#), 99));
        for without in
            ["", ".", "a.!.b", &text("{"), &text(r#"{"iat":1}"#), &text(r#"{"exp":"soon"}"#), &text("[]")]
        {
            assert_eq!(end_of(without), None, "{without}");
            assert!(!is_over(without, i64::MAX));
        }
    }
}
