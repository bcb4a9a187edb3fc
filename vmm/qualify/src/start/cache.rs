//! Findings kept from one start to the next: `lockstep/host` in the user's cache directory.
//!
//! A file is believed only if it is an ordinary file of this user's that nobody else may write, is
//! no longer than it can be, has the digest it says, and is about this boot, kernel, KVM, processor
//! and program. Everything else is as if there were none. It is replaced as a whole, by renaming;
//! two that write at once do no harm.
//!
//! A program that begins itself again has its findings in its environment, in the same form:
//! another program may have replaced the file meanwhile, or there is no place for one.

use super::host::Identity;
use crate::suite::PROPERTIES;
use crate::{Finding, Judgement, Property};
use lockstep_logging_channel::Digest;
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// First line: this word, and the digest of what follows it.
const MAGIC: &str = "lockstep-host-1 ";
/// A finding for each of less than 64 properties, at less than 1 KiB each, is less than that.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Longer texts are not kept.
const SEEN_BYTES_MAX: usize = 512;
const FILE_NAME: &str = "host";
const VARIABLE: &str = "LOCKSTEP_FOUND";
const PRIVATE_DIRECTORY: u32 = 0o700;
/// Writable by the group or by others.
const SHARED_WRITE: u32 = 0o022;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    host: Identity,
    findings: Vec<KeptFinding>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptFinding {
    property: String,
    judgement: Judgement,
    seen: String,
}

/// Place where findings of one host are kept, if anywhere.
pub struct Cache {
    place: Option<(PathBuf, Identity)>,
}

/// Reason why a file is not believed.
#[derive(Debug, thiserror::Error)]
pub enum Unbelievable {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// It is no ordinary file of this user's alone.
    #[error("it is not an ordinary file that this user alone may write")]
    Foreign,
    /// It is too long.
    #[error("it is longer than {FILE_BYTES_MAX} bytes")]
    TooLong,
    /// It is not what was written.
    #[error("it is damaged")]
    Damaged,
    /// It is about something else.
    #[error("it is about another boot, kernel, KVM, processor or program")]
    OtherHost,
}

impl Cache {
    /// The cache of this user, host and boot.
    #[must_use]
    pub fn of_this_host() -> Self {
        let base = directory(
            std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from),
            std::env::var_os("HOME").map(PathBuf::from),
        );
        Self {
            place: base.zip(Identity::here()),
        }
    }

    /// Known findings; none, where what is there cannot be believed.
    #[must_use]
    pub fn read(&self) -> Vec<Finding> {
        let Some((directory, host)) = &self.place else {
            return Vec::new();
        };
        let path = directory.join(FILE_NAME);
        match read(&path, host) {
            Ok(findings) => findings,
            Err(Unbelievable::Unreadable(why)) if why.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(why) => {
                tracing::debug!(path = %path.display(), "what is kept of this host is not used: {why}");
                Vec::new()
            }
        }
    }

    /// Keeps `findings`. What could not be tried is tried again at the next start. That they cannot
    /// be kept costs the next start time, and nothing else.
    pub fn write(&self, findings: &[Finding]) {
        let Some((directory, host)) = &self.place else {
            return;
        };
        if let Err(why) = write(directory, host, findings) {
            tracing::debug!(directory = %directory.display(), "what was found of this host cannot be kept: {why}");
        }
    }
}

/// `findings` of this host for the environment of this program, when it begins itself again.
#[must_use]
pub fn to_carry(findings: &[Finding]) -> Option<(&'static str, String)> {
    let text = encode(&Identity::here()?, findings).ok()?;
    Some((VARIABLE, text))
}

/// Findings that this program had before it began itself again.
#[must_use]
pub fn carried() -> Vec<Finding> {
    let text = std::env::var(VARIABLE).ok();
    of_text(text.as_deref(), Identity::here().as_ref())
}

