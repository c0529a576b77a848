//! The code blocks of the README.

use std::{fs, path::Path};

/// A block between fences.
pub(crate) struct Block {
    /// The heading it stands under.
    pub(crate) heading: String,
    /// What stands after the opening fence, such as `console`.
    pub(crate) language: String,
    pub(crate) lines: Vec<String>,
}

/// Every block of the README, in order.
pub(crate) fn blocks() -> Vec<Block> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = fs::read_to_string(path).unwrap();
    let (mut blocks, mut heading, mut open): (Vec<Block>, _, _) =
        (Vec::new(), String::new(), false);
    for line in text.lines() {
        match line.strip_prefix("```") {
            Some(_) if open => open = false,
            Some(language) => {
                let (heading, language) = (heading.clone(), language.to_owned());
                blocks.push(Block { heading, language, lines: Vec::new() });
                open = true;
            }
            None if open => blocks.last_mut().unwrap().lines.push(line.to_owned()),
            None if line.starts_with('#') => {
                heading = line.trim_start_matches('#').trim().to_owned();
            }
            None => {}
        }
    }
    assert!(!open, "a block of the README is not closed");
    blocks
}
