//! Volumes laid out as a kubelet lays them out, and as nobody should.

use super::*;
use rustix::fs::{CWD, FileType, mknodat};
use std::fs::{Permissions, create_dir, remove_file, rename, set_permissions, write};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use tempfile::TempDir;

/// A volume with these files, as a kubelet mounts it.
struct Volume(TempDir);

impl Volume {
    fn new(files: &[(&str, &str)]) -> Self {
        let volume = Self(tempfile::tempdir().unwrap());
        // As a kubelet has it: anybody may write, and nobody move what is another's.
        set_permissions(volume.0.path(), Permissions::from_mode(0o1777)).unwrap();
        volume.swap("..2026_11_26_10_00_00.1", files);
        for (name, _) in files {
            symlink(format!("..data/{name}"), volume.path(name)).unwrap();
        }
        volume
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Another version, and the one link that leads to it.
    fn swap(&self, version: &str, files: &[(&str, &str)]) {
        create_dir(self.path(version)).unwrap();
        set_permissions(self.path(version), Permissions::from_mode(0o755)).unwrap();
        for (name, text) in files {
            let path = self.path(version).join(name);
            write(&path, text).unwrap();
            set_permissions(&path, Permissions::from_mode(0o440)).unwrap();
        }
        symlink(version, self.path("..data_tmp")).unwrap();
        rename(self.path("..data_tmp"), self.path("..data")).unwrap();
    }

    fn file(&self, name: &str) -> VolumeFile {
        VolumeFile::new(&Mounted { volume: self.0.path().to_owned(), file: name.into() })
    }

    fn read(&self, name: &str) -> Result<Option<String>, SourceError> {
        Ok(self.file(name).find()?.map(|secret| secret.expose().to_owned()))
    }

    fn error(&self, name: &str) -> String {
        let error = self.read(name).unwrap_err();
        let SourceError::Mounted(why) = &error else { panic!("{error}") };
        assert!(why.fix().len() > 10);
        assert!(!error.to_string().contains("s3cret"), "{error}");
        error.to_string()
    }
}

#[test]
fn what_a_kubelet_mounts_is_read_through_its_links_and_a_swap_changes_the_mark() {
    let volume = Volume::new(&[("token", "the-first\n"), ("other", "x")]);
    assert_eq!(volume.read("token").unwrap().as_deref(), Some("the-first"));
    let source = volume.file("token");
    let before = source.mark();
    assert_eq!(before, source.mark());
    volume.swap("..2026_11_26_10_01_00.2", &[("token", "the-other")]);
    assert_ne!(before, source.mark());
    assert_eq!(volume.read("token").unwrap().as_deref(), Some("the-other"));
    // What the Secret no longer has is a link into nothing.
    assert!(matches!(volume.read("other"), Ok(None)));
    assert!(source.place().starts_with("mounted /") && source.place().ends_with("/token"), "{}", source.place());
}

#[test]
fn a_file_or_volume_that_is_not_there_is_absent() {
    let volume = Volume::new(&[("token", "x")]);
    assert!(matches!(volume.read("none"), Ok(None)));
    assert!(matches!(volume.read("none/none"), Ok(None)));
    let nowhere = VolumeFile::new(&Mounted { volume: volume.path("nowhere"), file: "token".into() });
    assert!(matches!(nowhere.find(), Ok(None)));
    assert_eq!(nowhere.mark(), Mark::File(None));
    write(volume.path("plain"), "x").unwrap();
    let plain = VolumeFile::new(&Mounted { volume: volume.path("plain"), file: "token".into() });
    assert!(plain.find().err().unwrap().to_string().contains("is not a directory"));
}

#[test]
fn no_link_leads_out_of_the_volume() {
    let volume = Volume::new(&[("token", "x")]);
    let outside = tempfile::tempdir().unwrap();
    write(outside.path().join("stolen"), "s3cret-of-another").unwrap();
    let name = outside.path().file_name().unwrap().to_str().unwrap();
    create_dir(volume.path("dir")).unwrap();
    for (link, target) in [
        ("absolute", outside.path().join("stolen").display().to_string()),
        ("up", format!("../{name}/stolen")),
        ("dir/up", format!("../../{name}/stolen")),
        ("within-by-an-absolute-path", volume.path("..data/token").display().to_string()),
        ("proc", "/proc/self/environ".into()),
        ("circle", "circle".into()),
    ] {
        symlink(target, volume.path(link)).unwrap();
        let error = volume.error(link);
        assert!(error.contains("leads out of its volume"), "{link}: {error}");
    }
    // The directory of versions, led elsewhere.
    symlink(outside.path(), volume.path("..data_tmp")).unwrap();
    rename(volume.path("..data_tmp"), volume.path("..data")).unwrap();
    assert!(volume.error("token").contains("..data leads out of its volume"));
}

#[test]
fn only_a_regular_file_is_opened() {
    let volume = Volume::new(&[("token", "x")]);
    create_dir(volume.path("directory")).unwrap();
    mknodat(CWD, volume.path("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(volume.path("socket")).unwrap();
    let mut names = vec!["directory", "fifo", "socket", "..data"];
    // A device takes root: there, the zeroes without end.
    if mknodat(CWD, volume.path("device"), FileType::CharacterDevice, Mode::RUSR, rustix::fs::makedev(1, 5)).is_ok() {
        names.push("device");
    }
    for name in names {
        symlink(name, volume.path(&format!("to-{name}"))).unwrap();
        for name in [name.to_owned(), format!("to-{name}")] {
            assert!(volume.error(&name).contains("is not a regular file"), "{name}");
        }
    }
}

#[test]
fn others_may_read_and_not_write() {
    let volume = Volume::new(&[("token", "s3cret")]);
    let file = volume.path("..data/token");
    for mode in [0o400, 0o440, 0o444, 0o644] {
        set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        assert!(volume.read("token").is_ok(), "{mode:o}");
    }
    for mode in [0o646, 0o660, 0o666, 0o777] {
        set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        assert!(volume.error("token").contains("may be written by others"), "{mode:o}");
    }
    set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    for dir in [volume.0.path().to_owned(), volume.path("..data")] {
        for mode in [0o777, 0o775] {
            set_permissions(&dir, Permissions::from_mode(mode)).unwrap();
            let error = volume.error("token");
            assert!(error.contains(&format!("may be written by others than its owner (mode 0{mode:o})")), "{error}");
        }
        set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
    }
    assert!(volume.read("token").is_ok());
}

#[test]
fn every_directory_on_the_way_is_judged_by_where_links_lead() {
    let volume = Volume::new(&[("token", "x")]);
    for dir in ["a", "a/b"] {
        create_dir(volume.path(dir)).unwrap();
        set_permissions(volume.path(dir), Permissions::from_mode(0o755)).unwrap();
    }
    write(volume.path("a/b/deep"), "deep").unwrap();
    set_permissions(volume.path("a/b/deep"), Permissions::from_mode(0o640)).unwrap();
    symlink("./a/../a/b/deep", volume.path("short")).unwrap();
    symlink("a/b", volume.path("dir")).unwrap();
    let names = ["a/b/deep", "short", "dir/deep"];
    for name in names {
        assert_eq!(volume.read(name).unwrap().as_deref(), Some("deep"), "{name}");
    }
    for dir in ["a", "a/b"] {
        set_permissions(volume.path(dir), Permissions::from_mode(0o775)).unwrap();
        for name in names {
            assert!(volume.error(name).contains("may be written by others"), "{dir} {name}");
        }
        set_permissions(volume.path(dir), Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn what_belongs_to_somebody_else_is_refused() {
    // To give something away takes root.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let volume = Volume::new(&[("token", "s3cret")]);
    for path in [volume.0.path().to_owned(), volume.path("..data/"), volume.path("..data/token")] {
        std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
        let error = volume.error("token");
        assert!(error.contains("belongs to user 12345"), "{}: {error}", path.display());
        std::os::unix::fs::chown(&path, Some(0), Some(0)).unwrap();
        assert!(volume.read("token").is_ok());
    }
}

#[test]
fn what_is_no_secret_is_told_without_its_content() {
    let volume = Volume::new(&[("token", "x")]);
    for (content, words) in
        [(vec![b's'; MOST + 1], "longer than 64 KiB"), (b"s3cret\xff".to_vec(), "text"), (b"\n".to_vec(), "empty")]
    {
        remove_file(volume.path("..data/token")).unwrap();
        write(volume.path("..data/token"), content).unwrap();
        let error = volume.read("token").unwrap_err().to_string();
        assert!(error.contains(words) && !error.contains("s3cret") && !error.contains("sss"), "{error}");
    }
    write(volume.path("..data/token"), [b's'; MOST]).unwrap();
    assert_eq!(volume.read("token").unwrap().map(|text| text.len()), Some(MOST));
}
