//! What a check found, for people and for programs. The shape of the JSON is a promise of pailfs(8).

use std::fmt::Write as _;

use serde::Serialize;

use super::probe::told;
use crate::app::sentence::{Failure, Status};
use crate::config::Config;
use crate::error::Result;
use crate::store::FoundCredentials;

/// A right, or something else that a mount needs of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    List,
    Get,
    Put,
    Multipart,
    Abort,
    Delete,
    Copy,
    Conditions,
    Checksum,
}

impl Right {
    const ALL: [Right; 9] = [
        Right::List,
        Right::Get,
        Right::Put,
        Right::Multipart,
        Right::Abort,
        Right::Delete,
        Right::Copy,
        Right::Conditions,
        Right::Checksum,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Right::List => "list",
            Right::Get => "get",
            Right::Put => "put",
            Right::Multipart => "multipart",
            Right::Abort => "abort",
            Right::Delete => "delete",
            Right::Copy => "copy",
            Right::Conditions => "conditional_write",
            Right::Checksum => "checksum",
        }
    }

    /// What fails without it.
    fn loss(self) -> &'static str {
        match self {
            Right::List => "without s3:ListBucket it can't be mounted, since no directory can be shown",
            Right::Get => "without s3:GetObject no file can be read, nor a part of one changed",
            Right::Put => "without s3:PutObject no file can be stored",
            Right::Multipart => "without s3:PutObject and s3:ListMultipartUploadParts no large file can be stored",
            Right::Abort => "without s3:AbortMultipartUpload uploads that fail stay in the bucket, and are paid for",
            Right::Delete => "without s3:DeleteObject nothing can be removed or renamed",
            Right::Copy => "without s3:GetObject and s3:PutObject on it nothing can be renamed, nor copied within S3",
            Right::Conditions => "without it what another client writes meanwhile is overwritten without an error",
            Right::Checksum => "without it damage in the store or on the way is not noticed by pailfs",
        }
    }
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Works,
    Fails,
    NotTried,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            State::Works => "works",
            State::Fails => "FAILS",
            State::NotTried => "not tried",
        }
    }
}

#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    state: State,
    detail: String,
}

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    source: String,
    endpoint: Option<String>,
    region: Option<String>,
    region_from: Option<String>,
    credentials_from: Option<String>,
    access_key_ends_in: Option<String>,
    clock_ahead_seconds: Option<i64>,
    checks: Vec<Check>,
    not_removed: Vec<String>,
}

/// What every report tells of, in this order.
fn names() -> impl Iterator<Item = &'static str> {
    ["credentials", "clock", "bucket", "prefix"].into_iter().chain(Right::ALL.map(Right::name))
}

impl Report {
    pub(super) fn new(config: &Config) -> Self {
        Report {
            source: config.source.typed().to_owned(),
            endpoint: config.store.endpoint_url.clone(),
            region: None,
            region_from: None,
            credentials_from: None,
            access_key_ends_in: None,
            clock_ahead_seconds: None,
            checks: Vec::new(),
            not_removed: Vec::new(),
        }
    }

    pub(super) fn credentials(&mut self, found: Option<FoundCredentials>) {
        let Some(found) = found else {
            return self.works("credentials", "none: requests are not signed, as asked for");
        };
        let key = found.key_ends_in.as_ref().map(|end| format!("; the access key ends in {end}")).unwrap_or_default();
        self.works("credentials", &format!("from {}{key}", found.provider));
        self.credentials_from = Some(found.provider);
        self.access_key_ends_in = found.key_ends_in;
    }

    pub(super) fn place(&mut self, endpoint: Option<&str>, region: &str, from: &str) {
        self.endpoint = endpoint.map(str::to_owned);
        self.region = Some(region.to_owned());
        self.region_from = Some(from.to_owned());
    }

    /// The store's clock, as seen from here.
    pub(super) fn clock(&mut self, ahead: Option<i64>) {
        self.clock_ahead_seconds = ahead;
    }

    pub(super) fn works(&mut self, name: &'static str, detail: &str) {
        self.set(name, State::Works, detail);
    }

