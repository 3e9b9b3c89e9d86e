use super::*;
use std::fs::{Permissions, hard_link, rename, set_permissions, write};
use std::os::unix::fs::{PermissionsExt, symlink};

fn chmod(path: &Path, mode: u32) {
    set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn private_dir() -> (tempfile::TempDir, PrivateDir) {
    let temp = tempfile::tempdir().unwrap();
    chmod(temp.path(), 0o700);
    let dir = PrivateDir::open(temp.path()).unwrap().unwrap();
    (temp, dir)
}

fn file(temp: &tempfile::TempDir, name: &str) -> PathBuf {
    let path = temp.path().join(name);
    write(&path, "content").unwrap();
    chmod(&path, 0o600);
    path
}

#[test]
fn absent_is_not_an_error() {
    let (temp, dir) = private_dir();
    assert!(dir.read("none", 10).unwrap().is_none());
    assert!(PrivateDir::open(&temp.path().join("none")).unwrap().is_none());
}

#[test]
fn whatever_others_can_reach_is_refused_with_the_fix() {
    let (temp, dir) = private_dir();
    let path = file(&temp, "key");
    assert_eq!(dir.read("key", 10).unwrap().unwrap().as_slice(), b"content");
    for mode in [0o640, 0o604, 0o620, 0o602] {
        chmod(&path, mode);
        let error = dir.read("key", 10).unwrap_err().to_string();
        assert!(error.ends_with(&format!("chmod 600 {}", path.display())), "{error}");
    }
    chmod(temp.path(), 0o750);
    let error = PrivateDir::open(temp.path()).unwrap_err().to_string();
    assert!(error.ends_with(&format!("chmod 700 {}", temp.path().display())), "{error}");
}

#[test]
fn links_and_things_that_are_no_files_are_refused() {
    let (temp, dir) = private_dir();
    let key = file(&temp, "key");
    symlink(&key, temp.path().join("link")).unwrap();
    assert!(matches!(dir.read("link", 10), Err(PrivateError::Symlink(_))));
    std::fs::create_dir(temp.path().join("dir")).unwrap();
    assert!(matches!(dir.read("dir", 10), Err(PrivateError::NotAFile(_))));
    rustix::fs::mknodat(
        rustix::fs::CWD,
        temp.path().join("fifo"),
        rustix::fs::FileType::Fifo,
        Mode::RUSR | Mode::WUSR,
        0,
    )
    .unwrap();
    assert!(matches!(dir.read("fifo", 10), Err(PrivateError::NotAFile(_))));
    hard_link(&key, temp.path().join("second")).unwrap();
    assert!(matches!(dir.read("key", 10), Err(PrivateError::Linked(_))));
    symlink(temp.path(), temp.path().join("dirlink")).unwrap();
    assert!(matches!(PrivateDir::open(&temp.path().join("dirlink")), Err(PrivateError::Symlink(_))));
}

#[test]
fn long_files_are_refused() {
    let (temp, dir) = private_dir();
    file(&temp, "key");
    assert!(dir.read("key", 7).unwrap().is_some());
    assert!(matches!(dir.read("key", 6), Err(PrivateError::TooLong { most: 6, .. })));
}

#[test]
fn a_replaced_file_is_private_and_leaves_no_trace() {
    let (temp, dir) = private_dir();
    dir.replace("a", b"one").unwrap();
    dir.replace("a", b"two").unwrap();
    assert_eq!(dir.read("a", 10).unwrap().unwrap().as_slice(), b"two");
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1);
}

