//! What inotify allows, in words, and file systems that do not tell of all changes.

use std::fs;
use std::io;

/// What the system limits for all programs of a user together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    Watches,
    Instances,
}

impl Limit {
    fn key(self) -> &'static str {
        match self {
            Limit::Watches => "max_user_watches",
            Limit::Instances => "max_user_instances",
        }
    }

    /// That it is reached, by what needs so many, and the remedy.
    pub(super) fn reached(self, needed: usize) -> String {
        self.sentence(needed, self.allowed().ok())
    }

    fn allowed(self) -> io::Result<usize> {
        let text = fs::read_to_string(format!("/proc/sys/fs/inotify/{}", self.key()))?;
        text.trim().parse().map_err(io::Error::other)
    }

    fn sentence(self, needed: usize, allowed: Option<usize>) -> String {
        let (what, key) = match self {
            Limit::Watches => ("watches", self.key()),
            Limit::Instances => ("instances", self.key()),
        };
        let Some(allowed) = allowed else {
            return format!(
                "inotify's {what} are used up: {needed} needed here; let root raise fs.inotify.{key}"
            );
        };
        // Others have a share of it, nobody knows how large.
        let enough = needed.saturating_add(allowed).next_power_of_two();
        format!(
            "inotify's {what} are used up: {needed} needed here, {allowed} allowed for all programs of this user together; as root: sysctl fs.inotify.{key}={enough}"
        )
    }
}

/// What a file system is called on which others make changes, or whose own server does, without inotify being told. By its
/// type, see statfs(2).
pub(super) fn silent(file_system_type: i64) -> Option<&'static str> {
    Some(match file_system_type {
        0x6969 => "NFS",
        0x517B | 0xFF53_4D42 | 0xFE53_4D42 => "SMB",
        0x6573_5546 => "FUSE",
        0x0102_1997 => "9p",
        0x5346_414F | 0x6B41_4653 => "AFS",
        0x7375_7245 => "Coda",
        0x00C3_6400 => "Ceph",
        0x0BD0_0BD3 => "Lustre",
        0x4750_4653 => "GPFS",
        0x0116_1970 => "GFS2",
        0x7461_636F => "OCFS2",
        0x1983_0326 => "BeeGFS",
        0x2003_0528 => "OrangeFS",
        0x786F_4256 => "vboxsf",
        0xBACB_ACBC => "hgfs",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_told_with_both_numbers_and_the_remedy() {
        assert_eq!(
            Limit::Watches.sentence(12_000, Some(8192)),
            "inotify's watches are used up: 12000 needed here, 8192 allowed for all programs of this user together; as root: sysctl fs.inotify.max_user_watches=32768"
        );
        let said = Limit::Instances.sentence(1, Some(128));
        assert!(said.contains("instances are used up: 1 needed here, 128 allowed"));
        assert!(said.ends_with("sysctl fs.inotify.max_user_instances=256"));
        // What others use, this user's own Maildir needs none of.
        let said = Limit::Watches.sentence(600, Some(65_536));
        assert!(said.ends_with("max_user_watches=131072"));
        let said = Limit::Watches.sentence(600, None);
        assert!(said.ends_with("600 needed here; let root raise fs.inotify.max_user_watches"));
    }

    #[test]
    fn what_is_allowed_is_what_the_system_says() {
        for limit in [Limit::Watches, Limit::Instances] {
            assert!(limit.allowed().expect("it is told") > 0);
            assert!(limit.reached(7).contains("7 needed"));
        }
    }

    #[test]
    fn network_file_systems_are_silent_and_local_ones_are_not() {
        for (kind, name) in [
            (0x6969, Some("NFS")),
            (0xFE53_4D42, Some("SMB")),
            (0x6573_5546, Some("FUSE")),
            (0x0102_1997, Some("9p")),
            (0xEF53, None),
            (0x0102_1994, None),
            (0x9123_683E, None),
            (0x794C_7630, None),
        ] {
            assert_eq!(silent(kind), name);
        }
    }
}
