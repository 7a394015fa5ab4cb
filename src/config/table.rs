//! The one table of options. `--name value`, `-o name=value`, `--help`, the manual's check and the suggestions for
//! a misspelt name all read it. In option names `-` and `_` are the same; the table has the `_` form.

use super::UsageError;

/// Most seconds a freshness option takes: a year, so that sums with a clock can't overflow.
const MAX_SECONDS: u64 = 365 * 24 * 3600;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// What an option's value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No value, or true/false.
    Flag,
    /// Any text but the empty one.
    Text,
    /// An absolute path, or one below the current directory.
    Path,
    /// An http or https URL without user and password.
    Url,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A whole number.
    Count {
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// Bytes, also with a unit.
    Size {
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// Seconds, also with a fraction.
    Seconds {
        /// Most.
        max: u64,
    },
    /// Permission bits, octal, 0 to 0777.
    Octal,
    /// A user's name or number.
    User,
    /// A group's name or number.
    Group,
    /// A log level, or a filter of `target=level` pairs.
    LogFilter,
}

impl Kind {
    /// The word that stands for the value in help texts.
    pub fn placeholder(self) -> &'static str {
        match self {
            Kind::Flag => "",
            Kind::Text => "TEXT",
            Kind::Path => "PATH",
            Kind::Url => "URL",
            Kind::Choice(_) => "WORD",
            Kind::Count { .. } => "NUMBER",
            Kind::Size { .. } => "SIZE",
            Kind::Seconds { .. } => "SECONDS",
            Kind::Octal => "OCTAL",
            Kind::User => "USER",
            Kind::Group => "GROUP",
            Kind::LogFilter => "LEVEL",
        }
    }

    /// The values it takes, for help texts; empty where the placeholder says it all.
    pub fn range(self) -> String {
        match self {
            Kind::Choice(words) => words.join(", "),
            Kind::Count { min, max } => format!("{min} to {max}"),
            Kind::Size { min, max } => format!("{} to {}", size_text(min), size_text(max)),
            Kind::LogFilter => "error, warn, info, debug, trace".to_owned(),
            _ => String::new(),
        }
    }
}

/// What holds when an option is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// This value, written as a user would.
    Is(&'static str),
    /// Found out at the start, as told here.
    Told(&'static str),
    /// Nothing.
    Nothing,
}

/// Which heading of the help an option stands under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Who may do what on the mount.
    Access,
    /// The way to the bucket.
    Bucket,
    /// Sizes and local space.
    Transfer,
    /// Freshness and names.
    Behaviour,
    /// The process.
    Process,
}

impl Group {
    /// Heading.
    pub fn title(self) -> &'static str {
        match self {
            Group::Access => "Access",
            Group::Bucket => "Bucket",
            Group::Transfer => "Transfers",
            Group::Behaviour => "Behaviour",
            Group::Process => "Process",
        }
    }
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    /// Name in its `_` form.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What holds without it.
    pub default: Fallback,
    /// Its heading.
    pub group: Group,
    /// One line.
    pub help: &'static str,
}

const fn row(group: Group, name: &'static str, kind: Kind, default: Fallback, help: &'static str) -> OptionSpec {
    OptionSpec { name, kind, default, group, help }
}

use Fallback::{Is, Nothing, Told};
use Group::{Access, Behaviour, Bucket, Process, Transfer};

