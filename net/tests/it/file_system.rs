//! File systems of a test's own, that can be filled, frozen, and deprived of power. They need root
//! and loop devices; elsewhere they say so and prove nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The journal, and room for all that it holds a second time.
const SIZE: u64 = 640 << 20;

/// An ext4 in a file, mounted.
pub(crate) struct FileSystem {
    image: PathBuf,
    mount: PathBuf,
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("{program} {}: {}", arguments.join(" "), why.trim()))
}

/// Patient: what a node that just ended held may be let go a moment later. Whether it is done.
pub(crate) fn unmount(at: &Path) -> bool {
    let at = at.display().to_string();
    let mut tries = 0..50;
    tries.any(|_| {
        let is_done = run("umount", &[&at]).is_ok();
        if !is_done {
            std::thread::sleep(Duration::from_millis(100));
        }
        is_done
    })
}

impl FileSystem {
    /// Makes one for the node of this number, whose directory it will be.
    fn make(dir: &Path, number: usize) -> Result<Self, String> {
        let image = dir.join(format!("image-{number}"));
        let mount = dir.join(format!("mount-{number}"));
        let io = |error: std::io::Error| error.to_string();
        let file = std::fs::File::create(&image).map_err(io)?;
        file.set_len(SIZE).map_err(io)?;
        std::fs::create_dir(&mount).map_err(io)?;
        let shown = image.display().to_string();
        run("mkfs.ext4", &["-q", "-F", "-m", "0", &shown])?;
        let file_system = Self { image, mount };
        file_system.mount()?;
        let home = file_system.mount.join("home");
        std::fs::create_dir(&home).map_err(io)?;
        std::os::unix::fs::symlink(home, dir.join(format!("node-{number}"))).map_err(io)?;
        Ok(file_system)
    }

    fn mount(&self) -> Result<(), String> {
        let (image, at) = (self.image.display(), self.mount.display());
        run(
            "mount",
            &["-o", "loop", &image.to_string(), &at.to_string()],
        )
    }

    /// Nothing that it has not on its disk comes there any more, its own journal included, and
    /// whatever is asked of it fails. What this machine lacks for that is the error.
    pub(crate) fn cut_power(&self) -> Result<(), String> {
        // EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH.
        let script = "open(F, '<', $ARGV[0]) or die $!; $how = pack('L', 2); \
                      ioctl(F, 0x8004587d, $how) or die $!";
        run("perl", &["-e", script, &self.mount.display().to_string()])
    }

    /// Brings it back as its disk has it. Nobody uses it any more.
    pub(crate) fn restore_power(&self) {
        self.unmount();
        self.mount().expect("it was mounted before");
    }

    fn unmount(&self) {
        unmount(&self.mount);
    }

    pub(crate) fn freeze(&self, is_frozen: bool) {
        let flag = if is_frozen { "-f" } else { "-u" };
        let at = self.mount.display().to_string();
        run("fsfreeze", &[flag, &at]).expect("it is root's");
    }

    /// Takes all the room that is left.
    pub(crate) fn fill(&self) -> PathBuf {
        use std::io::Write;
        let path = self.mount.join("filling");
        let mut file = std::fs::File::create(&path).expect("it is root's");
        for size in [1 << 20, 4096] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
        let _ = file.sync_all();
        path
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        let at = self.mount.display().to_string();
        let _ = run("fsfreeze", &["-u", &at]);
        self.unmount();
    }
}

/// None, with a word to whoever reads along, where this machine does not let a test do it.
pub(crate) fn file_systems(dir: &Path, count: usize) -> Option<Vec<FileSystem>> {
    let made = (1..=count).map(|number| FileSystem::make(dir, number));
    match made.collect() {
        Ok(file_systems) => Some(file_systems),
        Err(why) => {
            println!("skipped: no file system of one's own here: {why}");
            None
        }
    }
}
