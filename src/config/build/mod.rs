//! From options as given to one [`Config`]: what depends on several options is decided here.
//!
//! Owns which of several values of an option holds, what an option that is not given falls back to, and which options contradict
//! each other. What a single value may be is told by the table.

mod encryption;

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use super::defaults::{home_directory, host_name, ids, memory_limit, stage_directory};
use super::kernel::owned_by_mount;
use super::listen;
use super::option_list::{Element, split};
use super::table::{self, OPTIONS};
use super::value::{self, Value, or_auto};
use super::{
    Audience, CacheSettings, ChecksumAlgorithm, ChecksumPolicy, CommitMode, Config, ConflictPolicy, Freshness,
    FsSettings, KernelOptions, LogSettings, MetadataMode, SetattrPolicy, Source, StageSettings, StoreSettings,
    TransferSettings, UsageError,
};

/// Options in the order given: later ones win.
#[derive(Default)]
pub(super) struct Given {
    values: HashMap<&'static str, Value>,
    kernel: KernelOptions,
    /// `-s` of mount(8): unknown options are ignored.
    sloppy: bool,
    /// For an `endpoint_url` that is not given.
    endpoint: Option<String>,
}

impl Given {
    pub(super) fn new(sloppy: bool, endpoint: Option<String>) -> Self {
        Given { sloppy, endpoint, ..Given::default() }
    }

    /// Takes one `-o` value.
    pub(super) fn list(&mut self, list: &str) -> Result<(), UsageError> {
        split(list)?.into_iter().try_for_each(|element| self.element(element))
    }

    /// Takes one option.
    pub(super) fn element(&mut self, (name, value): Element) -> Result<(), UsageError> {
        if name == "remount" {
            return Err(UsageError::new(
                "remount is not supported; unmount and mount again with the options that you want",
            ));
        }
        if let Some(spec) = table::find(&name) {
            let value = value::parse(spec, value.as_deref())?;
            if spec.name == "ro" {
                self.kernel.apply(if value == Value::Flag(true) { "ro" } else { "rw" });
            }
            self.values.insert(spec.name, value);
            return Ok(());
        }
        if owned_by_mount(&name) || (value.is_none() && self.kernel.apply(&name)) || self.sloppy {
            return Ok(());
        }
        Err(table::unknown(&name))
    }

    /// The value given, else the table's default.
    fn value(&self, name: &'static str) -> Option<Value> {
        self.values.get(name).cloned().or_else(|| {
            let spec = OPTIONS.iter().find(|spec| spec.name == name)?;
            let table::Fallback::Is(text) = spec.default else { return None };
            value::parse(spec, Some(text)).ok()
        })
    }

    fn flag(&self, name: &'static str) -> bool {
        self.value(name) == Some(Value::Flag(true))
    }

