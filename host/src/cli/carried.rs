//! What a message or a job carries, for a terminal: nothing of it can steer that.

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::output::plain;

/// Errors are cut past this many characters in a list.
const ERROR_SHOWN: usize = 72;
/// Bytes of a line of a hex dump.
const HEX_LINE: usize = 16;

/// An error in a list.
pub fn cut(error: &str) -> String {
    let line = plain(error);
    match line.char_indices().nth(ERROR_SHOWN) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

/// The key of a record or a job.
pub fn key(record: &Value) -> String {
    let text = |name: &str| record[name].as_str().map(plain);
    let coded = || text("key_base64").map(|key| format!("base64 {key}"));
    text("key").or_else(coded).unwrap_or_else(|| "-".to_string())
}

/// A line for each header.
pub fn headers(record: &Value) -> String {
    let mut out = String::new();
    for header in record["headers"].as_array().into_iter().flatten() {
        let value = match (&header[1], header[1]["base64"].as_str()) {
            (Value::String(value), _) => plain(value),
            (_, Some(coded)) => format!("base64 {}", plain(coded)),
            _ => String::new(),
        };
        let _ = writeln!(out, "{:<10} {}: {value}", "header", plain(header[0].as_str().unwrap_or_default()));
    }
    out
}

/// The payload in lines: text, JSON, or a hex dump.
pub fn payload(carried: &Value, hex: bool) -> anyhow::Result<String> {
    let json = || carried.get("value").map(Value::to_string);
    let text = carried["text"].as_str().map(str::to_string).or_else(json);
    Ok(match text {
        Some(text) if !hex => lines_of(&text),
        Some(text) => hex_dump(text.as_bytes()),
        None => hex_dump(&STANDARD.decode(carried["base64"].as_str().unwrap_or_default())?),
    })
}

/// Text as it is, but for the control characters that could steer a terminal.
fn lines_of(text: &str) -> String {
    let shown = |c: char| if c.is_control() && !matches!(c, '\n' | '\t') { ' ' } else { c };
    let mut out: String = text.chars().map(shown).collect();
    if !out.ends_with('\n') {
        out.push('\n');
    }
    out
}

fn hex_dump(bytes: &[u8]) -> String {
    let mut out = String::new();
    for (line, part) in bytes.chunks(HEX_LINE).enumerate() {
        let digits: Vec<String> = part.iter().map(|byte| format!("{byte:02x}")).collect();
        let shown = |byte: &u8| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' };
        let text: String = part.iter().map(shown).collect();
        let _ = writeln!(out, "{:08x}  {:<47}  {text}", line * HEX_LINE, digits.join(" "));
    }
    out
}
