//! A Rust file with its texts and comments blanked out, so that words in them are not taken for
//! code, and with the parts marked that are compiled for tests only. No parser: enough of the
//! lexical rules to count braces and find words.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// One file.
pub(crate) struct Source {
    /// Relative to the repository.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    /// The same bytes, where what is inside comments, strings and characters is spaces. Quotes and
    /// line ends stay.
    pub(crate) code: String,
    /// As `code`, where items under `#[cfg(test)]` are spaces, too; all of it in a test file.
    pub(crate) shipped: String,
}

/// A function: its name, its first and last line, counted from 1.
pub(crate) struct Function<'a> {
    pub(crate) name: &'a str,
    pub(crate) first: usize,
    pub(crate) last: usize,
}

impl Source {
    pub(crate) fn read(root: &Path, path: PathBuf) -> Self {
        let text = fs::read_to_string(root.join(&path)).unwrap();
        Self::new(path, text)
    }

    pub(crate) fn new(path: PathBuf, text: String) -> Self {
        let code = blank(&text);
        let is_test = path.components().any(|part| part.as_os_str() == "tests")
            || path.file_name().is_some_and(|name| name == "tests.rs");
        let shipped = if is_test { spaces(&code) } else { without_tests(&code) };
        Self { path, text, code, shipped }
    }

    /// The line that a byte is on.
    pub(crate) fn line(&self, at: usize) -> usize {
        self.text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1
    }

    /// `path:line`, as editors open it.
    pub(crate) fn place(&self, at: usize) -> String {
        format!("{}:{}", self.path.display(), self.line(at))
    }

    /// Every function that has a body.
    pub(crate) fn functions(&self) -> Vec<Function<'_>> {
        let mut functions = Vec::new();
        for at in words(&self.code, "fn") {
            // `fn(u8)` is a type.
            let Some(rest) = self.code[at..].strip_prefix("fn ") else { continue };
            let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("");
            if let Some(end) = body_end(&self.code, at) {
                functions.push(Function { name, first: self.line(at), last: self.line(end) });
            }
        }
        functions
    }

    /// The content of the string literal that begins at a quote of `code`.
    pub(crate) fn literal(&self, quote: usize) -> &str {
        let rest = &self.code[quote + 1..];
        let end = rest.find('"').map_or(self.code.len(), |length| quote + 1 + length);
        &self.text[quote + 1..end]
    }
}

/// Where a word stands, and not a longer one.
pub(crate) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        !code[..*at].ends_with(part) && !code[at + word.len()..].starts_with(part)
    })
}

/// Where the item that begins at a byte ends: its matching brace, or its semicolon.
fn item_end(code: &str, from: usize) -> usize {
    let mut depth = 0usize;
    for (at, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 && byte == b'}' {
                    return at;
                }
            }
            b';' if depth == 0 => return at,
            _ => {}
        }
    }
    code.len() - 1
}

/// Where the body of a function ends, if it has one.
fn body_end(code: &str, from: usize) -> Option<usize> {
    let end = item_end(code, from);
    (code.as_bytes().get(end) == Some(&b'}')).then_some(end)
}

fn without_tests(code: &str) -> String {
    let mut shipped = code.as_bytes().to_vec();
    for (at, _) in code.match_indices("#[cfg(test)]") {
        let end = item_end(code, at + "#[cfg(test)]".len());
        shipped[at..=end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
    }
    String::from_utf8(shipped).unwrap()
}

fn spaces(text: &str) -> String {
    text.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect()
}

/// Blanks comments, strings and characters; every byte keeps its place.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let (keep, end) = token(bytes, at);
        let inside = at + keep..end.saturating_sub(keep).max(at + keep);
        if end > at + 1 {
            let inside = if keep == 0 { at..end } else { inside };
            for byte in code[inside].iter_mut().filter(|byte| **byte != b'\n') {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8(code).unwrap()
}

/// What begins at a byte: how many bytes at both of its ends stay, and where it ends.
fn token(bytes: &[u8], at: usize) -> (usize, usize) {
    let rest = &bytes[at..];
    let find = |what: &[u8]| rest.windows(what.len()).position(|window| window == what);
    let word_before = at > 0 && is_word(bytes[at - 1]);
    match rest {
        [b'/', b'/', ..] => (0, at + find(b"\n").unwrap_or(rest.len())),
        [b'/', b'*', ..] => (0, at + comment_length(rest)),
        [b'"', ..] => (1, at + string_length(rest)),
        [b'r', b'"' | b'#', ..] | [b'b', b'r', ..] if !word_before || bytes[at - 1] == b'b' => {
            raw_string(rest).map_or((0, at + 1), |length| (0, at + length))
        }
        [b'\'', b'\\', ..] => {
            let close = rest.iter().skip(3).position(|byte| *byte == b'\'');
            (0, at + close.map_or(rest.len(), |close| close + 4))
        }
        [b'\'', ..] => (0, at + character_length(rest)),
        _ => (0, at + 1),
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Block comments nest.
fn comment_length(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < rest.len() {
        match rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    at
}

fn string_length(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// `r"…"`, `r#"…"#` with any number of `#`; `None` for `r#name`.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let start = if rest.first() == Some(&b'b') { 2 } else { 1 };
    let marks = rest[start..].iter().take_while(|byte| **byte == b'#').count();
    if rest.get(start + marks) != Some(&b'"') {
        return None;
    }
    let close = [b"\"".to_vec(), vec![b'#'; marks]].concat();
    let body = start + marks + 1;
    let length = rest[body..].windows(close.len()).position(|window| window == close)?;
    Some(body + length + close.len())
}

/// A character is closed by a quote; a lifetime is not.
fn character_length(rest: &[u8]) -> usize {
    let text = std::str::from_utf8(&rest[1..rest.len().min(6)]);
    let valid = match text {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&rest[1..=error.valid_up_to()]).unwrap_or(""),
    };
    match valid.chars().next() {
        Some(c) if rest.get(1 + c.len_utf8()) == Some(&b'\'') => 2 + c.len_utf8(),
        _ => 1,
    }
}