    fn text(&self, name: &'static str) -> Option<String> {
        match self.value(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    fn choice(&self, name: &'static str) -> &'static str {
        match self.value(name) {
            Some(Value::Choice(word)) => word,
            _ => "",
        }
    }

    fn number(&self, name: &'static str) -> Option<u64> {
        match self.value(name) {
            Some(Value::Number(number)) => Some(number),
            _ => None,
        }
    }

    fn id(&self, name: &'static str) -> Option<u32> {
        self.number(name).and_then(|number| u32::try_from(number).ok())
    }

    fn seconds(&self, name: &'static str) -> Option<Duration> {
        match self.value(name) {
            Some(Value::Seconds(time)) => Some(time),
            _ => None,
        }
    }

    fn given(&self, name: &'static str) -> bool {
        self.values.contains_key(name)
    }

    /// Puts everything together.
    pub(super) fn config(mut self, source: &str, mountpoint: &Path) -> Result<Config, UsageError> {
        let source = Source::parse(source)?;
        if mountpoint.as_os_str().is_empty() {
            return Err(UsageError::new("the mountpoint is empty; name an existing directory"));
        }
        let mountpoint = std::path::absolute(mountpoint)
            .map_err(|e| UsageError::new(format!("the mountpoint can't be made an absolute path: {e}")))?;
        if self.flag("noac") && (self.given("actimeo") || self.given("acregmax") || self.given("acdirmax")) {
            return Err(UsageError::new("noac contradicts actimeo, acregmax and acdirmax; give one of them"));
        }
        if let Some(endpoint) = self.endpoint.take().filter(|_| !self.given("endpoint_url")) {
            self.element(("endpoint_url".to_owned(), Some(endpoint)))?;
        }
        if !self.given("endpoint_url") {
            source.check_at_aws()?;
        }
        // `ro` and `rw` may both have been given; the kernel's flag knows which one came last.
        let read_only = self.kernel.read_only();
        self.values.insert("ro", Value::Flag(read_only));
        Ok(Config {
            nonempty: self.flag("nonempty"),
            audience: self.audience()?,
            kernel: self.kernel,
            fs: self.fs_settings(read_only)?,
            stage: self.stage_settings()?,
            cache: self.cache_settings()?,
            store: self.store_settings(&source)?,
            log: LogSettings {
                filter: self.given("log_level").then(|| self.text("log_level")).flatten(),
                file: self.path("log_file"),
            },
            drain_timeout: self.seconds("drain_timeout").unwrap_or_default(),
            metrics: self.text("metrics_addr").map(|text| listen::address("metrics_addr", &text)).transpose()?,
            stats_interval: self.seconds("stats_interval").filter(|time| !time.is_zero()),
            slow_op: self.seconds("slow_op").filter(|time| !time.is_zero()),
            foreground: self.flag("foreground"),
            source,
            mountpoint,
        })
    }

    fn path(&self, name: &'static str) -> Option<std::path::PathBuf> {
        match self.value(name) {
            Some(Value::Path(path)) => Some(path),
            _ => None,
        }
    }

    fn audience(&self) -> Result<Audience, UsageError> {
        match (self.flag("allow_other"), self.flag("allow_root")) {
            (true, true) => Err(UsageError::new("allow_other includes root; leave allow_root out")),
            (true, false) => Ok(Audience::Everyone),
            (false, true) => Ok(Audience::OwnerAndRoot),
            (false, false) => Ok(Audience::Owner),
        }
    }

    fn fs_settings(&self, read_only: bool) -> Result<FsSettings, UsageError> {
        let (uid, gid) = ids();
        let umask = self.id("umask").unwrap_or(0o022);
        Ok(FsSettings {
            read_only,
            uid: self.id("uid").unwrap_or(uid),
            gid: self.id("gid").unwrap_or(gid),
            fmask: self.id("fmask").unwrap_or(umask),
            dmask: self.id("dmask").unwrap_or(umask),
            metadata: if self.choice("metadata") == "basic" { MetadataMode::Basic } else { MetadataMode::Posix },
            xattr: self.flag("xattr"),
            setattr: if self.choice("setattr") == "ignore" { SetattrPolicy::Ignore } else { SetattrPolicy::Refuse },
            commit: if self.choice("commit") == "async" { CommitMode::Async } else { CommitMode::Close },
            conflict: match self.choice("conflict") {
                "keep-both" => ConflictPolicy::KeepBoth,
                "overwrite" => ConflictPolicy::Overwrite,
                _ => ConflictPolicy::Fail,
            },
            host: host_name(),
            freshness: self.freshness()?,
            rename_dir_limit: self.number("rename_dir_limit").unwrap_or(100_000),
            storage_class: self.storage_class()?,
            transfer: self.transfer_settings(),
        })
    }

    fn transfer_settings(&self) -> TransferSettings {
        let least = TransferSettings::default();
        TransferSettings {
            part_size: self.number("part_size").unwrap_or(least.part_size),
            concurrency: self.number("concurrency").map_or(least.concurrency, |n| n as usize),
            read_ahead: self.number("read_ahead").unwrap_or(least.read_ahead),
            memory_limit: self.number("memory_limit").unwrap_or_else(memory_limit),
            compare: self.choice("checksum") != "off",
        }
    }

    fn storage_class(&self) -> Result<Option<String>, UsageError> {
        let class = self.text("storage_class").map(|class| class.to_ascii_uppercase());
        match &class {
            Some(text) if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') => {
                Err(UsageError::new(format!("option storage_class is a name such as STANDARD_IA, not '{text}'")))
            }
            _ => Ok(class),
        }
    }

    /// As in nfs(5). A least time that is given alone lifts a default most time below it, and the other way round.
    fn freshness(&self) -> Result<Freshness, UsageError> {
        if self.flag("noac") {
            let zero = Duration::ZERO;
            return Ok(Freshness { file_min: zero, file_max: zero, dir_min: zero, dir_max: zero, negative: zero });
        }
        let (file_min, file_max) = self.window("acregmin", "acregmax")?;
        let (dir_min, dir_max) = self.window("acdirmin", "acdirmax")?;
        let negative = self.seconds("negative_ttl").unwrap_or_default();
        Ok(Freshness { file_min, file_max, dir_min, dir_max, negative })
    }

    fn window(&self, min: &'static str, max: &'static str) -> Result<(Duration, Duration), UsageError> {
        let all = self.seconds("actimeo");
        let own = |name| self.given(name).then(|| self.seconds(name)).flatten().or(all);
        let default = |name| self.seconds(name).unwrap_or_default();
        let (least, most) = match (own(min), own(max)) {
            (Some(least), Some(most)) => (least, most),
            (Some(least), None) => (least, default(max).max(least)),
            (None, Some(most)) => (default(min).min(most), most),
            (None, None) => (default(min), default(max)),
        };
        if least > most {
            return Err(UsageError::new(format!(
                "{min} ({} s) is more than {max} ({} s); give a lower {min} or a higher {max}",
                least.as_secs_f64(),
                most.as_secs_f64()
            )));
        }
        Ok((least, most))
    }

    /// Where staged bytes are.
    pub(super) fn stage_settings(&self) -> Result<StageSettings, UsageError> {
        let state = std::env::var_os("XDG_STATE_HOME").map(Into::into);
        let dir = self.path("stage_dir").or_else(|| stage_directory(ids().0, state, home_directory()));
        match dir {
            Some(dir) => {
                let [limit, min_free] = ["stage_limit", "stage_min_free"].map(|name| self.number(name));
                Ok(StageSettings { dir, limit, min_free })
            }
            None => {
                Err(UsageError::new("this user has no home directory; name a place for written bytes with stage_dir"))
            }
        }
    }

    fn cache_settings(&self) -> Result<Option<CacheSettings>, UsageError> {
        let limits = ["cache_limit", "cache_min_free"];
        let Some(dir) = self.path("cache_dir") else {
            return match limits.into_iter().find(|name| self.given(name)) {
                Some(name) => Err(UsageError::new(format!("{name} needs cache_dir, the directory that it is about"))),
                None => Ok(None),
            };
        };
        let [limit, min_free] = limits.map(|name| self.number(name).unwrap_or_default());
        Ok(Some(CacheSettings { dir, limit, min_free }))
    }

    fn store_settings(&self, source: &Source) -> Result<StoreSettings, UsageError> {
        if self.flag("no_sign_request") && self.given("profile") {
            return Err(UsageError::new("no_sign_request needs no credentials; leave profile out"));
        }
        Ok(StoreSettings {
            region: self.text("region").or_else(|| source.region().map(str::to_owned)),
            endpoint_url: self.text("endpoint_url"),
            profile: self.text("profile"),
            path_style: or_auto(self.choice("path_style")),
            payload_signing: or_auto(self.choice("payload_signing")),
            no_sign_request: self.flag("no_sign_request"),
            requester_pays: self.flag("requester_pays"),
            encryption: self.encryption()?,
            checksum: match self.choice("checksum") {
                "crc64nvme" => ChecksumPolicy::Named(ChecksumAlgorithm::Crc64Nvme),
                "crc32c" => ChecksumPolicy::Named(ChecksumAlgorithm::Crc32c),
                "sha256" => ChecksumPolicy::Named(ChecksumAlgorithm::Sha256),
                "off" => ChecksumPolicy::Off,
                _ => ChecksumPolicy::Auto,
            },
        })
    }
}

#[cfg(test)]
mod tests;
