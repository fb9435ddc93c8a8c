//! Whether ssh is asking a person something: it opens the terminal only for that, and closes it after.

use std::fs;
use std::path::Path;

/// Whether a process, or one that it started, has a terminal open. ssh has none as its stdin, stdout or stderr here. A jump
/// host's password is asked for by an ssh that ours has started.
///
/// Where the system does not say, it is not known, and people shall have their time.
pub(super) fn is_open_in(pid: i32) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return !Path::new("/proc/self/fd").exists();
    };
    let has_one = files.flatten().any(|file| {
        let target = fs::read_link(file.path()).unwrap_or_default();
        target == Path::new("/dev/tty") || target.starts_with("/dev/pts")
    });
    has_one || children(pid).into_iter().any(is_open_in)
}

fn children(pid: i32) -> Vec<i32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(path).unwrap_or_default();
    let numbers = children.split_ascii_whitespace();
    numbers.filter_map(|word| word.parse().ok()).collect()
}