/// Every option that pailfs has, in the order of the help.
#[rustfmt::skip]
pub const OPTIONS: &[OptionSpec] = &[
    row(Access, "ro", Kind::Flag, Is("false"), "Mount read-only: nothing is written to the bucket"),
    row(Access, "allow_other", Kind::Flag, Is("false"), "Let all users of this machine use the mount, within the permission bits"),
    row(Access, "allow_root", Kind::Flag, Is("false"), "Let root use the mount too"),
    row(Access, "uid", Kind::User, Told("the mounting user"), "Owner of files that carry none in their metadata"),
    row(Access, "gid", Kind::Group, Told("the mounting user's group"), "Group of files that carry none in their metadata"),
    row(Access, "umask", Kind::Octal, Is("022"), "Bits taken away from files and directories that carry no mode"),
    row(Access, "fmask", Kind::Octal, Told("umask"), "The same for files alone"),
    row(Access, "dmask", Kind::Octal, Told("umask"), "The same for directories alone"),

    row(Bucket, "region", Kind::Text, Told("found out"), "Region of the bucket"),
    row(Bucket, "endpoint_url", Kind::Url, Told("AWS_ENDPOINT_URL, or AWS"), "Another S3 service than AWS, such as http://127.0.0.1:9000"),
    row(Bucket, "profile", Kind::Text, Told("AWS_PROFILE, or default"), "Profile of the AWS configuration files"),
    row(Bucket, "path_style", Kind::Choice(&["auto", "true", "false"]), Is("auto"), "Name the bucket in the path instead of the host name (auto: with endpoint_url)"),
    row(Bucket, "payload_signing", Kind::Choice(&["auto", "true", "false"]), Is("auto"), "Sign the bytes of uploads too (auto: those without a checksum, and over http to other machines all)"),
    row(Bucket, "no_sign_request", Kind::Flag, Is("false"), "Send requests unsigned: public buckets need no credentials"),
    row(Bucket, "requester_pays", Kind::Flag, Is("false"), "Agree to pay for requests to a requester-pays bucket"),
    row(Bucket, "storage_class", Kind::Text, Told("the bucket's"), "Storage class of new objects, such as STANDARD_IA"),
    row(Bucket, "sse", Kind::Choice(&["bucket", "AES256", "aws:kms", "aws:kms:dsse"]), Is("bucket"), "Encryption of all that the mount writes (bucket: as the bucket has it)"),
    row(Bucket, "sse_kms_key_id", Kind::Text, Told("the account's own"), "KMS key for it: its ARN, id or alias"),
    row(Bucket, "sse_c_key_file", Kind::Path, Nothing, "Encrypt with the key in this file, and read what is encrypted with it"),

    row(Transfer, "part_size", Kind::Size { min: 5 * MIB, max: 5 * GIB }, Is("8MiB"), "Least size of an upload's part; grows with the file"),
    row(Transfer, "concurrency", Kind::Count { min: 1, max: 256 }, Is("8"), "Parts in flight per file"),
    row(Transfer, "checksum", Kind::Choice(&["auto", "crc64nvme", "crc32c", "sha256", "off"]), Is("auto"), "Checksum that goes with uploads (auto: CRC-64/NVME, where the store takes it)"),
    row(Transfer, "read_ahead", Kind::Size { min: 0, max: 4 * GIB }, Is("64MiB"), "Most bytes fetched ahead of a sequential reader; 0 turns it off"),
    row(Transfer, "memory_limit", Kind::Size { min: 32 * MIB, max: TIB }, Told("a quarter of the memory, 64MiB to 512MiB"), "Most bytes of all read buffers together"),
    row(Transfer, "stage_dir", Kind::Path, Told("/var/lib/pailfs/stage for root, else ~/.local/state/pailfs/stage"), "Where written bytes wait until S3 has them"),
    row(Transfer, "stage_limit", Kind::Size { min: MIB, max: 1024 * TIB }, Nothing, "Most bytes that the written files of this mount take in stage_dir"),
    row(Transfer, "stage_min_free", Kind::Size { min: 0, max: 1024 * TIB }, Told("1GiB; less on a file system that is small or nearly full"), "Bytes that stage_dir's file system keeps free"),
    row(Transfer, "cache_dir", Kind::Path, Nothing, "Keep bytes that were read here, for later and for other mounts"),
    row(Transfer, "cache_limit", Kind::Size { min: MIB, max: 1024 * TIB }, Is("10GiB"), "Most bytes in cache_dir"),
    row(Transfer, "cache_min_free", Kind::Size { min: 0, max: 1024 * TIB }, Is("1GiB"), "Bytes that cache_dir's file system keeps free"),

    row(Behaviour, "acregmin", Kind::Seconds { max: MAX_SECONDS }, Is("3"), "Least time a file's attributes are believed"),
    row(Behaviour, "acregmax", Kind::Seconds { max: MAX_SECONDS }, Is("60"), "Most time a file's attributes are believed"),
    row(Behaviour, "acdirmin", Kind::Seconds { max: MAX_SECONDS }, Is("3"), "Least time a directory is believed"),
    row(Behaviour, "acdirmax", Kind::Seconds { max: MAX_SECONDS }, Is("60"), "Most time a directory is believed"),
    row(Behaviour, "actimeo", Kind::Seconds { max: MAX_SECONDS }, Nothing, "Sets those four that are not given themselves"),
    row(Behaviour, "noac", Kind::Flag, Is("false"), "Believe nothing: ask S3 each time"),
    row(Behaviour, "negative_ttl", Kind::Seconds { max: MAX_SECONDS }, Is("3"), "How long a name that was not there is believed absent"),
    row(Behaviour, "metadata", Kind::Choice(&["posix", "basic"]), Is("posix"), "Keep modes, owners and times in object metadata (posix), or not at all (basic)"),
    row(Behaviour, "setattr", Kind::Choice(&["refuse", "ignore"]), Is("refuse"), "What a change of those answers with metadata=basic"),
    row(Behaviour, "xattr", Kind::Flag, Is("false"), "Keep extended attributes (user.*) in object metadata, and tell of objects in user.s3.*"),
    row(Behaviour, "commit", Kind::Choice(&["close", "async"]), Is("close"), "Whether close waits for S3, or only for the local disk (async)"),
    row(Behaviour, "conflict", Kind::Choice(&["fail", "keep-both", "overwrite"]), Is("fail"), "What becomes of a change when another client replaced the file meanwhile"),
    row(Behaviour, "rename_dir_limit", Kind::Count { min: 0, max: 1_000_000_000 }, Is("100000"), "Most objects that a rename of a directory moves"),

    row(Process, "foreground", Kind::Flag, Is("false"), "Stay attached to the terminal"),
    row(Process, "log_level", Kind::LogFilter, Is("info"), "What to log; also target=level pairs"),
    row(Process, "log_file", Kind::Path, Told("standard error, in the foreground"), "Append the log to this file"),
    row(Process, "metrics_addr", Kind::Text, Nothing, "Tell Prometheus what is counted, at HOST:PORT; a port alone is on this machine"),
    row(Process, "stats_interval", Kind::Seconds { max: MAX_SECONDS }, Is("0"), "Log what was counted so often; 0 never does"),
    row(Process, "slow_op", Kind::Seconds { max: MAX_SECONDS }, Is("0"), "Log each call and request to S3 that takes so long; 0 logs none"),
    row(Process, "drain_timeout", Kind::Seconds { max: MAX_SECONDS }, Is("75"), "Longest wait for uploads when the mount ends"),
    row(Process, "nonempty", Kind::Flag, Is("false"), "Mount over a directory that has entries"),
];

