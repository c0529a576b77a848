//! Names of files: what a sender tells of his, and what is made of a stranger's.

use std::path::Path;

/// Characters of a name that is written to disk: below what file systems take, in any script.
const CHARS_MAX: usize = 60;

/// Media types by extension: what bureaus send. Anything else is bytes.
const TYPES: [(&str, &str); 42] = [
    ("7z", "application/x-7z-compressed"),
    ("avi", "video/x-msvideo"),
    ("bmp", "image/bmp"),
    ("csv", "text/csv"),
    ("doc", "application/msword"),
    ("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ("eml", "message/rfc822"),
    ("gif", "image/gif"),
    ("gz", "application/gzip"),
    ("heic", "image/heic"),
    ("htm", "text/html"),
    ("html", "text/html"),
    ("jp2", "image/jp2"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("json", "application/json"),
    ("m4a", "audio/mp4"),
    ("md", "text/markdown"),
    ("mkv", "video/x-matroska"),
    ("mov", "video/quicktime"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("odp", "application/vnd.oasis.opendocument.presentation"),
    ("ods", "application/vnd.oasis.opendocument.spreadsheet"),
    ("odt", "application/vnd.oasis.opendocument.text"),
    ("ogg", "audio/ogg"),
    ("opus", "audio/ogg"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("ppt", "application/vnd.ms-powerpoint"),
    ("pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
    ("rtf", "application/rtf"),
    ("tar", "application/x-tar"),
    ("tif", "image/tiff"),
    ("tiff", "image/tiff"),
    ("txt", "text/plain"),
    ("wav", "audio/wav"),
    ("webm", "video/webm"),
    ("webp", "image/webp"),
    ("xls", "application/vnd.ms-excel"),
    ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    ("xml", "application/xml"),
];

/// The media type of a file, by its name.
pub(crate) fn media_type(path: &Path) -> &'static str {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or("");
    let extension = extension.to_ascii_lowercase();
    let zip = ("zip", "application/zip");
    let mut types = TYPES.into_iter().chain([zip]);
    let found = types.find(|(known, _)| *known == extension);
    found.map_or("application/octet-stream", |(_, media_type)| media_type)
}

/// What a file that somebody else named is called on this disk: never a path, never hidden, never
/// anything that a terminal or a shell would take for more than a name.
pub(crate) fn safe(name: &str, number: usize) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or("");
    let kept = |c: char| if c.is_alphanumeric() || "-_.,()+@ ".contains(c) { c } else { '_' };
    let name: String = last.chars().map(kept).collect();
    let name = name.trim_matches(['.', ' ', '-']);
    let (stem, extension) = match name.rsplit_once('.') {
        Some((stem, extension)) if (1..=8).contains(&extension.chars().count()) => {
            (stem, format!(".{extension}"))
        }
        _ => (name, String::new()),
    };
    let stem: String = stem.chars().take(CHARS_MAX - extension.chars().count()).collect();
    if stem.chars().any(char::is_alphanumeric) {
        format!("{stem}{extension}")
    } else {
        format!("attachment-{number}{extension}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_come_from_the_extension() {
        let of = |name: &str| media_type(Path::new(name));
        assert_eq!(of("report.pdf"), "application/pdf");
        assert_eq!(of("dir.zip/Photo.JPG"), "image/jpeg");
        assert_eq!(of("a.zip"), "application/zip");
        assert_eq!((of("passwd"), of(".pdf"), of("a.b\u{e9}")), {
            let bytes = "application/octet-stream";
            (bytes, bytes, bytes)
        });
        assert!(TYPES.is_sorted_by(|one, other| one.0 < other.0), "one each, easy to find");
    }

    #[test]
    fn a_strangers_name_is_only_a_name() {
        for (name, expected) in [
            ("report.pdf", "report.pdf"),
            ("Fotos (2) d'été.jpg", "Fotos (2) d_été.jpg"),
            ("فيزا.pdf", "فيزا.pdf"),
            ("../../etc/passwd", "passwd"),
            ("..\\..\\boot.ini", "boot.ini"),
            ("/etc/cron.d/x", "x"),
            (".bashrc", "bashrc"),
            ("-rf", "rf"),
            ("..", "attachment-3"),
            ("", "attachment-3"),
            ("dir/", "attachment-3"),
            ("a\u{1b}[2Jb\n.txt", "a__2Jb_.txt"),
            ("gpj.\u{202e}exe", "gpj._exe"),
            ("$(reboot);`x`|y", "_(reboot)__x__y"),
            ("___.pdf", "attachment-3.pdf"),
        ] {
            assert_eq!(safe(name, 3), expected, "{name:?}");
        }
        let long = safe(&format!("{}.jpeg", "字".repeat(300)), 1);
        assert!(long.ends_with("字.jpeg") && long.len() <= 255, "{long}");
        assert!(safe(&"a.".repeat(300), 1).len() <= 255);
    }
}
