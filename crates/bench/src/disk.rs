//! What the disk alone gives: a record appended and synced, one by one and in groups.

use std::{
    fs::File,
    io::{Seek as _, SeekFrom, Write as _},
    time::{Duration, Instant},
};

use crate::{
    Load,
    report::{Latencies, Report},
};

/// Records that share one sync, as many as there are callers.
pub(crate) fn measure(load: Load, report: &mut Report) {
    let folder = tempfile::tempdir_in(".").unwrap();
    let mut file = File::create(folder.path().join("raw")).unwrap();
    // Written ahead, as the journal does it: an append changes no metadata.
    let zeros = vec![0; 1024 * 1024];
    for _ in 0..256 {
        file.write_all(&zeros).unwrap();
    }
    file.sync_all().unwrap();
    for group in [load.clients.max(1), 1] {
        let record = vec![b'x'; load.size * group];
        file.seek(SeekFrom::Start(0)).unwrap();
        let mut written = 0;
        let mut latencies = Latencies::default();
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(load.seconds.div_ceil(2)) {
            let begun = Instant::now();
            if written + record.len() > 256 * 1024 * 1024 {
                file.seek(SeekFrom::Start(0)).unwrap();
                written = 0;
            }
            file.write_all(&record).unwrap();
            file.sync_data().unwrap();
            written += record.len();
            for _ in 0..group {
                latencies.note(begun.elapsed());
            }
        }
        let what = format!("disk: append and fdatasync, groups of {group}");
        report.add(&what, started.elapsed(), &latencies);
    }
}
