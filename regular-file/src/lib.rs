//! Opens files whose paths come from outside, without waiting for what is not a file.

use std::fs::{self, File, FileType, Metadata, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Opens the regular file `path` for reading. Symbolic links are followed.
///
/// # Errors
/// The system's, and [`ErrorKind::IsADirectory`] or [`ErrorKind::InvalidInput`] naming the type of
/// what is not a regular file.
pub fn open(path: &Path) -> io::Result<File> {
    open_with(path, OpenOptions::new().read(true))
}

/// Opens the regular file `path` for reading and writing, as it is. Symbolic links are followed.
///
/// # Errors
/// Those of [`open`].
pub fn open_to_write(path: &Path) -> io::Result<File> {
    open_with(path, OpenOptions::new().read(true).write(true))
}

fn open_with(path: &Path, options: &OpenOptions) -> io::Result<File> {
    // Before it is opened, because opening a device can have effects.
    refuse_others(&fs::metadata(path)?)?;
    let file = open_nonblocking(path, options).or_else(|error| match error.kind() {
        // A file with a lease: only a blocking open makes its holder (a file server) give it up.
        ErrorKind::WouldBlock => options.open(path),
        _ => Err(error),
    })?;
    // Again, because the name may have been given to something else meanwhile.
    refuse_others(&file.metadata()?)?;
    Ok(file)
}

/// Opens the regular file `path` for writing, empty, and creates it where it does not exist. What
/// another process writes by this or [`lock`] stays as it is.
///
/// # Errors
/// Those of [`open`] and [`lock`].
pub fn create_or_empty(path: &Path) -> io::Result<File> {
    match fs::metadata(path) {
        Ok(found) => refuse_others(&found)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true);
    let file = open_nonblocking(path, &options).or_else(|error| match error.kind() {
        // A file with a lease, as in [`open`].
        ErrorKind::WouldBlock => options.open(path),
        _ => Err(error),
    })?;
    refuse_others(&file.metadata()?)?;
    lock(&file)?;
    file.set_len(0)?;
    Ok(file)
}

/// Takes a file that is open for writing for its own until it is closed. A file system without
/// locks has none.
///
/// # Errors
/// [`ErrorKind::ResourceBusy`]: another process has it.
pub fn lock(file: &File) -> io::Result<()> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(io::Error::new(
            ErrorKind::ResourceBusy,
            "another process writes it",
        )),
        Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
    }
}

/// Reads the regular file `path`, which may have `bytes_max` bytes.
///
/// # Errors
/// Those of [`open`], and [`ErrorKind::FileTooLarge`].
pub fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let too_large = || {
        io::Error::new(
            ErrorKind::FileTooLarge,
            format!("it is larger than {bytes_max} bytes"),
        )
    };
    if file.metadata()?.len() > bytes_max {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    // It may grow while it is read.
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(too_large());
    }
    Ok(bytes)
}

fn open_nonblocking(path: &Path, options: &OpenOptions) -> io::Result<File> {
    options
        .clone()
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
}

fn refuse_others(found: &Metadata) -> io::Result<()> {
    if found.is_file() {
        return Ok(());
    }
    let kind = if found.is_dir() {
        ErrorKind::IsADirectory
    } else {
        ErrorKind::InvalidInput
    };
    let name = name(found.file_type());
    Err(io::Error::new(kind, format!("it is {name}, not a regular file")))
}

fn name(found: FileType) -> &'static str {
    let names = [
        (found.is_dir(), "a directory"),
        (found.is_fifo(), "a FIFO"),
        (found.is_socket(), "a socket"),
        (found.is_char_device(), "a character device"),
        (found.is_block_device(), "a block device"),
    ];
    names
        .into_iter()
        .find_map(|(is_it, name)| is_it.then_some(name))
        .unwrap_or("something else")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    #[test]
    fn a_regular_file_is_read_up_to_the_limit() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("file"), directory.path().join("link"));
        fs::write(&path, [7; 10]).unwrap();
        symlink(&path, &link).unwrap();
        assert_eq!(read(&path, 10).unwrap(), [7; 10]);
        assert_eq!(read(&link, 10).unwrap(), [7; 10]);
        let refused = read(&path, 9).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::FileTooLarge);
        assert_eq!(refused.to_string(), "it is larger than 9 bytes");
    }

    #[test]
    fn everything_else_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let (fifo, socket) = (directory.path().join("fifo"), directory.path().join("socket"));
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let _listener = UnixListener::bind(&socket).unwrap();
        let others = [
            (directory.path(), "a directory"),
            (&fifo, "a FIFO"),
            (&socket, "a socket"),
            (Path::new("/dev/zero"), "a character device"),
        ];
        for (path, name) in others {
            let refused = open(path).unwrap_err().to_string();
            assert_eq!(refused, format!("it is {name}, not a regular file"));
            let refused = open_to_write(path).unwrap_err().to_string();
            assert_eq!(refused, format!("it is {name}, not a regular file"));
            let refused = create_or_empty(path).unwrap_err().to_string();
            assert_eq!(refused, format!("it is {name}, not a regular file"));
        }
        let missing = open(&directory.path().join("missing")).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_file_is_created_or_emptied() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        for _ in 0..2 {
            let mut file = create_or_empty(&path).unwrap();
            assert_eq!(file.metadata().unwrap().len(), 0);
            io::Write::write_all(&mut file, &[7; 10]).unwrap();
        }
    }

    /// File that is opened when the name was given to a FIFO after its type had been looked at.
    #[test]
    fn opening_never_waits_for_a_writer() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let opened = open_nonblocking(&fifo, OpenOptions::new().read(true)).unwrap();
        assert!(refuse_others(&opened.metadata().unwrap()).is_err());
    }

    #[test]
    fn a_file_that_somebody_writes_is_not_emptied() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let mut first = create_or_empty(&path).unwrap();
        std::io::Write::write_all(&mut first, b"text").unwrap();
        let refused = create_or_empty(&path).unwrap_err();
        assert_eq!(refused.to_string(), "another process writes it");
        assert_eq!(fs::read(&path).unwrap(), b"text");
        drop(first);
        assert!(create_or_empty(&path).is_ok());
        assert_eq!(fs::read(&path).unwrap(), b"");
    }
}