/// The option of this name, in either form.
pub fn find(name: &str) -> Option<&'static OptionSpec> {
    OPTIONS.iter().find(|spec| same_name(spec.name, name))
}

/// True for names that differ in `-` and `_` alone.
pub fn same_name(one: &str, other: &str) -> bool {
    one.len() == other.len() && one.bytes().zip(other.bytes()).all(|(a, b)| fold(a) == fold(b))
}

fn fold(byte: u8) -> u8 {
    if byte == b'-' { b'_' } else { byte }
}

/// The known name that a misspelt one comes nearest to, if any comes near: pailfs's own, then the kernel's.
pub fn nearest(name: &str) -> Option<&'static str> {
    let name = name.replace('-', "_").to_ascii_lowercase();
    let own = || OPTIONS.iter().map(|spec| spec.name);
    let joined = own().find(|known| known.replace('_', "") == name.replace('_', ""));
    let begun = own().find(|known| name.len() >= 4 && known.starts_with(&name));
    let known = own().chain(super::MOUNT_FLAGS.iter().map(|flag| flag.name));
    let (distance, nearest) =
        known.map(|known| (strsim::damerau_levenshtein(&name, known), known)).min_by_key(|(distance, _)| *distance)?;
    // A third of the letters may be wrong: more than that is another word.
    joined.or(begun).or((distance <= (name.len() / 3).max(1)).then_some(nearest))
}

/// The refusal of an option that nobody knows.
pub(super) fn unknown(name: &str) -> UsageError {
    // Control characters would disturb the terminal, and a long text is no misspelt name.
    let shown: String = name.chars().filter(|c| !c.is_control()).take(40).collect();
    UsageError::new(match nearest(name) {
        Some(near) => format!("unknown option '{shown}'; did you mean '{near}'?"),
        None => format!("unknown option '{shown}'; 'pailfs help mount' lists the options"),
    })
}

/// Bytes with the largest unit that divides them.
pub(super) fn size_text(bytes: u64) -> String {
    for (unit, name) in [(TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")] {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{}{name}", bytes / unit);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_unique_and_in_its_underscore_form() {
        for (index, spec) in OPTIONS.iter().enumerate() {
            assert!(spec.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", spec.name);
            assert!(OPTIONS[..index].iter().all(|other| other.name != spec.name), "{} stands twice", spec.name);
            assert!(!spec.help.is_empty() && !spec.help.ends_with('.'), "{}", spec.name);
        }
    }

    #[test]
    fn every_written_default_is_a_value_that_the_option_takes() {
        for spec in OPTIONS {
            if let Fallback::Is(text) = spec.default {
                super::super::value::parse(spec, Some(text)).unwrap_or_else(|e| panic!("{}: {e}", spec.name));
            }
        }
    }

    #[test]
    fn dashes_and_underscores_are_the_same() {
        assert_eq!(find("endpoint-url").map(|spec| spec.name), Some("endpoint_url"));
        assert_eq!(find("no_sign-request").map(|spec| spec.name), Some("no_sign_request"));
        assert!(find("endpointurl").is_none());
    }

    #[test]
    fn a_misspelt_option_is_led_to_the_nearest_name() {
        for (typed, meant) in [
            ("regoin", "region"),
            ("endpoint", "endpoint_url"),
            ("endpointurl", "endpoint_url"),
            ("Part-Size", "part_size"),
            ("noatme", "noatime"),
            ("acregmn", "acregmin"),
            ("stagedir", "stage_dir"),
        ] {
            assert_eq!(nearest(typed), Some(meant), "{typed}");
        }
        assert_eq!(nearest("frobnicate"), None);
    }
}
