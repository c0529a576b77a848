//! Makes foreign text harmless to a terminal: what would move the cursor, reorder, hide or
//! impersonate is shown as an escape.

use std::{borrow::Cow, fmt::Write as _};

/// One line: line ends and tabs are escaped, too.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    escape(text, |_| false)
}

/// Many lines: line ends and tabs stay. A carriage return before a line feed is dropped.
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    let stays = |character| matches!(character, '\n' | '\t');
    if text.contains("\r\n") {
        return Cow::Owned(escape(&text.replace("\r\n", "\n"), stays).into_owned());
    }
    escape(text, stays)
}

/// An encoded JSON document. Such characters stand only within its strings, where `\u` is at
/// home; serde itself escapes only those below U+0020.
pub(crate) fn json(document: &str) -> Cow<'_, str> {
    let stays = |character| character == '\n';
    if !document.chars().any(|character| steers(character) && !stays(character)) {
        return Cow::Borrowed(document);
    }
    let mut escaped = String::with_capacity(document.len() + 16);
    for character in document.chars() {
        if steers(character) && !stays(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

fn escape(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(|character| steers(character) && !stays(character)) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if steers(character) && !stays(character) {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// Controls (with ESC and the C1 set), bidirectional controls, separators that break lines, and
/// what is invisible. Joiners (U+200C, U+200D) stay: Persian and Indic scripts need them.
fn steers(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{061c}'
                | '\u{200b}'
                | '\u{200e}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_shown() {
        for (foreign, shown) in [
            ("\u{1b}[2Jgone", "\\u{1b}[2Jgone"),
            ("\u{9b}31mred", "\\u{9b}31mred"),
            ("a\u{202e}cod.exe", "a\\u{202e}cod.exe"),
            ("a\u{2066}b\u{2069}", "a\\u{2066}b\\u{2069}"),
            ("bell\u{7}\u{7f}", "bell\\u{7}\\u{7f}"),
            ("one\r\ntwo\tthree", "one\\r\\ntwo\\tthree"),
            ("\u{e0041}tag", "\\u{e0041}tag"),
        ] {
            assert_eq!(line(foreign), shown);
        }
    }

    #[test]
    fn languages_are_left_alone() {
        for foreign in
            ["Zoë", "قضية مفقودين", "می\u{200c}خواهم", "Ñandú – ¿dónde?", "東京", "👨\u{200d}👩"]
        {
            assert!(matches!(line(foreign), Cow::Borrowed(same) if same == foreign));
        }
    }

    #[test]
    fn lines_stay_in_texts() {
        assert_eq!(text("one\r\ntwo\n\tthree"), "one\ntwo\n\tthree");
        assert_eq!(text("overwrite\rhidden"), "overwrite\\rhidden");
        assert_eq!(text("\u{1b}]0;title\u{7}\n"), "\\u{1b}]0;title\\u{7}\n");
    }

    #[test]
    fn json_stays_json() {
        let value = "\u{1b}[2J \u{202e} \u{9b} \u{7f} \u{e0041} \" \\ \n é";
        let document = serde_json::json!({ "subject": value }).to_string();
        let escaped = json(&document);
        assert!(escaped.chars().all(|character| character == '\n' || !steers(character)));
        let read: serde_json::Value = serde_json::from_str(&escaped).unwrap_or_default();
        assert_eq!(read["subject"], value);
    }
}
