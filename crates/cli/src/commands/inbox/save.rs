//! `bureau inbox save` and `release`: attachments of what arrived, as files.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use bureau_proto::desk::v1::{GetInboxMessageRequest, InboxMessage, ReleaseAttachmentsRequest};
use clap::Args;
use serde::Serialize;

use super::{
    message_of,
    view::{AttachmentView, attachment_views},
};
use crate::{
    client::{Desk, DeskFace},
    error::CommandError,
    files::{self, Wanted},
    output::{Output, escape},
    wire,
};

/// Save the attachments of a message as files.
///
/// Each is checked against its digest before it gets its name. Where the connection breaks, or
/// the command is stopped, it goes on where it was when it is called again. A file that is there
/// already stays, unless --force. What the sender named in a way that is no plain file name is
/// given a safe one.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:\n  bureau inbox save 12\n  bureau inbox save 7xk2mq --into case-77/\n  bureau inbox save 7xk2mq --index 2 --into photo.jpg"
)]
pub(crate) struct SaveArgs {
    /// The message's id, its first 6 or more characters, or its inbox number
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Only this one, counted from 1 as `inbox show` does [default: all]
    #[arg(long, env = "BUREAU_INDEX", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) index: Option<u32>,
    /// The folder to save to; or, for one attachment, the file
    #[arg(
        short = 'd',
        long = "into",
        env = "BUREAU_INTO",
        value_name = "DIR|FILE",
        default_value = "."
    )]
    pub(crate) into: PathBuf,
    /// Replace a file that is there
    #[arg(long, env = "BUREAU_FORCE")]
    pub(crate) force: bool,
}

