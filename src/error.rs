//! One error, named by what went wrong, and the one place where it becomes an errno and a log level.
//!
//! SDK errors become an [`Error`] in `store`, in one function; an [`Error`] becomes an errno here, in
//! one function. Nothing else matches on codes or on message text.

use std::sync::Arc;

use tracing::Level;

/// Result of everything below the kernel bridge.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, by meaning. Texts hold no secrets: they may be logged and shown.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No such name, or no such object.
    #[error("no such file or object")]
    NotFound,
    /// The name exists already, or an exclusive create lost against another writer.
    #[error("it exists already")]
    AlreadyExists,
    /// A directory was needed.
    #[error("not a directory")]
    NotDirectory,
    /// A directory stands where a file was needed.
    #[error("it is a directory")]
    IsDirectory,
    /// The directory has entries.
    #[error("the directory is not empty")]
    NotEmpty,
    /// The directory holds keys that can't be shown as paths, and so can't be moved or removed here.
    #[error("{0} holds keys that can't be shown as paths; remove them with an S3 client first")]
    HiddenKeys(String),
    /// S3 refused with 403.
    #[error("access denied: {0}")]
    AccessDenied(String),
    /// The store encrypted, or is about to encrypt, otherwise than it was asked to.
    #[error("the store does not encrypt as it was asked to: {0}")]
    Encryption(String),
    /// The key that the store is to encrypt with can't be used, or not for this object.
    #[error("{0}")]
    CustomerKey(String),
    /// Whether an upload that got no answer has made the object could not be found out, for this reason.
    #[error("it could not be found out what became of an upload: {0}")]
    Unconfirmed(Box<Error>),
    /// The mount or the bucket is read-only.
    #[error("the mount is read-only")]
    ReadOnly,
    /// The object was replaced or removed while it was in use here.
    #[error("the object changed in S3 while it was in use")]
    Stale,
    /// S3 answered 412: the precondition of a write or read did not hold.
    #[error("the object in S3 is not the one this change was based on")]
    PreconditionFailed,
    /// S3 answered 409: a concurrent conditional write was under way; asking again is right.
    #[error("another conditional write to the object was under way")]
    ConcurrentWrite,
    /// No room for staged bytes on the local disk.
    #[error("no space left in the stage directory")]
    StageFull,
    /// Bytes that are only in a multipart upload that is not complete: S3 does not let them be read.
    #[error(
        "these bytes went up already and have left the full stage: they can be read once the file is closed or synced"
    )]
    NotReadableYet,
    /// A change of such bytes, of which the stage could only send whole parts again.
    #[error(
        "these bytes went up already and have left the full stage: they can be changed once the file is closed or synced"
    )]
    NotChangeableYet,
    /// A move of a file with such bytes: the upload can only become an object under the name that it was begun for.
    #[error(
        "parts of the file are only in an unfinished upload under its present name: it can be renamed once it is stored"
    )]
    NotMovableYet,
    /// Such bytes of an upload that is gone.
    #[error("parts of the file were only in an unfinished upload, and that is gone from the bucket")]
    PartsLost,
    /// A name over 255 bytes or a key over 1024 bytes.
    #[error("the name is too long")]
    NameTooLong,
    /// A name that is not UTF-8 can't be a key.
    #[error("the name is not UTF-8")]
    NotUtf8,
    /// A name that can't be a path component.
    #[error("the name is not valid")]
    InvalidName,
    /// A call that pailfs refuses.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
    /// An argument that makes no sense.
    #[error("invalid argument: {0}")]
    InvalidArgument(&'static str),
    /// No extended attribute of this name.
    #[error("there is no such extended attribute")]
    NoAttribute,
    /// An extended attribute that no object's metadata can hold.
    #[error("the extended attribute is larger than the metadata of an object can be")]
    AttributeTooLarge,
    /// The metadata of this object is full.
    #[error("the metadata of the object has no room left for the extended attribute")]
    MetadataFull,
    /// What can only be read was to be changed.
    #[error("{0} can't be changed")]
    NotPermitted(&'static str),
    /// A handle that is not open, or not for this direction.
    #[error("bad file handle")]
    BadHandle,
    /// The object is in an archive storage class and must be restored first.
    #[error("the object is archived and must be restored before it can be read")]
    Archived,
    /// No answer within the deadline.
    #[error("no answer in time: {0}")]
    Timeout(String),
    /// The endpoint can't be reached.
    #[error("the endpoint can't be reached: {0}")]
    Unreachable(String),
    /// TLS failed: an unknown authority, a wrong name, an expired certificate.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// The host name does not resolve.
    #[error("the host name does not resolve: {0}")]
    UnknownHost(String),
    /// S3 keeps asking to slow down or answers 5xx.
    #[error("S3 is overloaded or failing: {0}")]
    Unavailable(String),
    /// No credentials, or the provider failed.
    #[error("no usable credentials: {0}")]
    Credentials(String),
    /// The credentials are known to be expired, unknown or wrongly signed.
    #[error("the credentials were refused: {0}")]
    BadCredentials(String),
    /// No such bucket.
    #[error("no such bucket")]
    NoSuchBucket,
    /// The bucket is in another region (named, when S3 said so).
    #[error("the bucket is in another region{}", .0.as_deref().map(|r| format!(": {r}")).unwrap_or_default())]
    WrongRegion(Option<String>),
    /// The local clock is too far off for S3 to accept signatures.
    #[error("the clock of this machine is too far from S3's")]
    ClockSkew,
    /// Bytes that fail their checksum, or an answer that makes no sense.
    #[error("a corrupt answer: {0}")]
    Corrupt(String),
    /// A range past the end of the object (416).
    #[error("the range is past the end of the object")]
    RangeNotSatisfiable,
    /// The multipart upload is gone (404 NoSuchUpload).
    #[error("the multipart upload is gone")]
    UploadGone,
    /// It can't be done in one step on this file system: the caller must fall back to copying.
    #[error("it can't be done within the mount; copy instead")]
    CrossDevice,
    /// Larger than S3 takes.
    #[error("the file is larger than S3 takes")]
    FileTooLarge,
    /// No data or hole at or after the offset (lseek).
    #[error("no data past this offset")]
    NoData,
    /// A rename onto one's own descendant and the like.
    #[error("a directory can't be moved into itself")]
    IntoItself,
    /// A local file operation failed.
    #[error("{what}: {source}")]
    Local {
        /// What was being done.
        what: &'static str,
        /// The system's error.
        source: Arc<std::io::Error>,
    },
    /// S3 answered something that has no meaning of its own here.
    #[error("S3 answered {status} {code}: {message}")]
    Server {
        /// HTTP status.
        status: u16,
        /// S3 error code, or empty.
        code: String,
        /// S3 message, or empty.
        message: String,
    },
    /// A state that can't be: a bug.
    #[error("internal error: {0}")]
    Internal(&'static str),
}

impl Error {
    /// Wraps an error of the local file system. A full disk becomes [`Error::StageFull`].
    pub fn local(what: &'static str, source: std::io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Error::StageFull,
            _ => Error::Local { what, source: Arc::new(source) },
        }
    }

    /// True when the same request may succeed later without any change here.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Error::Timeout(_)
                | Error::Unreachable(_)
                | Error::UnknownHost(_)
                | Error::Unavailable(_)
                | Error::ConcurrentWrite
                | Error::Corrupt(_)
                | Error::Unconfirmed(_)
        )
    }

    /// The errno that the caller of a system call sees. The only place that chooses one.
    pub fn errno(&self) -> i32 {
        match self {
            Error::NotFound => libc::ENOENT,
            Error::AlreadyExists => libc::EEXIST,
            Error::NotDirectory => libc::ENOTDIR,
            Error::IsDirectory => libc::EISDIR,
            Error::NotEmpty | Error::HiddenKeys(_) => libc::ENOTEMPTY,
            Error::AccessDenied(_) | Error::BadCredentials(_) | Error::Credentials(_) | Error::CustomerKey(_) => {
                libc::EACCES
            }
            Error::ReadOnly => libc::EROFS,
            Error::Unconfirmed(reason) => reason.errno(),
            Error::Stale | Error::PreconditionFailed => libc::ESTALE,
            // Not EAGAIN, which programs take for a descriptor that does not block.
            Error::ConcurrentWrite | Error::NotMovableYet => libc::EBUSY,
            Error::StageFull | Error::MetadataFull | Error::NotChangeableYet => libc::ENOSPC,
            Error::NoAttribute => libc::ENODATA,
            Error::AttributeTooLarge => libc::E2BIG,
            Error::NotPermitted(_) => libc::EPERM,
            Error::NameTooLong => libc::ENAMETOOLONG,
            Error::NotUtf8 => libc::EILSEQ,
            Error::InvalidName | Error::InvalidArgument(_) | Error::IntoItself => libc::EINVAL,
            Error::Unsupported(_) => libc::EOPNOTSUPP,
            Error::BadHandle => libc::EBADF,
            Error::Archived => libc::EACCES,
            Error::Timeout(_) => libc::ETIMEDOUT,
            Error::CrossDevice => libc::EXDEV,
            Error::FileTooLarge => libc::EFBIG,
            Error::NoData => libc::ENXIO,
            Error::Unreachable(_) | Error::UnknownHost(_) => libc::EHOSTUNREACH,
            // Another one would seem to be about the caller's own file, name or limits.
            Error::Local { source, .. } => match source.raw_os_error() {
                Some(errno @ (libc::ENOMEM | libc::EFBIG | libc::EDQUOT)) => errno,
                _ => libc::EIO,
            },
            Error::Encryption(_)
            | Error::Tls(_)
            | Error::Unavailable(_)
            | Error::NoSuchBucket
            | Error::WrongRegion(_)
            | Error::ClockSkew
            | Error::Corrupt(_)
            | Error::RangeNotSatisfiable
            | Error::UploadGone
            | Error::NotReadableYet
            | Error::PartsLost
            | Error::Server { .. }
            | Error::Internal(_) => libc::EIO,
        }
    }

    /// How loud the log is about it: a lookup miss is no warning, a lost byte is an error.
    pub fn level(&self) -> Level {
        match self {
            Error::NotFound
            | Error::AlreadyExists
            | Error::NotDirectory
            | Error::IsDirectory
            | Error::NotEmpty
            | Error::ReadOnly
            | Error::NameTooLong
            | Error::NotUtf8
            | Error::InvalidName
            | Error::InvalidArgument(_)
            | Error::Unsupported(_)
            | Error::CrossDevice
            | Error::NoData
            | Error::NoAttribute
            | Error::AttributeTooLarge
            | Error::MetadataFull
            | Error::NotPermitted(_)
            | Error::IntoItself
            | Error::BadHandle => Level::DEBUG,
            Error::Internal(_) | Error::Corrupt(_) | Error::Encryption(_) | Error::StageFull | Error::PartsLost => {
                Level::ERROR
            }
            _ => Level::WARN,
        }
    }
}
