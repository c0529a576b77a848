//! What may be said in a body. One set of rules for what a desk submits and what a link brings,
//! so that nothing is accepted here that a recipient must refuse.

use bureau_proto::envelope::v1 as wire;

use crate::{
    ids::BureauCode,
    limits::{
        CASE_REFERENCE_CHARS_MAX, FILE_NAME_CHARS_MAX, FORMAT, Limits, MEDIA_TYPE_CHARS_MAX,
        SUBJECT_CHARS_MAX,
    },
    reason::Reason,
};

/// One field and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The field, as in `recipients[2]`.
    pub field: String,
    /// What is wrong.
    pub reason: Reason,
    /// A sentence that says so, without the field's content.
    pub description: String,
}

impl Violation {
    /// A violation.
    pub fn new(field: impl Into<String>, reason: Reason, description: impl Into<String>) -> Self {
        Self { field: field.into(), reason, description: description.into() }
    }
}

/// Media type where none is given.
pub const MEDIA_TYPE_DEFAULT: &str = "text/plain";

/// Checks a body field by field. Empty: it is good.
#[must_use]
pub fn check(body: &wire::Body, limits: &Limits) -> Vec<Violation> {
    let mut violations = Vec::new();
    if body.format != FORMAT {
        violations.push(Violation::new("format", Reason::UnknownFormat, "format must be 1"));
    }
    let lines = [
        ("subject", &body.subject, SUBJECT_CHARS_MAX),
        ("media_type", &body.media_type, MEDIA_TYPE_CHARS_MAX),
        ("case_reference", &body.case_reference, CASE_REFERENCE_CHARS_MAX),
    ];
    for (field, text, chars_max) in lines {
        if let Err(reason) = check_line(text, chars_max) {
            let description = match reason {
                Reason::FieldTooLong => format!("longer than {chars_max} characters"),
                _ => "has control characters or characters that reorder text".to_owned(),
            };
            violations.push(Violation::new(field, reason, description));
        }
    }
    violations.extend(check_content(body, limits));
    if wire::Purpose::try_from(body.purpose).is_err() {
        violations.push(Violation::new("purpose", Reason::FieldInvalid, "not a known purpose"));
    }
    for (field, id) in [("in_reply_to", &body.in_reply_to), ("replaces", &body.replaces)] {
        if !id.is_empty() && id.len() != 32 {
            violations.push(Violation::new(field, Reason::Malformed, "not a message id"));
        }
    }
    if !body.desk.is_empty() && body.desk.parse::<crate::ids::DeskName>().is_err() {
        violations.push(Violation::new("desk", Reason::Malformed, "not a desk name"));
    }
    if body.visible_recipients.len() > limits.recipients
        || body.visible_recipients.iter().any(|code| code.parse::<BureauCode>().is_err())
    {
        let description = "not a list of bureau codes within the limit";
        violations.push(Violation::new("visible_recipients", Reason::Malformed, description));
    }
    violations.extend(check_attachments(&body.attachments, limits));
    violations
}

/// Checks what is said of attachments: somebody will save them under these names.
fn check_attachments(list: &[wire::AttachmentDescription], limits: &Limits) -> Option<Violation> {
    if list.len() > limits.attachments {
        let description =
            format!("{} attachments; the limit is {}", list.len(), limits.attachments);
        return Some(Violation::new("attachments", Reason::TooManyAttachments, description));
    }
    list.iter().enumerate().find_map(|(index, attachment)| {
        let name = attachment.name.as_str();
        let path = ["", ".", ".."].contains(&name) || name.contains(['/', '\\']);
        let (field, fault) = if path {
            ("name", Err(Reason::FieldInvalid))
        } else if let Err(reason) = check_line(name, FILE_NAME_CHARS_MAX) {
            ("name", Err(reason))
        } else {
            ("media_type", check_line(&attachment.media_type, MEDIA_TYPE_CHARS_MAX))
        };
        let field = format!("attachments[{index}].{field}");
        let description = "not one clean line within its limit, or not a plain file name";
        fault.err().map(|reason| Violation::new(field, reason, description))
    })
}

