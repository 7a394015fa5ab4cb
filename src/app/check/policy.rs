//! The least IAM policy that a mount of the source needs.
//!
//! Owns which S3 rights the requests of the store take (Service Authorization Reference, "Amazon S3" and "Amazon S3 Express").

use serde_json::{Value, json};

use crate::app::sentence::{Failure, Status};
use crate::config::{Config, PolicyKind};
use crate::store::region_in_name;

/// The policy as JSON.
pub(super) fn text(config: &Config, kind: PolicyKind) -> Result<String, Failure> {
    let bucket = config.source.bucket();
    if bucket.ends_with("-s3alias") || bucket.ends_with("--ol-s3") {
        let sentence =
            format!("a policy can't name the alias '{bucket}'; give the ARN of the access point as the source");
        return Err(Failure::new(Status::System, sentence));
    }
    let variable = || ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().find_map(|name| std::env::var(name).ok());
    let region = config.store.region.clone().or_else(|| region_in_name(bucket)).or_else(variable).unwrap_or_default();
    let policy = match bucket.ends_with("--x-s3") {
        true => of_directory_bucket(bucket, &region, kind),
        false => of_bucket(bucket, config.source.prefix().as_str(), &region, kind),
    };
    let text = serde_json::to_string_pretty(&policy);
    text.map(|text| text + "\n").map_err(|e| Failure::new(Status::System, format!("writing JSON failed: {e}")))
}

/// The part of AWS that a region belongs to ("Partitions" in the AWS Fault Isolation Boundaries paper).
fn partition(region: &str) -> &'static str {
    match region {
        _ if region.starts_with("cn-") => "aws-cn",
        _ if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    }
}

fn of_bucket(bucket: &str, prefix: &str, region: &str, kind: PolicyKind) -> Value {
    let (arn, objects) = match bucket.starts_with("arn:") {
        true => (bucket.to_owned(), format!("{bucket}/object")),
        false => {
            let arn = format!("arn:{}:s3:::{bucket}", partition(region));
            (arn.clone(), arn)
        }
    };
    let below = literal(prefix);
    let mut list = json!({"Sid": "List", "Effect": "Allow", "Action": "s3:ListBucket", "Resource": arn});
    if !prefix.is_empty() {
        // The prefix of a listing is that of the directory, or longer.
        list["Condition"] = json!({"StringLike": {"s3:prefix": [format!("{below}*")]}});
    }
    let mut actions = vec!["s3:GetObject"];
    if kind == PolicyKind::ReadWrite {
        // A file that is written anew or copied keeps its tags: CopyObject of an object that has some is denied without.
        actions.extend([
            "s3:PutObject",
            "s3:DeleteObject",
            "s3:AbortMultipartUpload",
            "s3:ListMultipartUploadParts",
            "s3:GetObjectTagging",
            "s3:PutObjectTagging",
        ]);
    }
    let objects = format!("{objects}/{below}*");
    let use_them = json!({"Sid": "Objects", "Effect": "Allow", "Action": actions, "Resource": objects});
    json!({"Version": "2012-10-17", "Statement": [list, use_them]})
}

/// All that is done in a directory bucket is done within a session, whose rights know no prefixes. The account is not part of
/// the bucket's name.
fn of_directory_bucket(bucket: &str, region: &str, kind: PolicyKind) -> Value {
    let known = if region.is_empty() { "*" } else { region };
    let arn = format!("arn:{}:s3express:{known}:*:bucket/{bucket}", partition(region));
    let mut session =
        json!({"Sid": "Session", "Effect": "Allow", "Action": "s3express:CreateSession", "Resource": arn});
    if kind == PolicyKind::ReadOnly {
        session["Condition"] = json!({"StringEquals": {"s3express:SessionMode": "ReadOnly"}});
    }
    json!({"Version": "2012-10-17", "Statement": [session]})
}

/// Text that a policy takes as it is: `*`, `?` and `$` mean something there (IAM User Guide, "IAM policy elements: Variables").
fn literal(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        match c {
            '*' | '?' | '$' => out.extend(['$', '{', c, '}']),
            _ => out.push(c),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_bounds_listings_and_objects() {
        let policy = of_bucket("data", "a/b/", "cn-north-1", PolicyKind::ReadOnly);
        let [list, objects] = [&policy["Statement"][0], &policy["Statement"][1]];
        assert_eq!(list["Resource"], "arn:aws-cn:s3:::data");
        assert_eq!(list["Condition"]["StringLike"]["s3:prefix"], json!(["a/b/*"]));
        assert_eq!(objects["Resource"], "arn:aws-cn:s3:::data/a/b/*");
        assert_eq!(objects["Action"], json!(["s3:GetObject"]));
        let whole = of_bucket("data", "", "us-gov-west-1", PolicyKind::ReadWrite);
        assert!(whole["Statement"][0].get("Condition").is_none(), "{whole}");
        assert_eq!(whole["Statement"][1]["Resource"], "arn:aws-us-gov:s3:::data/*");
        assert!(whole["Statement"][1]["Action"].to_string().contains("s3:AbortMultipartUpload"), "{whole}");
        assert_eq!(literal("50$*?"), "50${$}${*}${?}");
    }

    #[test]
    fn access_points_and_directory_buckets_have_resources_of_their_own() {
        let arn = "arn:aws:s3:eu-west-1:123456789012:accesspoint/mine";
        let policy = of_bucket(arn, "p/", "", PolicyKind::ReadOnly);
        assert_eq!(policy["Statement"][0]["Resource"], arn);
        assert_eq!(policy["Statement"][1]["Resource"], format!("{arn}/object/p/*"));
        let policy = of_directory_bucket("fast--euc1-az1--x-s3", "eu-central-1", PolicyKind::ReadOnly);
        let session = &policy["Statement"][0];
        assert_eq!(session["Action"], "s3express:CreateSession");
        assert_eq!(session["Resource"], "arn:aws:s3express:eu-central-1:*:bucket/fast--euc1-az1--x-s3");
        assert_eq!(session["Condition"]["StringEquals"]["s3express:SessionMode"], "ReadOnly");
    }
}
