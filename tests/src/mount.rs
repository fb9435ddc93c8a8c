//! Small file systems of their own, for what a full, a read-only or a rotting disk does. Only root can mount; elsewhere
//! there is none, and the test that wanted one says so, or fails, see [`lacks`].

use std::fs;
use std::path::{Path, PathBuf};

use crate::lacks::{is_root, lacks};
use crate::process::{LIMIT, must, run};

/// A mounted file system; it goes when it is dropped.
#[derive(Debug)]
pub struct Mount {
    dir: PathBuf,
    image: Option<PathBuf>,
}

impl Mount {
    /// A file system in memory with room for so many KiB, at a directory that is made.
    #[must_use]
    pub fn in_memory(dir: &Path, kib: u64) -> Option<Mount> {
        let options = format!("size={kib}k,mode=755");
        Mount::at(dir, &["-t", "tmpfs", "-o", &options, "tmpfs"], None)
    }

    /// An ext4 file system in a file, whose bytes can be changed behind its back.
    #[must_use]
    pub fn in_image(dir: &Path, image: &Path, mib: u64) -> Option<Mount> {
        if !is_root("mount a small disk") {
            return None;
        }
        let file = fs::File::create(image).expect("image is made");
        file.set_len(mib << 20).expect("image has a size");
        must("mkfs.ext4", &["-q".as_ref(), image.as_os_str()]);
        let words = [
            "-o",
            "loop",
            image.to_str().expect("paths of tests are UTF-8"),
        ];
        Mount::at(dir, &words, Some(image.to_owned()))
    }

    /// What a directory holds through FUSE, which knows neither `RENAME_NOREPLACE` nor `RENAME_EXCHANGE`; the files go to
    /// `source`, which is made, because older versions of FUSE mount on empty directories only.
    #[must_use]
    pub fn without_flags(dir: &Path, source: &Path) -> Option<Mount> {
        fs::create_dir_all(dir).expect("directory is made");
        fs::rename(dir, source).expect("directory is moved");
        fs::create_dir(dir).expect("directory is made");
        Mount::by(
            "bindfs",
            &["-o", "attr_timeout=0", path(source), path(dir)],
            dir,
            None,
        )
    }

    /// What is written lies in another directory than what was there before.
    #[must_use]
    pub fn overlay(dir: &Path, lower: &Path, beside: &Path) -> Option<Mount> {
        let (upper, work) = (beside.join("upper"), beside.join("work"));
        for made in [&upper, &work] {
            fs::create_dir_all(made).expect("directory is made");
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            path(lower),
            path(&upper),
            path(&work)
        );
        Mount::at(dir, &["-t", "overlay", "-o", &options, "overlay"], None)
    }

    /// A btrfs in a file.
    #[must_use]
    pub fn btrfs(dir: &Path, image: &Path) -> Option<Mount> {
        if !is_root("mount a small disk") {
            return None;
        }
        let file = fs::File::create(image).expect("image is made");
        file.set_len(128 << 20).expect("image has a size");
        must("mkfs.btrfs", &["-q".as_ref(), image.as_os_str()]);
        Mount::at(dir, &["-o", "loop", path(image)], Some(image.to_owned()))
    }

    fn at(dir: &Path, words: &[&str], image: Option<PathBuf>) -> Option<Mount> {
        if !is_root("mount a small disk") {
            return None;
        }
        let words: Vec<&str> = words.iter().copied().chain([path(dir)]).collect();
        Mount::by("mount", &words, dir, image)
    }

    fn by(program: &str, words: &[&str], dir: &Path, image: Option<PathBuf>) -> Option<Mount> {
        fs::create_dir_all(dir).expect("directory is made");
        let mut command = std::process::Command::new(program);
        command.args(words);
        let done = run(command, LIMIT);
        if done.code != Some(0) {
            lacks(&format!("{program} cannot mount ({})", done.stderr.trim()));
            return None;
        }
        let dir = dir.to_owned();
        Some(Mount { dir, image })
    }

    /// Changes how it is mounted, as `size=…` or `ro`.
    pub fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        must(
            "mount",
            &["-o".as_ref(), options.as_ref(), self.dir.as_os_str()],
        );
    }

    /// Changes some bytes on the disk while nobody looks; no file gets another time by that.
    ///
    /// # Panics
    /// When they are not there once, or have no image.
    pub fn rot(&self, bytes: &[u8], into: &[u8]) {
        let image = self.image.as_ref().expect("only an image can rot");
        must("umount", &[self.dir.as_os_str()]);
        let mut disk = fs::read(image).expect("image can be read");
        let found: Vec<usize> = disk
            .windows(bytes.len())
            .enumerate()
            .filter_map(|(at, part)| (part == bytes).then_some(at))
            .collect();
        assert_eq!(found.len(), 1, "the bytes lie at one place of the disk");
        assert_eq!(bytes.len(), into.len(), "nothing moves on the disk");
        disk[found[0]..found[0] + into.len()].copy_from_slice(into);
        fs::write(image, disk).expect("image is written");
        must(
            "mount",
            &[
                "-o".as_ref(),
                "loop".as_ref(),
                image.as_os_str(),
                self.dir.as_os_str(),
            ],
        );
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let mut command = std::process::Command::new("umount");
        command.arg("-l").arg(&self.dir);
        let _ = run(command, LIMIT);
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}
