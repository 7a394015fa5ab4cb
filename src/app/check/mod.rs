//! `pailfs check`: what works and what does not, before the first mount.
//!
//! Owns the order of the questions, and what is said of each answer. It reads only, unless it is asked to write; what it writes
//! then is in [`probe`].

mod policy;
mod probe;
mod report;

use std::process::ExitCode;

use tokio::runtime::Builder;

use self::probe::Probe;
use self::report::{Report, Right};
use super::mount::store_options;
use super::process::complete_environment;
use super::recover::print;
use super::sentence::{Failure, Status};
use super::signals::{HangUp, Signals};
use super::{logging, say};
use crate::config::{CheckRequest, Config};
use crate::error::Error;
use crate::store::{ListedObject, Made, ObjectStore, RegionSource, S3Store, connect, create_bucket, find_credentials};
use crate::types::ByteRange;

/// Exit code when something that was tried is refused or broken.
const BROKEN: u8 = 1;

/// What S3 bears between its clock and ours, in seconds (S3 API Reference, "RequestTimeTooSkewed").
const SKEW_LIMIT: i64 = 900;

/// Does it.
pub fn run(request: &CheckRequest) -> ExitCode {
    complete_environment();
    match carry_out(request) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(BROKEN),
        Err(failure) => failure.report(),
    }
}

fn carry_out(request: &CheckRequest) -> Result<bool, Failure> {
    if let Some(kind) = request.policy {
        print(&policy::text(&request.config, kind)?);
        return Ok(true);
    }
    logging::start(&request.config.log, false)?;
    let runtime =
        Builder::new_multi_thread().enable_all().build().map_err(|e| Failure::system("starting threads", &e))?;
    let report = runtime.block_on(ask(request))?;
    print(&if request.json { report.json()? } else { report.text() });
    Ok(report.is_good())
}

async fn ask(request: &CheckRequest) -> Result<Report, Failure> {
    let config = &request.config;
    let mut report = Report::new(config);
    let Some(store) = reach(request, &mut report).await else { return Ok(report) };
    let first = store.first_object(config.source.prefix()).await;
    tell_clock(&mut report, &store, first.as_ref().err());
    let first = match first {
        Ok(first) => first,
        // It is there, and other rights may still be.
        Err(Error::AccessDenied(_)) => {
            report.works("bucket", "it is there");
            report.refused(Right::List, "denied (403)");
            None
        }
        Err(error) => {
            let sentence = Failure::of_store(&error, config, Some(store.region()));
            let about = match error {
                Error::BadCredentials(_) | Error::Credentials(_) => "credentials",
                _ => "bucket",
            };
            report.fails(about, sentence.sentence());
            return Ok(report);
        }
    };
    if !report.has("bucket") {
        report.works("bucket", &format!("it is there, in the region {}", store.region()));
        let empty = "nothing is below it yet, which is fine";
        report.works("prefix", if first.is_some() { "there are objects below it" } else { empty });
        report.works(Right::List.name(), "");
    }
    if let Some(first) = first {
        let got = read(&store, &first).await;
        report.tried(Right::Get, got);
    }
    if request.write {
        write(&store, config, &mut report).await?;
    }
    Ok(report)
}

/// Credentials, and a store to ask. What can't be had is in the report.
async fn reach(request: &CheckRequest, report: &mut Report) -> Option<S3Store> {
    let config = &request.config;
    let options = store_options(config);
    match find_credentials(&options).await {
        Ok(found) => report.credentials(found),
        Err(error) => {
            report.fails("credentials", Failure::of_store(&error, config, None).sentence());
            return None;
        }
    }
    if request.create {
        match create_bucket(&options).await {
            Ok(Made::New) => report.works("create", "the bucket was created"),
            Ok(Made::Ours) => report.works("create", "the bucket is there already, and yours"),
            Ok(Made::Anothers) => {
                report.fails("create", "the name belongs to a bucket of another account; choose another");
                return None;
            }
            Err(error) => {
                let told = Failure::of_store(&error, config, options.region.as_deref());
                let told = if let Error::AccessDenied(_) = error {
                    "denied (403): it needs s3:CreateBucket"
                } else {
                    told.sentence()
                };
                report.fails("create", told);
                return None;
            }
        }
    }
    match connect(&options).await {
        Ok(store) => {
            let by_name =
                store.region_source() == RegionSource::Given && config.source.region() == Some(store.region());
            let source = if by_name { RegionSource::Name } else { store.region_source() };
            report.place(store.endpoint(), store.region(), source.told());
            Some(store)
        }
        Err(error) => {
            report.fails("bucket", Failure::of_store(&error, config, options.region.as_deref()).sentence());
            None
        }
    }
}

fn tell_clock(report: &mut Report, store: &S3Store, error: Option<&Error>) {
    let ahead = store.clock_ahead();
    report.clock(ahead);
    let refused = matches!(error, Some(Error::ClockSkew));
    match ahead {
        None if refused => {
            report.fails("clock", "this machine's is too far off; set it, for example with: timedatectl set-ntp true")
        }
        None => {}
        Some(ahead) => {
            let way = if ahead > 0 { "behind" } else { "ahead of" };
            let told = match ahead.unsigned_abs() {
                0..=1 => "this machine's is that of the store".to_owned(),
                seconds => format!("this machine's is {seconds} seconds {way} that of the store"),
            };
            if refused || ahead.abs() > SKEW_LIMIT {
                report.fails(
                    "clock",
                    &format!("{told}, and S3 bears 15 minutes; set it, for example with: timedatectl set-ntp true"),
                );
            } else {
                report.works("clock", &told);
            }
        }
    }
}

/// One byte of it.
async fn read(store: &dyn ObjectStore, object: &ListedObject) -> crate::error::Result<()> {
    let range = (object.version.size > 0).then(|| ByteRange::new(0, 1));
    match store.get(&object.key, range, None).await {
        // That the object is archived is told only to who may read it; that it is gone, to who may list.
        Ok(_) | Err(Error::Archived | Error::NotFound) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn write(store: &S3Store, config: &Config, report: &mut Report) -> Result<(), Failure> {
    let mut signals = Signals::listen(HangUp::Ends).map_err(|e| Failure::system("listening for signals", &e))?;
    let mut probe = Probe::new(store, config.source.prefix(), &config.fs.host);
    let stopped = tokio::select! {
        () = probe.run(report) => None,
        name = signals.next() => Some(name),
    };
    for left in probe.clean().await {
        report.left(&left);
    }
    match stopped {
        None => Ok(()),
        Some(name) => {
            report.not_removed().iter().for_each(|left| say(left));
            Err(Failure::new(Status::System, format!("{name} came before everything was tried")))
        }
    }
}