#[test]
fn a_private_file_in_an_open_directory_replaces_only_its_like() {
    let temp = tempfile::tempdir().unwrap();
    chmod(temp.path(), 0o777);
    let path = temp.path().join("agent.env");
    let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    for content in ["one", "two"] {
        replace_private(&path, content.as_bytes()).unwrap();
        assert_eq!((std::fs::read_to_string(&path).unwrap().as_str(), mode()), (content, 0o600));
    }
    chmod(&path, 0o640);
    let error = replace_private(&path, b"three").unwrap_err().to_string();
    assert!(error.ends_with(&format!("chmod 600 {}", path.display())), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "two");
    chmod(&path, 0o600);
    rename(&path, temp.path().join("other")).unwrap();
    symlink(temp.path().join("other"), &path).unwrap();
    assert!(matches!(replace_private(&path, b"three"), Err(PrivateError::Symlink(_))));
    std::fs::remove_file(&path).unwrap();
    symlink(temp.path().join("nowhere"), &path).unwrap();
    assert!(matches!(replace_private(&path, b"three"), Err(PrivateError::Symlink(_))));
    assert!(!temp.path().join("nowhere").exists());
    std::fs::remove_file(&path).unwrap();
    hard_link(temp.path().join("other"), &path).unwrap();
    assert!(matches!(replace_private(&path, b"three"), Err(PrivateError::Linked(_))));
    assert_eq!(std::fs::read_to_string(temp.path().join("other")).unwrap(), "two");
}

#[test]
fn a_stamp_moves_with_content_place_and_permissions() {
    let (temp, dir) = private_dir();
    let absent = dir.stamp("key").unwrap();
    let path = file(&temp, "key");
    let first = dir.stamp("key").unwrap();
    assert_ne!(absent, first);
    assert_eq!(first, dir.stamp("key").unwrap());
    write(&path, "content of another length").unwrap();
    let longer = dir.stamp("key").unwrap();
    assert_ne!(first, longer);
    let other = file(&temp, "other");
    rename(&other, &path).unwrap();
    let swapped = dir.stamp("key").unwrap();
    assert_ne!(longer, swapped);
    chmod(temp.path(), 0o750);
    assert_ne!(swapped, dir.stamp("key").unwrap());
}

#[test]
fn what_is_replaced_and_erased_is_nothing_to_who_has_it_open() {
    let temp = tempfile::tempdir().unwrap();
    let dir = PrivateDir::open_or_create(&temp.path().join("i")).unwrap();
    dir.replace("key", b"a secret").unwrap();
    let mut old = dir.open_file("key", OFlags::RDONLY).unwrap().unwrap();
    dir.replace_and_erase("key", b"another").unwrap();
    let mut left = Vec::new();
    old.read_to_end(&mut left).unwrap();
    assert_eq!(left, [0; 8]);
    assert_eq!(dir.read("key", 64).unwrap().unwrap().as_slice(), b"another");
}

#[test]
fn a_private_file_in_an_open_directory_is_made_once_and_read_if_it_is_ours_alone() {
    let temp = tempfile::tempdir().unwrap();
    set_permissions(temp.path(), Permissions::from_mode(0o755)).unwrap();
    let path = temp.path().join("key");
    assert!(read_private(&path, 64).unwrap().is_none());
    assert!(read_private(&temp.path().join("none/key"), 64).unwrap().is_none());
    assert!(create_private(&path, b"one").unwrap());
    assert!(!create_private(&path, b"two").unwrap(), "what is there stays");
    assert_eq!(read_private(&path, 64).unwrap().unwrap().as_slice(), b"one");
    set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(read_private(&path, 64), Err(PrivateError::Exposed { .. })));
}

#[test]
fn what_a_kill_has_left_is_overwritten_before_it_makes_way() {
    let (temp, dir) = private_dir();
    let left = std::fs::File::open(file(&temp, ".key.new")).unwrap();
    dir.replace("key", b"whole").unwrap();
    assert_eq!(dir.read("key", 10).unwrap().unwrap().as_slice(), b"whole");
    assert_eq!(std::io::read_to_string(left).unwrap(), "\0".repeat("content".len()));
    // One that is not ours alone is not written to.
    let other = file(&temp, "other");
    hard_link(&other, temp.path().join(".key.new")).unwrap();
    dir.replace("key", b"again").unwrap();
    assert_eq!(std::fs::read_to_string(other).unwrap(), "content");
}
