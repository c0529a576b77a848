//! The messages of the demo: what police bureaus write to each other, with everything and
//! everybody in them invented. A few header lines, an empty line, the text.

use bureau_proto::{
    desk::v1::SubmitRequest,
    envelope::v1::{HandlingCode, Kind, Lane, Purpose},
};
use uuid::Uuid;

macro_rules! shipped {
    ($($name:literal)*) => {
        /// Name and text of each file.
        const FILES: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("messages/", $name, ".txt"))),)*];
    };
}

// The order is the order of sending: every bureau early, the urgent ones spread.
shipped! {
    "missing-child"
    "trafficking-route"
    "wildlife"
    "stolen-passports"
    "ransomware"
    "tainted-medicine"
    "child-located"
    "antiquities"
    "arms-shipment"
    "wanted-person"
    "identification"
    "card-skimming"
}

/// One message that can be sent any number of times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    pub(super) origin: String,
    pub(super) recipients: Vec<String>,
    lane: Lane,
    kind: Kind,
    handling: HandlingCode,
    purpose: Purpose,
    case_reference: String,
    pub(super) subject: String,
    text: String,
}

/// A shipped file that is not as it should be: a fault of this software.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the shipped message {file}: {fault}")]
pub(crate) struct CorpusError {
    file: &'static str,
    fault: &'static str,
}

/// All of them.
pub(super) fn templates() -> Result<Vec<Template>, CorpusError> {
    let read = |(file, text): &(&'static str, &str)| {
        Template::read(text).map_err(|fault| CorpusError { file, fault })
    };
    FILES.iter().map(read).collect()
}

impl Template {
    fn read(file: &str) -> Result<Self, &'static str> {
        let (head, text) = file.split_once("\n\n").ok_or("no empty line after the head")?;
        let field =
            |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let word = |name: &str, prefix: &str| field(name).map(|word| format!("{prefix}{word}"));
        let recipients = field("To").ok_or("no recipient")?;
        Ok(Self {
            origin: field("From").ok_or("no origin")?.to_owned(),
            recipients: recipients.split(", ").map(str::to_owned).collect(),
            lane: word("Lane", "LANE_")
                .and_then(|word| Lane::from_str_name(&word))
                .ok_or("no lane")?,
            kind: word("Kind", "KIND_")
                .and_then(|word| Kind::from_str_name(&word))
                .ok_or("no kind")?,
            handling: word("Handling", "HANDLING_CODE_")
                .and_then(|word| HandlingCode::from_str_name(&word))
                .ok_or("no handling code")?,
            purpose: word("Purpose", "PURPOSE_")
                .and_then(|word| Purpose::from_str_name(&word))
                .ok_or("no purpose")?,
            case_reference: field("Case").ok_or("no case")?.to_owned(),
            subject: field("Subject").ok_or("no subject")?.to_owned(),
            text: text.to_owned(),
        })
    }

    /// The request that sends it as the message of this number.
    pub(super) fn request(&self, number: usize) -> SubmitRequest {
        SubmitRequest {
            request_id: Uuid::now_v7().to_string(),
            recipients: self.recipients.clone(),
            lane: self.lane.into(),
            kind: self.kind.into(),
            subject: self.subject.clone(),
            content: format!("{}\nDemo message {number}.\n", self.text).into(),
            handling_code: self.handling.into(),
            exercise: true,
            case_reference: self.case_reference.clone(),
            purpose: self.purpose.into(),
            ..SubmitRequest::default()
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use bureau_core::{Limits, body};
    use bureau_proto::envelope::v1::Body;

    use super::*;

    #[test]
    fn every_shipped_message_can_be_sent() {
        let templates = templates().unwrap();
        assert_eq!(templates.len(), FILES.len());
        for template in &templates {
            let request = template.request(7);
            assert!(!request.recipients.contains(&template.origin), "{}", template.subject);
            let sent = Body {
                format: bureau_core::limits::FORMAT,
                subject: request.subject.clone(),
                content: request.content,
                case_reference: request.case_reference,
                purpose: request.purpose,
                ..Body::default()
            };
            assert_eq!(body::check(&sent, &Limits::default()), [], "{}", request.subject);
        }
    }

    #[test]
    fn they_say_that_they_are_invented() {
        for (file, text) in FILES {
            let body = text.split_once("\n\n").unwrap().1;
            let says = ["EXERCISE.", "EXERCICE.", "EJERCICIO.", "EXERCÍCIO.", "تمرين."];
            assert!(says.iter().any(|word| body.starts_with(word)), "{file}");
        }
    }

    #[test]
    fn every_bureau_sends_and_receives() {
        let templates = templates().unwrap();
        for bureau in ["FR", "KE", "BR"] {
            assert!(templates.iter().any(|template| template.origin == bureau));
            let receives = |template: &Template| template.recipients.iter().any(|to| to == bureau);
            assert!(templates.iter().any(receives));
        }
        assert!(templates.iter().any(|template| template.recipients.len() > 1));
    }

    #[test]
    fn a_file_without_a_part_is_refused() {
        let good = FILES[0].1;
        for (part, fault) in [
            ("From", "no origin"),
            ("To", "no recipient"),
            ("Lane", "no lane"),
            ("Kind", "no kind"),
            ("Handling", "no handling code"),
            ("Purpose", "no purpose"),
            ("Case", "no case"),
            ("Subject", "no subject"),
        ] {
            let bad = good.replacen(&format!("{part}: "), "X: ", 1);
            assert_eq!(Template::read(&bad), Err(fault));
        }
    }
}
