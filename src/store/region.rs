//! Which region a bucket is in, and how that is known.
//!
//! Owns the order in which the answer is looked for. What is done with it is `connect`'s business.

use aws_config::SdkConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{Builder, Region};
use aws_smithy_runtime::client::auth::no_auth::NO_AUTH_SCHEME_ID;

use super::connect::ask_first;
use super::errors;
use crate::error::{Error, Result};

/// The region that AWS treats as home of the global namespace, and that other stores mostly ignore.
pub(super) const HOME_REGION: &str = "us-east-1";

/// Where a region comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionSource {
    /// It was given.
    Given,
    /// An ARN or the name of a directory bucket tells it.
    Name,
    /// `AWS_REGION` or `AWS_DEFAULT_REGION`.
    Environment,
    /// The profile of the shared files.
    Profile,
    /// The store told where the bucket is.
    Bucket,
    /// Nothing tells it, and another store than AWS mostly ignores it.
    Default,
}

impl RegionSource {
    /// As a part of a sentence.
    pub fn told(self) -> &'static str {
        match self {
            RegionSource::Given => "the option region",
            RegionSource::Name => "the name of the source",
            RegionSource::Environment => "the environment",
            RegionSource::Profile => "the profile",
            RegionSource::Bucket => "what the store says of the bucket",
            RegionSource::Default => "nothing that was given: it is the default",
        }
    }

    /// Of what the SDK found in environment and profile.
    pub(super) fn configured() -> Self {
        // The names and their order are those of the SDK's `EnvironmentVariableRegionProvider`.
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        match is_set("AWS_REGION") || is_set("AWS_DEFAULT_REGION") {
            true => RegionSource::Environment,
            false => RegionSource::Profile,
        }
    }
}

/// Asks AWS where the bucket is. Any region's endpoint knows, and says so in refusals and redirects too, so the
/// request needs neither a signature nor permissions.
pub(super) async fn find_region(
    sdk: &SdkConfig,
    bucket: &str,
    configured: Option<(String, RegionSource)>,
) -> Result<(String, RegionSource)> {
    let first = configured.clone().map_or_else(|| HOME_REGION.to_owned(), |(region, _)| region);
    let config = Builder::from(sdk).region(Region::new(first)).allow_no_auth();
    let client = Client::from_conf(config.auth_scheme_preference([NO_AUTH_SCHEME_ID]).build());
    match ask_first(async |how| ask_region(&client, bucket, how).await).await {
        Err(Error::NoSuchBucket) => Err(Error::NoSuchBucket),
        Err(error) => configured.ok_or(error),
        Ok(Some(named)) => Ok((named, RegionSource::Bucket)),
        Ok(None) => configured.ok_or(Error::WrongRegion(None)),
    }
}

/// The region that the answer names, be it a refusal.
async fn ask_region(client: &Client, bucket: &str, how: Builder) -> Result<Option<String>> {
    let answer = match client.head_bucket().bucket(bucket).customize().config_override(how).send().await {
        Ok(answer) => return Ok(answer.bucket_region().map(str::to_owned)),
        Err(error) => error,
    };
    let raw = answer.raw_response();
    if raw.is_some_and(|raw| raw.status().as_u16() == 404) {
        return Err(Error::NoSuchBucket);
    }
    match raw.and_then(|raw| raw.headers().get(errors::REGION_HEADER)) {
        Some(region) => Ok(Some(region.to_owned())),
        None => Err(errors::read("HeadBucket", answer)),
    }
}

/// The region that a bucket's name tells: an access point's ARN names it, a directory bucket's name its zone.
pub fn region_in_name(bucket: &str) -> Option<String> {
    if bucket.starts_with("arn:") {
        return bucket.split(':').nth(3).filter(|region| !region.is_empty()).map(str::to_owned);
    }
    let (_, zone) = bucket.strip_suffix("--x-s3")?.rsplit_once("--")?;
    region_of_zone(zone)
}

/// `usw2-az1` is in `us-west-2`: an area of two letters, a direction by its initials, a number.
fn region_of_zone(zone: &str) -> Option<String> {
    let (place, _) = zone.split_once('-')?;
    let (area, rest) = place.split_at_checked(2)?;
    let digit = rest.find(|c: char| c.is_ascii_digit())?;
    let (initials, number) = rest.split_at(digit);
    let direction = match initials {
        "n" => "north",
        "s" => "south",
        "e" => "east",
        "w" => "west",
        "c" => "central",
        "ne" => "northeast",
        "nw" => "northwest",
        "se" => "southeast",
        "sw" => "southwest",
        _ => return None,
    };
    Some(format!("{area}-{direction}-{number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_regions() {
        assert_eq!(region_in_name("arn:aws:s3:eu-west-1:123:accesspoint/ap"), Some("eu-west-1".into()));
        assert_eq!(region_in_name("data--usw2-az1--x-s3"), Some("us-west-2".into()));
        assert_eq!(region_in_name("data--apne1-az4--x-s3"), Some("ap-northeast-1".into()));
        assert_eq!(region_in_name("data"), None);
        assert_eq!(region_in_name("data--x-s3"), None);
    }
}
