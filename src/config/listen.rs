//! An address to listen at, as typed.

use super::UsageError;

/// `PORT` and `:PORT` on this machine alone, or `HOST:PORT`, where a host is a name or an IP address. Port 0 leaves the choice to
/// the kernel.
///
/// # Errors
/// It is none of these.
pub(super) fn address(option: &str, text: &str) -> Result<String, UsageError> {
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    // The colons of an IPv6 address stand between brackets.
    let is_host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)),
    };
    match (host, port.parse::<u16>()) {
        ("", Ok(port)) if digits => Ok(format!("127.0.0.1:{port}")),
        (host, Ok(port)) if digits && is_host => Ok(format!("{host}:{port}")),
        _ => Err(UsageError::new(format!(
            "option {option} is HOST:PORT such as 127.0.0.1:9400, or a port from 0 to 65535, not '{text}'"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_on_this_machine() {
        for (typed, meant) in [
            ("9400", "127.0.0.1:9400"),
            (":9400", "127.0.0.1:9400"),
            ("0", "127.0.0.1:0"),
            ("0.0.0.0:1", "0.0.0.0:1"),
            ("[::1]:80", "[::1]:80"),
            ("localhost:65535", "localhost:65535"),
        ] {
            assert_eq!(address("x", typed).expect(typed), meant);
        }
        for typed in
            ["", ":", "70000", "+80", "::1", "127.0.0.1", "127.0.0.1:", "a b:1", "[::1]", "[x]:1", "x:-1", "http://a:1"]
        {
            let refused = address("x", typed).expect_err(typed).to_string();
            assert!(
                refused.starts_with("option x is HOST:PORT") && refused.ends_with(&format!("'{typed}'")),
                "{refused}"
            );
        }
    }
}
