//! How far long work is, on stderr if that is a terminal.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar that is gone when the work is.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Of so many steps: bytes, records, files.
    pub fn begin(what: &'static str, steps: u64) -> Progress {
        if !std::io::stderr().is_terminal() {
            return Progress { bar: ProgressBar::hidden() };
        }
        let style = ProgressStyle::with_template("{msg:>10} {wide_bar} {percent:>3} % {eta}");
        let bar = ProgressBar::new(steps).with_message(what);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Progress { bar }
    }

    /// So many more are done.
    pub fn add(&self, steps: u64) {
        self.bar.inc(steps);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
