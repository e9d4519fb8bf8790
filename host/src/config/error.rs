//! What is wrong with a pipeline file: where, in which words, and what to write instead.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use serde::Serialize;

/// Errors past this many are counted, not shown.
const MAX_SHOWN: usize = 50;
/// Longest part of a source line that is quoted, in characters.
const MAX_QUOTED: usize = 140;
/// Messages quote values, and plugins have their own words.
const MAX_MESSAGE: usize = 2_000;

/// One mistake. Shown as
///
/// ```text
/// pipelines/aircraft.toml:7:1: topics.positions.partitons: unknown key
///   |
/// 7 | partitons = 4
///   | ^^^^^^^^^
///   = did you mean `partitions`?
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigError {
    pub file: PathBuf,
    /// None where the file as a whole is meant.
    #[serde(flatten)]
    pub place: Option<Place>,
    /// Path of the key, empty for the whole file.
    pub key: String,
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// A stretch of one line of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
    #[serde(skip)]
    width: usize,
    #[serde(skip)]
    source: String,
}

impl Place {
    /// The place of a byte range in a text; what reaches past the end of the first line is left out.
    pub fn locate(text: &str, span: &Range<usize>) -> Self {
        let start = floor_boundary(text, span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |i| i + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |i| start + i);
        let end = floor_boundary(text, span.end).clamp(start, line_end);
        Self {
            line: text[..line_start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            width: text[start..end].chars().count().max(1),
            source: text[line_start..line_end].trim_end_matches('\r').to_string(),
        }
    }

    /// The quoted line and the column of the caret in it, both cut to a readable length around the place.
    fn quote(&self) -> (String, usize) {
        let skip = match self.source.chars().count() {
            n if n <= MAX_QUOTED => 0,
            _ => (self.column - 1).saturating_sub(MAX_QUOTED / 2),
        };
        let line: String = self.source.chars().skip(skip).take(MAX_QUOTED).collect();
        (plain(&line), self.column - 1 - skip)
    }
}

/// Text of files and plugins: one column for each character, and nothing that could steer a terminal.
fn plain(text: &str) -> String {
    text.chars().take(MAX_MESSAGE).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn floor_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0)
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(place) = &self.place {
            write!(f, ":{}:{}", place.line, place.column)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", plain(&self.message))?;
        let gutter = match &self.place {
            None => String::new(),
            Some(place) => {
                let number = place.line.to_string();
                let gutter = " ".repeat(number.len());
                let (line, indent) = place.quote();
                let width = place.width.min(line.chars().count().saturating_sub(indent)).max(1);
                write!(f, "\n{gutter} |\n{number} | {line}\n{gutter} | ")?;
                write!(f, "{}{}", " ".repeat(indent), "^".repeat(width))?;
                gutter
            }
        };
        match &self.help {
            Some(help) => write!(f, "\n{gutter} = {}", plain(help)),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong, in the order of files and lines. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(transparent)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// None if there is no error.
    pub fn new(mut errors: Vec<ConfigError>) -> Option<Self> {
        errors.sort_by_key(|e| {
            let place = e.place.as_ref().map(|p| (p.line, p.column));
            (e.file.clone(), place)
        });
        errors.dedup();
        (!errors.is_empty()).then_some(Self(errors))
    }

    pub fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
        self.0.iter()
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().take(MAX_SHOWN).enumerate() {
            if i > 0 {
                f.write_str("\n\n")?;
            }
            error.fmt(f)?;
        }
        match self.0.len().saturating_sub(MAX_SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n\nand {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_at(text: &str, span: Range<usize>) -> String {
        ConfigError {
            file: PathBuf::from("a.toml"),
            place: Some(Place::locate(text, &span)),
            key: "x".to_string(),
            message: "wrong".to_string(),
            help: None,
        }
        .to_string()
    }

    #[test]
    fn the_caret_stands_under_the_place_counted_in_characters() {
        assert_eq!(
            error_at("a = 1\nä = \"é\" # x\n", 11..15),
            "a.toml:2:5: x: wrong\n  |\n2 | ä = \"é\" # x\n  |     ^^^"
        );
    }

    #[test]
    fn a_place_beyond_the_end_or_inside_a_character_is_not_fatal() {
        assert!(error_at("a", 5..9).starts_with("a.toml:1:2: "));
        assert!(error_at("é", 1..2).starts_with("a.toml:1:1: "));
        assert!(error_at("", 0..0).starts_with("a.toml:1:1: "));
    }

    #[test]
    fn a_long_line_is_quoted_around_the_place_and_control_characters_are_not() {
        let text = format!("{}\u{1b}[31m!{}", "x".repeat(500), "y".repeat(500));
        let shown = error_at(&text, 505..506);
        assert!(shown.lines().all(|l| l.chars().count() < 160), "{shown}");
        assert!(!shown.contains('\u{1b}'));
        let lines: Vec<&str> = shown.lines().collect();
        let caret = lines[3].find('^').unwrap_or_default();
        assert_eq!(lines[2].chars().nth(caret), Some('!'));
    }
}