/// Checks the content: size, and where it is text, that it is clean UTF-8.
fn check_content(body: &wire::Body, limits: &Limits) -> Option<Violation> {
    let content = body.content.as_ref();
    if content.is_empty() {
        return Some(Violation::new("content", Reason::BodyEmpty, "there is no content"));
    }
    if content.len() > limits.body_bytes {
        let description = format!("{} bytes; the limit is {}", content.len(), limits.body_bytes);
        return Some(Violation::new("content", Reason::BodyTooLarge, description));
    }
    if !is_text(&body.media_type) {
        return None;
    }
    let Ok(text) = std::str::from_utf8(content) else {
        return Some(Violation::new("content", Reason::NotUtf8, "text content is not UTF-8"));
    };
    let is_bad = |c: char| (is_control(c) && !matches!(c, '\t' | '\n' | '\r')) || is_override(c);
    text.contains(is_bad).then(|| {
        let description = "text content has control characters or direction overrides";
        Violation::new("content", Reason::ControlCharacters, description)
    })
}

/// Whether content of this media type is text: empty means `text/plain`.
#[must_use]
pub fn is_text(media_type: &str) -> bool {
    media_type.is_empty() || media_type.to_ascii_lowercase().starts_with("text/")
}

/// Checks a text of one line: its length in characters, and that it has no control characters and
/// none that reorder or hide text.
///
/// # Errors
/// [`Reason::FieldTooLong`], [`Reason::ControlCharacters`].
pub fn check_line(text: &str, chars_max: usize) -> Result<(), Reason> {
    if text.chars().nth(chars_max).is_some() {
        return Err(Reason::FieldTooLong);
    }
    if text.contains(|c| is_control(c) || is_override(c)) {
        return Err(Reason::ControlCharacters);
    }
    Ok(())
}

fn is_control(c: char) -> bool {
    // Line and paragraph separator break a line in some terminals and log viewers.
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// Embeddings, overrides and isolates of the bidirectional algorithm (UAX #9): they can make a
/// text read otherwise than it is. The marks U+200E, U+200F and U+061C cannot, and Arabic needs
/// them.
const fn is_override(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    fn body() -> wire::Body {
        wire::Body { format: 1, content: "مفقود\n\tلاحق".into(), ..Default::default() }
    }

    fn reasons(body: &wire::Body) -> Vec<(String, Reason)> {
        let limits = Limits { body_bytes: 64, ..Limits::default() };
        check(body, &limits).into_iter().map(|v| (v.field, v.reason)).collect()
    }

    #[test]
    fn a_good_body_passes() {
        assert_eq!(reasons(&body()), []);
        let binary = wire::Body {
            media_type: "application/pdf".into(),
            content: vec![0, 255, 27].into(),
            ..body()
        };
        assert_eq!(reasons(&binary), []);
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let bad = wire::Body {
            format: 1,
            subject: "a\u{1b}[31m".into(),
            case_reference: "x".repeat(65),
            content: vec![0xff].into(),
            purpose: 99,
            in_reply_to: vec![1].into(),
            desk: "No Desk".into(),
            visible_recipients: vec!["fr".into()],
            ..Default::default()
        };
        let expected = [
            ("subject", Reason::ControlCharacters),
            ("case_reference", Reason::FieldTooLong),
            ("content", Reason::NotUtf8),
            ("purpose", Reason::FieldInvalid),
            ("in_reply_to", Reason::Malformed),
            ("desk", Reason::Malformed),
            ("visible_recipients", Reason::Malformed),
        ];
        let expected: Vec<_> = expected.map(|(f, r)| (f.to_owned(), r)).into();
        assert_eq!(reasons(&bad), expected);
    }

    #[test]
    fn content_is_bounded_and_clean() {
        let with = |content: Vec<u8>| wire::Body { content: content.into(), ..body() };
        let reason = |content| reasons(&with(content)).first().map(|(_, reason)| *reason);
        assert_eq!(reason(vec![]), Some(Reason::BodyEmpty));
        assert_eq!(reason(vec![b'a'; 65]), Some(Reason::BodyTooLarge));
        assert_eq!(reason(vec![b'a'; 64]), None);
        assert_eq!(reason("a\u{202e}b".into()), Some(Reason::ControlCharacters));
        assert_eq!(reason(b"a\0b".to_vec()), Some(Reason::ControlCharacters));
    }
}