fn of_text(text: Option<&str>, host: Option<&Identity>) -> Vec<Finding> {
    match (text, host) {
        (Some(text), Some(host)) if text.len() as u64 <= FILE_BYTES_MAX => {
            parse(text.as_bytes(), host).unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

/// The cache directory by the XDG base directory specification: relative paths do not count.
fn directory(cache_home: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let cache_home = cache_home.filter(|path| path.is_absolute());
    let home = home.filter(|path| path.is_absolute());
    let base = cache_home.or_else(|| home.map(|home| home.join(".cache")))?;
    Some(base.join("lockstep"))
}

fn read(path: &Path, host: &Identity) -> Result<Vec<Finding>, Unbelievable> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let metadata = file.metadata()?;
    let owner = nix::unistd::geteuid().as_raw();
    if !metadata.is_file() || metadata.uid() != owner || metadata.mode() & SHARED_WRITE != 0 {
        return Err(Unbelievable::Foreign);
    }
    parse(&bounded(file)?, host)
}

fn bounded(file: File) -> Result<Vec<u8>, Unbelievable> {
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        Err(Unbelievable::TooLong)
    } else {
        Ok(bytes)
    }
}

fn parse(bytes: &[u8], host: &Identity) -> Result<Vec<Finding>, Unbelievable> {
    let text = std::str::from_utf8(bytes).map_err(|_| Unbelievable::Damaged)?;
    let (first, body) = text.split_once('\n').ok_or(Unbelievable::Damaged)?;
    let digest = first.strip_prefix(MAGIC).ok_or(Unbelievable::Damaged)?;
    if digest != Digest::of(body.as_bytes()).to_string() {
        return Err(Unbelievable::Damaged);
    }
    let kept: Kept = serde_json::from_str(body).map_err(|_| Unbelievable::Damaged)?;
    if kept.host != *host {
        return Err(Unbelievable::OtherHost);
    }
    let mut findings: Vec<Finding> = Vec::new();
    for one in kept.findings {
        let finding = one.restored().ok_or(Unbelievable::Damaged)?;
        if findings.iter().any(|other| other.property == finding.property) {
            return Err(Unbelievable::Damaged);
        }
        findings.push(finding);
    }
    Ok(findings)
}

impl KeptFinding {
    fn of(finding: &Finding) -> Option<Self> {
        let kept = Self {
            property: finding.property.key(),
            judgement: finding.judgement,
            seen: finding.seen.clone(),
        };
        kept.is_whole().then_some(kept)
    }

    fn is_whole(&self) -> bool {
        let decided = self.judgement != Judgement::Untried;
        decided && self.seen.len() <= SEEN_BYTES_MAX && !self.seen.contains(char::is_control)
    }

    fn restored(self) -> Option<Finding> {
        let property: Property = PROPERTIES
            .into_iter()
            .find(|property| property.key() == self.property)?;
        self.is_whole().then(|| Finding {
            property,
            judgement: self.judgement,
            tried: "at an earlier start".to_owned(),
            seen: self.seen,
            follows: String::new(),
        })
    }
}

fn encode(host: &Identity, findings: &[Finding]) -> io::Result<String> {
    let kept = Kept {
        host: host.clone(),
        findings: findings.iter().filter_map(KeptFinding::of).collect(),
    };
    let body = serde_json::to_string(&kept).map_err(io::Error::other)?;
    let digest = Digest::of(body.as_bytes());
    Ok(format!("{MAGIC}{digest}\n{body}"))
}

fn write(directory: &Path, host: &Identity, findings: &[Finding]) -> io::Result<()> {
    let text = encode(host, findings)?;
    DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_DIRECTORY)
        .create(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(text.as_bytes())?;
    file.persist(directory.join(FILE_NAME))?;
    Ok(())
}

#[cfg(test)]
pub mod tests {
    #![allow(missing_docs, reason = "for tests")]

    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    pub fn finding(property: Property, seen: &str) -> Finding {
        Finding {
            property,
            judgement: Judgement::Yes,
            tried: "at an earlier start".to_owned(),
            seen: seen.to_owned(),
            follows: String::new(),
        }
    }

    fn host() -> Identity {
        let text = |text: &str| text.to_owned();
        Identity {
            version: text("1"),
            program: text("2 3 4"),
            boot: text("a-boot"),
            kernel: text("6.1"),
            kvm: text("kvm_amd"),
            processor: text("one"),
        }
    }

    struct Room {
        directory: tempfile::TempDir,
        cache: Cache,
    }

    impl Room {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let cache = Cache {
                place: Some((directory.path().join("lockstep"), host())),
            };
            Self { directory, cache }
        }

        fn path(&self) -> PathBuf {
            self.directory.path().join("lockstep").join(FILE_NAME)
        }

        fn kept() -> (Self, Vec<Finding>) {
            let room = Self::new();
            let findings = vec![
                finding(Property::Determinism, "the same"),
                finding(Property::PortsOfRing3, "it exits"),
            ];
            room.cache.write(&findings);
            assert_eq!(room.cache.read(), findings, "the room is as it should be");
            (room, findings)
        }
    }

    #[test]
    fn what_was_kept_is_known_and_only_this_user_can_read_it() {
        let (room, _) = Room::kept();
        let mode = std::fs::metadata(room.path()).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn nothing_is_known_where_there_is_no_file() {
        assert_eq!(Room::new().cache.read(), []);
        assert_eq!(Cache { place: None }.read(), []);
    }

    #[test]
    fn another_boot_kernel_or_program_is_another_host() {
        let (room, findings) = Room::kept();
        type Change = fn(&mut Identity);
        let changes: [Change; 6] = [
            |host| host.version.push('x'),
            |host| host.program.push('x'),
            |host| host.boot.push('x'),
            |host| host.kernel.push('x'),
            |host| host.kvm.push('x'),
            |host| host.processor.push('x'),
        ];
        for change in changes {
            let mut other = host();
            change(&mut other);
            assert!(matches!(read(&room.path(), &other), Err(Unbelievable::OtherHost)));
        }
        assert_eq!(read(&room.path(), &host()).unwrap(), findings);
    }

    #[test]
    fn a_file_with_any_byte_changed_or_cut_off_is_not_believed() {
        let (room, _) = Room::kept();
        let good = std::fs::read(room.path()).unwrap();
        for index in 0..good.len() {
            let mut bad = good.clone();
            bad[index] ^= 1;
            assert!(parse(&bad, &host()).is_err(), "byte {index}");
            assert!(parse(&good[..index], &host()).is_err(), "cut at {index}");
        }
    }

    #[test]
    fn a_file_with_a_right_digest_and_wrong_contents_is_not_believed() {
        let wrong = [
            r#"{"property":"no.such","judgement":"yes","seen":""}"#,
            r#"{"property":"determinism","judgement":"untried","seen":""}"#,
            r#"{"property":"determinism","judgement":"perhaps","seen":""}"#,
            r#"{"property":"determinism","judgement":"yes","seen":"\u001b[2J"}"#,
            r#"{"property":"determinism","judgement":"yes","seen":"","more":1}"#,
            r#"{"property":"determinism","judgement":"yes","seen":""},{"property":"determinism","judgement":"no","seen":""}"#,
        ];
        let host_text = serde_json::to_string(&host()).unwrap();
        for findings in wrong {
            let body = format!(r#"{{"host":{host_text},"findings":[{findings}]}}"#);
            let text = format!("{MAGIC}{}\n{body}", Digest::of(body.as_bytes()));
            assert!(parse(text.as_bytes(), &host()).is_err(), "{findings}");
        }
    }

    #[test]
    fn a_file_that_others_may_write_is_not_believed() {
        let (room, _) = Room::kept();
        for mode in [0o620, 0o602, 0o666] {
            std::fs::set_permissions(room.path(), Permissions::from_mode(mode)).unwrap();
            assert!(matches!(read(&room.path(), &host()), Err(Unbelievable::Foreign)));
        }
    }

    #[test]
    fn a_link_a_directory_and_an_endless_file_are_not_believed() {
        let (room, _) = Room::kept();
        let elsewhere = room.directory.path().join("elsewhere");
        std::fs::rename(room.path(), &elsewhere).unwrap();
        symlink(&elsewhere, room.path()).unwrap();
        assert_eq!(room.cache.read(), []);
        std::fs::remove_file(room.path()).unwrap();
        std::fs::create_dir(room.path()).unwrap();
        assert_eq!(room.cache.read(), []);
        std::fs::remove_dir(room.path()).unwrap();
        std::fs::write(room.path(), vec![b' '; FILE_BYTES_MAX as usize + 1]).unwrap();
        assert!(matches!(read(&room.path(), &host()), Err(Unbelievable::TooLong)));
    }

    #[test]
    fn a_bad_file_is_replaced() {
        let (room, findings) = Room::kept();
        std::fs::write(room.path(), "nonsense").unwrap();
        room.cache.write(&findings);
        assert_eq!(room.cache.read(), findings);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_no_error() {
        let room = Room::new();
        std::fs::write(room.directory.path().join("lockstep"), "no directory").unwrap();
        room.cache.write(&[finding(Property::Determinism, "the same")]);
        assert_eq!(room.cache.read(), []);
    }

    #[test]
    fn what_could_not_be_tried_is_not_kept() {
        let room = Room::new();
        let untried = Finding {
            judgement: Judgement::Untried,
            ..finding(Property::Determinism, "no kick")
        };
        room.cache
            .write(&[untried, finding(Property::PortsOfRing3, "it exits")]);
        assert_eq!(room.cache.read(), [finding(Property::PortsOfRing3, "it exits")]);
    }

    #[test]
    fn relative_directories_do_not_count() {
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(directory(path("/c"), path("/h")), path("/c/lockstep"));
        assert_eq!(directory(path("c"), path("/h")), path("/h/.cache/lockstep"));
        assert_eq!(directory(None, path("h")), None);
        assert_eq!(directory(None, None), None);
    }

    #[test]
    fn what_a_program_carries_is_believed_as_a_file_is() {
        let findings = [finding(Property::Determinism, "all the same")];
        let text = encode(&host(), &findings).unwrap();
        assert_eq!(of_text(Some(&text), Some(&host())), findings);
        let other = Identity {
            boot: "another".to_owned(),
            ..host()
        };
        let damaged = text.replace("yes", "not");
        let long = " ".repeat(FILE_BYTES_MAX as usize + 1);
        for (text, host) in [
            (None, Some(&host())),
            (Some(text.as_str()), None),
            (Some(text.as_str()), Some(&other)),
            (Some(damaged.as_str()), Some(&host())),
            (Some(long.as_str()), Some(&host())),
        ] {
            assert_eq!(of_text(text, host), []);
        }
    }
}
