//! CreateBucket, which comes before there is a bucket to connect to.

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{Builder, Region};
use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration};

use super::connect::{StoreOptions, custom_endpoint, load};
use super::region::HOME_REGION;
use super::{errors, trust};
use crate::error::{Error, Result};

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// It was not there.
    New,
    /// It is there, and ours.
    Ours,
    /// It is there, and somebody else's.
    Anothers,
}

/// Creates the bucket in the region of the options, or else of environment or profile, or else in us-east-1.
///
/// # Errors
/// `AccessDenied`, transport errors, and whatever else the store says.
pub async fn create_bucket(options: &StoreOptions) -> Result<Made> {
    let sdk = load(options, trust::of_environment()?).await;
    let region = sdk.region().map_or(HOME_REGION, |region| region.as_ref()).to_owned();
    let path_style = options.path_style.unwrap_or(custom_endpoint(&sdk).is_some());
    let config = Builder::from(&sdk).region(Region::new(region.clone())).force_path_style(path_style);
    // The home region has no name here, and S3 refuses the one it has ("CreateBucket" in the S3 API Reference).
    let place = (region != HOME_REGION).then(|| {
        let place = BucketLocationConstraint::from(region.as_str());
        CreateBucketConfiguration::builder().location_constraint(place).build()
    });
    let client = Client::from_conf(config.build());
    let request = client.create_bucket().bucket(&options.bucket).set_create_bucket_configuration(place);
    match request.send().await.map_err(|error| errors::read("CreateBucket", error)) {
        Ok(_) => Ok(Made::New),
        Err(Error::Server { code, .. }) if code == "BucketAlreadyOwnedByYou" => Ok(Made::Ours),
        Err(Error::Server { code, .. }) if code == "BucketAlreadyExists" => Ok(Made::Anothers),
        Err(error) => Err(error),
    }
}