    pub(super) fn fails(&mut self, name: &'static str, detail: &str) {
        self.set(name, State::Fails, detail);
    }

    pub(super) fn refused(&mut self, right: Right, why: &str) {
        self.fails(right.name(), &format!("{why}: {}", right.loss()));
    }

    pub(super) fn not_tried(&mut self, right: Right, why: &str) {
        self.set(right.name(), State::NotTried, why);
    }

    pub(super) fn tried(&mut self, right: Right, done: Result<()>) {
        match done {
            Ok(()) => self.works(right.name(), ""),
            Err(error) => self.refused(right, &told(&error)),
        }
    }

    /// Something of the check's own is still in the bucket.
    pub(super) fn left(&mut self, what: &str) {
        self.not_removed.push(what.to_owned());
    }

    pub(super) fn not_removed(&self) -> Vec<String> {
        self.not_removed.iter().map(|left| format!("still in the bucket, remove it by hand: {left}")).collect()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.checks.iter().any(|check| check.name == name)
    }

    /// All that was tried works.
    pub(super) fn is_good(&self) -> bool {
        self.not_removed.is_empty() && self.checks.iter().all(|check| check.state != State::Fails)
    }

    /// A later word on the same replaces an earlier one. Details may come from servers: each is one line.
    fn set(&mut self, name: &'static str, state: State, detail: &str) {
        self.checks.retain(|check| check.name != name);
        let detail = detail.split_whitespace().collect::<Vec<_>>().join(" ");
        self.checks.push(Check { name, state, detail });
    }

    /// Everything once and in order, also what was not come to.
    fn whole(&self) -> Vec<Check> {
        let read_only = ["credentials", "clock", "bucket", "prefix", "list"];
        let failed = self.checks.iter().any(|check| check.state == State::Fails && read_only.contains(&check.name));
        let missing = |name: &str| match name {
            _ if read_only.contains(&name) => "nothing before it told",
            _ if failed && !self.has("list") => "the bucket was not reached",
            "get" => "there is no object to read (use --write)",
            _ if self.has(Right::Put.name()) => "it needs what failed before",
            _ => "use --write",
        };
        let create = self.has("create").then_some("create");
        let all =
            create.into_iter().chain(names()).map(|name| match self.checks.iter().find(|check| check.name == name) {
                Some(Check { state, detail, .. }) => Check { name, state: *state, detail: detail.clone() },
                None => Check { name, state: State::NotTried, detail: missing(name).to_owned() },
            });
        all.collect()
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!("{}\n", self.source);
        let endpoint = self.endpoint.as_deref().unwrap_or("AWS");
        let _ = writeln!(text, "  endpoint           {endpoint}");
        if let (Some(region), Some(from)) = (&self.region, &self.region_from) {
            let _ = writeln!(text, "  region             {region}, from {from}");
        }
        for check in self.whole() {
            let detail = if check.detail.is_empty() { String::new() } else { format!(": {}", check.detail) };
            let _ = writeln!(text, "  {:<18} {}{detail}", check.name.replace('_', " "), check.state.word());
        }
        self.not_removed().iter().for_each(|left| text += &format!("  {left}\n"));
        text
    }

    pub(super) fn json(&self) -> std::result::Result<String, Failure> {
        #[derive(Serialize)]
        struct Shape<'a> {
            ok: bool,
            #[serde(flatten)]
            report: &'a Report,
        }
        let whole = Report { checks: self.whole(), not_removed: self.not_removed.clone(), ..self.bare() };
        let shape = Shape { ok: self.is_good(), report: &whole };
        let text = serde_json::to_string_pretty(&shape);
        text.map(|text| text + "\n").map_err(|e| Failure::new(Status::System, format!("writing JSON failed: {e}")))
    }

    /// What stands beside the checks.
    fn bare(&self) -> Report {
        Report {
            source: self.source.clone(),
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            region_from: self.region_from.clone(),
            credentials_from: self.credentials_from.clone(),
            access_key_ends_in: self.access_key_ends_in.clone(),
            clock_ahead_seconds: self.clock_ahead_seconds,
            checks: Vec::new(),
            not_removed: Vec::new(),
        }
    }
}
