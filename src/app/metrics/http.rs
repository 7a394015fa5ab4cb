//! One request and its answer: `GET /metrics`, and nothing else (RFC 9112, as far as that takes).

use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::page::{CONTENT_TYPE, Page};

/// Longest wait for a request, and for somebody who takes the answer: scrapers give up after ten seconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest head of a request, in bytes.
const LONGEST: u64 = 8 << 10;

/// Most bytes that are thrown away behind a request: where some are left unread, a close takes the answer away from its reader.
const LEFTOVERS: u64 = 64 << 10;

/// What is answered.
enum Answer {
    /// The metrics.
    Page,
    /// Why not: status, and a header that belongs to it.
    No(&'static str, &'static str),
}

const BAD: Answer = Answer::No("400 Bad Request", "");
const LONG: Answer = Answer::No("431 Request Header Fields Too Large", "");

/// Reads a request, answers it, and closes. What goes wrong is for the other side to notice.
pub async fn answer(mut stream: TcpStream, page: &Page) {
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader.take(LONGEST));
    let Ok(Some(asked)) = timeout(PATIENCE, read(&mut reader)).await else { return };
    let text = match asked {
        Answer::Page => match page.text().await {
            Some(text) => reply("200 OK", &format!("Content-Type: {CONTENT_TYPE}\r\n"), &text),
            None => reply("500 Internal Server Error", "", "it could not be told\n"),
        },
        Answer::No(status, header) => reply(status, header, &format!("{status}; metrics are at GET /metrics\n")),
    };
    let sent = timeout(PATIENCE, async {
        writer.write_all(text.as_bytes()).await?;
        writer.shutdown().await
    });
    if matches!(sent.await, Ok(Ok(()))) {
        reader.get_mut().set_limit(LEFTOVERS);
        let _ = timeout(PATIENCE, tokio::io::copy_buf(&mut reader, &mut tokio::io::sink())).await;
    }
}

/// The head of a request, up to its empty line. `None` when nobody asks.
async fn read(reader: &mut (impl AsyncBufRead + Unpin)) -> Option<Answer> {
    let mut first = Vec::new();
    reader.read_until(b'\n', &mut first).await.ok()?;
    if first.is_empty() {
        return None;
    }
    let mut line = first.clone();
    while !line.trim_ascii().is_empty() {
        line.clear();
        reader.read_until(b'\n', &mut line).await.ok()?;
        // The end, or the most that is read.
        if !line.ends_with(b"\n") {
            return Some(LONG);
        }
    }
    Some(judge(&first))
}

/// What the first line asks for.
fn judge(line: &[u8]) -> Answer {
    let Ok(line) = std::str::from_utf8(line) else { return BAD };
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [method, target, version] = words[..] else { return BAD };
    let path = target.split('?').next().unwrap_or_default();
    match (version, method, path) {
        ("HTTP/1.1" | "HTTP/1.0", "GET", "/metrics") => Answer::Page,
        ("HTTP/1.1" | "HTTP/1.0", "GET", _) => Answer::No("404 Not Found", ""),
        ("HTTP/1.1" | "HTTP/1.0", _, _) => Answer::No("405 Method Not Allowed", "Allow: GET\r\n"),
        _ => BAD,
    }
}

fn reply(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(line: &str) -> &'static str {
        match judge(line.as_bytes()) {
            Answer::Page => "200",
            Answer::No(status, _) => &status[..3],
        }
    }

    #[test]
    fn only_the_metrics_can_be_got() {
        for (line, told) in [
            ("GET /metrics HTTP/1.1\r\n", "200"),
            ("GET /metrics?x=1 HTTP/1.0\r\n", "200"),
            ("GET / HTTP/1.1\r\n", "404"),
            ("GET /metrics/ HTTP/1.1\r\n", "404"),
            ("GET /../metrics HTTP/1.1\r\n", "404"),
            ("POST /metrics HTTP/1.1\r\n", "405"),
            ("HEAD /metrics HTTP/1.1\r\n", "405"),
            ("get /metrics HTTP/1.1\r\n", "405"),
            ("GET /metrics\r\n", "400"),
            ("GET /metrics HTTP/2.0\r\n", "400"),
            ("GET  HTTP/1.1\r\n", "400"),
            ("\r\n", "400"),
        ] {
            assert_eq!(status(line), told, "{line}");
        }
        assert!(matches!(judge(b"GET /\xff HTTP/1.1\r\n"), Answer::No(status, _) if status.starts_with("400")));
    }

    #[tokio::test]
    async fn a_head_ends_with_its_empty_line_or_at_the_most_that_is_read() {
        for (text, told) in [
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\nrest", Some("200")),
            ("GET /metrics HTTP/1.1\nHost: x\n\n", Some("200")),
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n", Some("431")),
            ("GET /metrics HTTP/1.1", Some("431")),
            ("", None),
        ] {
            let asked = read(&mut text.as_bytes()).await.map(|answer| match answer {
                Answer::Page => "200",
                Answer::No(status, _) => &status[..3],
            });
            assert_eq!(asked, told, "{text}");
        }
    }
}