/// Release the attachments of a message, where the node's policy holds them back.
///
/// Needs the permission "release". From then on every desk that may read the message may save
/// them. Releasing them twice changes nothing.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:\n  bureau inbox release 12\n  bureau inbox release 7xk2mq"
)]
pub(crate) struct ReleaseArgs {
    /// The message's id, its first 6 or more characters, or its inbox number
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

#[derive(Serialize)]
struct SavedView {
    message_id: String,
    files: Vec<FileView>,
}

#[derive(Serialize)]
struct FileView {
    path: String,
    #[serde(flatten)]
    attachment: AttachmentView,
}

#[derive(Serialize)]
struct ReleasedView {
    message_id: String,
    release_time: Option<String>,
    release_desk: String,
}

pub(super) async fn save(
    args: SaveArgs,
    desk: &Desk,
    output: &mut Output,
) -> Result<(), CommandError> {
    let face = desk.desk_face().await?;
    let mut client = face.client.clone();
    let request = GetInboxMessageRequest { message_id: message_of(&args.id) };
    let response = face.call(client.get_inbox_message(request)).await?;
    let message = response.message.ok_or(CommandError::Incomplete("the message"))?;
    let message_id = message.entry.clone().unwrap_or_default().message_id;
    let targets = targets(&args, &message)?;
    let mut views: Vec<_> = attachment_views(&message.attachments).into_iter().map(Some).collect();
    let mut saved = Vec::with_capacity(targets.len());
    for (index, path) in targets {
        let Some(attachment) = message.attachments.get(index) else { continue };
        let wanted = Wanted {
            message: &message_id,
            index: u32::try_from(index).unwrap_or(u32::MAX),
            attachment,
            path,
            force: args.force,
        };
        let path = files::download(desk, wanted, output).await?;
        let Some(attachment) = views.get_mut(index).and_then(Option::take) else { continue };
        if !output.is_json() {
            let size = wire::shown_size(attachment.size);
            output.line(&format!("{}  {size}", escape::line(&path.display().to_string())))?;
        }
        saved.push(FileView { path: path.display().to_string(), attachment });
    }
    if output.is_json() {
        return output.document(&SavedView { message_id, files: saved });
    }
    Ok(())
}

/// Which attachments are saved, and where to.
fn targets(args: &SaveArgs, message: &InboxMessage) -> Result<Vec<(usize, PathBuf)>, CommandError> {
    let count = message.attachments.len();
    if count == 0 {
        return Err(CommandError::NoSuchAttachment { number: 1, count });
    }
    let chosen: Vec<usize> = match args.index {
        None => (0..count).collect(),
        Some(number) => {
            let index = usize::try_from(number).unwrap_or(usize::MAX) - 1;
            if index >= count {
                return Err(CommandError::NoSuchAttachment { number, count });
            }
            vec![index]
        }
    };
    let names_folder = args.into.as_os_str().to_string_lossy().ends_with('/');
    if !args.into.is_dir() {
        if let ([only], false) = (chosen.as_slice(), names_folder) {
            return Ok(vec![(*only, args.into.clone())]);
        }
        return Err(CommandError::NoFolder { path: args.into.clone() });
    }
    let mut taken = BTreeSet::new();
    let named = chosen.into_iter().filter_map(|index| {
        let name = files::safe(&message.attachments.get(index)?.name, index + 1);
        // Two of one name would be one file.
        let name =
            if taken.insert(name.to_lowercase()) { name } else { format!("{}-{name}", index + 1) };
        let folder = if args.into == Path::new(".") { Path::new("") } else { &args.into };
        Some((index, folder.join(name)))
    });
    Ok(named.collect())
}

pub(super) async fn release(
    args: ReleaseArgs,
    face: &DeskFace,
    output: &mut Output,
) -> Result<(), CommandError> {
    let mut client = face.client.clone();
    let request = ReleaseAttachmentsRequest { message_id: message_of(&args.id) };
    let released = face.call(client.release_attachments(request)).await?;
    let view = ReleasedView {
        message_id: released.message_id,
        release_time: wire::time(released.release_time.as_ref()),
        release_desk: released.release_desk,
    };
    if output.is_json() {
        return output.document(&view);
    }
    let id = escape::line(&view.message_id);
    let time = view.release_time.as_deref().unwrap_or("-");
    output.line(&format!("{id} released by {} at {time}", escape::line(&view.release_desk)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use bureau_proto::desk::v1::Attachment;

    use super::*;

    fn targets_of(
        names: &[&str],
        to: &Path,
        index: Option<u32>,
    ) -> Result<Vec<String>, CommandError> {
        let attachment =
            |name: &&str| Attachment { name: (*name).to_owned(), ..Attachment::default() };
        let message = InboxMessage {
            attachments: names.iter().map(attachment).collect(),
            ..InboxMessage::default()
        };
        let args = SaveArgs { id: "#1".to_owned(), index, into: to.to_owned(), force: false };
        let shown = |(index, path): (usize, PathBuf)| format!("{index} {}", path.display());
        targets(&args, &message).map(|targets| targets.into_iter().map(shown).collect())
    }

    #[test]
    fn names_stay_in_the_folder_and_apart() {
        let here = Path::new(".");
        let names = ["a.pdf", "../../A.pdf", "a.pdf", "/etc/passwd"];
        let targets = targets_of(&names, here, None).unwrap();
        assert_eq!(targets, ["0 a.pdf", "1 2-A.pdf", "2 3-a.pdf", "3 passwd"]);
        assert_eq!(targets_of(&names, here, Some(4)).unwrap(), ["3 passwd"]);
        let folder = tempfile::tempdir().unwrap();
        let inside = targets_of(&["a"], folder.path(), None).unwrap();
        assert_eq!(inside, [format!("0 {}/a", folder.path().display())]);
        let file = folder.path().join("b.pdf");
        assert_eq!(targets_of(&["a"], &file, None).unwrap(), [format!("0 {}", file.display())]);
        assert_eq!(targets_of(&names, &file, Some(2)).unwrap().len(), 1);
    }

    #[test]
    fn what_cannot_be_is_said() {
        let here = Path::new(".");
        let none = targets_of(&["a"], here, Some(2)).unwrap_err();
        assert_eq!(none.to_string(), "there is no attachment 2; the message has 1");
        let many = targets_of(&["a", "b"], Path::new("no/such"), None).unwrap_err();
        assert_eq!(many.to_string(), "no/such is no folder");
        assert!(targets_of(&["a"], Path::new("no/such/"), None).is_err());
        let empty = targets_of(&[], here, None).unwrap_err();
        assert_eq!(empty.to_string(), "the message has no attachments");
    }
}
