//! How far a file is, on stderr, for somebody who watches: bytes, rate, time left. Nothing where
//! stderr is no terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::{Output, escape, table::shorten};

/// Characters of a name beside its bar.
const NAME_CHARS: usize = 28;
const TEMPLATE: &str = "{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";

/// The bar of one file. It is gone with its value.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new(what: &str, name: &str, size: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(format!("{what} {}", escape::line(&shorten(name, NAME_CHARS))));
        Self(bar)
    }

    /// So many bytes are done, of which the first did not count for the rate.
    pub(super) fn begin(&self, bytes: u64) {
        self.0.set_position(bytes);
        self.0.reset_eta();
    }

    pub(super) fn add(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    /// A remark, above the bar.
    pub(super) fn note(&self, output: &mut Output, note: &str) {
        self.0.suspend(|| output.note(note));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
